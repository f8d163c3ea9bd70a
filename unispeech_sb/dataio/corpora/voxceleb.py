"""VoxCeleb1 and VoxCeleb2 (Nagrani et al. 2020), and their split for speaker
identification: <speaker>/<video>/<number>.wav, as the archives unpack.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unispeech_sb.text import lines_of

__all__ = ["voxceleb"]

_PARTS = {"1": "train", "2": "valid", "3": "test"}
"""Numbers of the identification split."""

TEST_SPEAKERS = frozenset(f"id{number}" for number in range(10270, 10310))
"""The 40 of VoxCeleb1's verification trials; VoxCeleb2 has none of them."""

# Where the archives, or people, put the speakers' folders -> their split;
# without one the speaker decides.
_ROOTS = {
    f"{part}{middle}": split
    for part, split in (("dev/", "train"), ("test/", "test"), ("", None))
    for middle in ("wav", "aac", "")
}
_SPEAKER = re.compile(r"id\d{5}")
_SUFFIXES = (".wav", ".flac")


def is_voxceleb(folder):
    """Whether a folder has speakers' folders where VoxCeleb has them."""
    return any(_speakers(Path(folder, root)) for root in _ROOTS)


def voxceleb(folder: str | Path) -> Iterator[dict[str, Any]]:
    """Reads the records of a VoxCeleb tree.

    Speakers' folders may stand in ``dev`` and ``test``, each with ``wav`` or
    ``aac`` between or not, or all together. Then the test set is the 40
    speakers of VoxCeleb1's trials. They are never in train.

    Arguments
    ---------
    folder : str or path-like
        The folder that holds ``dev``, ``test``, ``wav``, ``aac`` or the
        speakers.

    Yields
    ------
    dict
        Record with ID, wav, split, spk_id and label (the speaker too), in the
        order of the IDs; without ``duration``, which the tree does not have.
        The ID is what VoxCeleb's own lists say, ``id10001/<video>/00001.wav``,
        in whatever format the file is.

    Raises
    ------
    ValueError
        When the folder has no recordings, has one twice, or has some in a
        format that cannot be read.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> for name in ("id10001", "id10270"):
    ...     (folder / "wav" / name / "video").mkdir(parents=True)
    ...     (folder / "wav" / name / "video" / "00001.wav").touch()
    >>> [(record["ID"], record["split"]) for record in voxceleb(folder)]
    [('id10001/video/00001.wav', 'train'), ('id10270/video/00001.wav', 'test')]
    """
    for name, (path, found) in sorted(_recordings(folder).items()):
        speaker = name.partition("/")[0]
        if speaker in TEST_SPEAKERS:
            found = "test"
        yield _record(name, path, found or "train")


def voxceleb_identification(
    folder: str | Path, split_file: str | Path | None = None
) -> Iterator[dict[str, Any]]:
    """Reads the records of VoxCeleb1's identification split (SUPERB SID).

    ``split_file`` is ``iden_split.txt`` (``veri_test_class.txt`` at SUPERB),
    the one in the folder when omitted: lines of 1, 2 or 3 (train, valid, test)
    and a recording, which has to be in the folder. Records are in the order of
    the lines; recordings that the split does not name are left out.
    """
    file = Path(folder, "iden_split.txt" if split_file is None else split_file)
    if not file.is_file():
        raise ValueError(
            f"{file}: expected VoxCeleb1's identification split; there is no "
            "such file"
        )
    recordings = _recordings(folder)
    seen = set()
    for number, line in lines_of(file):
        part, _, name = line.strip().partition(" ")
        fault = None
        if part not in _PARTS or not name:
            fault = "expected 1, 2 or 3 and a recording"
        elif name in seen:
            fault = "expected each recording once"
        elif name not in recordings:
            fault = f"expected a recording that is in {folder}"
        if fault:
            raise ValueError(f"{file}, line {number}: {fault}, got {line!r}")
        seen.add(name)
        yield _record(name, recordings[name][0], _PARTS[part])
    if not seen:
        raise ValueError(f"{file}: expected lines, the file is empty")


def _record(name, path, split):
    """Makes a record of a recording."""
    speaker = name.partition("/")[0]
    return {
        "ID": name,
        "wav": path,
        "split": split,
        "spk_id": speaker,
        "label": speaker,
    }


def _recordings(folder):
    """Finds all recordings: name in VoxCeleb's lists -> path and split."""
    folder = Path(folder).absolute()
    found, unreadable = {}, {}
    for name, path, split in _files(folder):
        if path.suffix.lower() == ".m4a":
            unreadable[name] = path
        if path.suffix.lower() not in _SUFFIXES:
            continue
        if name in found:
            raise ValueError(
                f"{name}: expected one file, got {found[name][0]} and {path}"
            )
        found[name] = (str(path), split)
    missing = [path for name, path in unreadable.items() if name not in found]
    if missing:
        raise ValueError(
            f"{folder}: {len(missing)} recordings are .m4a, which cannot be "
            f"read here, such as {missing[0]}; make a .wav beside each: "
            "ffmpeg -i 00001.m4a -ac 1 -ar 16000 00001.wav"
        )
    if not found:
        raise ValueError(
            f"{folder}: expected <speaker>/<video>/*.wav, there or in wav, "
            "aac, dev or test, with speakers like id10001; got none"
        )
    return found


def _files(folder):
    """Yields name, path and split of each file that a video has."""
    for root, split in _ROOTS.items():
        for speaker in _speakers(folder / root):
            paths = sorted(Path(speaker).glob("*/[!.]*"))
            yield from ((_name(path), path, split) for path in paths)


def _name(path):
    """What VoxCeleb's lists call a recording."""
    return "/".join((*path.parts[-3:-1], f"{path.stem}.wav"))


def _speakers(folder):
    """Lists the speakers' folders in a folder."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted(
            entry.path
            for entry in entries
            if _SPEAKER.fullmatch(entry.name) and entry.is_dir()
        )
