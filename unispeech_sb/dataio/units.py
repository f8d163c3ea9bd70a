"""Units beside a manifest: one number per frame of each recording, the targets
of UniSpeech-SAT's pre-training (Chen et al. 2021, section 2); and the phones
that they are compared with.

A folder of units has units.json (``label_rate``, ``num_units`` and how they
were made) and, for each split, a manifest X.csv and one array X.npy with the
units of all its recordings, one after the other. The manifest's columns
``units_start`` and ``units_stop`` say which are whose. An array can be mapped:
whatever its size, opening it costs nothing, an item reads its own units only,
and several workers share them; a file with a name for each recording would
have to be searched, or its table of contents read, first.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from unispeech_sb.atomic import atomic, temporary_folder
from unispeech_sb.dataio.manifest import (
    SPLITS,
    has_columns,
    read_manifest,
    read_rows,
    write_manifests,
)
from unispeech_sb.dataio.shards import is_shards

__all__ = ["check_units", "phone_frames", "read_about", "read_spans"]

ABOUT = "units.json"
_MOST = 10**6  # units, or units a second, that a model is built for
TOLERANCE_S = 0.1
"""By how much a recording and its units may differ, as in fairseq."""

SPANS = "phone_spans"
"""A JSON list of [phone, start, stop], times in seconds from the beginning of
what the record stands for."""

NO_PHONE = -1
"""Stands for a frame outside all phones."""


def write_units(
    folder: str | Path,
    records: Sequence[dict[str, Any]],
    units: Iterable[np.ndarray],
    about: dict[str, Any],
) -> dict[str, str]:
    """Writes a folder of units: split -> path of its manifest.

    ``units`` are those of each record, in the same order, int, [T], taken one
    by one. ``about``, the content of units.json, needs ``label_rate``, units a
    second, and ``num_units``, above all units.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with temporary_folder(folder / "units") as drafts:
        placed = _write_arrays(drafts, records, units, about["num_units"])
        with atomic(folder / ABOUT) as file:
            file.write(json.dumps(about, indent=2) + "\n")
        for split in SPLITS:
            draft, path = (f / f"{split}.npy" for f in (drafts, folder))
            if draft.is_file():
                os.replace(draft, path)
            else:  # of an earlier corpus
                path.unlink(missing_ok=True)
    return write_manifests(placed, folder, required_splits=())


def _write_arrays(folder, records, units, num_units):
    """Writes the arrays of all splits; the records with their places."""
    kind = np.uint16 if num_units <= 2**16 else np.int32
    counts, placed = dict.fromkeys(SPLITS, 0), []
    with ExitStack() as stack:
        files = {
            split: stack.enter_context(open(folder / split, "wb"))
            for split in SPLITS
        }
        for record, own in zip(records, units, strict=True):
            split, own = record["split"], np.asarray(own)
            _check_range(own, num_units, record["wav"])
            files[split].write(own.astype(kind).tobytes())
            start, counts[split] = counts[split], counts[split] + len(own)
            bounds = {"units_start": start, "units_stop": counts[split]}
            placed.append({**record, **bounds})
    for split, count in counts.items():
        if count:
            raw = np.memmap(folder / split, kind, "r")
            np.save(folder / f"{split}.npy", raw)
    return placed


def _check_range(units, num_units, name):
    """Raises on units that are none of as many as there are."""
    if units.size and not 0 <= units.min() <= units.max() < num_units:
        wrong = units[(units < 0) | (units >= num_units)][0]
        raise ValueError(
            f"{name}: expected units from 0 to {num_units - 1}, got {wrong}"
        )


def read_about(folder: str | Path) -> dict[str, Any]:
    """Reads how the units of a folder were made.

    Arguments
    ---------
    folder : str or path-like
        A folder of units.

    Returns
    -------
    dict
        With ``label_rate`` and ``num_units``.

    Raises
    ------
    ValueError
        When there is no such file, or it lacks one of these.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> _ = (folder / ABOUT).write_text('{"label_rate": 50, "num_units": 9}')
    >>> read_about(folder)["num_units"]
    9
    """
    path = Path(folder, ABOUT)
    if not path.is_file():
        raise ValueError(
            f"{path}: there is no such file; expected a folder of units, as "
            "recipes/make_units.py writes it"
        )
    try:
        about = json.loads(path.read_text(encoding="utf-8-sig"))
        numbers = [about[key] for key in ("label_rate", "num_units")]
        right = all(
            type(number) is int and 0 < number <= _MOST for number in numbers
        )
    except (ValueError, KeyError, TypeError):
        right = False
    if not right:
        raise ValueError(
            f"{path}: expected JSON with label_rate and num_units, both "
            f"whole numbers from 1 to {_MOST}"
        )
    return about


def check_units(
    folder: str | Path,
    num_units: int | None = None,
    tolerance_s: float = TOLERANCE_S,
) -> dict[str, Path]:
    """Checks every recording's units: that they are there, as many as it is
    long, and all of those that there are.

    Arguments
    ---------
    folder : str or path-like
        A folder of units.
    num_units : int, optional
        How many units the model to be trained classifies; as many as the
        folder says when omitted.
    tolerance_s : float
        By how much durations may differ.

    Returns
    -------
    dict
        Split -> path of its manifest; of shards nothing.

    Raises
    ------
    ValueError
        When one is not right; the message names file and line.

    Example
    -------
    >>> check_units("nowhere")
    Traceback (most recent call last):
    ...
    ValueError: nowhere/units.json: there is no such file; expected ...
    """
    folder, about = Path(folder), read_about(folder)
    if num_units not in (None, about["num_units"]):
        raise ValueError(
            f"{folder / ABOUT}: expected {num_units} units, as the model "
            f"has; got {about['num_units']}"
        )
    if is_shards(folder):  # checked when these were made
        return {}
    paths = {split: folder / f"{split}.csv" for split in SPLITS}
    paths = {split: path for split, path in paths.items() if path.is_file()}
    if not paths:
        raise ValueError(f"{folder}: expected train.csv, got no manifest")
    for split, path in paths.items():
        units = _mapped(folder / f"{split}.npy")
        rows = read_rows(path, has_columns())
        for record, (where, _) in zip(read_manifest(path), rows):
            own = _own(units, record, where)
            length_s = len(own) / about["label_rate"]
            if abs(length_s - record["duration"]) > tolerance_s:
                raise ValueError(
                    f"{where}: expected units of {record['duration']:g} s, as "
                    f"{record['wav']} is long; got {len(own)}, {length_s:g} s"
                )
            _check_range(own, about["num_units"], where)
    return paths


def units_of(folder, split, row):
    """Reads the units of a manifest's row: a copy, int64, [T]."""
    units = _mapped(Path(folder, f"{split}.npy"))
    return np.array(_own(units, row, row["wav"]), np.int64)


def _mapped(path):
    """The units of a split."""
    if not os.path.isfile(path):
        raise ValueError(f"{path}: there is no such file, expected units")
    return _opened(str(path), os.stat(path).st_mtime_ns)


@lru_cache
def _opened(path, _modified):
    """An array of units, opened once in each process."""
    try:
        units = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(
            f"{path}: expected an array of units; it is damaged or something "
            "else"
        ) from error
    if units.ndim != 1 or units.dtype.kind not in "ui":
        raise ValueError(
            f"{path}: expected whole numbers in a row, got {units.dtype} of "
            f"shape {list(units.shape)}"
        )
    return units


def _own(units, record, where):
    """The units of a record."""
    try:
        start, stop = int(record["units_start"]), int(record["units_stop"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{where}: expected numbers in units_start and units_stop"
        ) from error
    if not 0 <= start < stop <= len(units):
        raise ValueError(
            f"{where}: expected a stretch of the {len(units)} units, got "
            f"units_start {start}, units_stop {stop}"
        )
    return units[start:stop]


def cut_units(units, start, num_samples, label_rate, sample_rate=16000):
    """Cuts units, [T], as a waveform is cut, as fairseq's data set does, [U].

    They are fewer than the cut's length asks for where the units end before
    the waveform.
    """
    first = round(start * label_rate / sample_rate)
    count = round(num_samples * label_rate / sample_rate)
    return units[first : first + count]


def read_spans(record: dict[str, Any]) -> list[tuple[str, float, float]] | None:
    """Reads the phones of a record and their times.

    Arguments
    ---------
    record : dict
        Utterance record.

    Returns
    -------
    list of tuple or None
        (phone, start in s, stop in s); None where the record has no column
        ``phone_spans``, or an empty one.

    Raises
    ------
    ValueError
        When the column says anything else; the message names the recording.

    Example
    -------
    >>> read_spans({"ID": "a", "phone_spans": '[["h", 0.0, 0.08]]'})
    [('h', 0.0, 0.08)]
    """
    text = record.get(SPANS)
    if not text:
        return None
    try:
        spans = [
            (str(phone), float(start), float(stop))
            for phone, start, stop in json.loads(text)
        ]
        right = all(0 <= start <= stop for _, start, stop in spans)
    except (ValueError, TypeError, RecursionError):
        right = False
    if not right:
        raise ValueError(
            f"{record['ID']}: expected a list of [phone, start, stop], in "
            f"seconds, in {SPANS}; got {text[:60]!r}"
        )
    return spans


def phone_frames(
    spans: Iterable[tuple[str, float, float]],
    num_frames: int,
    frame_rate: float,
    window_s: float,
    phones: Mapping[str, int],
) -> np.ndarray:
    """Finds the phone at the centre of each frame.

    Frame i sees ``window_s`` from ``i / frame_rate`` on.

    Arguments
    ---------
    spans : list of tuple
        (phone, start in s, stop in s).
    num_frames : int
        Number of frames T.
    frame_rate : float
        Frames a second.
    window_s : float
        What one frame sees, in seconds.
    phones : dict
        Phone -> index.

    Returns
    -------
    numpy.ndarray
        Index of the phone, ``NO_PHONE`` outside all, int64, [T].

    Example
    -------
    >>> spans = [("h", 0.0, 0.02), ("a", 0.02, 0.05)]
    >>> phone_frames(spans, 5, 100, 0.025, {"a": 0, "h": 1})
    array([ 1,  0,  0,  0, -1])
    """
    found = np.full(num_frames, NO_PHONE, dtype=np.int64)
    centres = np.arange(num_frames) / frame_rate + window_s / 2
    for phone, start, stop in spans:
        first, last = np.searchsorted(centres, [start, stop])
        found[first:last] = phones[phone]
    return found
