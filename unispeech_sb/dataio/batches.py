"""Batches that stay the same through a training, only their order is drawn: as
s3prl makes them for SUPERB's speech and phoneme recognition.
"""

import torch
from torch.utils.data import Sampler


class FixedBatches(Sampler):
    """Given batches in an order that is drawn anew in each pass over them.

    An epoch may be any number of batches: the passes follow one another, and
    each epoch goes on where the last one ended, so that scores come after as
    many updates as a protocol wants. Of several processes each takes its
    share of an epoch's batches.

    Arguments
    ---------
    batches : list of list of int
        Indices of the items of each batch.
    batches_per_epoch : int, optional
        Batches in an epoch; one pass when omitted.
    seed : int, optional
        The orders are drawn from it; without one the order is as given.

    Example
    -------
    >>> sampler = FixedBatches([[0, 1], [2]], batches_per_epoch=3)
    >>> list(sampler)
    [[0, 1], [2], [0, 1]]
    >>> sampler.set_epoch(1)
    >>> list(sampler)
    [[2], [0, 1], [2]]
    """

    def __init__(self, batches, batches_per_epoch=None, seed=None):
        if not batches:
            raise ValueError("fixed batches: expected at least one; got none")
        if batches_per_epoch is not None and batches_per_epoch < 1:
            raise ValueError(
                "fixed batches: expected batches_per_epoch of at least 1; "
                f"got {batches_per_epoch}"
            )
        self.batches = batches
        self.batches_per_epoch = batches_per_epoch or len(batches)
        self.seed = seed
        self.epoch = 0

    def __len__(self):
        return self.batches_per_epoch

    def __iter__(self):
        first, drawn = self.epoch * len(self), None
        for position in range(first, first + len(self)):
            number, place = divmod(position, len(self.batches))
            if number != drawn:
                order, drawn = self._order(number), number
            yield self.batches[order[place]]

    def set_epoch(self, epoch):
        """Chooses the epoch, as SpeechBrain does at its start.

        Arguments
        ---------
        epoch : int
            Its number.
        """
        self.epoch = epoch

    def _order(self, number):
        """Order of the batches in a pass."""
        if self.seed is None:
            return range(len(self.batches))
        generator = torch.Generator().manual_seed(self.seed + number)
        return torch.randperm(len(self.batches), generator=generator).tolist()


def halved_batches(dataset, batch_size, batches_per_epoch=None, seed=None):
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
    FixedBatches
        The ``batch_sampler`` of a loader.

    Example
    -------
    >>> from speechbrain.dataio.dataset import DynamicItemDataset
    >>> rows = {str(i): {"duration": 1.0 + i} for i in range(6)}
    >>> halved_batches(DynamicItemDataset(rows), 4, seed=0).batches
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
    return FixedBatches(batches, batches_per_epoch, seed)


def neighbour_batches(
    dataset, batch_size, halve_over_s, batches_per_epoch=None, seed=None
):
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
    FixedBatches
        The ``batch_sampler`` of a loader.

    Example
    -------
    >>> from speechbrain.dataio.dataset import DynamicItemDataset
    >>> rows = {
    ...     str(i): {"duration": 10.0 * i, "tokens": [1] * (4 - i)}
    ...     for i in range(4)
    ... }
    >>> dataset = DynamicItemDataset(rows)
    >>> neighbour_batches(dataset, 2, halve_over_s=18.75, seed=0).batches
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
    return FixedBatches(batches, batches_per_epoch, seed)


def _single(dataset):
    """Each utterance alone, in the order of the dataset."""
    return FixedBatches([[index] for index in range(len(dataset))])


def _durations(dataset):
    """Seconds of each item."""
    return [float(dataset.data[uid]["duration"]) for uid in dataset.data_ids]


def _descending(values):
    """Indices, the largest value first, equal ones as they come."""
    return sorted(range(len(values)), key=lambda index: -values[index])
