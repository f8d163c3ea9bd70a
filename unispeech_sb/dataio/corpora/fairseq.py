"""fairseq's tables of recordings with labels. X.tsv lists recordings; X.ltr or
X.wrd has their texts, as letters with "|" between words or as words; X.id has
their phones as indices of a JSON file, as UniSpeech's authors ship them for
Common Voice (Wang et al. 2021, section 4.1); X.km has units, which dict.km.txt
names (the authors' simple_kmeans).
"""

import json
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from unispeech_sb.atomic import atomic
from unispeech_sb.dataio.audio import read_header
from unispeech_sb.text import lines_of, named, read_number, read_text

__all__ = ["find_vocabulary", "read_fairseq_units", "write_fairseq_units"]

_logger = logging.getLogger(__name__)

_PREFIXES = {"train": "train", "val": "valid", "dev": "valid", "test": "test"}
_UNIT_SPLITS = {
    "train": "train",
    "valid": "valid",
    "dev": "valid",
    "test": "test",
}
_UNSET_ROOT = "WAV_PATH"  # what the authors wrote where a folder belongs
_SUFFIXES = (".flac", ".mp3")  # of recordings that were not made wav files
_SAMPLE_RATE = 16000  # of the numbers of samples in tables
_MOST_SAMPLES = 2**48
_RATE = "_16k"  # in names of tables, but not in those of all labels
_NO_PHONES = ("|", "")  # between words; and a symbol that no label has
_PHONES = "phone"  # the labels that are spelt, not indices


def is_fairseq_manifests(folder):
    """Whether a folder has a split's table that begins with a root folder."""
    return any(_is_table(path) for path, _ in _tables(Path(folder)))


def fairseq_manifests(
    folder: str | Path,
    wav_root: str | Path | None = None,
    labels: str = "id",
    vocabulary: str | Path | None = None,
) -> Iterator[dict[str, Any]]:
    """Reads the records of fairseq's manifests, with phones.

    The paths of a table start at ``wav_root``, or at the folder that its first
    line names; where there is no such ``.wav``, a ``.flac`` or ``.mp3`` is
    taken, as of Common Voice's ``clips``. ``labels`` are "id"; "sep" or
    "share", of all languages' vocabularies; or "phone", spelt ones. What the
    indices mean is in the ``vocabulary``, by ``find_vocabulary`` when omitted.

    Each line of labels goes with the line of the table that it stands for,
    whichever recordings are left out later. (The authors' reader counts those
    from 1 and labels from 0, so that there each one that is left out gives
    its label to the recording before.)
    """
    folder = Path(folder).absolute()
    path = vocabulary or find_vocabulary(folder, labels)
    symbols = None if path is None else _read_symbols(path)
    for split, table in _choose_tables(folder, labels).items():
        label_file = _first_file(_label_places(table, labels), "labels")
        for row, wav, line, where in _labelled(table, label_file, wav_root):
            yield {
                "ID": wav.stem,
                "wav": str(wav),
                "split": split,
                "phones": _phones(line, symbols, where),
                **_stated(row, table),
            }


def fairseq_texts(
    folder: str | Path,
    wav_root: str | Path | None = None,
    subsets: Sequence[str] | None = None,
) -> Iterator[dict[str, Any]]:
    """Reads the records of fairseq's manifests, with texts.

    Beside each table is one of words, ``.wrd``, or of letters, ``.ltr``.
    ``wav_root`` is as for ``fairseq_manifests``; ``subsets`` are the names of
    tables without suffix, all when omitted. Letters that ``dict.ltr.txt`` has
    not are counted in the log.
    """
    folder = Path(folder).absolute()
    tables = {p: s for p, s in _tables(folder) if _is_table(p)}
    if subsets:
        stems = {path.stem: path for path in tables}
        unknown = [name for name in subsets if name not in stems]
        if unknown:
            raise ValueError(
                f"{folder}: expected subsets of {', '.join(stems)}; got "
                f"{unknown[0]!r}"
            )
        tables = {stems[name]: tables[stems[name]] for name in subsets}
    letters: set[str] = set()
    owners: dict[str, Path] = {}
    for table, split in tables.items():
        places = [table.with_suffix(kind) for kind in (".wrd", ".ltr")]
        label_file = _first_file(places, "texts")
        for row, wav, line, _ in _labelled(table, label_file, wav_root):
            text = " ".join(line.split())
            if label_file.suffix == ".ltr":
                text = " ".join("".join(line.split()).replace("|", " ").split())
            letters.update(text)
            name = _name_of(row[0])
            if owners.setdefault(name, table) != table:  # of another root
                name = f"{table.stem}_{name}"
            yield {
                "ID": name,
                "wav": str(wav),
                "split": split,
                "wrd": text,
                **_stated(row, table),
            }
    dictionary = folder / "dict.ltr.txt"
    if dictionary.is_file():
        known = {" ", *(line.split(" ")[0] for line in _lines(dictionary))}
        if letters - known:
            _logger.warning(
                f"{len(letters - known)} letters of the texts are not in "
                f"{dictionary}: {named(sorted(letters - known), 20)}"
            )


def _name_of(path):
    """The name of an utterance, by the path that a table has."""
    return os.path.splitext(path)[0].replace("/", "_")


def _stated(row, table):
    """The duration that a line of a table states, at 16 kHz or another rate."""
    if len(row) < 2:
        return {}
    where, limits = f"{table}, {row[0]}", (1, _MOST_SAMPLES)
    num_samples = read_number(row[1], where, "samples", *limits)
    rate = _SAMPLE_RATE
    if len(row) > 2 and row[2].strip():
        rate = read_number(row[2], where, "a sampling rate", 1, 1e6)
    return {"duration": num_samples / rate}


def find_vocabulary(folder: str | Path, labels: str = "id") -> Path | None:
    """Finds the vocabulary beside the authors' labels; None of spelt ones."""
    folder = Path(folder)
    if labels == _PHONES:
        return None
    if labels == "id":
        places = [folder / "phonesMatches_reduced.json", folder / "vocab.json"]
    else:
        name = f"vocab_{labels}.json"
        places = [folder / name, folder.parent / "mtl" / name]
    return _first_file(places, "its vocabulary")


def write_fairseq_units(
    folder: str | Path,
    records: Sequence[dict[str, Any]],
    units: Iterable[np.ndarray],
    num_units: int,
) -> None:
    """Writes recordings and units for fairseq: X.tsv, X.km, dict.km.txt.

    ``units`` are taken one by one, int, [T]. The records have to be of whole
    files: fairseq knows no stretches.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    root = os.path.commonpath([os.path.dirname(r["wav"]) for r in records])
    with ExitStack() as stack:
        files = {}
        for record, own in zip(records, units, strict=True):
            _check_whole(record)
            split = record["split"]
            if split not in files:
                files[split] = [
                    stack.enter_context(atomic(folder / f"{split}.{kind}"))
                    for kind in ("tsv", "km")
                ]
                files[split][0].write(f"{root}\n")
            tsv, km = files[split]
            num_samples, _ = read_header(record["wav"])
            name = os.path.relpath(record["wav"], root)
            tsv.write(f"{name}\t{num_samples}\n")
            km.write(" ".join(map(str, np.asarray(own).tolist())) + "\n")
        names = stack.enter_context(atomic(folder / "dict.km.txt"))
        names.writelines(f"{unit} 1\n" for unit in range(num_units))


def _check_whole(record):
    """Raises unless a record stands for all of its file."""
    if record.get("start") is not None or record.get("stop") is not None:
        raise ValueError(
            f"{record['wav']}: expected a whole file, as fairseq's tables "
            "know no stretches; got one"
        )


def read_fairseq_units(
    folder: str | Path, wav_root: str | Path | None = None, labels: str = "km"
) -> tuple[list[dict[str, Any]], list[np.ndarray], int]:
    """Reads recordings and units of fairseq's tools, for ``write_units``.

    In ``folder`` are train.tsv, train.km and so on, and dict.km.txt, where
    "km" may be another name of ``labels``. Returned are records (ID, wav,
    duration and split), the units of each, int64, [T], and their number in
    the dictionary.
    """
    folder = Path(folder)
    known = _read_dictionary(folder / f"dict.{labels}.txt")
    records, units = [], []
    for prefix, split in _UNIT_SPLITS.items():
        table, path = folder / f"{prefix}.tsv", folder / f"{prefix}.{labels}"
        if not table.is_file():
            continue
        for row, wav, line, where in _labelled(table, path, wav_root):
            num_samples, rate = read_header(wav)
            record = {
                "ID": _name_of(row[0]),
                "wav": str(wav),
                "duration": num_samples / rate,
                "split": split,
            }
            records.append(record)
            units.append(_units(line, known, where))
    if not records:
        raise ValueError(f"{folder}: expected train.tsv with recordings")
    return records, units, len(known)


def _tables(folder):
    """Yields the tables whose names begin with that of a split."""
    for path in sorted(folder.glob("[!.]*.tsv")):
        for prefix, split in _PREFIXES.items():
            if path.name.startswith(prefix):
                yield path, split


def _is_table(path):
    """Whether the first line of a file is one name, not columns."""
    with open(path, encoding="utf-8", errors="replace") as file:
        first = file.readline()
    return bool(first.strip()) and "\t" not in first


def _choose_tables(folder, labels):
    """Split -> its table; those named after the labels, where there are."""
    found = [pair for pair in _tables(folder) if _is_table(pair[0])]
    named = [pair for pair in found if pair[0].stem.endswith(f"_{labels}")]
    chosen = {}
    for path, split in named or found:
        if split in chosen:
            raise ValueError(
                f"{folder}: expected one table of the split {split!r}, got "
                f"{chosen[split].name} and {path.name}"
            )
        chosen[split] = path
    return chosen


def _label_places(table, labels):
    """Where the labels of a table may be, fairseq's names first."""
    short = table.stem.removesuffix(_RATE)
    names = [f"{table.stem}.{labels}", f"{short}.{labels}"]
    if labels not in ("id", _PHONES):
        names = [f"{short}_{labels}.id"]
        if short.endswith(f"_{labels}"):
            names = [f"{table.stem}.id"]
    return [table.with_name(name) for name in names]


def _first_file(places, what):
    """The first of some paths where there is a file."""
    for path in places:
        if path.is_file():
            return path
    names = " or ".join(map(str, places))
    raise FileNotFoundError(f"expected {what} in {names}; there is none")


def _find_wav(root, name, where):
    """The recording of a line."""
    if ":" in name:
        raise ValueError(
            f"{where}: expected a file, got the slice {name!r} of an archive"
        )
    wav = os.path.join(os.path.abspath(root), name)
    places = [wav, *(os.path.splitext(wav)[0] + kind for kind in _SUFFIXES)]
    path = next((path for path in places if os.path.isfile(path)), None)
    if path is None:
        raise ValueError(f"{where}: no such file: {wav}")
    return Path(path)


def _lines(path):
    """The lines of a text file that has to be there."""
    return [line for _, line in lines_of(path)]


def _read_symbols(path):
    """The symbols of a vocabulary by index."""
    text = read_text(path)
    try:
        indices = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: expected JSON ({error!s:.60})") from error
    whole = isinstance(indices, dict) and all(
        type(index) is int for index in indices.values()
    )
    if not whole or sorted(indices.values()) != list(range(len(indices))):
        raise ValueError(
            f"{path}: expected symbols with the indices 0, 1, ..., each once"
        )
    return sorted(indices, key=indices.get)


def _phones(line, symbols, where):
    """Phones of a line of labels, a space between them."""
    labels = line.split()
    if symbols is not None:
        try:
            labels = [symbols[_index(label)] for label in labels]
        except (ValueError, IndexError) as error:
            raise ValueError(
                f"{where}: expected indices from 0 to {len(symbols) - 1}, got "
                f"{line.strip()!r:.60}"
            ) from error
    return " ".join(label for label in labels if label not in _NO_PHONES)


def _index(label):
    """A label as an index; a negative one would count from the end."""
    if not label.isdecimal():
        raise ValueError(label)
    return int(label)


def _read_dictionary(path):
    """The units of a dictionary: those of names 0, 1, ..."""
    names = [line.split(" ")[0] for line in _lines(path)]
    if sorted(names) != sorted(str(unit) for unit in range(len(names))):
        raise ValueError(
            f"{path}: expected a line for each of the units 0, 1, ..., got "
            f"{' '.join(names)[:60]!r}"
        )
    return set(names)


def _labelled(table, label_file, wav_root):
    """Yields each recording's columns and path, its labels, and their place."""
    first, *rows = _lines(table) or [""]
    root = wav_root or first.strip()
    if root in ("", _UNSET_ROOT):
        raise ValueError(
            f"{table}: expected wav_root, the folder of its recordings, as "
            f"its first line says {root or 'nothing'}"
        )
    lines = _lines(label_file)
    if len(lines) != len(rows):
        raise ValueError(
            f"{label_file}: expected a line for each of the {len(rows)} "
            f"recordings of {table.name}, got {len(lines)}"
        )
    for number, (row, line) in enumerate(zip(rows, lines), start=1):
        columns = row.split("\t")
        wav = _find_wav(root, columns[0], f"{table}, line {number + 1}")
        yield columns, wav, line, f"{label_file}, line {number}"


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
