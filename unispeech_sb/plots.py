"""Pictures: the timeline of a diarization, speakers as rows over time; the
learning curves of a run, losses and scores over its epochs.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator
from scipy.optimize import linear_sum_assignment

from unispeech_sb.atomic import atomic
from unispeech_sb.metrics.scores import percent

_STEPS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200, 3600)
"""Seconds from one tick of the time axis to the next."""

_MOST_LINES, _MOST_TICKS, _LINE_S = 6, 12, 60.0
"""Of a picture, of a line, and the recording that one line is enough for."""

_WIDTH, _ROW, _HEAD = 12.0, 0.3, 0.6  # inches
_LETTERS = 11  # points: 6 where the picture is as wide as a page
_DOTS_PER_INCH = 110
_COLOURS = [colormaps["tab10"](number)[:3] for number in range(10)]
_OTHER = (0.6, 0.6, 0.6)
_PANEL, _MOST_PANELS = (4.0, 3.0), 6
"""Inches of a panel of curves, and how many there are at most."""
_LINES = (("-", "o"), ("--", "s"), (":", "^"), ("-.", "D"))
"""Style and marks of curves, which differ in print without colours too."""
_SVG_WIDTH, _SVG_ROW, _SVG_ROWS = 600, 18, 12
"""Pixels of a timeline for pages, and of a row; most rows."""


def write_timeline(
    path: str | Path,
    segments: Iterable[tuple[Any, ...]],
    duration_s: float,
    reference: Iterable[tuple[Any, ...]] | None = None,
    title: str | None = None,
) -> None:
    """Draws a PNG of who speaks when, by (start, end, speaker, ...) segments.

    Grey bands go through the rows of those who speak at once. Rows of the
    reference stand above, in the colours of the speakers who share most time
    with them, grey where there are none.
    """
    found = _rows(segments)
    truth = None if reference is None else _rows(reference)
    ends = [
        e for rows in (found, truth or {}) for t in rows.values() for _, e in t
    ]
    duration_s = max([duration_s, 1e-3, *ends])
    colours = {name: _colour(n) for n, name in enumerate(found)}
    blocks = [("", found, colours)]
    if truth is not None:
        pairs = match_speakers(truth, found)
        matched = {name: colours.get(other, _OTHER) for name, other in pairs}
        blocks = [("reference", truth, matched), ("found", found, colours)]
    line_s, step_s, count = break_into_lines(duration_s)
    rows = sum(max(1, len(block)) for _, block, _ in blocks)
    height = count * (rows * _ROW + _HEAD) + 0.5
    figure = Figure((_WIDTH, height), _DOTS_PER_INCH, layout="constrained")
    if title:
        figure.suptitle(_plain(title), fontsize=13)
    axes = figure.subplots(count, squeeze=False)[:, 0]
    for number, line in enumerate(axes):
        start = number * line_s
        _draw_line(line, blocks, (start, start + line_s), duration_s, step_s)
    form = "h:mm:ss" if duration_s >= 3600 else "m:ss"
    axes[-1].set_xlabel(
        f"time ({form}); grey bands: several speak at once", fontsize=_LETTERS
    )
    write_figure(figure, path)


def timeline_svg(segments: Iterable[tuple[Any, ...]], duration_s: float) -> str:
    """Draws who speaks when as SVG for a page, of a size that does not grow
    with the number of segments: pixels are the shortest pauses."""
    rows, scale = _rows(segments), _SVG_WIDTH / max(duration_s, 1e-3)
    parts = []
    for number, (name, turns) in enumerate([*rows.items()][:_SVG_ROWS]):
        top, spans = number * _SVG_ROW, ""
        for left, right in _pixels(turns, scale):
            spans += f"M{left} {top + 2}h{right - left}v14h{left - right}z"
        colour = "".join(f"{round(255 * c):02x}" for c in _colour(number)[:3])
        seconds = sum(end - start for start, end in turns)
        label = name if len(name) <= 16 else f"{name[:15]}…"
        parts.append(
            f'<text x="-6" y="{top + 13}" text-anchor="end">{escape(label)}'
            f'</text><path d="{spans}" fill="#{colour}"><title>'
            f"{escape(name[:200])}: {seconds:.1f} s</title></path>"
        )
    if not parts:
        parts.append('<text y="13">nobody speaks</text>')
    height = _SVG_ROW * len(parts)
    for share in range(5):
        text = _clock(duration_s * share / 4, duration_s, duration_s / 40)
        parts.append(
            f'<text x="{_SVG_WIDTH * share // 4}" y="{height + 14}" '
            f'text-anchor="middle">{text}</text>'
        )
    left = len(rows) - _SVG_ROWS
    more = f"<small>\u2026 and {left} more speakers</small>" if left > 0 else ""
    return (
        f'<svg viewBox="-120 0 {_SVG_WIDTH + 150} {height + 20}" role="img" '
        f'aria-label="who speaks when" width="{_SVG_WIDTH + 150}" '
        f'style="max-width:100%" font-size="12" font-family="sans-serif" '
        f'fill="currentColor">{"".join(parts)}</svg>'
        f"{more}"
    )


def _pixels(turns, scale):
    """Stretches in whole pixels, those that touch joined."""
    found = []
    for start, end in sorted(turns):
        left = math.floor(start * scale)
        right = max(math.ceil(end * scale), left + 1)
        if found and left <= found[-1][1]:
            found[-1][1] = max(found[-1][1], right)
        else:
            found.append([left, right])
    return found


def break_into_lines(duration_s):
    """Breaks a recording into lines: seconds of each, of a tick, and number."""
    count = min(_MOST_LINES, max(1, math.ceil(duration_s / _LINE_S - 1e-6)))
    for step_s in _STEPS_S:
        if duration_s / count <= _MOST_TICKS * step_s:
            break
    if count == 1:
        return duration_s, step_s, count
    line_s = step_s * math.ceil(duration_s / count / step_s - 1e-6)
    return line_s, step_s, math.ceil(duration_s / line_s - 1e-6)


def match_speakers(truth, found):
    """Each of ``truth`` with the one of ``found``, or None, by shared time."""
    shared = np.array(
        [
            [_shared(own, turns) for turns in found.values()]
            for own in truth.values()
        ]
    ).reshape(len(truth), len(found))
    pairs = dict(zip(*linear_sum_assignment(shared, maximize=True)))
    names = list(found)
    return [
        (name, names[pairs[n]] if n in pairs and shared[n, pairs[n]] else None)
        for n, name in enumerate(truth)
    ]


def _rows(segments):
    """Speaker -> segments, in the order in which speakers begin."""
    rows = {}
    for start, end, speaker, *_ in sorted(tuple(s) for s in segments):
        rows.setdefault(str(speaker), []).append((start, end))
    return rows


def _shared(own, other):
    """Seconds that two speakers' segments have in common."""
    if not own or not other:
        return 0.0
    own, other = np.array(own, float), np.array(other, float)
    ends = np.minimum(own[:, None, 1], other[None, :, 1])
    starts = np.maximum(own[:, None, 0], other[None, :, 0])
    return float((ends - starts).clip(min=0).sum())


def overlaps(rows):
    """Stretches (start, end) in which two or more speakers are active."""
    steps = sorted(
        (time, step)
        for turns in rows.values()
        for turn in turns
        for time, step in zip(turn, (1, -1))
    )
    found, count = [], 0
    for time, step in steps:  # ends come before starts of the same time
        count += step
        if step == 1 and count == 2:
            begin = time
        elif step == -1 and count == 1 and time > begin:
            found.append((begin, time))
    return found


def _draw_line(axes, blocks, limits, duration_s, step_s):
    """Draws one line of the picture."""
    top, ticks, labels = 0.0, [], []
    start, stop = limits
    for heading, rows, colours in blocks:
        height = max(1, len(rows))
        if heading == "found":
            axes.axhline(top, color="0.3", linewidth=1.0)
        bands = [(a, b - a) for a, b in overlaps(rows)]
        axes.broken_barh(bands, (top, height), color="0.82", zorder=0)
        for place, (speaker, turns) in enumerate(rows.items()):
            bars = [(a, b - a) for a, b in turns if a < stop and b > start]
            axes.broken_barh(
                bars,
                (top + place + 0.14, 0.72),
                facecolor=colours[speaker],
                edgecolor=colours[speaker],
                linewidth=0.5,
                zorder=2,
            )
            ticks.append(top + place + 0.5)
            labels.append(_plain(speaker))
        if not rows:
            ticks.append(top + 0.5)
            labels.append("(nobody)")
        if heading:
            axes.text(
                1.005,
                top + height / 2,
                heading,
                transform=axes.get_yaxis_transform(),
                rotation=270,
                va="center",
                fontsize=_LETTERS,
                color="0.3",
            )
        top += height
    axes.set_yticks(ticks, labels, fontsize=_LETTERS)
    axes.set(xlim=(start, stop), ylim=(top, 0))
    if duration_s < stop:
        axes.axvspan(duration_s, stop, color="0.93", hatch="//", zorder=3)
    axes.xaxis.set_major_locator(MultipleLocator(step_s))
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda time, _: _clock(time, duration_s, step_s))
    )
    axes.tick_params(axis="x", labelsize=_LETTERS)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="0.9", linewidth=0.6, zorder=-1)
    axes.set_axisbelow(True)


def _clock(seconds, duration_s, step_s):
    """A time as the axis shows it."""
    minutes, rest = divmod(round(seconds, 3), 60)
    if step_s < 1:
        return f"{minutes:.0f}:{rest:04.1f}"
    if duration_s < 3600:
        return f"{minutes:.0f}:{rest:02.0f}"
    return f"{minutes // 60:.0f}:{minutes % 60:02.0f}:{rest:02.0f}"


def _colour(number):
    """Colour of a speaker; grey is kept for those of the reference alone."""
    colours = [c for n, c in enumerate(_COLOURS) if n != 7]
    return colours[number % len(colours)]


def _plain(text):
    """Text without what matplotlib would read as a formula."""
    return str(text).replace("$", r"\$")


def write_curves(
    path: str | Path, epochs: Sequence[Mapping[str, float]], title: str = ""
) -> None:
    """Draws a PNG of what was measured at the end of each epoch.

    Of each epoch there are ``epoch``, ``lr`` and names such as "train loss" and
    "valid WER". Losses share a panel, and so do scores in percent.
    """
    panels: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for row in epochs:
        for name, value in row.items():
            if name == "epoch" or not math.isfinite(value):
                continue
            panel, name, value = _place(name, value)
            curve = panels.setdefault(panel, {}).setdefault(name, [])
            curve.append((row["epoch"], value))
    shown = sorted(panels, key=_rank)[:_MOST_PANELS]
    columns = min(len(shown), 2) or 1  # so that a page has legible letters
    lines = math.ceil(len(shown) / columns) or 1
    size = _PANEL[0] * columns, _PANEL[1] * lines + 0.3
    figure = Figure(size, 130, layout="constrained")
    if title:
        figure.suptitle(_plain(title), fontsize=10)
    for number, panel in enumerate(shown):
        axes = figure.add_subplot(lines, columns, number + 1)
        _draw_curves(axes, panel, panels[panel])
    write_figure(figure, path)


def _place(name, value):
    """The panel of a number, its curve, and the number as it is shown."""
    if name.startswith("lr"):
        return "learning rate", name, value
    split, _, score = name.partition(" ")
    share = percent(score, value)
    if share is not None:
        return "%", name, share
    return ("loss" if "loss" in score else score), name, value


def _rank(panel):
    """Losses first, then scores, learning rates last."""
    order = {"loss": 0, "%": 1, "learning rate": 3}
    return order.get(panel, 2), panel


def _draw_curves(axes, panel, curves):
    """Draws the curves of a panel."""
    for number, (name, points) in enumerate(curves.items()):
        style, mark = _LINES[number % len(_LINES)]
        axes.plot(
            *zip(*points),
            linestyle=style,
            marker=mark if len(points) <= 40 else None,
            markersize=3.5,
            linewidth=1.4,
            color=_COLOURS[number % len(_COLOURS)],
            label=_plain(name.replace("_", " ")),
        )
    values = [value for points in curves.values() for _, value in points]
    if panel == "loss" and min(values) > 0 and max(values) > 30 * min(values):
        axes.set_yscale("log")
    elif panel == "%":
        axes.set_ylim(0, None)
    if panel == "learning rate":
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
        axes.yaxis.get_offset_text().set_fontsize(8)
        axes.set_ylim(0, None)
    epochs = [epoch for points in curves.values() for epoch, _ in points]
    axes.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch", fontsize=9)
    axes.set_ylabel(_plain(panel.replace("_", " ")), fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(color="0.88", linewidth=0.6)
    axes.legend(fontsize=8)


def write_figure(figure: Figure, path: str | Path) -> None:
    """Writes a picture, whole or not at all."""
    with atomic(path, "wb") as file:
        figure.savefig(file, format="png")
