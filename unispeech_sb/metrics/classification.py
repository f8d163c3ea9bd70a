"""Confusion matrix of a classifier: counts, a table per class, a picture."""

import csv
import html
import io
from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from unispeech_sb.atomic import atomic
from unispeech_sb.text import notebook_html, read_text

__all__ = ["ConfusionMatrix"]

_CELL_INCHES = 0.42
"""Side of a cell of the picture: room for a count of four digits."""
_MOST_SHOWN = 24
"""Classes that a notebook shows."""
_UPWARDS = "writing-mode:vertical-rl;transform:rotate(180deg);text-align:left"
"""Names of columns, so that these are narrow."""


class ConfusionMatrix:
    """Confusion matrix: rows are the true class, columns the predicted one.

    Arguments
    ---------
    labels : sequence of str
        Names of the classes C, which differ, in the order of their indices.

    Raises
    ------
    ValueError
        When there are no labels, or two are the same.

    Example
    -------
    >>> matrix = ConfusionMatrix(["no", "yes"])
    >>> matrix.append(torch.tensor([0, 1, 1]), torch.tensor([0, 1, 0]))
    >>> matrix.accuracy, matrix.counts.tolist()
    (0.6666666865348816, [[1, 1], [0, 1]])
    """

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = [str(label) for label in labels]
        if not self.labels or len(set(self.labels)) < len(self.labels):
            raise ValueError(f"expected labels that differ, got {self.labels}")
        self.counts = torch.zeros(
            len(self.labels), len(self.labels), dtype=torch.long
        )

    @classmethod
    def read(cls, path: str | Path) -> "ConfusionMatrix":
        """Reads the counts that a run has written.

        Arguments
        ---------
        path : str or path-like
            ``confusion.csv`` of an output folder.

        Returns
        -------
        ConfusionMatrix
            With the counts of the file.

        Raises
        ------
        ValueError
            When the file has another form.
        """
        head, *rows = [*csv.reader(io.StringIO(read_text(path)))] or [[]]
        labels = head[1:]
        is_square = [row[:1] for row in rows] == [[name] for name in labels]
        cells = [text for row in rows for text in row[1:]]
        if (
            not labels
            or head[0] != "truth"
            or not is_square
            or len(cells) != len(labels) ** 2
            or not all(text.isdecimal() for text in cells)
        ):
            raise ValueError(
                f"{path}: expected counts of true and predicted classes, as in "
                "the confusion.csv of a run"
            )
        matrix = cls(labels)
        counts = torch.tensor([int(text) for text in cells])
        matrix.counts = counts.view(len(labels), len(labels))
        return matrix

    def append(self, predictions: torch.Tensor, targets: torch.Tensor) -> None:
        """Counts a batch of class indices, [B] each."""
        num_classes = len(self.labels)
        if predictions.dim() != 1 or predictions.shape != targets.shape:
            raise ValueError(
                "expected predictions and targets of one shape [B], got "
                f"{list(predictions.shape)} and {list(targets.shape)}"
            )
        batch = {"predictions": predictions, "targets": targets}
        for name, indices in batch.items():
            if indices.is_floating_point() or indices.dtype == torch.bool:
                raise ValueError(
                    f"expected {name} as class indices, got {indices.dtype}"
                )
            wrong = indices[(indices < 0) | (indices >= num_classes)]
            if wrong.numel() > 0:
                raise ValueError(
                    f"expected {name} in 0...{num_classes - 1}, "
                    f"got {wrong[0].item()}"
                )
        cells = targets.cpu().long() * num_classes + predictions.cpu().long()
        self.counts += torch.bincount(cells, minlength=num_classes**2).view(
            num_classes, num_classes
        )

    @property
    def accuracy(self) -> float:
        """Share of right predictions, in [0, 1]; NaN before the first one."""
        return (self.counts.diagonal().sum() / self.counts.sum()).item()

    def table(self) -> str:
        """Support, precision, recall and F1, a line per class and the average.

        As in scikit-learn, a ratio without a denominator is 0, and the macro
        average leaves out classes that neither occur nor were predicted.
        """
        hits = self.counts.diagonal()
        support, predicted = self.counts.sum(1), self.counts.sum(0)
        scores = torch.stack(
            [
                hits / predicted.clamp(min=1),
                hits / support.clamp(min=1),
                2 * hits / (support + predicted).clamp(min=1),
            ],
            dim=1,
        )  # [C, 3]
        seen = support + predicted > 0
        rows = zip(
            [*self.labels, "macro average"],
            [*support.tolist(), self.counts.sum().item()],
            [*scores.tolist(), scores[seen].mean(0).tolist()],
            [*self._confusions(), ""],
        )
        width = max(map(len, [*self.labels, "macro average"]))
        header = f"{'class':<{width}}  clips  precision  recall     F1  "
        lines = [header + "most confused with"]
        for label, clips, (precision, recall, f1), confusion in rows:
            line = f"{label:<{width}}  {clips:5d}  {precision:9.3f}  "
            lines.append(line + f"{recall:6.3f}  {f1:5.3f}  {confusion}")
        return "\n".join(line.rstrip() for line in lines)

    def terminal(self) -> str:
        """Draws the counts with characters; 15 classes fit 80 columns."""
        width = max(map(len, self.labels))
        cell = max(len(str(self.counts.max().item())), 2)
        numbers = "".join(f" {i:{cell}d}" for i in range(len(self.labels)))
        lines = [" " * (width + 3) + numbers]
        for i, label in enumerate(self.labels):
            row = [str(n) if n else "." for n in self.counts[i].tolist()]
            cells = "".join(f" {text:>{cell}}" for text in row)
            lines.append(f"{i:2d} {label:<{width}}{cells}")
        return "\n".join(lines)

    def write(self, folder: str | Path, stem: str = "confusion") -> None:
        """Writes the counts (csv), the table (txt) and the picture (png)."""
        place = str(Path(folder) / stem)
        with atomic(f"{place}.csv") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["truth", *self.labels])
            for label, row in zip(self.labels, self.counts.tolist()):
                writer.writerow([label, *row])
        with atomic(f"{place}.txt") as file:
            file.write(self.table() + "\n")
        with atomic(f"{place}.png", "wb") as file:
            self._figure().savefig(file, format="png")

    def _repr_html_(self):
        """What notebooks show: the counts, coloured by their share of the true
        class; of many classes those with most errors."""
        hits = self.counts.diagonal()
        errors = self.counts.sum(0) + self.counts.sum(1) - 2 * hits
        count = min(len(errors), _MOST_SHOWN)
        shown = sorted(errors.argsort(descending=True, stable=True)[:count])
        names = [html.escape(self.labels[i]) for i in shown]
        shares = self.counts / self.counts.sum(1, keepdim=True).clamp(min=1)
        columns = "".join(
            f'<th><div style="{_UPWARDS}">{n}</div>' for n in names
        )
        rows = [f"<tr><th>{columns}"]
        for i, name in zip(shown, names, strict=True):
            cells = "".join(
                _cell(self.counts[i, j], shares[i, j]) for j in shown
            )
            rows.append(f'<tr><th dir="auto">{name}</th>{cells}')
        total = self.counts.sum().item()
        counted = f"accuracy {self.accuracy:.1%} of {total}"
        if not total:
            counted = "nothing is counted"
        note = f"{counted}; rows are true, columns predicted"
        if left := len(errors) - count:
            note += f"; {left} more classes have fewer errors"
        return notebook_html(f"<table>{''.join(rows)}</table>", note)

    def _confusions(self):
        """Per class, what it was most often taken for, and how often."""
        wrong = self.counts - torch.diag(self.counts.diagonal())
        return [
            f"{self.labels[most]} ({count})" if count else ""
            for count, most in zip(*(c.tolist() for c in wrong.max(1)))
        ]

    def _figure(self):
        """The picture: counts, coloured by their share of the true class."""
        num_classes = len(self.labels)
        shares = self.counts / self.counts.sum(1, keepdim=True).clamp(min=1)
        side = _CELL_INCHES * num_classes
        figure = Figure((side + 3, side + 2.4), 130, layout="constrained")
        axes = figure.add_subplot()
        # On a linear scale, a confusion of 5 % would be as white as none.
        scale = PowerNorm(0.5, vmin=0, vmax=1)
        image = axes.imshow(shares.numpy(), cmap="Blues", norm=scale)
        bar = figure.colorbar(
            image, shrink=0.6, aspect=2 * num_classes, pad=0.02
        )
        bar.set_label("share of the true class")
        for i, j in self.counts.nonzero().tolist():
            axes.text(
                j,
                i,
                str(self.counts[i, j].item()),
                color="white" if shares[i, j] > 0.35 else "black",
                ha="center",
                va="center",
                fontsize=8,
            )
        ticks = range(num_classes)
        axes.set_yticks(ticks, self.labels, parse_math=False)
        axes.set_xticks(
            ticks,
            self.labels,
            rotation=45,
            ha="right",
            rotation_mode="anchor",
            parse_math=False,
        )
        axes.set_xticks([i - 0.5 for i in ticks][1:], minor=True)
        axes.set_yticks([i - 0.5 for i in ticks][1:], minor=True)
        axes.grid(which="minor", color="0.9", linewidth=0.6)
        axes.tick_params(which="minor", length=0)
        axes.set(xlabel="predicted", ylabel="true")
        num_clips = self.counts.sum().item()
        axes.set_title(f"accuracy {self.accuracy:.1%}, {num_clips} clips")
        return figure


def _cell(count, share):
    """A cell of the table for notebooks."""
    # As in the picture, the root makes few errors visible
    strength = round(0.8 * share.item() ** 0.5, 2)
    colour = f' style="background:rgba(76,120,168,{strength})"' if count else ""
    return f"<td{colour}>{count or ''}"
