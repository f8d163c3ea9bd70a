"""Recordings of single speakers, out of which conversations are made: whatever
their splits, of LibriSpeech, VoxCeleb, or a CSV.
"""

import csv
from pathlib import Path

from unispeech_sb.dataio.audio import read_header
from unispeech_sb.dataio.corpora.librispeech import (
    is_librispeech,
    librispeech,
)
from unispeech_sb.dataio.corpora.paths import find_file
from unispeech_sb.dataio.corpora.voxceleb import is_voxceleb, voxceleb


def voices(path):
    """Reads the records of a corpus of single speakers, all as of train.

    Arguments
    ---------
    path : str or path-like
        A folder laid out as LibriSpeech or VoxCeleb; or a CSV, or a folder
        with ``manifest.csv``: columns ``path`` and ``speaker`` and, where
        there are any, ``id``, and ``start`` and ``stop`` in seconds. Relative
        paths start at the CSV's folder or at one of its parents.

    Yields
    ------
    dict
        Record with ID, wav, split and spk_id, and start and stop in samples
        where the CSV has them; without ``duration``.

    Raises
    ------
    ValueError
        When there is no such corpus, or a row names no speaker or no file;
        the message names file and line.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> (folder / "a.wav").touch()
    >>> _ = (folder / "manifest.csv").write_text("path,speaker\\na.wav,anna\\n")
    >>> [(record["ID"], record["spk_id"]) for record in voices(folder)]
    [('a', 'anna')]
    """
    path = Path(path).absolute()
    if is_librispeech(path):
        records = librispeech(path)
    elif is_voxceleb(path):
        records = voxceleb(path)
    else:
        records = _listed(path)
    for record in records:
        yield {**record, "split": "train"}


def _listed(path):
    """Records of a CSV."""
    if path.is_dir():
        path /= "manifest.csv"
    if not path.is_file():
        raise ValueError(
            f"{path}: expected a LibriSpeech or VoxCeleb folder, a folder with "
            "manifest.csv, or a CSV; there is nothing"
        )
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file, skipinitialspace=True, strict=True)
        for row in rows:
            where = f"{path}, line {rows.line_num}"
            speaker = (row.get("speaker") or row.get("spk_id") or "").strip()
            if not speaker:
                raise ValueError(
                    f"{where}: expected a speaker in the column speaker"
                )
            wav = find_file(row.get("path") or "", path.parent, where)
            yield {
                "ID": row.get("id") or wav.stem,
                "wav": str(wav),
                "spk_id": speaker,
                **_stretch(row, wav, where),
            }


def _stretch(row, wav, where):
    """Start and stop of a row, if it has them, in samples."""
    if not (row.get("start") or row.get("stop")):
        return {}
    num_samples, rate = read_header(wav)
    try:
        start = round(float(row.get("start") or 0.0) * rate)
        stop = round(float(row.get("stop") or num_samples / rate) * rate)
    except ValueError as error:
        raise ValueError(
            f"{where}: expected seconds in start and stop"
        ) from error
    return {"start": start, "stop": min(stop, num_samples)}
