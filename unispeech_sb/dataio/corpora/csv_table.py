"""Tables of recordings: one row per utterance, columns found by their usual
names. Whatever form a list has, its rows become records here.
"""

import csv
import functools
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from unispeech_sb.dataio.audio import read_header
from unispeech_sb.dataio.manifest import SPLITS, read_rows, stretch
from unispeech_sb.text import MOST_S, lines_of, read_number, separator_of

__all__ = ["csv_table"]

COLUMNS = {
    "ID": (("id",),),
    "wav": (
        ("path", "wav", "file"),
        ("audio", "audio_filepath", "audio_path", "file_name", "filename"),
    ),
    "split": (("split",),),
    "duration": (("duration",),),
    "start": (("start",),),
    "stop": (("stop",),),
    "spk_id": (
        ("speaker", "spk_id"),
        ("speaker_id", "spk", "client_id", "speakerid"),
    ),
}
"""Key of a record -> names under which a table may hold it, compared in lower
case; later ones count where none of the earlier ones is there."""

ALIASES = {
    "wrd": (("text", "transcript", "transcription", "words", "sentence"),),
    "label": (("command", "keyword", "emotion", "emo", "class", "intent"),),
}
"""The same of what a yaml names, where it names the default."""

SPLIT_NAMES = {
    **{split: split for split in SPLITS},
    **dict.fromkeys(("validation", "val", "dev"), "valid"),
}
_ROOT = re.compile(r"(\$\{?\w+\}?|\{\w+\})/")
"""What SpeechBrain replaces in paths: $data_root, {data_root} in JSON."""


class Row(NamedTuple):
    """A row of a list: what messages call its place, column -> text, the folder
    in which its paths begin, and its split where a file or folder is one."""

    where: str
    fields: dict[str, str]
    home: Path
    split: str = ""
    in_samples: bool = False
    """Whether start and stop are samples, not seconds."""


class Wanted(NamedTuple):
    """What of a row becomes a record."""

    needed: tuple[str, ...] = ("wav",)
    """Keys whose column has to be there, and not be empty."""
    label: str | None = None
    """The column that becomes ``label``; "label" has ``ALIASES``."""
    text: bool = False
    """Whether one of the ``ALIASES`` of ``wrd`` becomes it."""
    speaker: bool = False
    """Whether ``label`` names the speaker where no other column does."""
    wav_root: str | Path | None = None
    """Where relative paths begin; the list's folder or one of its parents."""
    split_names: Mapping[str, str] | None = SPLIT_NAMES
    """Name of a split -> ours; None: no split is looked for."""
    faults: list[str] | None = None
    """Takes what is wrong with rows, which are left out then."""


def csv_table(
    path: str | Path,
    label_column: str | None = "label",
    split_names: Mapping[str, str] | None = None,
    needed: Sequence[str] = ("wav", "split"),
) -> Iterator[dict[str, Any]]:
    """Reads the records of a CSV.

    Columns: ``path`` (or ``wav``, ``file``) and ``split`` are needed; ``id``,
    ``duration``, ``speaker`` (or ``spk_id``), ``start`` and ``stop`` are
    known, others are kept as they are. Relative paths start at the CSV's
    folder or at one of its parents. ``start`` and ``stop`` are in seconds and
    become samples at the file's own rate, as manifests want them. Without
    ``id`` the path names the utterance. Columns are separated by commas,
    semicolons or tabs, whichever the first line has most of.

    Arguments
    ---------
    path : str or path-like
        The CSV, or a folder that holds ``manifest.csv``.
    label_column : str or None
        The column that becomes ``label``; None for tables without labels.
    split_names : dict, optional
        Further split names of this table -> "train", "valid" or "test".
        These three, "validation", "val" and "dev" are known.
    needed : tuple of str
        Keys of a record that must not be empty. Without ``split`` that column
        is not looked at.

    Yields
    ------
    dict
        One record per row, in order; without ``duration`` where the table
        has none.

    Raises
    ------
    ValueError
        When a column is missing or double, or a row has an unknown split, no
        label, no such file or an impossible number; the message names file
        and line.

    Example
    -------
    >>> import numpy as np, soundfile
    >>> folder = getfixture("tmpdir")
    >>> soundfile.write(folder / "a.wav", np.sin(np.arange(800)), 8000)
    >>> _ = (folder / "manifest.csv").write(
    ...     "id,path,split,label\\na,a.wav,train,yes\\n"
    ... )
    >>> [record["label"] for record in csv_table(folder)]
    ['yes']
    """
    names = {**SPLIT_NAMES, **(split_names or {})}
    labelled = ["label"] * (label_column is not None)
    wanted = Wanted(
        (*needed, *labelled),
        label_column,
        split_names=names if "split" in needed else None,
    )
    return records_of(csv_rows(find_table(path), wanted), wanted)


def csv_rows(
    path: str | Path, wanted: Wanted, split: str = "", in_samples: bool = False
) -> Iterator[Row]:
    """Yields the rows of a CSV, whose columns have to be those wanted."""
    home = Path(path).absolute().parent

    def check(names):
        _find_columns(tuple(names), wanted)

    form = {"delimiter": separator_of(path)}
    for where, fields in read_rows(path, check, **form):
        yield Row(where, fields, home, split, in_samples)


def header_of(path: str | Path) -> list[str]:
    """The names of a CSV's columns."""
    for _, line in lines_of(path):
        return next(csv.reader([line], delimiter=separator_of(path)), [])
    return []


def records_of(rows: Iterable[Row], wanted: Wanted) -> Iterator[dict[str, Any]]:
    """Turns the rows of a list into records, in order."""
    for row in rows:
        try:
            yield _record(row, wanted)
        except ValueError as error:
            fault = f"{row.where}: {error}"
            if wanted.faults is None:
                raise ValueError(fault) from error
            wanted.faults.append(fault)


def single_speakers(path):
    """Reads a CSV of recordings of single speakers, without their splits."""
    kept = ("ID", "wav", "spk_id", "start", "stop")
    for record in csv_table(path, None, needed=("wav", "spk_id")):
        record["spk_id"] = record["spk_id"].strip()
        yield {key: record[key] for key in kept if key in record}


def find_table(path):
    """The CSV that a path means: the file, or ``manifest.csv`` in a folder."""
    path = os.fspath(path)
    if os.path.isdir(path):
        path = os.path.join(path, "manifest.csv")
    if not os.path.isfile(path):
        raise ValueError(f"{path}: there is no such table")
    return path


def find_file(name, folder):
    """The path of a file, from a list's folder on, else from a parent of it."""
    folder = Path(folder).absolute()
    for place in (folder, *folder.parents):
        if name and os.path.isfile(place / name):
            return Path(os.path.normpath(place / name))
    raise ValueError(
        f"no such file, from {folder} or a folder above it: {name!r}"
    )


def _find_wav(name, home, root):
    """The path of a recording, as a list names it."""
    inner = _ROOT.sub("", name, count=1) if _ROOT.match(name) else name
    if "\\" in inner and not os.path.exists(inner):  # of Windows
        inner = inner.replace("\\", "/")
    if root is None or os.path.isabs(inner):
        return find_file(inner, home)
    path = os.path.abspath(os.path.join(root, inner))
    if not os.path.isfile(path):
        raise ValueError(f"no such file: {path}")
    return path


_NAMED_BY = {"label": "label_column", "wrd": "text_column"}
"""Key of a record -> the key of a yaml that names its column."""


@functools.lru_cache(maxsize=256)
def _columns_of(names, wanted_label, text, speaker, needed):
    """Key -> column, of the columns of a table."""
    known, columns = dict(COLUMNS), {}
    if speaker:
        known["spk_id"] += (("label",),)
    if wanted_label in names:
        columns["label"] = wanted_label
    elif wanted_label == "label":
        known["label"] = ALIASES["label"]
    if text and "wrd" not in names:
        known["wrd"] = ALIASES["wrd"]
    for key, groups in known.items():
        for group in groups:
            found = [name for name in names if name.lower() in group]
            if len(found) > 1 and (key in COLUMNS or key in needed):
                raise ValueError(
                    f"expected one column for {key}, got {' and '.join(found)}"
                )
            if len(found) == 1:
                columns[key] = found[0]
                break
    return columns


def _find_columns(names, wanted):
    """Key -> column; raises where one that is needed is missing."""
    _, label, text, speaker, *_ = wanted
    columns = _columns_of(names, label, text, speaker, wanted.needed)
    for key in wanted.needed:
        if key not in columns:
            what = f"{label} with the label"
            if key != "label":
                what = " or ".join(COLUMNS[key][0])
            option = _NAMED_BY.get(key)
            hint = f"; --{option}=NAME takes another" if option else ""
            raise ValueError(
                f"expected a column {what}, got {', '.join(names) or 'none'}"
                + hint
            )
    return columns


def _usual(key):
    """Columns that are kept beside what is made of them."""
    return {name for group in ALIASES.get(key, ()) for name in group}


def _record(row, wanted):
    """Turns one row into a record."""
    fields = row.fields
    if None in fields or None in fields.values():
        raise ValueError(f"expected one value per column, got {list(fields)}")
    columns = _find_columns(tuple(fields), wanted)
    known = {key: fields[name] for key, name in columns.items()}
    record: dict[str, Any] = {**fields, **known}
    renamed = {n for k, n in columns.items() if n.lower() not in _usual(k)}
    for name in renamed - set(known):
        del record[name]
    for key in ("label", "spk_id"):
        if key in wanted.needed and not record[key].strip():
            raise ValueError(f"the column {columns[key]!r} is empty")
    name = record["wav"]
    record["wav"] = str(_find_wav(name, row.home, wanted.wav_root))
    record |= _times(record, row.in_samples)
    if not record.get("ID"):
        record["ID"] = _name_utterance(name, record)
    if wanted.split_names is not None:
        record["split"] = row.split
        if "split" in columns:
            record["split"] = _split_of(known["split"], wanted.split_names)
    return record


def _split_of(name, split_names):
    """The split of a name in a table."""
    if name not in split_names:
        raise ValueError(
            f"expected a split of {', '.join(split_names)}, got {name!r}"
        )
    return split_names[name]


def _times(record, in_samples):
    """Takes the times out of a record; what it is to say of them."""
    duration, start, stop = (
        record.pop(key, "") for key in ("duration", "start", "stop")
    )
    duration = _seconds("duration", duration)
    if start == stop == "":
        return {} if duration is None else {"duration": duration}
    rate = read_header(record["wav"])[1] if in_samples else None
    times = _seconds("start", start, rate), _seconds("stop", stop, rate)
    return stretch(record["wav"], *times)


def _seconds(key, text, rate=None):
    """Reads a time, in samples where there is a rate, from 0 on; or empty."""
    if text == "":
        return None
    if rate is None:
        return read_number(text, what=f"seconds in {key!r}")
    most = MOST_S * rate
    number = read_number(text, "", f"samples in {key!r}", most=most)
    if number % 1:
        raise ValueError(
            f"expected a number of samples in {key!r}, as in SpeechBrain's "
            f"CSVs; got {text!r:.60}"
        )
    return number / rate


def _name_utterance(name, record):
    """Makes an ID of a path as the table gives it, and of the stretch."""
    stem = os.path.splitext(name)[0].strip("/").replace("/", "_")
    if "start" in record:
        return f"{stem}_{record['start']}_{record['stop']}"
    return stem
