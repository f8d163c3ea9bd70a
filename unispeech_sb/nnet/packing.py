"""Batches without padding: the valid frames of whole utterances side by side.

Layers that look at one frame at a time compute on the rows as they are; those
that look at several take the frames of each utterance, ``counts``, too::

    [B, T, D]        [1, P, D] each

    a a a .          a a a b b      (counts 3, 2)
    b b . .    <->   c c c c        (counts 4)
    c c c c

An utterance that is longer than a window is several, which overlap. Beside a
window there may be more frames, which only the positions see.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

CPU_ROW_FRAMES = 800
"""Frames that keep two cores busy while what is computed fits the cache."""


class Window(NamedTuple):
    """Samples ``start`` to ``stop``, whose frames ``first`` to ``last`` count.

    Frame 0 of the window is frame ``offset`` of the recording; ends are
    exclusive.
    """

    start: int
    stop: int
    offset: int
    first: int
    last: int

    @property
    def kept(self) -> slice:
        """The frames that are taken, counted from the window's own first."""
        return slice(self.first - self.offset, self.last - self.offset)


def plan_windows(
    num_samples: int,
    num_frames: int,
    context: int,
    stride: int = 320,
    field: int = 400,
) -> list[Window]:
    """Places windows of up to ``num_frames`` evenly over a waveform.

    They are as few, and then as short, as can be. Each frame is kept from the
    window in which it is farthest, ``context`` at least, from an edge other
    than the ends of the waveform. A frame depends on ``field`` samples.
    """
    if num_samples < field:
        raise ValueError(
            f"waveform: expected at least {field} samples, one frame; "
            f"got {num_samples}"
        )
    if context < 0 or num_frames <= 2 * context:
        raise ValueError(
            "windows: expected more frames than the context on both sides; "
            f"got {num_frames} and 2 * {context}"
        )
    total = (num_samples - field) // stride + 1
    if total <= num_frames:
        return [Window(0, num_samples, 0, 0, total)]
    steps = -((num_frames - total) // (num_frames - 2 * context))
    num_frames = -(-(total + steps * 2 * context) // (steps + 1))
    offsets = [i * (total - num_frames) // steps for i in range(steps + 1)]
    stops = [(o + num_frames - 1) * stride + field for o in offsets]
    stops[-1] = num_samples  # the tail makes no frame but is in the window
    cuts = [(a + b + num_frames) // 2 for a, b in zip(offsets, offsets[1:])]
    return [
        Window(offset * stride, *rest)
        for offset, *rest in zip(
            offsets, stops, offsets, [0, *cuts], [*cuts, total]
        )
    ]


class Packing:
    """Where the valid frames of a padded batch are.

    Arguments
    ---------
    counts : list of int
        Valid frames of each utterance, at least one.
    num_frames : int
        Padded length T.
    row_frames : int
        A row ends with the utterance by which it has so many.
    window : int, optional
        Most frames that stay together: longer utterances are cut into windows
        of so many, with ``context`` on both sides of what each one gives.
    context : int
        Fewer than half of the window.

    Example
    -------
    >>> packing = Packing([3, 2, 4], num_frames=4, row_frames=5)
    >>> packing.counts
    [[3, 2], [4]]
    >>> feats = torch.ones(3, 4, 8)
    >>> [list(row.shape) for row in packing.pack(feats)]
    [[1, 5, 8], [1, 4, 8]]
    >>> packing.unpack(packing.pack(feats))[..., 0]
    tensor([[1., 1., 1., 0.],
            [1., 1., 0., 0.],
            [1., 1., 1., 1.]])
    >>> Packing([9], num_frames=9, row_frames=9, window=5, context=1).counts
    [[5, 5], [5]]
    """

    def __init__(
        self,
        counts: Sequence[int],
        num_frames: int,
        row_frames: int,
        window: int | None = None,
        context: int = 0,
    ) -> None:
        self.num_frames = num_frames
        self._totals = list(counts)
        self.counts: list[list[int]] = [[]]
        self._places: list[list[tuple[int, Window]]] = [[]]
        for utterance, count in enumerate(counts):
            for place in plan_windows(count, window or count, context, 1, 1):
                if sum(self.counts[-1]) >= row_frames:
                    self.counts.append([])
                    self._places.append([])
                self.counts[-1].append(place.stop - place.start)
                self._places[-1].append((utterance, place))

    def pack(self, feats: torch.Tensor, reach: int = 0) -> list[torch.Tensor]:
        """Takes the valid frames of a batch, [B, T, D], as rows, [1, P, D],
        with up to ``reach`` more on both sides of a window."""
        rows = []
        for places, sides in zip(self._places, self.sides(reach)):
            parts = [
                feats[n, w.start - before : w.stop + behind]
                for (n, w), (before, behind) in zip(places, sides)
            ]
            rows.append(torch.cat(parts)[None])
        return rows

    def sides(self, reach: int) -> list[list[tuple[int, int]]]:
        """How many frames there are before and behind each part, up to
        ``reach``."""
        return [
            [
                (min(reach, w.start), min(reach, self._totals[n] - w.stop))
                for n, w in places
            ]
            for places in self._places
        ]

    def unpack(self, rows: Sequence[torch.Tensor]) -> torch.Tensor:
        """Puts rows back into a batch, [B, T, D], zeros in the padding."""
        utterances: list[list[torch.Tensor]] = []
        for row, counts, places in zip(rows, self.counts, self._places):
            for part, (utterance, window) in zip(row[0].split(counts), places):
                if utterance == len(utterances):
                    utterances.append([])
                utterances[utterance].append(part[window.kept])
        return padded(
            [
                torch.cat(parts) if len(parts) > 1 else parts[0]
                for parts in utterances
            ],
            self.num_frames,
        )


def padded(utterances: Sequence[torch.Tensor], num_frames: int) -> torch.Tensor:
    """A batch, [B, T, D], of utterances, [t, D] each, zeros behind them."""
    if len(utterances) == 1:
        batch = utterances[0][None]
    else:
        batch = pad_sequence([*utterances], batch_first=True)
    missing = num_frames - batch.shape[1]
    return F.pad(batch, (0, 0, 0, missing)) if missing else batch
