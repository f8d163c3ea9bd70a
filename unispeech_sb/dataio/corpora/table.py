"""Any corpus that comes with a CSV: one row per utterance, columns found by
their usual names.
"""

import csv
import math
import os

from unispeech_sb.dataio.audio import read_header
from unispeech_sb.dataio.manifest import SPLITS

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
# Rounded to milliseconds, a stop may lie this far behind the last sample.
_ROUNDING_S = 0.001


def table(path, label_column="label", split_names=None):
    """Read the records of a CSV.

    Columns: ``path`` (or ``wav``, ``file``) and ``split`` are needed; ``id``,
    ``duration``, ``speaker`` (or ``spk_id``), ``start`` and ``stop`` are
    known, others are kept as they are. Relative paths start at the CSV's
    folder or, where there is no such file, at its parent. ``start`` and
    ``stop`` are in seconds and become samples at the file's own rate, as
    manifests want them. Without ``id`` the path names the utterance.

    Arguments
    ---------
    path : str or path-like
        The CSV, or a folder that holds ``manifest.csv``.
    label_column : str or None
        The column that becomes ``label``; None for tables without labels.
    split_names : dict, optional
        Further split names of this table -> "train", "valid" or "test".
        These three, "validation", "val" and "dev" are known.

    Yields
    ------
    dict
        One record per row, in order; without ``duration`` where the table
        does not tell it.

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
    >>> [record["label"] for record in table(folder)]
    ['yes']
    """
    if os.path.isdir(path):
        path = os.path.join(path, "manifest.csv")
    if not os.path.isfile(path):
        raise ValueError(f"{path}: there is no such table")
    split_names = {**_SPLIT_NAMES, **(split_names or {})}
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file, skipinitialspace=True, strict=True)
        try:
            columns = _find_columns(rows.fieldnames or [], label_column)
            for row in rows:
                yield _record(row, columns, path, split_names)
        except (ValueError, csv.Error) as error:
            raise ValueError(
                f"{path}, line {rows.line_num}: {error}"
            ) from error


def _find_columns(names, label_column):
    """Match a table's column names to the keys of a record."""
    columns = {}
    for key, known in _COLUMNS.items():
        found = [name for name in names if name.lower() in known]
        if len(found) > 1:
            raise ValueError(
                f"expected one column for {key}, got {' and '.join(found)}"
            )
        if found:
            columns[key] = found[0]
    for key in ("wav", "split"):
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


def _record(row, columns, path, split_names):
    """Turn one row into a record."""
    if None in row or None in row.values():
        raise ValueError(f"expected one value per column, got {list(row)}")
    known = {key: row[name] for key, name in columns.items()}
    record = {**row, **known}
    for name in set(columns.values()) - set(known):
        del record[name]
    if record["split"] not in split_names:
        raise ValueError(
            f"expected a split of {', '.join(split_names)}, "
            f"got {record['split']!r}"
        )
    if "label" in columns and record["label"] == "":
        raise ValueError(f"the column {columns['label']!r} is empty")
    record["split"] = split_names[record["split"]]
    name = record["wav"]
    record["wav"] = _find_file(name, os.path.dirname(os.path.abspath(path)))
    times = [
        _seconds(key, record.pop(key, ""))
        for key in ("duration", "start", "stop")
    ]
    record |= _stretch(record["wav"], *times)
    if not record.get("ID"):
        record["ID"] = _name_utterance(name, record)
    return record


def _find_file(name, folder):
    """Find a file from the table's folder, else from its parent."""
    tried = [os.path.join(folder, name)]
    tried.append(os.path.join(os.path.dirname(folder), name))
    for path in tried:
        if os.path.isfile(path):
            return os.path.normpath(path)
    raise ValueError(f"no such file: {' or '.join(dict.fromkeys(tried))}")


def _seconds(key, text):
    """Read a time, which has to be a number from 0 on, or empty."""
    if text == "":
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise ValueError(f"expected seconds in {key!r}, got {text!r}")
    return value


def _stretch(wav, duration, start, stop):
    """Turn the times of a row, in seconds, into those of a record."""
    if start is None and stop is None:
        return {} if duration is None else {"duration": duration}
    num_samples, rate = read_header(wav)
    start = round((start or 0.0) * rate)
    stop = num_samples if stop is None else round(stop * rate)
    if num_samples < stop <= num_samples + _ROUNDING_S * rate:
        stop = num_samples
    if not start < stop <= num_samples:
        raise ValueError(
            f"expected start and stop, in seconds, within the "
            f"{num_samples / rate:g} s of {wav}, "
            f"got {start / rate:g} and {stop / rate:g}"
        )
    return {"duration": (stop - start) / rate, "start": start, "stop": stop}


def _name_utterance(name, record):
    """Make an ID of a path as the table gives it, and of the stretch."""
    stem = os.path.splitext(name)[0].strip("/").replace("/", "_")
    if "start" in record:
        return f"{stem}_{record['start']}_{record['stop']}"
    return stem
