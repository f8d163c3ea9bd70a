"""Mozilla's Common Voice, one language as its archive unpacks: train.tsv,
dev.tsv, test.tsv and clips/ (Ardila et al. 2020).
"""

import csv
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from unispeech_sb.dataio.manifest import has_columns, read_rows
from unispeech_sb.text import plain_words

__all__ = ["common_voice"]

_SPLITS = {"train": "train", "dev": "valid", "test": "test"}
_COLUMNS = ("client_id", "path", "sentence")


def is_common_voice(folder):
    """Whether a folder is a language of Common Voice."""
    folder = Path(folder)
    return (folder / "clips").is_dir() and (folder / "train.tsv").is_file()


def common_voice(
    folder: str | Path,
    subsets: Sequence[str] | None = None,
    language: str | None = None,
) -> Iterator[dict[str, Any]]:
    """Reads the records of one language.

    Arguments
    ---------
    folder : str or path-like
        ``cv-corpus-<version>/<language>``.
    subsets : list of str, optional
        Of ``train``, ``dev`` and ``test``; all of them when omitted.
    language : str, optional
        Code of the language, such as "tr", by which letters change case. That
        of the column ``locale`` when omitted, else the folder's name.

    Yields
    ------
    dict
        Record with ID, wav, split, spk_id, language and wrd (the sentence in
        lower case without punctuation), in the order of the tables; without
        ``duration``, which they do not have.

    Raises
    ------
    ValueError
        When a table lacks a column, or names a clip that is not there; the
        message names file and line.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> (folder / "clips").mkdir()
    >>> (folder / "clips" / "a.mp3").touch()
    >>> table = "client_id\\tpath\\tsentence\\nann\\ta.mp3\\t¡Sí, señor!\\n"
    >>> _ = (folder / "train.tsv").write_text(table, encoding="utf-8")
    >>> [record["wrd"] for record in common_voice(folder, ["train"])]
    ['sí señor']
    """
    folder = Path(folder).absolute()
    for subset in subsets or _SPLITS:
        if subset not in _SPLITS:
            raise ValueError(
                f"{folder}: expected subsets of {', '.join(_SPLITS)}; "
                f"got {subset!r}"
            )
        table = folder / f"{subset}.tsv"
        if not table.is_file():
            raise FileNotFoundError(f"{table}: there is no such table")
        # Quotes are part of a sentence there, and may come alone
        form = {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
        for where, row in read_rows(table, has_columns(*_COLUMNS), **form):
            record = _record(row, folder / "clips", where)
            code = language or row.get("locale") or folder.name
            text = plain_words(row["sentence"], code)
            yield {
                **record,
                "split": _SPLITS[subset],
                "language": code,
                "wrd": text,
            }


def _record(row, clips, where):
    """Turns a row into a record without its text."""
    if None in (row[column] for column in _COLUMNS):
        raise ValueError(f"{where}: expected one value per column")
    wav = clips / row["path"]
    if not wav.suffix:  # the first editions leave it out
        wav = wav.with_suffix(".mp3")
    if not os.path.isfile(wav):
        raise ValueError(f"{where}: no such file: {wav}")
    return {
        "ID": wav.stem,
        "wav": str(wav),
        "spk_id": row["client_id"],
    }
