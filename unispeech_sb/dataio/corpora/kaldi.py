"""Kaldi folders: lists of recordings, and speech with its texts.

A folder is a split, and its name begins with it: train, dev_clean, test-other,
... Relative paths start at the folder. A pipe in ``wav.scp`` is not run, and
refused. Of a name that occurs several times the last line counts.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unispeech_sb.dataio.manifest import stretch
from unispeech_sb.dataio.rttm import kaldi_files, kaldi_table
from unispeech_sb.text import compare_names, read_number

SPLIT_WORDS = {
    **dict.fromkeys(("train", "tr", "training"), "train"),
    **dict.fromkeys(("dev", "valid", "validation", "val", "cv"), "valid"),
    **dict.fromkeys(("test", "tt", "eval", "testing"), "test"),
}
"""Word in the name of a file or folder -> the split that it stands for."""
_TO_THE_END = ("-1", "-1.0", "-1.00")


def is_kaldi(path):
    """Whether a path is a folder with ``wav.scp``, or of such folders."""
    path = Path(path)
    parts = (path / "wav.scp", *path.glob("[!.]*/wav.scp"))
    return any(part.is_file() for part in parts)


def split_folders(path: str | Path) -> list[Path]:
    """A Kaldi folder, or those in a folder of some, which are splits."""
    path = Path(path).absolute()
    if (path / "wav.scp").is_file():
        return [path]
    return [part.parent for part in sorted(path.glob("[!.]*/wav.scp"))]


def kaldi_recordings(folder: Path) -> dict[str, Path]:
    """Recording -> its file, of the ``wav.scp`` of a folder."""
    found = {}
    for name, (where, file) in kaldi_files(folder / "wav.scp").items():
        if not os.path.isfile(folder / file):
            raise ValueError(f"{where}: no such file: {folder / file}")
        found[name] = folder / file
    return found


def words_of(name: str) -> list[str]:
    """The words of a name such as dev_clean or test-other."""
    return re.split("[-_.]", name)


def split_of(name, where):
    """The split that a name stands for, or begins with."""
    split = SPLIT_WORDS.get(words_of(name)[0])
    if split is None:
        raise ValueError(
            f"{where}: expected the name of a split such as "
            f"{', '.join(SPLIT_WORDS)}; got {name!r}"
        )
    return split


def stated_durations(folder: Path) -> dict[str, float]:
    """Seconds of recordings or utterances, where the folder states them."""
    found = {}
    for name in ("reco2dur", "utt2dur"):
        if (folder / name).is_file():
            table = kaldi_table(folder / name, 1)
            for recording, (where, fields) in table.items():
                found[recording] = read_number(fields[0], where)
    return found


def kaldi_texts(path: str | Path) -> Iterator[dict[str, Any]]:
    """Reads the records of a folder, or of a folder of several, with texts.

    A folder has ``wav.scp`` and ``text``, and may have ``utt2spk`` and
    ``segments``. Utterances without a text, and texts without an utterance,
    are left out and counted in the log. A folder alone need not be called as a
    split; then its utterances have none.
    """
    for folder in split_folders(path):
        yield from _described(folder, folder / "text", "wrd", path)


def kaldi_labels(
    path: str | Path, column: str | None = None
) -> Iterator[dict[str, Any]]:
    """As ``kaldi_texts``, with labels: of ``utt2<column>``, utt2label by
    default, else of ``text``."""
    for folder in split_folders(path):
        file = folder / f"utt2{column or 'label'}"
        file = file if file.is_file() else folder / "text"
        yield from _described(folder, file, "label", path)


def kaldi_speakers(path: str | Path) -> Iterator[dict[str, Any]]:
    """As ``kaldi_texts``, with the speakers of ``utt2spk``, without texts."""
    for folder in split_folders(path):
        yield from _described(folder, folder / "utt2spk", "spk_id", path)


def kaldi_anything(path: str | Path) -> Iterator[dict[str, Any]]:
    """As ``kaldi_texts``, with whatever there is of texts, labels, speakers."""
    files = {"text": "wrd", "utt2label": "label", "utt2spk": "spk_id"}
    for folder in split_folders(path):
        found = [name for name in files if (folder / name).is_file()]
        name = found[0] if found else "text"
        yield from _described(folder, folder / name, files[name], path)


def _described(folder, file, key, path):
    """Records of one folder that a file has something of, under a key."""
    alone = Path(path, "wav.scp").is_file()
    known = words_of(folder.name)[0] in SPLIT_WORDS or not alone
    split = split_of(folder.name, folder) if known else ""
    list_file, stretches = _utterances(folder)
    found = {n: " ".join(w) for n, (_, w) in kaldi_table(file).items()}
    speakers = {}
    if (folder / "utt2spk").is_file():
        table = kaldi_table(folder / "utt2spk", 1)
        speakers = {name: fields[0] for name, (_, fields) in table.items()}
        compare_names(stretches, speakers, list_file, folder / "utt2spk")
    compare_names(found, stretches, file, list_file)
    compare_names(stretches, found, list_file, file)
    for name, (wav, times) in stretches.items():
        if name in found:
            yield {
                "ID": name,
                "wav": str(wav),
                "split": split,
                "spk_id": speakers.get(name, ""),
                key: found[name],
                **times,
            }


def _utterances(folder):
    """The list of a folder's utterances, and each with its file and times."""
    recordings = kaldi_recordings(folder)
    seconds = stated_durations(folder)
    if not (folder / "segments").is_file():
        return folder / "wav.scp", {
            name: (wav, {"duration": seconds[name]} if name in seconds else {})
            for name, wav in recordings.items()
        }
    stretches = _segments(folder / "segments", recordings)
    return folder / "segments", {
        name: (recordings[recording], times)
        for name, (recording, times) in stretches.items()
    }


def _segments(path, recordings):
    """Utterance -> recording and stretch; the end may be -1, that of the file.

    Those of recordings that the folder does not have are left out.
    """
    table, found = kaldi_table(path, 3), {}
    owners = dict.fromkeys(fields[0] for _, fields in table.values())
    compare_names(owners, recordings, path, path.with_name("wav.scp"))
    for name, (where, (recording, start, end)) in table.items():
        if recording not in recordings:
            continue
        start = read_number(start, where)
        end = None if end in _TO_THE_END else read_number(end, where)
        try:
            times = stretch(recordings[recording], start, end)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        found[name] = recording, times
    return found
