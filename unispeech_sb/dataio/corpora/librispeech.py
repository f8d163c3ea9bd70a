"""LibriSpeech and corpora laid out like it: <split>/<reader>/<chapter>/ with
recordings and one ``.trans.txt`` (Panayotov et al. 2015, section 4).
"""

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from unispeech_sb.text import lines_of, named

__all__ = ["librispeech"]

_logger = logging.getLogger(__name__)

# How a folder of the corpus begins -> the split it belongs to.
_PREFIXES = {"train": "train", "dev": "valid", "test": "test"}
_SUFFIXES = (".flac", ".wav", ".FLAC", ".WAV")
_TEXTS = "[!.]*.trans.txt"


def is_librispeech(folder):
    """Whether a folder has transcripts where LibriSpeech has them."""
    return next(Path(folder).glob(f"*/*/*/{_TEXTS}"), None) is not None


def librispeech(
    folder: str | Path, subsets: Sequence[str] | None = None
) -> Iterator[dict[str, Any]]:
    """Reads the records of a LibriSpeech tree.

    Arguments
    ---------
    folder : str or path-like
        The folder that holds ``train-clean-100`` and so on.
    subsets : list of str, optional
        The folders to read; all of them when omitted. One whose name begins
        with train, dev or test belongs to train, valid or test.

    Yields
    ------
    dict
        Record with ID, wav, split, spk_id and wrd (the text), in the order
        of the paths; without ``duration``, which the tree does not have.

    Raises
    ------
    ValueError
        When a folder has no transcripts or another name, or a transcript
        names no recording; the message names file and line.

    Example
    -------
    >>> chapter = getfixture("tmp_path") / "dev-mini" / "19" / "198"
    >>> chapter.mkdir(parents=True)
    >>> (chapter / "19-198-0000.flac").touch()
    >>> _ = (chapter / "19-198.trans.txt").write_text("19-198-0000 SO IT IS\\n")
    >>> [(r["split"], r["wrd"]) for r in librispeech(chapter.parents[2])]
    [('valid', 'SO IT IS')]
    """
    folder = Path(folder).absolute()
    if subsets is None:
        found = folder.glob(f"*/*/*/{_TEXTS}")
        subsets = sorted({path.parents[2].name for path in found})
    for subset in subsets:
        split = _PREFIXES.get(subset.partition("-")[0])
        if split is None:
            raise ValueError(
                f"{folder / subset}: expected a folder named train-..., "
                "dev-... or test-..."
            )
        files = sorted((folder / subset).glob(f"*/*/{_TEXTS}"))
        if not files:
            raise ValueError(
                f"{folder / subset}: expected <reader>/<chapter>/*.trans.txt, "
                "got none"
            )
        silent = []
        for file in files:
            names = set()
            for record in _chapter(file, split):
                names.add(record["ID"])
                yield record
            silent += [
                path
                for path in sorted(file.parent.glob("[!.]*"))
                if path.suffix in _SUFFIXES and path.stem not in names
            ]
        if silent:
            _logger.warning(
                f"{folder / subset}: {len(silent)} recordings have no text: "
                f"{named(silent)}"
            )


def _chapter(file, split):
    """Yields the records of one transcript file."""
    for number, line in lines_of(file):
        name, _, text = line.strip().partition(" ")
        paths = [file.parent / f"{name}{suffix}" for suffix in _SUFFIXES]
        wav = next((path for path in paths if os.path.isfile(path)), None)
        if wav is None or not text.strip():
            raise ValueError(
                f"{file}, line {number}: expected the name of a recording "
                f"beside it and its text, got {line[:60]!r}"
            )
        yield {
            "ID": name,
            "wav": str(wav),
            "split": split,
            "spk_id": file.parent.parent.name,
            "wrd": text.strip(),
        }
