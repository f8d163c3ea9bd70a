"""Speech for pre-training: whole utterances with phones, or crops with units
or with nothing, the same in a run that was stopped and goes on.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
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
from unispeech_sb.dataio.shard_batches import add_shard_batches
from unispeech_sb.dataio.shards import (
    ShardRows,
    all_rows,
    is_shards,
    read_index,
    rows_in_shards,
)
from unispeech_sb.dataio.tokenizers import CTCTokenizer
from unispeech_sb.dataio.units import cut_units, units_of

__all__ = [
    "NUM_SPECIALS",
    "SpeechCrops",
    "add_batches",
    "phone_targets",
    "unit_targets",
    "unlabelled_records",
    "usable_rows",
]

logger = get_logger(__name__)

NUM_SPECIALS = 4
"""Rows of the label embeddings before those of the units: the authors'
``<s> <pad> </s> <unk>``, never targets."""


def unlabelled_records(hparams: dict[str, Any]) -> list[dict[str, Any]]:
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
    records: list[dict[str, Any]] = []
    for folder in folders:
        records += read_corpus("pretraining", hparams, folder)
    if any(record["split"] == "valid" for record in records):
        return records
    return split_valid(records, hparams["valid_share"], hparams["seed"])


def usable_rows(
    folder: str | Path, hparams: dict[str, Any]
) -> dict[str, Sequence[dict[str, Any]]]:
    """Reads manifests, without utterances that are too short or too long.

    Arguments
    ---------
    folder : str or path-like
        With ``train.csv``, ``valid.csv`` and perhaps ``test.csv``, or a folder
        of shards.
    hparams : dict
        The recipe's yaml: ``min_duration_s`` and ``max_duration_s``, null for
        no limit.

    Returns
    -------
    dict
        Split -> its rows.

    Raises
    ------
    ValueError
        When nothing is left of a split.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> hparams = {"min_duration_s": 2.0, "max_duration_s": 20.0}
    >>> _ = (folder / "train.csv").write_text("ID,wav,duration\\na,/a.wav,1.5")
    >>> usable_rows(folder, hparams)
    Traceback (most recent call last):
    ...
    ValueError: ...train.csv: expected utterances of 2.0 to 20.0 s, got none
    """
    if is_shards(folder):
        known = read_index(folder)["splits"]
        splits = [s for s in SPLITS if s != "test" or s in known]
        return {split: all_rows(folder, split, hparams) for split in splits}
    paths = {split: Path(folder, f"{split}.csv") for split in SPLITS}
    return {
        split: _usable(path, hparams)
        for split, path in paths.items()
        if split != "test" or path.is_file()
    }


class SpeechCrops(Dataset[dict[str, Any]]):
    """Utterances, each batch cut to one length where that is wanted.

    An item's number says which pass it is of too: ``number // len(self)``.
    So the place of a crop is the same in a run that was stopped and resumed,
    with any number of workers.

    Arguments
    ---------
    rows : list of dict
        Utterance records.
    targets : callable, optional
        Row -> its labels, int64, [U].
    label_rate : int, optional
        Labels a second. Without it labels are of the whole utterance, which
        then must not be cut.
    crop_s : float, optional
        Keep this many seconds of longer utterances.
    equal_lengths : bool
        Cut all utterances of a batch to the shortest, as the authors do
        without ``pad_audio``; otherwise they will be padded.
    sample_rate : int
        Rate of the waveforms in Hz.
    seed : int
        Places are drawn from it.

    Example
    -------
    >>> import numpy as np, soundfile
    >>> rows = []
    >>> for seconds in (1, 2):
    ...     path = getfixture("tmp_path") / f"{seconds}.wav"
    ...     soundfile.write(path, np.sin(np.arange(16000 * seconds)), 16000)
    ...     rows.append({"ID": path.stem, "wav": str(path)})
    >>> crops = SpeechCrops(rows, equal_lengths=True)
    >>> [len(item["sig"]) for item in crops.__getitems__([0, 1])]
    [16000, 16000]
    """

    def __init__(
        self,
        rows: Sequence[dict[str, Any]],
        targets: Callable[[dict[str, Any]], torch.Tensor] | None = None,
        label_rate: int | None = None,
        crop_s: float | None = None,
        equal_lengths: bool = False,
        sample_rate: int = 16000,
        seed: int = 0,
    ) -> None:
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

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> dict[str, Any]:
        """Reads the item of a number: pass times length, plus place."""
        return self.__getitems__([number])[0]

    def __getitems__(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """Reads a batch of numbers, as torch's loader asks for it.

        Items have ``id``, ``sig``, [N], and, with labels, ``targets``, [U].
        """
        if isinstance(self.rows, ShardRows):
            numbers, rows = self.rows.take(numbers)
        else:
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


def unit_targets(
    folder: str | Path, split: str
) -> Callable[[dict[str, Any]], torch.Tensor]:
    """Reads units as the targets of the clusters' head.

    Arguments
    ---------
    folder : str or path-like
        A folder of units, checked by ``check_units``.
    split : str
        Whose units.

    Returns
    -------
    callable
        Row -> its targets, int64, [U]: unit k is ``k + NUM_SPECIALS``. Rows of
        shards have their units with them.

    Example
    -------
    >>> import numpy as np
    >>> from unispeech_sb.dataio.units import write_units
    >>> folder = getfixture("tmp_path")
    >>> record = {"ID": "a", "wav": "/a.wav", "duration": 0.04}
    >>> record["split"] = "train"
    >>> about = {"label_rate": 50, "num_units": 9}
    >>> _ = write_units(folder, [record], [np.array([8, 2])], about)
    >>> row = {"wav": "/a.wav", "units_start": "0", "units_stop": "2"}
    >>> unit_targets(folder, "train")(row)
    tensor([12,  6])
    """

    def read(row):
        own = row.get("units")
        own = units_of(folder, split, row) if own is None else np.int64(own)
        return torch.from_numpy(own + NUM_SPECIALS)

    return read


def phone_targets(
    tokenizer: CTCTokenizer, column: str
) -> Callable[[dict[str, Any]], torch.Tensor]:
    """Reads phones as the targets of CTC.

    Arguments
    ---------
    tokenizer : CTCTokenizer
        Encodes them.
    column : str
        Where a row has them.

    Returns
    -------
    callable
        Row -> its targets, int64, [U].

    Example
    -------
    >>> from unispeech_sb.dataio.tokenizers import CTCTokenizer
    >>> tokenizer = CTCTokenizer.from_texts(["s oː"], separator=" ")
    >>> phone_targets(tokenizer, "phones")({"phones": "oː s"}).shape
    torch.Size([2])
    """
    return lambda row: torch.tensor(tokenizer.targets(row[column]))


def split_valid(records, share, seed):
    """Moves a share of the training recordings to validation."""
    if not 0 <= share < 1:
        raise ValueError(
            f"valid_share: expected a share in [0, 1), got {share}"
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
    return rows_in_shards(kept, hparams) or kept


def add_batches(
    dataset: SpeechCrops, split: str, hparams: dict[str, Any]
) -> None:
    """Puts utterances of similar length in a batch of ``max_batch_s`` in all.

    Arguments
    ---------
    dataset : SpeechCrops
        Of the split.
    split : str
        ``train``, whose batches are shuffled by ``seed``, or another.
    hparams : dict
        The recipe's yaml: ``max_batch_s``, ``num_buckets`` and, of longer
        utterances, ``crop_s``. The batches are added to the split's loader
        options. Shards are read from front to back in training, through a
        buffer of ``shuffle_buffer_s``.

    Example
    -------
    >>> hparams = {"max_batch_s": 9.0, "num_buckets": 2}
    >>> hparams["valid_dataloader_opts"] = options = {}
    >>> rows = [{"ID": name, "duration": 2.0} for name in "abc"]
    >>> add_batches(SpeechCrops(rows), "valid", hparams)
    >>> len(options["batch_sampler"])
    2
    """
    options, rows = hparams[f"{split}_dataloader_opts"], dataset.rows
    options["collate_fn"] = PaddedBatch
    if split == "train" and isinstance(rows, ShardRows):
        add_shard_batches(rows, hparams, passes=True)
        return
    most = hparams.get("crop_s") or float("inf")
    if isinstance(rows, ShardRows):
        seconds = rows.seconds.tolist()
    else:
        seconds = [row["duration"] for row in rows]
    lengths = {
        str(place): {"duration": min(length, most)}
        for place, length in enumerate(seconds)
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
    options["batch_sampler"] = sampler
