"""What a finished run of a task has left in its folder: scores, settings, the
weights of layers, and the predictions in the leaderboard's files.
"""

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unispeech_sb.atomic import atomic
from unispeech_sb.environment import require_extra
from unispeech_sb.superb.tasks import Plan
from unispeech_sb.text import lines_of, read_text

FRAME_SHIFT = 320
"""Samples between frames, which the leaderboard has to be told."""

_ALIGNED = re.compile(r"(.+), %WER \d+\.\d+ \[ .* \]")
_SEPARATOR, _NOTHING = " ; ", "<eps>"
_MIX = "layer_mix.weights"
_FACTS = {"updates": "optimizer updates", "best_epoch": "best epoch"}
"""Name in the results -> in ``training.json``."""


def read_json(path: Path) -> dict[str, Any]:
    """Reads what a run wrote; a ``ValueError`` where it is damaged."""
    try:
        content = json.loads(read_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: expected JSON, got: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a mapping, got {content!r:.60}")
    return content


def describe_runs(plan: Plan, folders: dict[str, Path]) -> dict[str, Any]:
    """What the finished runs of a task have left: scores by the column of the
    published table, with the corpus' name unless it is the task's own, learning
    rate, updates, and the weight of each layer; means of several runs.

    A ``ValueError`` where a run's files are not what a run leaves.
    """
    runs = [_describe_run(folder) for folder in folders.values()]
    found = {"scores": {}, **runs[0]["facts"]}
    for score in plan.task.scores:
        values = [run["scores"].get(score.key) for run in runs]
        if any(type(value) not in (int, float) for value in values):
            raise ValueError(
                f"{next(iter(folders.values()))}: expected the score "
                f"{score.key}, got {values}"
            )
        name = score.column
        if not plan.own:
            name += f" on {plan.corpus.name}"
        value = score.scale * sum(values) / len(values)
        found["scores"][name] = round(value, 4)
    if len(runs) > 1:
        found["runs"] = [run["scores"] for run in runs]
    layers = [run["layers"] for run in runs]
    found["layers"] = [
        round(sum(weights) / len(weights), 6) for weights in zip(*layers)
    ]
    return found


def _describe_run(folder):
    """Scores, facts and layers of one run."""
    record = read_json(folder / "experiment.json")
    settings, facts = record["settings"], {}
    facts = {key: settings[key] for key in ("lr", "seed") if key in settings}
    training = folder / "export" / "training.json"
    if training.is_file():
        made = read_json(training).get("training", {})
        facts |= {
            name: made[key] for name, key in _FACTS.items() if key in made
        }
    facts["scored_on"] = record.get("split", "test")
    scores = read_json(folder / "scores.json")
    return {"scores": scores, "facts": facts, "layers": read_layers(folder)}


def read_layers(folder: Path) -> list[float]:
    """Weight of each hidden state in an exported head's mix, the encoder's
    input first, or the score of each where one is chosen by it; empty where
    there is neither."""
    from unispeech_sb.checkpoints.files import read_tensors

    scores = folder / "layers.json"
    if scores.is_file():
        return list(read_json(scores).values())
    head = folder / "export" / "head.ckpt"
    if not head.is_file():
        return []
    for name, weights in read_tensors(head).items():
        if f".{name}".endswith(f".{_MIX}"):
            return [round(w, 6) for w in weights.softmax(0).tolist()]
    return []


def write_predictions(plan: Plan, folders: dict[str, Path], to: Path) -> None:
    """Writes the predictions of a task's runs as the leaderboard takes them.

    Arguments
    ---------
    plan : Plan
        The task.
    folders : dict
        Suffix of each run -> its output folder.
    to : pathlib.Path
        Folder to write to, made if need be.
    """
    place, write = _FILES[plan.name]
    for suffix, folder in folders.items():
        target = to / place.replace("{run}", suffix)
        target.parent.mkdir(parents=True, exist_ok=True)
        write(folder, target)


def _write_lines(path, lines):
    """Writes lines, whole or not at all."""
    with atomic(path) as file:
        file.writelines(f"{line}\n" for line in lines)


def _aligned(name):
    """A writer of the hypotheses of a file of alignments."""

    def write(folder, target):
        _write_lines(
            target,
            (f"{key} {text}" for key, text in hypotheses(folder / name)),
        )

    return write


def hypotheses(path: Path) -> Iterator[tuple[str, str]]:
    """Yields utterance and hypothesis of a file of alignments, as SpeechBrain
    writes it: a header, then reference, edits and hypothesis."""
    lines = iter(lines_of(path))
    for _, line in lines:
        found = _ALIGNED.fullmatch(line)
        if found is None:
            continue
        (_, _), (_, _), (_, words) = next(lines), next(lines), next(lines)
        tokens = (word.strip() for word in words.split(_SEPARATOR))
        kept = [token for token in tokens if token and token != _NOTHING]
        yield found[1], " ".join(kept)


def _labelled(name_of, separator=" "):
    """A writer of the labels found, of recordings named by their paths."""

    def write(folder, target):
        split = read_json(folder / "experiment.json")["split"]
        rows = _read_table(folder / "manifests" / f"{split}.csv")
        wavs = {row["ID"]: row["wav"] for row in rows}
        found = _read_table(folder / "predictions.csv")
        _write_lines(
            target,
            (f"{name_of(wavs[r['id']])}{separator}{r['found']}" for r in found),
        )

    return write


def _read_table(path):
    """Rows of a table that a run wrote."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _dashed(path, count):
    """The last parts of a path, with dashes between."""
    return "-".join(Path(path).parts[-count:])


def _voxceleb_name(path):
    """A recording of VoxCeleb as s3prl calls it."""
    return _dashed(path, 3).partition(".")[0]


def _write_trials(folder, target):
    """Pairs of recordings and their scores."""
    _write_lines(
        target,
        (
            f"{_voxceleb_name(row['left'])}_{_voxceleb_name(row['right'])} "
            f"{row['score']}"
            for row in _read_table(folder / "trials.csv")
        ),
    )


def _write_activities(folder, target):
    """Probabilities of each recording's speakers as HDF5, and the shift of
    their frames."""
    require_extra("h5py", "superb", "the leaderboard's form of diarizations")

    import h5py

    from unispeech_sb.checkpoints.files import read_tensors

    target.mkdir(exist_ok=True)
    for name, found in read_tensors(folder / "activities.safetensors").items():
        with (
            atomic(target / f"{name}.h5", mode=None) as draft,
            h5py.File(draft, "w") as file,
        ):
            file.create_dataset("T_hat", data=found.numpy())
    _write_lines(target.parents[1] / "frame_shift", [FRAME_SHIFT])


def _copied(name):
    """A writer of a file that a recipe has in the leaderboard's form."""

    def write(folder, target):
        with atomic(target) as file:
            file.write(read_text(folder / name))

    return write


_FILES = {
    "pr": ("pr_public/predict.ark", _aligned("per.txt")),
    "asr": ("asr_public/predict.ark", _aligned("wer.txt")),
    "ks": ("ks_public/predict.txt", _labelled(lambda p: _dashed(p, 2))),
    "qbe": (
        "qbe_public/benchmark.stdlist.xml",
        _copied("benchmark.stdlist.xml"),
    ),
    "sid": ("sid_public/predict.txt", _labelled(_voxceleb_name)),
    "asv": ("sv_public/predict.txt", _write_trials),
    "sd": ("sd_public/scoring/predictions", _write_activities),
    "er": ("er_{run}_public/predict.txt", _labelled(lambda p: Path(p).stem)),
    "ic": (
        "ic_public/predict.csv",
        _labelled(lambda p: Path(p).stem, separator=","),
    ),
    "sf": ("sf_public/predict.ark", _copied("predict.ark")),
}
"""Task -> its file in a submission, and what writes it from a run's folder."""
