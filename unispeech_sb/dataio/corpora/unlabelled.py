"""Speech of which nothing but the sound is used: what pre-training and the
making of units read.
"""

import math
from pathlib import Path

import torch

from unispeech_sb.dataio.corpora.aligned import aligned_sentences
from unispeech_sb.dataio.corpora.librispeech import is_librispeech, librispeech
from unispeech_sb.dataio.corpora.table import table
from unispeech_sb.dataio.noises import find_recordings


def unlabelled_speech(hparams):
    """Reads the recordings of one or several folders.

    Arguments
    ---------
    hparams : dict
        The recipe's yaml: ``data_folder``, one or a list: LibriSpeech trees,
        of which ``subsets`` are taken (all when None); folders with
        manifest.csv, or CSVs, that have a column of splits; folders of
        recordings at any depth, which are all for training. With
        ``synthetic``, ``synthetic_sentences`` of ``synthetic_voices`` are
        spoken into the folder instead. Where nothing is for validation, a
        share ``valid_share`` of the training recordings, drawn by ``seed``,
        is held out.

    Returns
    -------
    list of dict
        Utterance records.

    Raises
    ------
    ValueError
        When there is no such folder, or nothing in it.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> for name in "abcd":
    ...     (folder / f"{name}.wav").touch()
    >>> hparams = {"data_folder": folder, "subsets": None, "synthetic": False}
    >>> hparams |= {"valid_share": 0.1, "seed": 0}
    >>> sorted(record["split"] for record in unlabelled_speech(hparams))
    ['train', 'train', 'train', 'valid']
    """
    folders = hparams["data_folder"]
    if not isinstance(folders, (list, tuple)):
        folders = [folders]
    records = []
    for folder in folders:
        records += _read(Path(folder), hparams)
    if any(record["split"] == "valid" for record in records):
        return records
    return _hold_out(records, hparams["valid_share"], hparams["seed"])


def _read(folder, hparams):
    """The records of one folder."""
    if hparams["synthetic"]:
        return aligned_sentences(
            folder,
            hparams["synthetic_sentences"],
            hparams["synthetic_voices"],
            hparams["seed"],
        )
    if not folder.exists():
        raise ValueError(
            f"{folder}: expected a LibriSpeech folder, a folder with "
            "manifest.csv, a folder of recordings, or a CSV; there is nothing"
        )
    if is_librispeech(folder):
        return librispeech(folder, hparams["subsets"])
    path = folder / "manifest.csv" if folder.is_dir() else folder
    if path.is_file() and (path == folder or _has_splits(path)):
        return table(path, label_column=None)
    return _recordings(folder)


def _has_splits(path):
    """Whether a table has a column of splits."""
    with open(path, encoding="utf-8-sig") as file:
        return "split" in file.readline().lower().strip().split(",")


def _recordings(folder):
    """Yields all recordings below a folder, named after their paths."""
    root = folder.absolute()
    for path in find_recordings(root):
        name = path.relative_to(root).with_suffix("").as_posix()
        yield {
            "ID": name.replace("/", "_"),
            "wav": str(path),
            "split": "train",
        }


def _hold_out(records, share, seed):
    """Moves a share of the training recordings to validation."""
    if not 0 < share < 1:
        raise ValueError(
            f"valid_share: expected a share in (0, 1), got {share}"
        )
    places = [i for i, r in enumerate(records) if r["split"] == "train"]
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(places), generator=generator).tolist()
    moved = {places[i] for i in order[: math.ceil(share * len(places))]}
    return [
        {**record, "split": "valid"} if place in moved else record
        for place, record in enumerate(records)
    ]
