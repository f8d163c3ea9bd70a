"""Units in fairseq's files: X.tsv lists recordings, X.km has a line of units
for each, and dict.km.txt names all units (the authors' simple_kmeans).
"""

import os
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from unispeech_sb.dataio.audio import read_header

_PREFIXES = {"train": "train", "valid": "valid", "dev": "valid", "test": "test"}


def write_fairseq_units(folder, records, units, num_units):
    """Writes recordings and units for fairseq.

    Arguments
    ---------
    folder : str or path-like
        The folder; made if needed.
    records : list of dict
        Utterance records of whole files: fairseq knows no stretches.
    units : iterable of numpy.ndarray
        Units of each record, in the same order, int, [T]; taken one by one.
    num_units : int
        Number of units K.

    Raises
    ------
    ValueError
        When a record stands for a stretch of its file.

    Example
    -------
    >>> import soundfile
    >>> folder = getfixture("tmp_path")
    >>> soundfile.write(folder / "a.wav", np.sin(np.arange(800)), 16000)
    >>> record = {"wav": str(folder / "a.wav"), "split": "train"}
    >>> write_fairseq_units(folder, [record], [np.array([3, 0])], 4)
    >>> (folder / "train.tsv").read_text().split("\\n")[1:]
    ['a.wav\\t800', '']
    >>> (folder / "train.km").read_text()
    '3 0\\n'
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    root = os.path.commonpath([os.path.dirname(r["wav"]) for r in records])
    with TemporaryDirectory(dir=folder, prefix=".fairseq-") as drafts:
        with ExitStack() as stack:
            files = {}
            for record, own in zip(records, units, strict=True):
                _write(record, own, root, Path(drafts), files, stack)
        names = "".join(f"{unit} 1\n" for unit in range(num_units))
        Path(drafts, "dict.km.txt").write_text(names, encoding="utf-8")
        for draft in sorted(Path(drafts).iterdir()):
            os.replace(draft, folder / draft.name)


def _write(record, own, root, folder, files, stack):
    """Writes the lines of a recording; opens the files of a new split."""
    if record.get("start") is not None or record.get("stop") is not None:
        raise ValueError(
            f"{record['wav']}: expected a whole file, as fairseq's tables "
            "know no stretches; got one"
        )
    split = record["split"]
    if split not in files:
        files[split] = [
            stack.enter_context(
                open(folder / f"{split}.{kind}", "w", encoding="utf-8")
            )
            for kind in ("tsv", "km")
        ]
        files[split][0].write(f"{root}\n")
    tsv, km = files[split]
    num_samples, _ = read_header(record["wav"])
    tsv.write(f"{os.path.relpath(record['wav'], root)}\t{num_samples}\n")
    km.write(" ".join(map(str, np.asarray(own).tolist())) + "\n")


def read_fairseq_units(folder, wav_root=None, labels="km"):
    """Reads recordings and units that fairseq's tools have written.

    ``write_units`` turns them into a folder of units.

    Arguments
    ---------
    folder : str or path-like
        With ``train.tsv``, ``train.km`` and so on, and ``dict.km.txt``.
    wav_root : str or path-like, optional
        The folder that the tables' paths start at; the one that their first
        lines name when omitted.
    labels : str
        Suffix of the files of units, and middle of the dictionary's name.

    Returns
    -------
    records : list of dict
        ID, wav, duration and split.
    units : list of numpy.ndarray
        Units of each, as the lines say them, int64, [T].
    num_units : int
        Number of units in the dictionary.

    Raises
    ------
    ValueError
        When a file is missing, there is not one line for each recording, or a
        line has anything but units of the dictionary; the message names file
        and line.

    Example
    -------
    >>> import soundfile
    >>> folder = getfixture("tmp_path")
    >>> soundfile.write(folder / "a.wav", np.sin(np.arange(800)), 16000)
    >>> record = {"wav": str(folder / "a.wav"), "split": "train"}
    >>> write_fairseq_units(folder, [record], [np.array([3, 0])], 4)
    >>> read_fairseq_units(folder)[1:]
    ([array([3, 0])], 4)
    """
    folder = Path(folder)
    known = _read_dictionary(folder / f"dict.{labels}.txt")
    records, units = [], []
    for split in _PREFIXES:
        table, path = folder / f"{split}.tsv", folder / f"{split}.{labels}"
        if not table.is_file():
            continue
        root, *rows = _lines(table)
        lines = _lines(path)
        if len(lines) != len(rows):
            raise ValueError(
                f"{path}: expected a line for each of the {len(rows)} "
                f"recordings of {table.name}, got {len(lines)}"
            )
        for number, (row, line) in enumerate(zip(rows, lines), start=1):
            where = f"{table}, line {number + 1}"
            records.append(_record(row, wav_root or root, split, where))
            units.append(_units(line, known, f"{path}, line {number}"))
    if not records:
        raise ValueError(f"{folder}: expected train.tsv with recordings")
    return records, units, len(known)


def _lines(path):
    """The lines of a text file that has to be there."""
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file")
    return path.read_text(encoding="utf-8").splitlines()


def _read_dictionary(path):
    """The units of a dictionary: those of names 0, 1, ..."""
    names = [line.split(" ")[0] for line in _lines(path)]
    if sorted(names) != sorted(str(unit) for unit in range(len(names))):
        raise ValueError(
            f"{path}: expected a line for each of the units 0, 1, ..., got "
            f"{' '.join(names)[:60]!r}"
        )
    return set(names)


def _record(row, root, split, where):
    """The record of a line of a table."""
    name = row.split("\t")[0]
    wav = os.path.abspath(os.path.join(root, name))
    if not os.path.isfile(wav):
        raise ValueError(f"{where}: no such file: {wav}")
    num_samples, rate = read_header(wav)
    return {
        "ID": os.path.splitext(name)[0].replace("/", "_"),
        "wav": wav,
        "duration": num_samples / rate,
        "split": _PREFIXES[split],
    }


def _units(line, known, where):
    """The units of a line."""
    names = line.split()
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise ValueError(
            f"{where}: expected units from 0 to {len(known) - 1}, got "
            f"{(unknown or [line])[0]!r:.60}"
        )
    return np.array(names, dtype=np.int64)
