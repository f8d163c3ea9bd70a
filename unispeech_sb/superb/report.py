"""A report of runs beside the published models: one HTML file that needs
nothing else, for screens, telephones and paper.
"""

from collections.abc import Iterable
from html import escape
from importlib.resources import files
from pathlib import Path

from unispeech_sb import __version__
from unispeech_sb.atomic import atomic
from unispeech_sb.superb.kinds import FINISHED, PRESETS, TROUBLES
from unispeech_sb.superb.results import (
    SCORES,
    Row,
    leaderboard_score,
    mean_score,
    merge_rows,
    own_scores,
    published_rows,
    task_points,
)
from unispeech_sb.superb.tasks import TASKS

REPORT = "report.html"

_MEAN = (
    "The mean of the {count} numbers, of error rates 100 − x, as "
    "UniSpeech-SAT's and WavLM's papers give it."
)
_POINTS = (
    "The leaderboard's score: 1000 · (x − baseline) / (topline − baseline), "
    "averaged within a task, then over the {count} tasks."
)


def duration_text(seconds: float) -> str:
    """A duration in the units that fit it."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    if seconds < 100 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"


def score_text(record: Row) -> str:
    """Scores of a task as a line; the corpus' name is in their names."""
    return ", ".join(f"{k} {v:.2f}" for k, v in record["scores"].items())


def model_name(model: str) -> str:
    """What tells a model in a table: the end of its path, of a recipe's export
    its folder, which is named by recipe, data and seed."""
    parts = [part for part in Path(model).parts if part not in ("/", "..", ".")]
    if parts[-1:] == ["export"]:
        return "/".join(parts[-4:-1]) or model
    return "/".join(parts[-1:]) or model


def summary_text(row: Row) -> str:
    """Scores of a run as lines for a terminal."""
    lines = [f"{model_name(row['model'])}, preset {row['preset']}"]
    for name, record in row["tasks"].items():
        if record["state"] == FINISHED:
            text = score_text(record)
        else:
            text = f"{TROUBLES[record['state']]}: {record.get('reason', '')}"
        lines.append(f"  {name:<4}{text.rstrip(': ')}")
    scores = own_scores(row)
    for what, value, count, of in (
        ("mean", mean_score(scores), len(scores), len(SCORES)),
        (
            "leaderboard points",
            leaderboard_score(scores),
            len(task_points(scores)),
            len(TASKS),
        ),
    ):
        missing = f"needs all {of} on the tasks' own corpora, has {count}"
        lines.append(
            f"  {what}: {missing if value is None else f'{value:.1f}'}"
        )
    return "\n".join(lines)


def write_report(folder: Path, rows: Iterable[Row]) -> None:
    """Writes report.html of one or several runs into a folder."""
    style = (files(__package__) / "report.css").read_text("utf-8")
    rows = merge_rows(rows)
    names = ", ".join(dict.fromkeys(model_name(row["model"]) for row in rows))
    parts = [
        f"<h1>SUPERB: {escape(names)}</h1>",
        *(_about(row) for row in rows),
        "<h2>Scores</h2>",
        _scores_table(rows),
        *(_details(row) for row in rows),
        *(_layers(row) for row in rows),
        _both_ways(rows),
        _footer(),
    ]
    with atomic(folder / REPORT) as file:
        file.write(
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n'
            '<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, '
            'initial-scale=1">\n'
            f"<title>SUPERB: {escape(names)}</title>\n"
            f"<style>\n{style}</style>\n</head>\n<body>\n"
        )
        file.write("\n".join(part for part in parts if part))
        file.write("\n</body>\n</html>\n")


def _about(row):
    """What a run is of."""
    states = [record["state"] for record in row["tasks"].values()]
    counts = [f"{states.count(FINISHED)} of {len(TASKS)} tasks finished"]
    counts += [
        f'<b class="bad">{states.count(state)} {text}</b>'
        for state, text in TROUBLES.items()
        if state in states
    ]
    preset = PRESETS.get(row["preset"], "")
    return (
        f'<p><b class="path">{escape(str(row["model"]))}</b><br>'
        f"Preset <b>{escape(str(row['preset']))}</b>: {escape(preset)}. "
        f"{', '.join(counts)}.</p>"
    )


def _scores_table(rows):
    """Our rows beside the published ones."""
    heads = [
        f"<th>{column}<small>{escape(score.heading)}</small></th>"
        for column, (_, score) in SCORES.items()
    ]
    lines = [_own_row(row) for row in rows]
    lines += [_published_row(row) for row in published_rows()]
    others = any(
        record["state"] == FINISHED and not record["own_corpus"]
        for row in rows
        for record in row["tasks"].values()
    )
    note = (
        '<p class="muted">A number with “on …” is of another corpus than the '
        "task’s, is not comparable with those below it, and is in no mean."
        "</p>"
    )
    return (
        '<div class="wide" tabindex="0" role="region" aria-label="Scores">'
        '<table class="scores"><thead><tr><th>Model</th>'
        f"{''.join(heads)}<th>Mean</th><th>Points</th></tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div>"
        '<p class="muted">All in percent; QbE is 100 times the maximum '
        "term-weighted value. Arrows point to the better side.</p>"
        f"{note if others else ''}"
    )


def _number(value, digits=2):
    """A number, or a dash."""
    return "–" if value is None else f"{value:.{digits}f}"


def _own_row(row):
    """A run's row: scores, with the corpus where it is another one."""
    cells = []
    for column, (name, _) in SCORES.items():
        record = row["tasks"].get(name)
        if record is None:
            cells.append("<td>–</td>")
        elif record["state"] != FINISHED:
            text = TROUBLES[record["state"]]
            cells.append(f'<td><span class="on bad">{text}</span></td>')
        elif record["own_corpus"]:
            cells.append(f"<td>{_number(record['scores'].get(column))}</td>")
        else:
            on = f"on {record['corpus']}"
            value = _number(record["scores"].get(f"{column} {on}"))
            cells.append(
                f'<td>{value}<span class="on">{escape(on)}</span></td>'
            )
    scores = own_scores(row)
    for value in (mean_score(scores), leaderboard_score(scores)):
        cells.append(f"<td>{_number(value, 1)}</td>")
    name = escape(model_name(row["model"])).replace("/", "/<wbr>")
    preset = f"preset {escape(str(row['preset']))}"
    return (
        f'<tr class="ours"><th scope="row">{name}<small>{preset}</small></th>'
        f"{''.join(cells)}</tr>"
    )


def _published_row(row):
    """A published model's row."""
    cells = [f"<td>{_number(v)}</td>" for v in row["scores"].values()]
    cells.append(f"<td>{row['overall']}</td>")
    cells.append(f"<td>{_number(leaderboard_score(row['scores']), 1)}</td>")
    about = f"{row['data']}, {row['parameters']}" if row["data"] != "-" else ""
    return (
        f'<tr><th scope="row">{escape(row["model"])}'
        f"<small>{escape(about)}</small></th>{''.join(cells)}</tr>"
    )


def _details(row):
    """A table of how each task was run."""
    columns = (
        *("corpus", "score", "learning rate", "updates", "seed", "scored on"),
        *("time", "state"),
    )
    head = "".join(
        f'<th class="text">{column}</th>' for column in ("task", *columns)
    )
    lines = []
    for name, record in row["tasks"].items():
        cells = "".join(
            f'<td class="text{_SHORT.get(column, "")}" '
            f'data-label="{column}">{escape(text)}</td>'
            for column, text in zip(columns, _cells(name, record), strict=True)
        )
        lines.append(
            f'<tr><th scope="row">{escape(record["title"])}</th>{cells}</tr>'
        )
    return (
        f"<h2>How {escape(model_name(row['model']))} was run</h2>"
        '<div class="wide"><table class="details">'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody>"
        "</table></div>"
    )


def _cells(name, record):
    """What the details say of a task."""
    state = record["state"]
    corpus = record.get("corpus", "")
    if corpus and not record["own_corpus"]:
        corpus += f" (not {TASKS[name].corpora[0].name})"
    seconds = record.get("seconds")
    reason = record.get("reason", "")
    text = TROUBLES.get(state, state) + (f": {reason}" if reason else "")
    if record.get("no_predictions"):
        text += f"; no predictions: {record['no_predictions']}"
    changed = record.get("changed") or {}
    if changed:
        text += "; changed: " + ", ".join(
            f"{k}={v}" for k, v in changed.items()
        )
    return (
        corpus,
        score_text(record) if state == FINISHED else "",
        _rate_text(record),
        ", ".join(map(str, _each(record.get("updates", "")))),
        str(record.get("seed", "")),
        str(record.get("scored_on", "")),
        "" if seconds is None else duration_text(seconds),
        text,
    )


def _rate_text(record):
    """The learning rate, or that of each fold, and of how many it is the
    best."""
    rates, searched = _each(record.get("lr")), record.get("searched")
    if not all(isinstance(rate, (int, float)) for rate in rates):
        return ""
    text = ", ".join(f"{rate:g}" for rate in rates)
    first = _each(searched)[0] if searched else None
    count = len(first if isinstance(first, list) else _each(searched))
    return text + (f" (best of {count})" if searched else "")


def _each(value):
    """A fact of a run, or those of its folds, as a list."""
    return value if isinstance(value, list) else [value]


def _layers(row):
    """A picture of each task's layers."""
    figures = [
        _chart(name, record)
        for name, record in row["tasks"].items()
        if record["state"] == FINISHED and record.get("layers")
    ]
    if not figures:
        return ""
    return (
        f"<h2>Layers that {escape(model_name(row['model']))} is used by</h2>"
        '<p class="muted">The learned weight of each hidden state in the mix '
        "that a task’s head reads, of query by example its score on the "
        "validation queries. 0 is the input of the first block; the dashed "
        "line is equal weights. Weights do not account for the size of the "
        "states.</p>"
        f'<div class="charts">{"".join(figures)}</div>'
    )


_SHORT = {"time": " short"}  # columns that do not break

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 320, 150, 38, 18, 34


def _chart(name, record):
    """Bars of one task, the highest one with its value."""
    values = record["layers"]
    most = max(max(values), 1e-9)
    peak = values.index(max(values))
    step = (_WIDTH - _LEFT - 4) / len(values)
    floor = _HEIGHT - _BOTTOM
    scale = (floor - _TOP) / most
    bars, ticks = [], []
    every = max(1, round(len(values) / 6))
    for layer, value in enumerate(values):
        x, height = _LEFT + layer * step, max(0.0, value) * scale
        kind = "peak" if layer == peak else "bar"
        bars.append(
            f'<rect class="{kind}" x="{x + 0.1 * step:.1f}" '
            f'y="{floor - height:.1f}" width="{0.8 * step:.1f}" '
            f'height="{height:.1f}"><title>layer {layer}: {value:.4f}'
            "</title></rect>"
        )
        if layer % every == 0:
            ticks.append(_label(x + step / 2, floor + 14, layer))
    x = min(max(_LEFT + (peak + 0.5) * step, _LEFT + 14), _WIDTH - 16)
    ticks.append(_label(x, _TOP - 5, f"{values[peak]:.3f}"))
    ticks.append(_label(_LEFT + (_WIDTH - _LEFT) / 2, _HEIGHT - 4, "layer"))
    ticks.append(_label(_LEFT - 5, floor, "0", "end"))
    lines = f'<path class="axis" d="M{_LEFT} {floor}H{_WIDTH - 4}"/>'
    if name != "qbe":
        even = floor - scale / len(values)
        lines += (
            f'<path class="even" stroke-dasharray="3 3" '
            f'd="M{_LEFT} {even:.1f}H{_WIDTH - 4}"/>'
        )
        if even < floor - 14:  # else it would touch the 0
            share = f"{1 / len(values):.2f}"
            ticks.append(_label(_LEFT - 5, even + 4, share, "end"))
    title = escape(f"{record['title']}, on {record['corpus']}")
    return (
        f'<figure><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{title}: layer {peak} is the highest">'
        f"{lines}{''.join(bars)}{''.join(ticks)}</svg>"
        f"<figcaption><b>{escape(record['title'])}</b> on "
        f"{escape(record['corpus'])}</figcaption></figure>"
    )


def _label(x, y, text, anchor="middle"):
    """A text of a picture."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'


def _both_ways(rows):
    """Both overall scores, with what they are made of."""
    parts = ["<h2>Both overall scores</h2>"]
    parts.append(f"<p>{_MEAN.format(count=len(SCORES))}</p>")
    parts.append(f"<p>{_POINTS.format(count=len(TASKS))}</p>")
    heads = "".join(
        f"<th>{escape(model_name(row['model']))}</th>" for row in rows
    )
    lines = []
    for column, (name, score) in SCORES.items():
        cells = ""
        for row in rows:
            points = task_points(own_scores(row)).get(name)
            cells += f"<td>{_number(points, 0)}</td>"
        lines.append(
            f'<tr><th scope="row">{column}</th><td>{score.baseline:.2f}</td>'
            f"<td>{score.topline:.2f}</td>{cells}</tr>"
        )
    parts.append(
        '<div class="wide"><table><thead><tr><th>Score</th><th>baseline</th>'
        f"<th>topline</th>{heads}</tr></thead><tbody>{''.join(lines)}"
        "</tbody></table></div>"
    )
    return "\n".join(parts)


def _footer():
    """Where the numbers are from."""
    sources = dict.fromkeys(row["source"] for row in published_rows())
    return (
        f"<footer><p>Published rows: {escape('; '.join(sources))}; frozen "
        "models, recognition without a language model. Points of published "
        "rows are computed from them. Reference points: the leaderboard’s. In "
        "this package an utterance gives the same alone and in a padded "
        "batch; in s3prl, by which the published rows were made, it does not."
        f"</p><p>Written by unispeech_sb {__version__}.</p></footer>"
    )
