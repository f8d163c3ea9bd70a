"""Results of runs, their overall scores in both of SUPERB's ways, and those of
the published models.
"""

import csv
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from unispeech_sb.superb.collect import read_json
from unispeech_sb.superb.kinds import FINISHED, STATES
from unispeech_sb.superb.tasks import TASKS

RESULTS = "results.json"

SCORES = {
    score.column: (name, score)
    for name, task in TASKS.items()
    for score in task.scores
}
"""Column of the published table -> its task and score."""

Row = Mapping[str, Any]
"""Results of a run, as ``results.json`` holds them."""


def published_rows() -> list[dict[str, Any]]:
    """The published models: name, parameters, data, source, overall, and
    ``scores`` by column, all in percent."""
    table = files(__package__) / "published.csv"
    rows = []
    for row in csv.DictReader(table.read_text("utf-8").splitlines()):
        scores = {column: float(row.pop(column)) for column in SCORES}
        scores["QbE"] *= 100
        rows.append({**row, "scores": scores})
    return rows


def mean_score(scores: Mapping[str, float]) -> float | None:
    """Mean of all columns of the table, error rates as 100 - x; None where one
    is missing."""
    if any(scores.get(column) is None for column in SCORES):
        return None
    values = [
        scores[column] if score.higher else 100 - scores[column]
        for column, (_, score) in SCORES.items()
    ]
    return sum(values) / len(values)


def task_points(scores: Mapping[str, float]) -> dict[str, float]:
    """The leaderboard's points of each task that has all of its scores."""
    points: dict[str, float] = {}
    for name, task in TASKS.items():
        values = [scores.get(score.column) for score in task.scores]
        if any(value is None for value in values):
            continue
        shares = [
            (value - score.baseline) / (score.topline - score.baseline)
            for value, score in zip(values, task.scores)
            if value is not None
        ]
        points[name] = 1000 * sum(shares) / len(shares)
    return points


def leaderboard_score(scores: Mapping[str, float]) -> float | None:
    """Mean points of the tasks; None where one has none."""
    points = task_points(scores)
    return (
        sum(points.values()) / len(points)
        if len(points) == len(TASKS)
        else None
    )


def own_scores(row: Row) -> dict[str, float]:
    """Column -> score of the tasks that were run on their own corpora."""
    return {
        column: value
        for record in row["tasks"].values()
        if record["state"] == FINISHED and record["own_corpus"]
        for column, value in record["scores"].items()
        if column in SCORES
    }


def read_results(folder: Path) -> dict[str, Any]:
    """Reads the results in a folder; a ``ValueError`` where there are none, or
    the file is not what a run has written."""
    path = folder / RESULTS
    if not path.is_file():
        raise ValueError(
            f"{folder}: expected a folder of results, with {RESULTS}; there "
            "is none"
        )
    results = read_json(path)
    tasks = results.get("tasks")
    wanted: dict[str, Any] = {
        "model": str,
        "preset": str,
        "seed": (int, type(None)),
    }
    whole = (
        all(isinstance(results.get(k), kind) for k, kind in wanted.items())
        and isinstance(tasks, dict)
        and all(name in TASKS and _is_record(r) for name, r in tasks.items())
    )
    if not whole:
        raise ValueError(f"{path}: expected what superb run writes")
    return results


def _is_record(record):
    """Whether something is what a run notes of a task."""
    if not isinstance(record, dict) or not isinstance(record.get("title"), str):
        return False
    if record.get("state") != FINISHED:
        return record.get("state") in STATES
    scores, layers = record.get("scores"), record.get("layers", [])
    return (
        isinstance(record.get("corpus"), str)
        and isinstance(record.get("own_corpus"), bool)
        and isinstance(scores, dict)
        and isinstance(layers, list)
        and all(type(v) in (int, float) for v in (*scores.values(), *layers))
    )


def merge_rows(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Joins results of one model, preset and seed that have no task in common
    to one row; all others stay rows of their own."""
    merged: list[dict[str, Any]] = []
    for row in rows:
        done = {n for n, r in row["tasks"].items() if r["state"] == FINISHED}
        for other in merged:
            same = all(other[k] == row[k] for k in ("model", "preset", "seed"))
            taken = {
                n for n, r in other["tasks"].items() if r["state"] == FINISHED
            }
            if same and not done & taken:
                both = {**row["tasks"], **other["tasks"]}
                both |= {name: row["tasks"][name] for name in done}
                other["tasks"] = {n: both[n] for n in TASKS if n in both}
                break
        else:
            merged.append({**row})
    return merged
