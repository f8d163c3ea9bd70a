"""Fluent Speech Commands, the corpus of SUPERB's intent classification (Lugosch
et al. 2019, arXiv:1904.03670): commands with an action, an object and a
location.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unispeech_sb.dataio.manifest import has_columns, read_rows

__all__ = ["fluent_speech_commands"]

SLOTS = ("action", "object", "location")


def is_fluent_speech_commands(folder):
    """Whether a folder is the corpus."""
    return Path(folder, "data", "train_data.csv").is_file()


def fluent_speech_commands(folder: str | Path) -> Iterator[dict[str, Any]]:
    """Reads the records of the corpus by its tables.

    Arguments
    ---------
    folder : str or path-like
        ``fluent_speech_commands_dataset``, with ``data/train_data.csv``,
        ``data/valid_data.csv``, ``data/test_data.csv`` and ``wavs``.

    Yields
    ------
    dict
        Record with ID (the stem of the file), wav, split, spk_id, action,
        object and location, in the order of the tables; without ``duration``.

    Raises
    ------
    ValueError
        When a table is missing, lacks a column, or names a file that is not
        there; the message names file and line.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> (folder / "data").mkdir()
    >>> table = "path,action,object,location\\na.wav,activate,lights,none\\n"
    >>> _ = (folder / "a.wav").write_text("")
    >>> for split in ("train", "valid", "test"):
    ...     _ = (folder / "data" / f"{split}_data.csv").write_text(table)
    >>> record = next(fluent_speech_commands(folder))
    >>> record["action"], record["location"]
    ('activate', 'none')
    """
    folder = Path(folder).absolute()
    columns = has_columns("path", *SLOTS)
    for split in ("train", "valid", "test"):
        table = folder / "data" / f"{split}_data.csv"
        for where, row in read_rows(table, columns):
            wav = folder / (row["path"] or "")
            if not wav.is_file():
                raise ValueError(f"{where}: no such file: {wav}")
            yield {
                "ID": wav.stem,
                "wav": str(wav),
                "split": split,
                "spk_id": wav.parent.name,
                **{slot: row[slot] for slot in SLOTS},
            }
