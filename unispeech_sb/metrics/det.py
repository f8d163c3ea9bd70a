"""Pictures of verification scores: the DET curve (Martin et al. 1997) and a
histogram per kind of trial.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy.special import ndtri

from unispeech_sb.atomic import atomic
from unispeech_sb.metrics.verification import (
    Scores,
    as_scores,
    eer,
    error_curve,
    min_dcf,
)

_TICKS = np.array(
    [1e-4, 1e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9]
    + [0.95, 0.99]
)
"""Rates that the axes of a DET curve may name and end at."""

_NUM_BINS = 80
"""Of a histogram."""

_STEP = 0.005  # of the normal deviate, which a pixel of the curve is
_DOTS_PER_INCH = 130


def system_name(folder: str | Path) -> str:
    """What a picture calls the system of a pretrained or output folder: its
    name, and of results that of the data and the seed."""
    parts = Path(folder).absolute().parts[1:]
    if parts[-1:] == ("export",):
        parts = parts[:-1]
    return "/".join(parts[-2:] if parts[-1:][0].isdigit() else parts[-1:])


def write_det(
    path: str | Path,
    systems: Mapping[str, tuple[Scores, Scores]],
    p_target: float = 0.01,
) -> None:
    """Draws DET curves of systems as a PNG, with EER and minDCF on each.

    ``systems``: name -> scores of targets [P] and of non-targets [N]. Both axes
    are in normal deviates, so scores of two normal distributions make a
    straight line.
    """
    if not systems:
        raise ValueError(f"{path}: expected scores of a system, got none")
    figure = Figure((6, 6), _DOTS_PER_INCH, layout="constrained")
    axes = figure.add_subplot(aspect="equal")
    limits = _limits([error_curve(*scores) for scores in systems.values()])
    for number, (name, scores) in enumerate(systems.items()):
        _draw_curve(axes, number, name, scores, p_target, limits)
    shown = _TICKS[(limits[0] <= _TICKS) & (limits[1] >= _TICKS)]
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(ndtri(shown), [f"{100 * tick:g}" for tick in shown])
    axes.plot(*[ndtri(limits)] * 2, color="0.7", linewidth=0.8, zorder=1)
    axes.set(
        xlim=ndtri(limits),
        ylim=ndtri(limits),
        xlabel="false alarms (% of non-target trials)",
        ylabel="misses (% of target trials)",
    )
    axes.tick_params(labelsize=9)
    axes.grid(color="0.9", linewidth=0.6)
    figure.legend(
        loc="outside upper center", fontsize=8, title="○ EER   ◇ minDCF"
    )
    _write(figure, path)


def write_histogram(
    path: str | Path,
    positive: Scores,
    negative: Scores,
    thresholds: Mapping[str, float] | None = None,
) -> None:
    """Draws a PNG of how the scores of both kinds of trials are spread."""
    positive = as_scores(positive, "scores of targets")
    negative = as_scores(negative, "scores of non-targets")
    figure = Figure((7, 4), _DOTS_PER_INCH, layout="constrained")
    axes = figure.add_subplot()
    low = min(positive.min(), negative.min())
    high = max(positive.max(), negative.max())
    edges = np.linspace(low, high if high > low else low + 1, _NUM_BINS + 1)
    for scores, name, colour in (
        (negative, "non-target", "C1"),
        (positive, "target", "C0"),
    ):
        shares = np.histogram(scores, edges)[0] / len(scores)
        label = f"{len(scores):,} {name} trials"
        axes.stairs(
            100 * shares,
            edges,
            fill=True,
            alpha=0.45,
            color=colour,
            label=label,
        )
        axes.stairs(100 * shares, edges, color=colour, linewidth=1)
    for number, (name, value) in enumerate((thresholds or {}).items()):
        style = ("-", "--", ":", "-.")[number % 4]
        label = f"{name}: {value:.4g}"
        axes.axvline(value, color="0.2", linestyle=style, label=label)
    axes.set(
        xlabel="score", ylabel="% of the trials of its kind", ylim=(0, None)
    )
    axes.legend(fontsize=8)
    _write(figure, path)


def _draw_curve(axes, number, name, scores, p_target, limits):
    """Draws one system and marks its EER and minDCF."""
    colour, style = f"C{number}", ("-", "--", "-.", ":")[number % 4]
    _, miss, false_alarm = error_curve(*scores)
    rate, _ = eer(*scores)
    cost, threshold = min_dcf(*scores, p_target)
    axes.plot(
        *_thinned(ndtri(false_alarm), ndtri(miss)),
        color=colour,
        linestyle=style,
        label=f"{_plain(name)}: EER {100 * rate:.2f} %, "
        f"minDCF({p_target:g}) {cost:.3f}",
    )
    positive, negative = (as_scores(part, "scores") for part in scores)
    best = (negative >= threshold).mean(), (positive < threshold).mean()
    for marker, place in (("o", (rate, rate)), ("D", best)):
        axes.plot(
            *ndtri(np.clip(place, *limits)),  # a rate of 0 is at the edge
            marker,
            color=colour,
            markerfacecolor="white",
            clip_on=False,
            zorder=3,
        )


def _thinned(across, up):
    """The points of a curve that a picture can show apart."""
    # Infinite where a rate is 0 or 1, and cut to what lies off the picture.
    places = np.stack([across, up]).clip(-6, 6)
    cells = np.round(places / _STEP).astype(np.int64)
    kept = np.ones(cells.shape[1], bool)
    kept[1:] = (cells[:, 1:] != cells[:, :-1]).any(0)
    return places[:, kept]


def _limits(curves):
    """Ends of both axes, among the ticks: the least rate seen, and the least
    misses at the fewest false alarms or the other way round, 40 % or more."""
    rates = np.concatenate([rates for curve in curves for rates in curve[1:]])
    low = _TICKS.searchsorted(rates[rates > 0].min(), "right") - 1
    pairs = [(a, b) for _, *both in curves for a, b in (both, both[::-1])]
    ends = [one[other == other.min()].min() for one, other in pairs]
    high = _TICKS.searchsorted(min(max(0.4, *ends), _TICKS[-1]))
    return _TICKS[[min(max(low, 0), 3), high]]


def _plain(text):
    """Text without what matplotlib would read as a formula."""
    return str(text).replace("$", r"\$")


def _write(figure, path):
    """Writes a picture, whole or not at all."""
    with atomic(path, "wb") as file:
        figure.savefig(file, format="png")
