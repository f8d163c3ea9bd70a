"""IEMOCAP (Busso et al. 2008), the corpus of SUPERB's emotion recognition: four
emotions, five sessions of two speakers, a fold for each.
"""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from speechbrain.utils.logger import get_logger

from unispeech_sb.text import lines_of, named, read_text

__all__ = ["iemocap"]

logger = get_logger(__name__)

FOLDS = (1, 2, 3, 4, 5)
EMOTIONS = ("neu", "hap", "ang", "sad")
"""Neutral, happy, angry, sad: in SUPERB's order."""
_EMOTION_OF = {**{name: name for name in EMOTIONS}, "exc": "hap"}
_TRAINED = 0.8  # share of the recordings that are not tested
_SPLIT_SEED = 0
_SESSION = re.compile(r"Session([1-5])")


def is_iemocap(folder):
    """Whether a folder is the corpus."""
    folder = Path(folder)
    return all((folder / f"Session{n}").is_dir() for n in FOLDS)


def iemocap(
    folder: str | Path,
    fold: int | None,
    protocol: str = "superb",
    lists: str | Path | None = None,
) -> Iterator[dict[str, Any]]:
    """Reads the utterances of a fold whose label is one of the four emotions,
    or excited, which counts as happy.

    Which recordings validate depends on the order of the others. Published
    numbers have that of s3prl's lists, ``lists``; it cannot be derived. Without
    them the order is that of the paths, and the log says so.

    Arguments
    ---------
    folder : str or path-like
        ``IEMOCAP_full_release``, with ``Session1`` to ``Session5``.
    fold : int
        The session to test, 1 to 5.
    protocol : str
        "superb" validates on a random fifth of the other sessions, "clean" on
        the next session, whose speakers are not in training.
    lists : str or path-like, optional
        s3prl's folder ``meta_data``, with
        ``Session<fold>/{train,test}_meta_data.json``.

    Yields
    ------
    dict
        Record with ID, wav, split, spk_id, session and label.

    Raises
    ------
    ValueError
        When a fold or protocol does not exist, or a file is missing.

    Example
    -------
    >>> next(iemocap("IEMOCAP_full_release", 6))
    Traceback (most recent call last):
    ...
    ValueError: fold: expected 1 to 5; got 6
    """
    fold = check_fold(fold)
    folder = Path(folder).absolute()
    if lists is None:
        logger.info(
            "The recordings are in the order of their paths, so others "
            "validate than in s3prl: its lists are --fold_lists=.../meta_data"
        )
        rows = sorted(_evaluated(folder))
    else:
        logger.info(f"The recordings are in the order of {lists}")
        rows = _listed(Path(lists) / f"Session{fold}", fold)
    records = [_record(folder, path, label) for path, label in rows]
    yield from split_fold(records, fold, protocol)


def check_fold(fold: int | None) -> int:
    """A fold, which has to be one."""
    if type(fold) is not int or fold not in FOLDS:
        raise ValueError(f"fold: expected 1 to 5; got {fold}")
    return fold


def split_fold(
    records: Iterable[dict[str, Any]], fold: int | None, protocol: str
) -> list[dict[str, Any]]:
    """Splits records by their ``session``, a text, as ``iemocap`` does."""
    fold = check_fold(fold)
    if protocol not in ("superb", "clean"):
        raise ValueError(
            f"protocol: expected superb or clean; got {protocol!r}"
        )
    records = list(records)
    test = [r for r in records if r["session"] == str(fold)]
    others = [r for r in records if r["session"] != str(fold)]
    if protocol == "clean":
        following = str(fold % len(FOLDS) + 1)
        valid = [r for r in others if r["session"] == following]
        train = [r for r in others if r["session"] != following]
    else:
        generator = torch.Generator().manual_seed(_SPLIT_SEED)
        order = torch.randperm(len(others), generator=generator).tolist()
        shuffled = [others[place] for place in order]
        count = int(_TRAINED * len(others))
        train, valid = shuffled[:count], shuffled[count:]
    splits = {"train": train, "valid": valid, "test": test}
    return [{**r, "split": s} for s, rows in splits.items() for r in rows]


def _evaluated(folder):
    """Yields path and label of the utterances, by the annotators' files."""
    for session in (f"Session{number}" for number in FOLDS):
        place = folder / session / "dialog" / "EmoEvaluation"
        files = [f for f in place.glob("*.txt") if not f.name.startswith(".")]
        if not files:
            raise ValueError(f"{place}: expected a .txt for each dialog")
        for file in files:
            for name, label in _labels_in(file):
                path = f"{session}/sentences/wav/{file.stem}/{name}.wav"
                yield path, label


def _labels_in(file):
    """Yields name and label of the utterances of a dialog."""
    for number, line in lines_of(file):
        if not line.startswith("["):
            continue
        fields = line.split("\t")
        if len(fields) < 3:
            raise ValueError(
                f"{file}, line {number}: expected time, utterance and label "
                f"with tabs between; got {line[:60]!r}"
            )
        name, label = fields[1].strip(), fields[2].strip()
        if label in _EMOTION_OF:
            yield name, _EMOTION_OF[label]


def _listed(folder, fold):
    """Paths and labels in s3prl's order: those to train on, then to test."""
    rows = []
    for part in ("train", "test"):
        file = folder / f"{part}_meta_data.json"
        found = _rows_of(file)
        wrong = [
            path
            for path, label in found
            if label not in EMOTIONS
            or _SESSION.match(path) is None
            or (_SESSION.match(path)[1] == str(fold)) != (part == "test")
        ]
        if wrong:
            raise ValueError(
                f"{file}: expected paths of Session1 to 5, of the fold's where "
                f"it is tested, labelled {', '.join(EMOTIONS)}; got "
                f"{named(wrong)}"
            )
        rows += found
    return rows


def _rows_of(file):
    """Paths and labels of one of s3prl's lists."""
    try:
        rows = json.loads(read_text(file))["meta_data"]
        return [(str(row["path"]), str(row["label"])) for row in rows]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file}: expected JSON with meta_data, a list of rows with path "
            "and label"
        ) from error


def _record(folder, path, label):
    """The record of an utterance that is there."""
    wav = folder / path
    if not wav.is_file():
        raise ValueError(f"{folder}: no such file: {path}")
    session = _SESSION.match(path)[1]
    speaker = wav.stem.rpartition("_")[2][:1]  # F or M, before the number
    return {
        "ID": wav.stem,
        "wav": str(wav),
        "spk_id": f"Ses0{session}_{speaker}",
        "session": session,
        "label": label,
    }
