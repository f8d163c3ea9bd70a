"""Every utterance is read once in an epoch, by however many readers, and a run
that goes on has the batches of one that was not stopped."""

import itertools
import os

import pytest
import torch
from speechbrain.utils.checkpoints import Checkpointer
from torch.utils.data import Dataset

from unispeech_sb.dataio import shard_batches
from unispeech_sb.dataio.samplers import dynamic_batches, length_limits
from unispeech_sb.dataio.shard_batches import (
    ShardBatches,
    ShardLoader,
    add_shard_batches,
)
from unispeech_sb.dataio.shards import ShardRows

MOST_S = 1.5


class Numbers(Dataset):
    """Gives the IDs of each batch, and how many were read alone, and where."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitems__(self, batch):
        _, rows = self.rows.take(batch)
        return [row["ID"] for row in rows], self.rows.num_alone, os.getpid()


def make_sampler(folder, readers=0, seed=1, **options):
    """Batches of the training split."""
    rows = ShardRows(folder, "train")
    options = {"buffer_s": 2.0, "seed": seed, **options}
    sampler = ShardBatches(rows, (MOST_S, 4), **options)
    sampler.readers = readers
    return sampler


def make_loader(folder, workers=0, **options):
    """A loader of the training split."""
    sampler = make_sampler(folder, **options)
    return ShardLoader(
        Numbers(sampler.rows),
        batch_sampler=sampler,
        collate_fn=lambda found: found,
        num_workers=workers,
        multiprocessing_context="fork" if workers else None,
    )


@pytest.fixture
def as_rank(monkeypatch):
    """A function that makes this process one of several."""

    def choose(ranks, rank):
        monkeypatch.setattr(shard_batches, "_processes", lambda: (ranks, rank))

    return choose


def epoch_of(folder, ranks, readers, as_rank, epoch=1, state=None, count=None):
    """The batches of each rank, of which the first that are skipped are
    empty."""
    found = []
    for rank in range(ranks):
        as_rank(ranks, rank)
        sampler = make_sampler(folder, readers)
        skipped = sampler.resume(state) if state else 0
        sampler.set_epoch(epoch)
        batches = [list(batch) for batch in sampler]
        assert len(batches) == len(sampler)
        found.append(batches[skipped:][:count])
    return found


@pytest.mark.parametrize(
    ("ranks", "readers"),
    [(1, 0), (1, 1), (1, 3), (2, 0), (2, 2), (3, 1), (5, 4), (40, 1)],
)
def test_each_utterance_is_once_in_an_epoch(packed, as_rank, ranks, readers):
    found = epoch_of(packed, ranks, readers, as_rank)
    counts = {len(batches) for batches in found}
    assert len(counts) == 1, "all ranks end together"
    numbers = sorted(itertools.chain(*itertools.chain(*found)))
    assert numbers == list(range(40))


def test_batches_are_of_similar_length_and_no_longer_than_asked(packed):
    sampler = make_sampler(packed)
    sampler.set_epoch(1)
    bounds, _ = length_limits(MOST_S, 4)
    for batch in sampler:
        seconds = sampler.seconds[list(batch)]
        assert len(batch) == 1 or len(batch) * seconds.max() <= MOST_S
        ranges = torch.bucketize(torch.tensor(seconds), torch.tensor(bounds))
        assert len(ranges.unique()) == 1


def test_the_limits_are_those_of_the_batches_of_single_files():
    from speechbrain.dataio.dataset import DynamicItemDataset

    own = dynamic_batches(
        DynamicItemDataset({"a": {"duration": 1.0}}), MOST_S, 4, 1
    )
    bounds, sizes = length_limits(MOST_S, 4)
    assert bounds.tolist() == own._bucket_boundaries.tolist()
    assert sizes == own._bucket_lens


def test_epochs_and_seeds_differ_and_repeat(packed):
    def order(seed, epoch):
        sampler = make_sampler(packed, seed=seed)
        sampler.set_epoch(epoch)
        return [list(batch) for batch in sampler]

    assert order(1, 1) == order(1, 1)
    assert order(1, 1) != order(1, 2) != order(2, 2)


def test_numbers_say_which_pass_they_are_of(packed):
    sampler = make_sampler(packed, pass_size=40)
    sampler.set_epoch(3)
    numbers = sorted(itertools.chain(*sampler))
    assert numbers == list(range(120, 160))


def test_the_buffer_bounds_what_waits(packed):
    for buffer_s in (0.01, 1.0, 1e9):
        sampler = make_sampler(packed, buffer_s=buffer_s)
        sampler.set_epoch(1)
        rows, longest = sampler.rows, 0.0
        for batch in sampler:
            for first, stop in batch.reads:
                rows._read_ahead(first, stop)
            held = sampler.seconds[list(rows._held)].sum()
            longest = max(longest, held)
            for number in batch:
                rows[number]
        # beside it at most a batch of each length is filling
        assert longest <= buffer_s + 5 * MOST_S + 0.5
        assert not rows._held and rows.num_alone == 0
    with pytest.raises(ValueError, match="shuffle_buffer_s: expected"):
        make_sampler(packed, buffer_s=0.0)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_reads_ahead_in_each_worker_alone(packed, workers):
    loader = make_loader(packed, workers)
    loader.batch_sampler.set_epoch(1)
    found = list(loader)
    assert sorted(name for names, *_ in found for name in names) == sorted(
        f"utt.{number}" for number in range(40)
    )
    assert {alone for _, alone, _ in found} == {0}
    assert len({process for *_, process in found}) == max(1, workers)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("count", [1, 6, 11])
def test_a_loader_goes_on_to_the_same_batches(packed, tmp_path, workers, count):
    def loader():
        made = make_loader(packed, workers)
        made.batch_sampler.set_epoch(2)
        return made, Checkpointer(tmp_path, {"loader": made})

    whole = [names for names, *_ in loader()[0]]
    first, checkpointer = loader()
    iterator = iter(first)
    begun = [next(iterator)[0] for _ in range(count)]
    checkpointer.save_checkpoint(end_of_epoch=False)
    del iterator
    second, checkpointer = loader()
    checkpointer.recover_if_possible()
    second.batch_sampler.set_epoch(2)
    assert len(second) == len(whole)
    rest = [names for names, *_ in second]
    assert begun + rest == whole and len(rest) == len(whole) - count
    second.batch_sampler.set_epoch(3)
    assert len([*second]) == len(second), "the next epoch is whole"


def test_at_the_end_of_an_epoch_the_next_one_begins(packed, tmp_path):
    loader = make_loader(packed)
    loader.batch_sampler.set_epoch(1)
    list(loader)
    Checkpointer(tmp_path, {"loader": loader}).save_checkpoint()
    other = make_loader(packed)
    Checkpointer(tmp_path, {"loader": other}).recover_if_possible()
    other.batch_sampler.set_epoch(2)
    assert sorted(n for names, *_ in other for n in names)[:1] == ["utt.0"]


@pytest.mark.parametrize(
    "stages",
    [
        [(2, 1, 3), (1, 0, None)],
        [(1, 0, 4), (2, 2, None)],
        [(1, 2, 5), (3, 1, 2), (2, 0, 1), (1, 3, None)],
        [(2, 0, 1), (2, 0, 1), (1, 0, None)],
        [(2, 1, None), (1, 0, None)],
    ],
)
def test_other_readers_go_on_with_what_is_left(packed, as_rank, stages, caplog):
    state, read = None, []
    for ranks, readers, count in stages:
        found = epoch_of(packed, ranks, readers, as_rank, 1, state, count)
        done = len(found[0])
        read += itertools.chain(*itertools.chain(*found))
        as_rank(ranks, 0)
        sampler = make_sampler(packed, readers)
        skipped = sampler.resume(state) if state else 0
        sampler.set_epoch(1)
        state = sampler.state(skipped + done)
    assert sorted(read) == list(range(40))
    assert "left out are 0, read twice 0" in caplog.text
    ranks, readers, _ = stages[-1]
    now = f"goes on with {ranks} processes of {max(1, readers)} readers"
    assert now in caplog.text


def test_what_cannot_be_shared_out_is_read_twice_and_counted(packed, as_rank):
    as_rank(1, 0)
    rows = ShardRows(packed, "train", [4, 9, 11])
    found = []
    for rank in range(5):
        as_rank(5, rank)
        sampler = ShardBatches(rows, (MOST_S, 4))
        sampler.set_epoch(1)
        found += [list(batch) for batch in sampler]
    assert sampler._plan().repeated == 2 and len(found) == 5
    assert {number for batch in found for number in batch} == {0, 1, 2}


def test_a_checkpoint_of_other_shards_is_refused(packed):
    state = make_sampler(packed).state(3)
    rows = ShardRows(packed, "train", range(9))
    with pytest.raises(ValueError, match="expected the 40 utterances"):
        ShardBatches(rows, (MOST_S, 4)).resume(state)


def test_options_of_a_yaml(packed):
    rows = ShardRows(packed, "train")
    hparams = {"max_batch_s": MOST_S, "num_buckets": 4, "seed": 5}
    hparams |= {"shuffle_buffer_s": 7.0, "train_dataloader_opts": {}}
    add_shard_batches(rows, {**hparams, "crop_s": 0.1}, passes=True)
    sampler = hparams["train_dataloader_opts"]["batch_sampler"]
    assert (sampler.buffer_s, sampler.seed, sampler.pass_size) == (7.0, 5, 40)
    assert set(sampler.buckets.tolist()) == {0}, "crops are all short"
