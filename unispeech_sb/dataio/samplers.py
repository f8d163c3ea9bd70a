"""In which order, and in which batches, items are read: passes over them in
drawn orders, batches of similar length, and the batches of s3prl's SUPERB.
"""

from typing import Any

import torch
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.dataio.sampler import DynamicBatchSampler
from torch.utils.data import Sampler

__all__ = ["halved_batches", "neighbour_batches"]

# Generators of torch keep 32 bits of a seed. An odd factor near 2**32 over the
# golden ratio keeps the seeds of runs far apart, and numbers within one too.
SEED_STEP = 0x9E3779B1


def numbered_generator(seed, number):
    """A generator for the draw of a number, in the run of a seed."""
    state = (seed * SEED_STEP + number) % 2**32
    return torch.Generator().manual_seed(state)


class PassSampler(Sampler[Any]):
    """Items, or batches of them, in an order that is drawn anew in each pass.

    An epoch may be any number of items: passes follow one another, and each
    epoch goes on where the last one ended. Of several processes each takes its
    share of an epoch.

    ``items`` are indices, or lists of indices, or a batch sampler with
    ``set_epoch``, which orders its passes, of one epoch each, by itself. Pass n
    is ordered by ``seed + n``, as given without a seed. ``pass_size`` is added
    to the indices for each pass before: a dataset then knows which pass an item
    is of, and draws the same for it in a run that was stopped and resumed, with
    any number of workers.
    """

    def __init__(self, items, per_epoch=None, seed=None, pass_size=None):
        if not len(items):
            raise ValueError("sampler: expected at least one item; got none")
        if per_epoch is not None and per_epoch < 1:
            raise ValueError(
                "sampler: expected batches_per_epoch or draws_per_epoch of at "
                f"least 1; got {per_epoch}"
            )
        self.items = items
        self.per_epoch = per_epoch
        self.seed = seed
        self.pass_size = pass_size
        self.epoch = 0

    def __len__(self) -> int:
        return self.per_epoch or len(self.items)

    def __iter__(self):
        first, drawn, order = self.epoch * len(self), None, None
        for position in range(first, first + len(self)):
            number, place = divmod(position, len(self.items))
            if number != drawn:
                order, drawn = self._order(number), number
            yield order[place]

    def set_epoch(self, epoch):
        """Chooses the epoch, as SpeechBrain does at its start."""
        self.epoch = epoch
        if isinstance(self.items, Sampler):
            self.items.set_epoch(epoch)

    def _order(self, number):
        """The items of a pass in their order."""
        items = list(self.items)
        if self.seed is not None:
            generator = torch.Generator()
            generator.manual_seed((self.seed + number) % 2**32)
            order = torch.randperm(len(items), generator=generator).tolist()
            items = [items[place] for place in order]
        if self.pass_size is None:
            return items
        first = number * self.pass_size
        return [
            [first + place for place in item]
            if isinstance(item, list)
            else first + item
            for item in items
        ]


def draw_by_passes(options, num_items, hparams):
    """Sets how training items are drawn: ``draws_per_epoch`` of them, where the
    yaml has it, in passes that follow one another, as s3prl counts updates and
    not epochs. A batch may hold the end of one and the beginning of the next.
    """
    draws = hparams.get("draws_per_epoch")
    if draws:
        options.pop("shuffle", None)
        options["sampler"] = PassSampler(
            range(num_items), draws, hparams["seed"]
        )


def dynamic_batches(
    dataset: DynamicItemDataset,
    max_batch_s: float,
    num_buckets: int,
    seed: int | None = None,
) -> DynamicBatchSampler:
    """Makes batches of utterances of similar length, up to a total duration.

    A batch has at most ``max_batch_s`` seconds, padding included; an utterance
    that is longer is a batch of its own. There are ``num_buckets`` ranges of
    lengths, at least 2. Batches and their order are drawn from the seed, anew
    in each epoch; without one the order is that of the lengths.
    """
    _check_limits(max_batch_s, num_buckets)
    shuffle = seed is not None
    return DynamicBatchSampler(
        dataset,
        max_batch_s,
        num_buckets,
        shuffle=shuffle,
        batch_ordering="random" if shuffle else "ascending",
        seed=seed or 0,
    )


def length_limits(max_batch_s, num_buckets):
    """The longest utterances of all ranges of lengths but the last, and how
    many utterances fill a batch of each range, in ``dynamic_batches``."""
    _check_limits(max_batch_s, num_buckets)
    empty = DynamicBatchSampler([], max_batch_s, num_buckets, lengths_list=[])
    return empty._bucket_boundaries, empty._bucket_lens


def _check_limits(max_batch_s, num_buckets):
    """Raises on limits of batches that make none."""
    if num_buckets < 2 or max_batch_s <= 0:
        raise ValueError(
            "dynamic batches: expected num_buckets of at least 2 and "
            f"max_batch_s above 0; got {num_buckets} and {max_batch_s}"
        )


def halved_batches(
    dataset: DynamicItemDataset,
    batch_size: int,
    batches_per_epoch: int | None = None,
    seed: int | None = None,
) -> PassSampler:
    """Makes the batches of SUPERB's speech recognition.

    Utterances in the order of their durations, the longest first, fill
    batches, and each full batch is split in two: s3prl means to split those
    of long utterances, but compares samples with a limit in frames. The last
    batch is not full and stays whole; a single utterance is left out.

    Arguments
    ---------
    dataset : speechbrain.dataio.dataset.DynamicItemDataset
        With a duration in each row.
    batch_size : int
        Utterances in a batch before it is split, an even number.
    batches_per_epoch : int, optional
        Batches in an epoch; all of them when omitted.
    seed : int, optional
        Draw the order of the batches from it; without one, each utterance is
        a batch of its own, in the order of the dataset, for evaluations.

    Returns
    -------
    PassSampler
        The ``batch_sampler`` of a loader.

    Example
    -------
    >>> from speechbrain.dataio.dataset import DynamicItemDataset
    >>> rows = {str(i): {"duration": 1.0 + i} for i in range(6)}
    >>> halved_batches(DynamicItemDataset(rows), 4, seed=0).items
    [[5, 4], [3, 2], [1, 0]]
    """
    if seed is None:
        return _single(dataset)
    if batch_size < 2 or batch_size % 2:
        raise ValueError(
            "halved batches: expected an even batch_size of at least 2; got "
            f"{batch_size}"
        )
    durations = _durations(dataset)
    order = _descending(durations)
    full = len(order) - len(order) % batch_size
    half = batch_size // 2
    batches = [order[i : i + half] for i in range(0, full, half)]
    if len(order) - full > 1:
        batches.append(order[full:])
    return PassSampler(batches, batches_per_epoch, seed)


def neighbour_batches(
    dataset: DynamicItemDataset,
    batch_size: int,
    halve_over_s: float,
    batches_per_epoch: int | None = None,
    seed: int | None = None,
) -> PassSampler:
    """Makes the batches of SUPERB's phoneme recognition.

    With the utterances in the order of their numbers of tokens, the most
    first, there is a batch for each utterance: itself and the next ones, or
    the last ones where fewer are left. So each is in about ``batch_size``
    batches. If the first utterance of a batch is long, the batch keeps only
    its first half.

    Arguments
    ---------
    dataset : speechbrain.dataio.dataset.DynamicItemDataset
        With a duration in each row and the item ``tokens``.
    batch_size : int
        Utterances in a batch.
    halve_over_s : float
        Duration of a long utterance, in seconds.
    batches_per_epoch : int, optional
        Batches in an epoch; all of them when omitted.
    seed : int, optional
        Draw the order of the batches from it; without one, each utterance is
        a batch of its own, in the order of the dataset, for evaluations.

    Returns
    -------
    PassSampler
        The ``batch_sampler`` of a loader.

    Example
    -------
    >>> from speechbrain.dataio.dataset import DynamicItemDataset
    >>> rows = {
    ...     str(i): {"duration": 10.0 * i, "tokens": [1] * (4 - i)}
    ...     for i in range(4)
    ... }
    >>> dataset = DynamicItemDataset(rows)
    >>> neighbour_batches(dataset, 2, halve_over_s=18.75, seed=0).items
    [[0, 1], [1, 2], [2], [2]]
    """
    if seed is None:
        return _single(dataset)
    if batch_size < 1:
        raise ValueError(
            "neighbour batches: expected batch_size of at least 1; got "
            f"{batch_size}"
        )
    with dataset.output_keys_as(["tokens"]):
        order = _descending([len(item["tokens"]) for item in dataset])
    durations = _durations(dataset)
    last = max(0, len(order) - batch_size)
    batches = []
    for place in range(len(order)):
        start = min(place, last)
        batch = order[start : start + batch_size]
        if durations[batch[0]] > halve_over_s and len(batch) > 1:
            batch = batch[: len(batch) // 2]
        batches.append(batch)
    return PassSampler(batches, batches_per_epoch, seed)


def _single(dataset):
    """Each utterance alone, in the order of the dataset."""
    return PassSampler([[index] for index in range(len(dataset))])


def _durations(dataset):
    """Seconds of each item."""
    return [float(dataset.data[uid]["duration"]) for uid in dataset.data_ids]


def _descending(values):
    """Indices, the largest value first, equal ones as they come."""
    return sorted(range(len(values)), key=lambda index: -values[index])
