"""What a finished run of a task has left in its folder: scores, settings, the
weights of layers, and the predictions in the leaderboard's files.
"""

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unispeech_sb.atomic import atomic, remove
from unispeech_sb.environment import require_extra
from unispeech_sb.superb.kinds import Plan
from unispeech_sb.text import lines_of, read_text

FRAME_SHIFT = 320
"""Samples between frames, which the leaderboard has to be told."""

_ALIGNED = re.compile(r"(.+), %WER \d+\.\d+ \[ .* \]")
_SEPARATOR, _NOTHING = " ; ", "<eps>"
_MIX = "layer_mix.weights"
_BY = " chosen on test"
"""What follows the key of a score that s3prl would report in its place."""
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


def describe_run(plan: Plan, folder: Path) -> dict[str, Any]:
    """What a task's recipe has left: scores by the column of the published
    table, with the corpus' name unless it is the task's own, learning rate,
    updates, and the weight of each layer, which is the mean of several folds;
    what else differs between folds is a list.

    A ``ValueError`` where the files are not what a recipe leaves.
    """
    scores = read_json(folder / "scores.json")
    folds = sorted(folder.glob("fold[1-9]")) or [folder]
    found = {"scores": {}, **_together([_facts(fold) for fold in folds])}
    for score in plan.task.scores:
        value = scores.get(score.key)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(
                f"{folder}: expected the score {score.key}, got {value}"
            )
        name = score.column
        if not plan.own:
            name += f" on {plan.corpus.name}"
        found["scores"][name] = round(score.scale * value, 4)
        for key in (key for key in scores if key.startswith(score.key + _BY)):
            chosen = name + key.removeprefix(score.key)
            found["scores"][chosen] = round(score.scale * scores[key], 4)
    layers = [read_layers(fold) for fold in folds]
    found["layers"] = [
        round(sum(weights) / len(weights), 6) for weights in zip(*layers)
    ]
    return found


def _together(facts):
    """Facts of several runs: what is the same in all, else a list."""
    found = {}
    for name in facts[0]:
        values = [own.get(name) for own in facts]
        same = all(value == values[0] for value in values)
        found[name] = values[0] if same else values
    return found


def _facts(folder):
    """How a run was trained."""
    record, scores = (
        read_json(folder / f"{name}.json") for name in ("experiment", "scores")
    )
    settings = record.get("settings", {})
    facts = {key: settings[key] for key in ("lr", "seed") if key in settings}
    if "learning_rate" in scores:
        facts["lr"] = scores["learning_rate"]
        facts["searched"] = scores["learning_rate_search"]
    training = folder / "export" / "training.json"
    if training.is_file():
        made = read_json(training).get("training", {})
        facts |= {
            name: made[key] for name, key in _FACTS.items() if key in made
        }
    return {**facts, "scored_on": record.get("split", "test")}


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


def write_predictions(plan: Plan, folder: Path, to: Path) -> None:
    """Writes the predictions in a recipe's folder as the leaderboard takes
    them, into a folder that is made if need be."""
    for place, write in _FILES[plan.name].items():
        write(folder, to / place)


def remove_predictions(name: str, place: Path) -> None:
    """Removes what ``write_predictions`` has written of a task."""
    for folder in {file.partition("/")[0] for file in _FILES[name]}:
        remove(place / folder)


def _write_lines(path, lines):
    """Writes lines, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
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


def _labelled(name_of):
    """A writer of the labels of recordings, which are named by their paths."""

    def write(folder, target):
        split = read_json(folder / "experiment.json").get("split", "test")
        rows = _read_table(folder / "manifests" / f"{split}.csv")
        wavs = {row["ID"]: row["wav"] for row in rows}
        lines = read_text(folder / "test_predict.txt").splitlines()
        pairs = (line.rpartition(" ") for line in lines)
        _write_lines(
            target,
            (f"{name_of(wavs[name])} {found}" for name, _, found in pairs),
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

    target.mkdir(parents=True, exist_ok=True)
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
        _write_lines(target, read_text(folder / name).splitlines())

    return write


_FILES = {
    "pr": {"pr_public/predict.ark": _aligned("per.txt")},
    "asr": {"asr_public/predict.ark": _aligned("wer.txt")},
    "ks": {"ks_public/predict.txt": _labelled(lambda path: _dashed(path, 2))},
    "qbe": {
        "qbe_public/benchmark.stdlist.xml": _copied("benchmark.stdlist.xml")
    },
    "sid": {"sid_public/predict.txt": _labelled(_voxceleb_name)},
    "asv": {"sv_public/predict.txt": _write_trials},
    "sd": {"sd_public/scoring/predictions": _write_activities},
    "er": {
        f"er_fold{fold}_public/predict.txt": _copied(
            f"fold{fold}/test_fold{fold}_predict.txt"
        )
        for fold in range(1, 6)
    },
    "ic": {"ic_public/predict.csv": _copied("test_predict.csv")},
    "sf": {"sf_public/predict.ark": _copied("test-hyp.ark")},
}
"""Task -> its files in a submission, and what writes each of a run's folder."""
