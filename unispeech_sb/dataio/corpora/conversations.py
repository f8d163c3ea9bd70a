"""Recorded conversations with who speaks when: Kaldi folders (LibriMix as
SUPERB makes it), CSVs of recordings with RTTM files, folders of both.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unispeech_sb.dataio.audio import read_header
from unispeech_sb.dataio.containers import is_recording
from unispeech_sb.dataio.corpora.csv_table import find_file, find_table
from unispeech_sb.dataio.corpora.kaldi import (
    kaldi_recordings,
    split_folders,
    split_of,
    stated_durations,
)
from unispeech_sb.dataio.manifest import has_columns, read_rows
from unispeech_sb.dataio.rttm import (
    match_names,
    read_annotations,
    read_uem,
)
from unispeech_sb.text import fields_of, named, read_number, report_missing

_logger = logging.getLogger(__name__)

_OFF_S = 0.1  # by which a stated duration may be wrong
_ROUNDING_S = 0.02  # that a segment may reach past the end of its recording


def kaldi_folders(
    path: str | Path, merge: bool | None = False
) -> Iterator[dict[str, Any]]:
    """Reads the records of a Kaldi folder, or of a folder of several.

    A folder is a split, and its name begins with it: train, dev, ... It has
    ``wav.scp`` and ``rttm``, or else ``segments`` with ``utt2spk``, and may
    have ``uem``. Relative paths start at the folder. A pipe in ``wav.scp`` is
    not run, and refused.

    Records have ID, wav, duration, split, rttm (the annotation's file: an RTTM,
    or Kaldi's ``segments``) and uem (its file, or empty); ``rttm_name`` and
    ``uem_name`` where these files call the recording otherwise. What SUPERB
    labels by is kept too: kaldi_segments, the file ``segments`` where there is
    one, and stated_s, the seconds of ``reco2dur``. A speaker that
    overlaps itself is an error unless ``merge``, as for ``read_rttm``; a
    segment past the end of its recording is one.
    """
    for folder in split_folders(path):
        yield from _checked(_kaldi(folder), merge)


def rttm_table(
    path: str | Path, merge: bool | None = False
) -> Iterator[dict[str, Any]]:
    """Reads the records of a CSV of recordings with RTTM files.

    Columns are ``path``, ``rttm``, ``split`` and, where there are any, ``id``
    and ``uem``. Relative paths start at the CSV's folder or at one of its
    parents. Without ``id`` the recording's name is that of its file, and
    without ``uem`` a UEM file beside the RTTM is taken.
    """
    yield from _checked(_listed(Path(find_table(path)).absolute()), merge)


def rttm_beside(
    path: str | Path, merge: bool | None = False
) -> Iterator[dict[str, Any]]:
    """Reads the records of a folder of recordings with RTTM files beside them.

    An RTTM file differs from its recording in the suffix, and so does a UEM
    file, if there is one. The folder is a split, and its name begins with it.
    """
    yield from _checked(_pairs(Path(path).absolute()), merge)


def _checked(records, merge):
    """Yields records with durations, whose segments are in their recordings."""
    records = list(records)
    annotations = {
        file: read_annotations(file, bool(merge))
        for file in dict.fromkeys(record["rttm"] for record in records)
    }
    stretches = {
        file: read_uem(file)
        for file in dict.fromkeys(record["uem"] for record in records)
        if file
    }
    wrong = []
    _find_names(records, "rttm", annotations)
    _find_names(records, "uem", stretches)
    for record in records:
        num_samples, rate = read_header(record["wav"])
        stated = record.get("duration")
        record["duration"] = num_samples / rate
        if stated is None:
            pass
        elif abs(stated - record["duration"]) > _OFF_S:
            wrong.append(f"{record['wav']} ({stated:g} s)")
        else:
            record["stated_s"] = stated
        name = record.get("rttm_name", record["ID"])
        _check_scored(record, stretches)
        _check_end(record, name, annotations[record["rttm"]].get(name, []))
        yield record
    if wrong:
        _logger.warning(
            f"{len(wrong)} of {len(records)} recordings do not last as long as "
            f"stated: {named(wrong)}"
        )


def _find_names(records, kind, files):
    """Notes what the files of a kind call the recordings, where it is another
    name, and takes a UEM away from those that it does not have."""
    by_file, renamed = {}, []
    for record in records:
        by_file.setdefault(record[kind], {})[record["ID"]] = record
    for file, names in files.items():
        own = by_file[file]
        found = match_names({n: r["wav"] for n, r in own.items()}, names)
        if len(own) == len(names) == 1:  # a pair, whatever it is called
            found = dict(zip(own, names))
        if names:
            missing = [name for name in own if name not in found]
            others = [name for name in names if name not in found.values()]
            report_missing(missing, own, others, "the recordings", file)
        for name, record in own.items():
            if name not in found and kind == "uem":
                record["uem"] = ""
            elif found.get(name, name) != name:
                record[f"{kind}_name"] = found[name]
                renamed.append(f"{found[name]} for {record['wav']}")
    if renamed:
        _logger.warning(
            f"{len(renamed)} recordings have another name in their {kind} "
            f"file: {named(renamed)}"
        )
    empty = [file for file, names in files.items() if not names]
    if empty:
        _logger.warning(f"{len(empty)} {kind} files are empty: {named(empty)}")


def _kaldi(folder):
    """Records of a Kaldi folder."""
    split = split_of(folder.name, folder)
    rttm, segments = folder / "rttm", folder / "segments"
    if not rttm.is_file():
        rttm = segments
    uem = folder / "uem"
    seconds = stated_durations(folder)
    for name, wav in kaldi_recordings(folder).items():
        stated = {"duration": seconds[name]} if name in seconds else {}
        if segments.is_file() and (folder / "utt2spk").is_file():
            stated["kaldi_segments"] = str(segments)
        yield {**_record(name, wav, split, rttm, uem), **stated}


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
        split = split_of(row.get("split") or "", where)
        yield _record(row.get("id") or wav.stem, wav, split, rttm, uem)


def _pairs(folder):
    """Records of a folder of recordings with RTTM files beside them."""
    files = sorted(folder.glob("[!.]*"))
    found = [file for file in files if is_recording(file.relative_to(folder))]
    if not found:
        raise ValueError(
            f"{folder}: expected recordings with RTTM files beside them; "
            "there are none"
        )
    split = split_of(folder.name, folder)
    beside = {file.name.lower(): file for file in files}
    for wav in found:
        rttm, uem = (
            beside.get(f"{wav.stem}{suffix}".lower(), wav.with_suffix(suffix))
            for suffix in (".rttm", ".uem")
        )
        if not rttm.is_file():
            there = [n for n in beside if n.endswith(".rttm")]
            raise ValueError(
                f"{wav}: expected an RTTM file beside it: {rttm}; there are "
                f"{named(there)}"
            )
        yield _record(wav.stem, wav, split, rttm, uem)


def _record(name, wav, split, rttm, uem):
    """A record, with what lists call it."""
    return {
        "ID": name,
        "wav": str(wav),
        "split": split,
        "rttm": str(rttm),
        "uem": str(uem) if uem.is_file() else "",
    }


def _check_scored(record, files):
    """Raises when nothing of a recording is to be scored."""
    found = files.get(record["uem"], {})
    found = found.get(record.get("uem_name", record["ID"]), [(0.0, 0.0)])
    if found[0][0] >= record["duration"]:
        raise ValueError(
            f"{record['uem']}: expected a stretch of {record['wav']}, which "
            f"has {record['duration']:g} s; the first begins at {found[0][0]:g}"
        )


def _check_end(record, name, segments):
    """Raises when a segment reaches past the end of its recording."""
    duration = record["duration"]
    for segment in segments:
        if segment.end > duration + _ROUNDING_S:
            raise ValueError(
                f"{_line_of(record, name, segment)}: {segment.speaker} of "
                f"{record['ID']} speaks until {segment.end:g} s, but "
                f"{record['wav']} has {duration:g} s"
            )


def _line_of(record, name, segment):
    """File and line that say where a segment ends."""
    for where, fields in fields_of(record["rttm"]):
        if len(fields) == 4:  # of Kaldi's segments
            end = read_number(fields[3], where)
        elif fields[0] == "SPEAKER":
            end = sum(read_number(field, where) for field in fields[3:5])
        else:
            continue
        if fields[1] == name and abs(end - segment.end) < 1e-5:
            return where
    return record["rttm"]
