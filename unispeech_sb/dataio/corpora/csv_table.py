"""Any corpus that comes with a CSV: one row per utterance, columns found by
their usual names.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from unispeech_sb.dataio.manifest import SPLITS, read_rows, stretch
from unispeech_sb.text import read_number

__all__ = ["csv_table"]

# Names under which a table may hold a column, compared in lower case.
_COLUMNS = {
    "ID": ("id",),
    "wav": ("path", "wav", "file"),
    "split": ("split",),
    "duration": ("duration",),
    "start": ("start",),
    "stop": ("stop",),
    "spk_id": ("speaker", "spk_id"),
}
_SPLIT_NAMES = {
    **{split: split for split in SPLITS},
    **dict.fromkeys(("validation", "val", "dev"), "valid"),
}


def is_csv(path):
    """Whether a path is a file, or a folder with ``manifest.csv``."""
    return Path(path).is_file() or Path(path, "manifest.csv").is_file()


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
    ``id`` the path names the utterance.

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
    path, columns = find_table(path), {}
    split_names = {**_SPLIT_NAMES, **(split_names or {})}

    def find_columns(names):
        columns.update(_find_columns(names, label_column, needed))

    for where, row in read_rows(path, find_columns):
        try:
            record = _record(row, columns, needed, path)
            if "split" in needed:
                record["split"] = _split_of(record["split"], split_names)
            yield record
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error


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


def _find_columns(names, label_column, needed):
    """Matches a table's column names to the keys of a record."""
    columns = {}
    for key, known in _COLUMNS.items():
        found = [name for name in names if name.lower() in known]
        if len(found) > 1:
            raise ValueError(
                f"expected one column for {key}, got {' and '.join(found)}"
            )
        if found:
            columns[key] = found[0]
    for key in needed:
        if key not in columns:
            raise ValueError(
                f"expected a column {' or '.join(_COLUMNS[key])}, "
                f"got {', '.join(names) or 'none'}"
            )
    if label_column is not None:
        if label_column not in names:
            raise ValueError(
                f"expected a column {label_column} with the label, "
                f"got {', '.join(names)}"
            )
        columns["label"] = label_column
    return columns


def _record(row, columns, needed, path):
    """Turns one row into a record."""
    if None in row or None in row.values():
        raise ValueError(f"expected one value per column, got {list(row)}")
    known = {key: row[name] for key, name in columns.items()}
    record = {**row, **known}
    for name in set(columns.values()) - set(known):
        del record[name]
    for key in ("label", "spk_id"):
        asked = key in needed or key == "label" and key in columns
        if asked and not record[key].strip():
            raise ValueError(f"the column {columns[key]!r} is empty")
    name = record["wav"]
    record["wav"] = str(find_file(name, os.path.dirname(path)))
    times = [
        _seconds(key, record.pop(key, ""))
        for key in ("duration", "start", "stop")
    ]
    record |= _stretch(record["wav"], *times)
    if not record.get("ID"):
        record["ID"] = _name_utterance(name, record)
    return record


def _split_of(name, split_names):
    """The split of a name in a table."""
    if name not in split_names:
        raise ValueError(
            f"expected a split of {', '.join(split_names)}, got {name!r}"
        )
    return split_names[name]


def _seconds(key, text):
    """Reads a time, which has to be a number from 0 on, or empty."""
    return None if text == "" else read_number(text, what=f"seconds in {key!r}")


def _stretch(wav, duration, start, stop):
    """Turns the times of a row, in seconds, into those of a record."""
    if start is None and stop is None:
        return {} if duration is None else {"duration": duration}
    return stretch(wav, start, stop)


def _name_utterance(name, record):
    """Makes an ID of a path as the table gives it, and of the stretch."""
    stem = os.path.splitext(name)[0].strip("/").replace("/", "_")
    if "start" in record:
        return f"{stem}_{record['start']}_{record['stop']}"
    return stem
