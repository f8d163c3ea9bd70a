"""The one manifest format: utterance records, written as SpeechBrain CSVs.

A record is a plain dict with ``ID``, ``wav`` (absolute path), ``duration`` (in
seconds), ``split`` ("train", "valid" or "test") and, where they apply,
``start`` and ``stop`` (in samples at the file's own rate; without them the
whole file is meant), ``spk_id``, ``label`` and further str columns.
"""

import csv
import math
import os
import re
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from speechbrain.utils.logger import get_logger
from tqdm import tqdm

from unispeech_sb.atomic import atomic
from unispeech_sb.dataio.audio import AudioError, check_audio, read_header
from unispeech_sb.text import lines_of, named, read_number

__all__ = [
    "check_records",
    "filter_by_duration",
    "prepare_manifests",
    "read_manifest",
    "read_splits",
    "usable_records",
    "write_manifests",
]

logger = get_logger(__name__)

SPLITS = ("train", "valid", "test")
SILENCE = "_silence_"

_FIRST_COLUMNS = ("ID", "duration", "wav", "start", "stop")
_NUM_NAMED = 10  # bad files that an error names before it only counts
_OFF_S, _OFF_SHARE = 0.1, 0.01  # by which a stated duration may be wrong
_ROUNDING_S = 0.001  # by which a stop may lie behind the last sample
_MOST_DIGITS = 15  # of the number of a sample


def write_manifests(
    records: Iterable[dict[str, Any]],
    folder: str | Path,
    required_splits: Sequence[str] = ("train", "valid"),
) -> dict[str, str]:
    """Writes one SpeechBrain CSV per split, all of them or none.

    A recording that is in two splits is logged, but for silence and for
    stretches that have nothing in common.

    Arguments
    ---------
    records : iterable of dict
        Utterance records of all splits.
    folder : str or path-like
        Where ``train.csv``, ``valid.csv`` and ``test.csv`` go; made if needed.
        One that is there of a split without records is removed.
    required_splits : tuple of str
        Splits that must not be empty. An empty split that is not required
        gets no file.

    Returns
    -------
    dict
        Split name -> path of its CSV.

    Raises
    ------
    ValueError
        When a record lacks a key, names an unknown split, has a relative
        path, repeats an ID or holds a ``$`` reference (SpeechBrain would
        replace it), or when a required split has no record.

    Example
    -------
    >>> record = {"ID": "a", "wav": "/a.wav", "duration": 1.0, "split": "train"}
    >>> folder = getfixture("tmpdir")
    >>> paths = write_manifests([record], folder, required_splits=["train"])
    >>> read_manifest(paths["train"])[0]["duration"]
    1.0
    """
    by_split: dict[str, list[dict[str, Any]]] = {s: [] for s in SPLITS}
    seen: set[str] = set()
    for record in records:
        _check_record(record, seen)
        by_split[record["split"]].append(record)
    _warn_of_shared(by_split)
    for split in required_splits:
        if not by_split[split]:
            wavs = [r["wav"] for found in by_split.values() for r in found]
            where = f"{os.path.commonpath(wavs)}: " if wavs else ""
            raise ValueError(
                f"{where}expected records of the split {split!r}, got none"
            )
    os.makedirs(folder, exist_ok=True)
    paths = {s: os.path.join(folder, f"{s}.csv") for s in SPLITS if by_split[s]}
    with ExitStack() as files:
        for split, path in paths.items():
            _write_rows(files.enter_context(atomic(path)), by_split[split])
    for split in SPLITS:  # of an earlier corpus
        if split not in paths:
            Path(folder, f"{split}.csv").unlink(missing_ok=True)
    return paths


def _warn_of_shared(by_split):
    """Logs which recordings are in two splits, as a link or in part, too."""
    seen, shared = {}, {}
    rows = [row for rows in by_split.values() for row in rows]
    for record in rows:
        if record.get("label") == SILENCE:
            continue
        start, stop = record.get("start"), record.get("stop")
        span = start or 0, math.inf if stop is None else stop
        split, file = record["split"], _file_id(record["wav"])
        earlier = seen.setdefault(file, [])
        others = [
            other
            for other, (first, last) in earlier
            if other != split and span[0] < last and first < span[1]
        ]
        if others:
            both = f"{record['wav']} ({others[0]}, {split})"
            shared.setdefault(file, both)
        if (split, span) not in earlier:
            earlier.append((split, span))
    if shared:
        logger.warning(
            f"{len(shared)} recordings are in two splits: "
            f"{named(shared.values())}"
        )


def _file_id(path):
    """What all names of a file have in common: links lead to one file."""
    try:
        status = os.stat(path)
    except OSError:  # a record of a file that is not there yet
        return path
    return status.st_dev, status.st_ino


def _check_record(record, seen):
    """Raises on a record that cannot be written; note its ID in ``seen``."""
    name = record.get("ID", record)
    for key in ("ID", "wav", "duration", "split"):
        if record.get(key) in (None, ""):
            raise ValueError(f"the record {name} lacks {key!r}")
    if record["split"] not in SPLITS:
        raise ValueError(
            f"the record {name}: expected a split of {', '.join(SPLITS)}, "
            f"got {record['split']!r}"
        )
    if not os.path.isabs(record["wav"]):
        raise ValueError(
            f"the record {name}: expected an absolute path, "
            f"got {record['wav']!r}"
        )
    if name in seen:
        raise ValueError(f"the ID {name} occurs twice")
    seen.add(name)
    for key, value in record.items():
        if isinstance(value, str) and re.search(r"\$[\w.]", value):
            raise ValueError(
                f"the record {name}: {key!r} is {value!r}, but SpeechBrain "
                "replaces what follows a $ in a manifest"
            )


def _write_rows(file, records):
    """Writes records to a CSV: the columns of SpeechBrain first."""
    used = {key: None for record in records for key in record}
    columns = list(dict.fromkeys([*_FIRST_COLUMNS, *used]))
    # SpeechBrain drops blanks before a value, unless it is quoted.
    writer = csv.DictWriter(
        file, columns, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(records)


def read_manifest(path: str | Path) -> list[dict[str, Any]]:
    """Reads a CSV that ``write_manifests``, or a SpeechBrain recipe, wrote.

    Arguments
    ---------
    path : str or path-like
        The CSV, with at least the columns ``ID``, ``wav`` and ``duration``.

    Returns
    -------
    list of dict
        The records; ``duration`` is a float, ``start`` and ``stop`` are ints
        or None.

    Raises
    ------
    ValueError
        When a column is missing, a number is none, or an ID occurs twice; the
        message names file and line.

    Example
    -------
    >>> path = getfixture("tmpdir") / "train.csv"
    >>> _ = path.write("ID,wav,duration,start,stop\\na,/a.wav,1.5,,\\n")
    >>> read_manifest(path)[0]["start"] is None
    True
    """
    records, seen = [], set()
    for where, row in read_rows(path, has_columns("ID", "wav", "duration")):
        if row["ID"] in seen:
            raise ValueError(f"{where}: the ID {row['ID']} occurs twice")
        seen.add(row["ID"])
        records.append(_read_numbers(row, where))
    return records


def read_splits(folder: str | Path) -> list[dict[str, Any]]:
    """Reads the manifests of a folder.

    Arguments
    ---------
    folder : str or path-like
        With ``train.csv``, and ``valid.csv`` and ``test.csv`` where there are.

    Returns
    -------
    list of dict
        The records of all splits, as of ``read_manifest``, with ``split``.

    Raises
    ------
    ValueError
        When there is no ``train.csv``.

    Example
    -------
    >>> read_splits("nowhere")
    Traceback (most recent call last):
    ...
    ValueError: nowhere: expected train.csv in it, got none
    """
    paths = {split: Path(folder, f"{split}.csv") for split in SPLITS}
    paths = {split: path for split, path in paths.items() if path.is_file()}
    if "train" not in paths:
        raise ValueError(f"{folder}: expected train.csv in it, got none")
    return [
        {**record, "split": split}
        for split, path in paths.items()
        for record in read_manifest(path)
    ]


def read_rows(path, check_header, **form):
    """Yields file with line, and row as a dict, of each row of a CSV.

    ``check_header`` gets the names of the columns and raises ValueError on
    those that will not do; ``form`` are options of ``csv.DictReader``.
    """
    form = {"skipinitialspace": True, "strict": True, **form}
    lines = (f"{line}\n" for _, line in lines_of(path))
    rows = csv.DictReader(lines, **form)
    try:
        names = list(rows.fieldnames or [])
        again = sorted(n for n in set(names) if n and names.count(n) > 1)
        if again:
            raise ValueError(f"expected each column once, got {again[0]!r}")
        check_header(names)
        for row in rows:
            if None in row:
                raise ValueError(
                    f"expected {len(names)} values, got "
                    f"{len(names) + len(row[None])}"
                )
            yield f"{path}, line {rows.line_num}", row
    except (csv.Error, ValueError) as error:
        if str(error).startswith(f"{path}, line "):
            raise
        number = rows.reader.line_num
        raise ValueError(f"{path}, line {number}: {error}") from error


def stretch(
    wav: str | Path, start_s: float | None, stop_s: float | None
) -> dict[str, Any]:
    """What a record says of a stretch in seconds, which has to be in its file.

    None means the beginning or the end. A stop may lie behind the last sample
    by rounding, a millisecond.
    """
    num_samples, rate = read_header(wav)
    start = round((start_s or 0.0) * rate)
    stop = num_samples if stop_s is None else round(stop_s * rate)
    if num_samples < stop <= num_samples + _ROUNDING_S * rate:
        stop = num_samples
    if not start < stop <= num_samples:
        raise ValueError(
            "expected start and stop, in seconds, within the "
            f"{num_samples / rate:g} s of {wav}, "
            f"got {start / rate:g} and {stop / rate:g}"
        )
    return {"duration": (stop - start) / rate, "start": start, "stop": stop}


def has_columns(*needed):
    """Makes a ``check_header`` that asks for columns."""

    def check(names):
        missing = [name for name in needed if name not in names]
        if missing:
            raise ValueError(
                f"expected a column {missing[0]!r}, got "
                f"{', '.join(names) or 'none'}"
            )

    return check


def _read_numbers(row, where):
    """Turns the numbers of a row from str into what a record holds."""
    seconds = read_number(row["duration"] or "", where, "seconds in 'duration'")
    numbers = {"duration": seconds}
    for key in ("start", "stop"):
        text = row.get(key) or ""
        if text and not (text.isdecimal() and len(text) <= _MOST_DIGITS):
            raise ValueError(
                f"{where}: expected the number of a sample in {key!r}, got "
                f"{text!r:.60}"
            )
        numbers[key] = int(text) if text else None
    return {**row, **numbers}


def filter_by_duration(
    records: Iterable[dict[str, Any]],
    min_s: float = 0.0,
    max_s: float = float("inf"),
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Parts records by duration, limits included.

    Arguments
    ---------
    records : iterable of dict
        Records with ``duration``.
    min_s : float
        Least duration kept, in seconds.
    max_s : float
        Greatest duration kept, in seconds.

    Returns
    -------
    kept : list of dict
        Records within the limits.
    dropped : list of dict
        The other ones, for the caller to report.

    Example
    -------
    >>> records = [{"ID": "a", "duration": 1.0}, {"ID": "b", "duration": 9.0}]
    >>> kept, dropped = filter_by_duration(records, max_s=8.0)
    >>> [record["ID"] for record in dropped]
    ['b']
    """
    kept: list[dict[str, Any]] = []
    dropped: list[dict[str, Any]] = []
    for record in records:
        inside = min_s <= record["duration"] <= max_s
        (kept if inside else dropped).append(record)
    return kept, dropped


def check_records(
    records: Iterable[dict[str, Any]], skip_bad_files: bool = False
) -> list[dict[str, Any]]:
    """Decodes every recording once, and fills in durations that are missing.

    A recording labelled ``_silence_`` may be silent; others may not. A stated
    duration that is off by more than 0.1 s and 1 % is logged, and replaced.

    Arguments
    ---------
    records : iterable of dict
        Utterance records; ``duration`` may be missing.
    skip_bad_files : bool
        Leave bad recordings out, each with a warning that names it, instead
        of raising.

    Returns
    -------
    list of dict
        The good records, each with a ``duration``.

    Raises
    ------
    ValueError
        When recordings are bad and may not be skipped, or all of them are
        bad; the message names the first ten with the reason of each.

    Example
    -------
    >>> import numpy as np, soundfile
    >>> path = str(getfixture("tmpdir") / "tone.wav")
    >>> soundfile.write(path, np.sin(np.arange(8000)), 8000)
    >>> check_records([{"ID": "tone", "wav": path}])[0]["duration"]
    1.0
    """
    good, reasons, wrong = [], [], []
    for record in tqdm(
        list(records), desc="Checking audio", unit="file", disable=None
    ):
        try:
            measured = _measured(record)
        except AudioError as error:
            reasons.append(str(error))
            continue
        stated = record.get("duration")
        if stated is None:
            stated = measured
        elif abs(stated - measured) > max(_OFF_S, _OFF_SHARE * measured):
            wrong.append(f"{record['wav']} ({stated:g} for {measured:g})")
            stated = measured
        good.append({**record, "duration": stated})
    if reasons and not (skip_bad_files and good):
        raise ValueError(describe_bad(reasons, len(good) + len(reasons)))
    for reason in reasons:
        logger.warning("Left out %s.", reason)
    if wrong:
        logger.warning(
            f"{len(wrong)} of {len(good)} recordings do not last as many "
            f"seconds as stated: {named(wrong)}"
        )
    return good


def _measured(record):
    """Checks a record's audio; the seconds that it lasts. What is in a shard
    was checked when that was made."""
    if "shard_number" in record:
        return record["duration"]
    return check_audio(
        record["wav"],
        record.get("start"),
        record.get("stop"),
        allow_silence=record.get("label") == SILENCE,
    )


def describe_bad(reasons, num_records):
    """Says in one message which of the recordings cannot be used."""
    named = "; ".join(reasons[:_NUM_NAMED])
    rest = len(reasons) - _NUM_NAMED
    more = f"; and {rest} more" if rest > 0 else ""
    return (
        f"{len(reasons)} of {num_records} recordings cannot be used: "
        f"{named}{more}"
    )


def usable_records(
    records: Iterable[dict[str, Any]],
    max_s: float,
    skip_bad_files: bool = False,
) -> list[dict[str, Any]]:
    """Checks recordings and leaves out the long ones, saying how many.

    Arguments
    ---------
    records : iterable of dict
        Utterance records.
    max_s : float
        Longest duration to keep, in seconds.
    skip_bad_files : bool
        As for ``check_records``.

    Returns
    -------
    list of dict
        The records to use.

    Example
    -------
    >>> usable_records([], max_s=10.0)
    []
    """
    records = check_records(records, skip_bad_files)
    kept, dropped = filter_by_duration(records, max_s=max_s)
    if dropped:
        hours = sum(record["duration"] for record in dropped) / 3600
        logger.info(
            f"Left out {len(dropped)} files ({hours:.2f} h) over {max_s} s"
        )
    return kept


def prepare_manifests(
    records: Iterable[dict[str, Any]], hparams: dict[str, Any]
) -> None:
    """Checks recordings and writes the manifests of those to use.

    Arguments
    ---------
    records : iterable of dict
        Utterance records.
    hparams : dict
        The recipe's yaml: ``max_duration_s``, ``skip_bad_files`` and
        ``manifest_folder``.

    Raises
    ------
    ValueError
        As ``check_records`` and ``write_manifests``.

    Example
    -------
    >>> hparams = {"max_duration_s": 9.0, "skip_bad_files": False}
    >>> prepare_manifests([], {**hparams, "manifest_folder": "manifests"})
    Traceback (most recent call last):
    ...
    ValueError: expected records of the split 'train', got none
    """
    kept = usable_records(
        records, hparams["max_duration_s"], hparams["skip_bad_files"]
    )
    write_manifests(kept, hparams["manifest_folder"])
