"""Recorded conversations with who spoke when: Kaldi folders (LibriMix as
SUPERB makes it), lists of recordings with RTTM files, folders of both.
"""

import csv
from pathlib import Path

from unispeech_sb.dataio.audio import read_header
from unispeech_sb.dataio.corpora.paths import find_file
from unispeech_sb.dataio.rttm import (
    fields_of,
    read_annotations,
    read_seconds,
    read_uem,
)

_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".opus")
_SPLITS = {
    **dict.fromkeys(("train", "tr"), "train"),
    **dict.fromkeys(("dev", "valid", "validation", "val", "cv"), "valid"),
    **dict.fromkeys(("test", "tt", "eval"), "test"),
}
_ROUNDING_S = 0.02  # that a segment may reach past the end of its recording


def conversations(path, split=None):
    """Reads the records of a corpus of conversations.

    It may be

    * a Kaldi folder: ``wav.scp``, and ``rttm`` or ``segments`` with
      ``utt2spk``. Relative paths start at the folder.
    * a folder of such folders, one for each split, named train, dev, ...
    * a CSV, or a folder with ``manifest.csv``: columns ``path``, ``rttm``,
      and, where there are any, ``id``, ``split`` and ``uem``. Relative paths
      start at the CSV's folder or at one of its parents.
    * a folder of recordings, each with an RTTM file beside it whose name
      differs in the suffix.

    Beside an RTTM file of one recording, a UEM file of the same name is found
    in the last two.

    Arguments
    ---------
    path : str or path-like
        The corpus.
    split : str, optional
        Put all records into this one. Otherwise the corpus, or the name of
        the folder, has to tell it.

    Yields
    ------
    dict
        Record with ID, wav, duration, split, rttm (the annotation's file: an
        RTTM, or Kaldi's ``segments``) and uem (its file, or empty).

    Raises
    ------
    ValueError
        When there is no such corpus, a recording or its annotation is
        missing, a speaker overlaps itself, or a segment is past the end of
        the recording; the message names the file, and the line if there is
        one. A pipe in ``wav.scp`` is not run, and refused.

    Example
    -------
    >>> import numpy as np, soundfile
    >>> folder = getfixture("tmp_path")
    >>> soundfile.write(folder / "talk.wav", np.sin(np.arange(16000)), 8000)
    >>> line = "SPEAKER talk 1 0.5 1.25 <NA> <NA> anna <NA> <NA>"
    >>> _ = (folder / "talk.rttm").write_text(line)
    >>> [record["ID"] for record in conversations(folder, split="test")]
    ['talk']
    """
    path = Path(path).absolute()
    if path.is_file():
        records = _listed(path, split)
    elif (path / "wav.scp").is_file():
        records = _kaldi(path, split)
    elif parts := sorted(path.glob("*/wav.scp")):
        records = (
            record for part in parts for record in _kaldi(part.parent, split)
        )
    elif (path / "manifest.csv").is_file():
        records = _listed(path / "manifest.csv", split)
    else:
        records = _pairs(path, split)
    annotations = {}
    for record in records:
        num_samples, rate = read_header(record["wav"])
        record["duration"] = num_samples / rate
        file = record["rttm"]
        if file not in annotations:
            annotations[file] = read_annotations(file)
        _check_end(record, annotations[file].get(record["ID"], []))
        yield record


def _kaldi(folder, split):
    """Records of a Kaldi folder."""
    split = split or _split_of(folder.name, folder)
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


def _listed(path, split):
    """Records of a CSV."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file, skipinitialspace=True, strict=True)
        for column in ("path", "rttm"):
            if column not in (rows.fieldnames or ()):
                raise ValueError(
                    f"{path}: expected a column {column}, got "
                    f"{', '.join(rows.fieldnames or ()) or 'none'}"
                )
        for row in rows:
            where = f"{path}, line {rows.line_num}"
            wav, rttm = (
                find_file(row[column], path.parent, where)
                for column in ("path", "rttm")
            )
            uem = rttm.with_suffix(".uem")
            if row.get("uem"):
                uem = find_file(row["uem"], path.parent, where)
            found = split or _split_of(row.get("split") or "", where)
            yield _record(row.get("id") or wav.stem, wav, found, rttm, uem)


def _pairs(folder, split):
    """Records of a folder of recordings with RTTM files beside them."""
    found = [
        file
        for file in sorted(folder.glob("[!.]*"))
        if file.suffix in _SUFFIXES
    ]
    if not found:
        raise ValueError(
            f"{folder}: expected wav.scp, manifest.csv, or recordings with "
            "RTTM files beside them; there are none"
        )
    split = split or _split_of(folder.name, folder)
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
