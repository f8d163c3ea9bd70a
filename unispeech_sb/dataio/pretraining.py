"""Speech for pre-training: whole utterances with phones, or crops with units
or with nothing, the same in a run that was stopped and goes on.
"""

import math
from functools import partial
from pathlib import Path

import torch
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.logger import get_logger
from torch.utils.data import Dataset

from unispeech_sb.dataio.audio import bounds_of, read_audio
from unispeech_sb.dataio.corpora import read_corpus
from unispeech_sb.dataio.manifest import (
    SPLITS,
    filter_by_duration,
    read_manifest,
)
from unispeech_sb.dataio.samplers import (
    PassSampler,
    dynamic_batches,
    numbered_generator,
)
from unispeech_sb.dataio.units import cut_units, read_about, units_of

__all__ = ["NUM_SPECIALS", "pretraining_datasets", "unlabelled_records"]

logger = get_logger(__name__)

NUM_SPECIALS = 4
"""Rows of the label embeddings before those of the units: the authors'
``<s> <pad> </s> <unk>``, never targets."""


def unlabelled_records(hparams):
    """Reads the recordings of one or several folders.

    Arguments
    ---------
    hparams : dict
        The recipe's yaml: as for ``read_corpus``, but ``data_folder`` may be a
        list. Where nothing is for validation, a share ``valid_share`` of the
        training recordings, drawn by ``seed``, is moved there.

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
    >>> sorted(record["split"] for record in unlabelled_records(hparams))
    ['train', 'train', 'train', 'valid']
    """
    folders = hparams["data_folder"]
    if not isinstance(folders, (list, tuple)):
        folders = [folders]
    records = []
    for folder in folders:
        records += read_corpus("pretraining", hparams, folder)
    if any(record["split"] == "valid" for record in records):
        return records
    return _split_valid(records, hparams["valid_share"], hparams["seed"])


def pretraining_datasets(hparams, tokenizer=None):
    """Builds the datasets of a pre-training and their batches.

    Arguments
    ---------
    hparams : dict
        The recipe's yaml; the batches of each split are added to it.
        Manifests are in ``manifest_folder`` or, with units, in
        ``units_folder``. Utterances outside ``min_duration_s`` and
        ``max_duration_s`` are left out, those for CTC must not be cut:
        ``crop_s`` and ``equal_lengths`` are for the other ones. Batches have
        ``max_batch_s`` in all.
    tokenizer : CTCTokenizer, optional
        Of the phones in the column ``text_column``.

    Returns
    -------
    dict
        ``train``, ``valid`` and, if there is one, ``test``.

    Raises
    ------
    ValueError
        When nothing is left of the training or validation set.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> hparams = {"manifest_folder": folder, "min_duration_s": 2.0}
    >>> hparams["max_duration_s"] = 20.0
    >>> _ = (folder / "train.csv").write_text("ID,wav,duration\\na,/a.wav,1.5")
    >>> pretraining_datasets(hparams)
    Traceback (most recent call last):
    ...
    ValueError: ...train.csv: expected utterances of 2.0 to 20.0 s, got none
    """
    units = hparams.get("units_folder")
    folder, datasets = Path(units or hparams["manifest_folder"]), {}
    for split in SPLITS:
        path = folder / f"{split}.csv"
        if split == "test" and not path.is_file():
            continue
        rows = _usable(path, hparams)
        targets = rate = None
        if units:
            targets = unit_targets(folder, split)
            rate = read_about(folder)["label_rate"]
        elif tokenizer is not None:
            targets = phone_targets(tokenizer, hparams["text_column"])
        datasets[split] = SpeechCrops(
            rows, targets, rate,
            hparams.get("crop_s"), hparams.get("equal_lengths", False),
            hparams["sample_rate"], hparams["seed"],
        )  # fmt: skip
        _add_batches(datasets[split], split, hparams)
    return datasets


class SpeechCrops(Dataset):
    """Utterances, each batch cut to one length where that is wanted.

    An item's number says which pass it is of too: ``number // len(self)``.
    So the place of a crop is the same in a run that was stopped and resumed,
    with any number of workers.

    ``targets`` gives the labels of a row, int64, [U], ``label_rate`` of them a
    second; without that they are of the whole utterance, which then must not
    be cut. ``crop_s`` are kept of longer utterances. With ``equal_lengths`` all
    utterances of a batch are cut to the shortest, as the authors do without
    ``pad_audio``; otherwise they will be padded.
    """

    def __init__(
        self,
        rows,
        targets=None,
        label_rate=None,
        crop_s=None,
        equal_lengths=False,
        sample_rate=16000,
        seed=0,
    ):
        if targets and not label_rate and (crop_s or equal_lengths):
            raise ValueError(
                "speech with labels of whole utterances: expected no crop_s "
                "and no equal_lengths"
            )
        self.rows = rows
        self.targets = targets
        self.label_rate = label_rate
        self.crop_s = crop_s
        self.equal_lengths = equal_lengths
        self.sample_rate = sample_rate
        self.seed = seed

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, number):
        """Reads the item of a number: pass times length, plus place."""
        return self.__getitems__([number])[0]

    def __getitems__(self, numbers):
        """Reads a batch of numbers, as torch's loader asks for it.

        Items have ``id``, ``sig``, [N], and, with labels, ``targets``, [U].
        """
        rows = [self.rows[number % len(self)] for number in numbers]
        bounds = [bounds_of(row) for row in rows]
        length_s = self.crop_s or float("inf")
        if self.equal_lengths:
            shortest = min(
                (stop - start) / rate for start, stop, rate in bounds
            )
            length_s = min(length_s, shortest)
        return [
            self._read(row, stretch, length_s, number)
            for row, stretch, number in zip(rows, bounds, numbers, strict=True)
        ]

    def _read(self, row, stretch, length_s, number):
        """Reads an utterance, or a crop of it."""
        start, stop, rate = stretch
        targets = None if self.targets is None else self.targets(row)
        size = stop - start
        if length_s < size / rate:
            size = round(length_s * rate)
            # Crops begin where a unit does: both are in step to the sample
            grid = self.label_rate or rate
            last = (stop - start - size) * grid // rate
            if targets is not None:
                most = len(targets) - round(size / rate * grid)
                last = min(last, max(0, most))
            place = int(self._draw(number) * (last + 1))
            first = round(place * rate / grid)
            if targets is not None:
                targets = cut_units(targets, first, size, grid, rate)
            start, stop = start + first, start + first + size
        sig = read_audio(
            row["wav"], start, stop, self.sample_rate, allow_silence=True
        )
        item = {"id": row["ID"], "sig": sig}
        return item if targets is None else {**item, "targets": targets}

    def _draw(self, number):
        """A number in [0, 1) for an item of a pass."""
        generator = numbered_generator(self.seed, number)
        return torch.rand((), generator=generator, dtype=torch.double).item()


def unit_targets(folder, split):
    """Row -> its units as targets, [U]: unit k is ``k + NUM_SPECIALS``."""

    def read(row):
        return torch.from_numpy(units_of(folder, split, row) + NUM_SPECIALS)

    return read


def phone_targets(tokenizer, column):
    """Row -> the phones in ``column`` as CTC's targets, int64, [U]."""
    return lambda row: torch.tensor(tokenizer.targets(row[column]))


def _split_valid(records, share, seed):
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


def _usable(path, hparams):
    """The rows of a manifest that are neither too short nor too long."""
    least, most = hparams["min_duration_s"], hparams["max_duration_s"]
    most = float("inf") if most is None else most
    kept, dropped = filter_by_duration(read_manifest(path), least, most)
    if not kept:
        raise ValueError(
            f"{path}: expected utterances of {least} to {most} s, got none"
        )
    if dropped:
        logger.info(
            f"{path}: left out {len(dropped)} of {len(kept) + len(dropped)} "
            f"utterances, which are not of {least} to {most} s"
        )
    return kept


def _add_batches(dataset, split, hparams):
    """Adds what a split's loader needs to the yaml."""
    most = hparams.get("crop_s") or float("inf")
    lengths = {
        row["ID"]: {"duration": min(row["duration"], most)}
        for row in dataset.rows
    }
    batches = partial(
        dynamic_batches,
        DynamicItemDataset(lengths),
        hparams["max_batch_s"],
        hparams["num_buckets"],
    )
    sampler = batches()
    if split == "train":
        sampler = PassSampler(batches(hparams["seed"]), pass_size=len(dataset))
    options = hparams[f"{split}_dataloader_opts"]
    options |= {"batch_sampler": sampler, "collate_fn": PaddedBatch}
