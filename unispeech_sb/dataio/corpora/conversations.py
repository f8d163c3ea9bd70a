"""Recorded conversations with who speaks when: Kaldi folders (LibriMix as
SUPERB makes it), CSVs of recordings with RTTM files, folders of both.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unispeech_sb.dataio.audio import read_header
from unispeech_sb.dataio.corpora.csv_table import find_file, find_table
from unispeech_sb.dataio.manifest import has_columns, read_rows
from unispeech_sb.dataio.noises import SUFFIXES
from unispeech_sb.dataio.rttm import (
    fields_of,
    read_annotations,
    read_seconds,
    read_uem,
)

_SPLITS = {
    **dict.fromkeys(("train", "tr"), "train"),
    **dict.fromkeys(("dev", "valid", "validation", "val", "cv"), "valid"),
    **dict.fromkeys(("test", "tt", "eval"), "test"),
}
_ROUNDING_S = 0.02  # that a segment may reach past the end of its recording


def is_kaldi(path):
    """Whether a path is a folder with ``wav.scp``, or of such folders."""
    path = Path(path)
    parts = (path / "wav.scp", *path.glob("*/wav.scp"))
    return any(part.is_file() for part in parts)


def kaldi_folders(path: str | Path) -> Iterator[dict[str, Any]]:
    """Reads the records of a Kaldi folder, or of a folder of several.

    A folder is a split, and its name begins with it: train, dev, ... It has
    ``wav.scp`` and ``rttm``, or else ``segments`` with ``utt2spk``, and may
    have ``uem``. Relative paths start at the folder. A pipe in ``wav.scp`` is
    not run, and refused.

    Records have ID, wav, duration, split, rttm (the annotation's file: an RTTM,
    or Kaldi's ``segments``) and uem (its file, or empty). A speaker that
    overlaps itself, or a segment past the end of its recording, is an error.
    """
    path = Path(path).absolute()
    folders = [path]
    if not (path / "wav.scp").is_file():
        folders = [part.parent for part in sorted(path.glob("*/wav.scp"))]
    for folder in folders:
        yield from _checked(_kaldi(folder))


def rttm_table(path: str | Path) -> Iterator[dict[str, Any]]:
    """Reads the records of a CSV of recordings with RTTM files.

    Columns are ``path``, ``rttm``, ``split`` and, where there are any, ``id``
    and ``uem``. Relative paths start at the CSV's folder or at one of its
    parents. Without ``id`` the recording's name is that of its file, and
    without ``uem`` a UEM file beside the RTTM is taken.
    """
    yield from _checked(_listed(Path(find_table(path)).absolute()))


def rttm_beside(path: str | Path) -> Iterator[dict[str, Any]]:
    """Reads the records of a folder of recordings with RTTM files beside them.

    An RTTM file differs from its recording in the suffix, and so does a UEM
    file, if there is one. The folder is a split, and its name begins with it.
    """
    yield from _checked(_pairs(Path(path).absolute()))


def _checked(records):
    """Yields records with durations, whose segments are in their recordings."""
    annotations = {}
    for record in records:
        num_samples, rate = read_header(record["wav"])
        record["duration"] = num_samples / rate
        file = record["rttm"]
        if file not in annotations:
            annotations[file] = read_annotations(file)
        _check_end(record, annotations[file].get(record["ID"], []))
        yield record


def _kaldi(folder):
    """Records of a Kaldi folder."""
    split = _split_of(folder.name, folder)
    rttm = folder / "rttm"
    if not rttm.is_file():
        rttm = folder / "segments"
    uem = folder / "uem"
    for where, (name, *words) in fields_of(folder / "wav.scp"):
        file = " ".join(words)
        if file.endswith("|") or file in ("", "-"):
            raise ValueError(
                f"{where}: expected the path of a recording, got {file!r}; "
                "commands are not run: write what they give to files"
            )
        if not (folder / file).is_file():
            raise ValueError(f"{where}: no such file: {folder / file}")
        yield _record(name, folder / file, split, rttm, uem)


def _listed(path):
    """Records of a CSV."""
    for where, row in read_rows(path, has_columns("path", "rttm")):
        try:
            wav = find_file(row["path"], path.parent)
            rttm = find_file(row["rttm"], path.parent)
            uem = rttm.with_suffix(".uem")
            if row.get("uem"):
                uem = find_file(row["uem"], path.parent)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        split = _split_of(row.get("split") or "", where)
        yield _record(row.get("id") or wav.stem, wav, split, rttm, uem)


def _pairs(folder):
    """Records of a folder of recordings with RTTM files beside them."""
    found = [
        file for file in sorted(folder.glob("[!.]*")) if file.suffix in SUFFIXES
    ]
    if not found:
        raise ValueError(
            f"{folder}: expected recordings with RTTM files beside them; "
            "there are none"
        )
    split = _split_of(folder.name, folder)
    for wav in found:
        rttm, uem = wav.with_suffix(".rttm"), wav.with_suffix(".uem")
        if not rttm.is_file():
            raise ValueError(f"{wav}: expected an RTTM file beside it: {rttm}")
        yield _record(wav.stem, wav, split, rttm, uem)


def _split_of(name, where):
    """The split that a name stands for."""
    split = _SPLITS.get(name) or _SPLITS.get(name.partition("-")[0])
    if split is None:
        raise ValueError(
            f"{where}: expected the name of a split such as "
            f"{', '.join(_SPLITS)}; got {name!r}"
        )
    return split


def _record(name, wav, split, rttm, uem):
    """A record; it has a UEM where that file says something about it."""
    scored = uem.is_file() and name in read_uem(uem)
    return {
        "ID": name,
        "wav": str(wav),
        "split": split,
        "rttm": str(rttm),
        "uem": str(uem) if scored else "",
    }


def _check_end(record, segments):
    """Raises when a segment reaches past the end of its recording."""
    duration = record["duration"]
    for segment in segments:
        if segment.end > duration + _ROUNDING_S:
            raise ValueError(
                f"{_line_of(record, segment)}: {segment.speaker} of "
                f"{record['ID']} speaks until {segment.end:g} s, but "
                f"{record['wav']} has {duration:g} s"
            )


def _line_of(record, segment):
    """File and line that say where a segment ends."""
    for where, fields in fields_of(record["rttm"]):
        if len(fields) == 4:  # of Kaldi's segments
            end = read_seconds(fields[3], where)
        elif fields[0] == "SPEAKER":
            end = sum(read_seconds(field, where) for field in fields[3:5])
        else:
            continue
        if fields[1] == record["ID"] and abs(end - segment.end) < 1e-5:
            return where
    return record["rttm"]
