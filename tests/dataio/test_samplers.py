"""Orders and batches: passes, similar lengths, SUPERB's protocols."""

import pytest
import torch
from speechbrain.dataio.dataset import DynamicItemDataset

from unispeech_sb.dataio.samplers import (
    PassSampler,
    dynamic_batches,
    halved_batches,
    neighbour_batches,
)


def dataset(durations, num_tokens=None):
    """Items of these durations, and of so many tokens."""
    num_tokens = num_tokens or [1] * len(durations)
    return DynamicItemDataset(
        {
            str(index): {"duration": duration, "tokens": [0] * number}
            for index, (duration, number) in enumerate(
                zip(durations, num_tokens, strict=True)
            )
        }
    )


def epochs(sampler, number):
    """The batches of the first epochs, one after another."""
    found = []
    for epoch in range(number):
        sampler.set_epoch(epoch)
        assert len(list(sampler)) == len(sampler)
        found += list(sampler)
    return found


def test_epochs_of_any_length_are_whole_passes_in_new_orders():
    batches = [[index] for index in range(7)]
    found = epochs(PassSampler(batches, per_epoch=3, seed=1), 14)
    passes = [found[start : start + 7] for start in range(0, 42, 7)]
    assert all(sorted(one) == batches for one in passes)
    assert len({str(one) for one in passes}) == len(passes)
    assert found == epochs(PassSampler(batches, 6, seed=1), 7)
    assert found != epochs(PassSampler(batches, 6, seed=2), 7)


def test_an_epoch_may_be_longer_than_a_pass():
    found = epochs(PassSampler([[0], [1]], per_epoch=5), 2)
    assert found == [[0], [1]] * 5


@pytest.mark.parametrize("arguments", [([],), ([[0]], 0), ([[0]], -1)])
def test_epochs_without_batches_are_refused(arguments):
    with pytest.raises(ValueError, match="of at least 1|at least one item"):
        PassSampler(*arguments)


def test_full_batches_are_halved_the_longest_first():
    durations = [3.0, 9.0, 1.0, 7.0, 5.0, 8.0, 2.0, 6.0, 4.0, 0.5, 0.4]
    batches = halved_batches(dataset(durations), 4, seed=0).items
    # The last three do not fill a batch and stay together
    assert batches == [[1, 5], [3, 7], [4, 8], [0, 6], [2, 9, 10]]


def test_a_last_single_utterance_is_left_out():
    batches = halved_batches(dataset([5.0, 4.0, 3.0, 2.0, 1.0]), 4, seed=0)
    assert batches.items == [[0, 1], [2, 3]]


def test_an_epoch_of_superbs_recognition_has_1783_batches():
    """Of 28 539 utterances: 891 x 32, each in two, and a last one of 27."""
    rows = dataset(range(28_539))
    batches = halved_batches(rows, 32, seed=0).items
    assert len(batches) == 1783
    assert [len(batch) for batch in batches] == [16] * 1782 + [27]
    assert sorted(sum(batches, [])) == list(range(28_539))
    assert batches[-1] == list(range(26, -1, -1))  # the shortest


def test_the_last_windows_of_superbs_phonemes_are_one_and_the_same():
    """One batch for each utterance; the 16 with the fewest phones 16 times."""
    rows = dataset([1.0] * 100, range(200, 100, -1))
    batches = neighbour_batches(rows, 16, halve_over_s=18.75, seed=0).items
    assert len(batches) == 100
    assert batches[-17] == list(range(83, 99))
    assert batches[-16:] == [list(range(84, 100))] * 16


def test_windows_of_neighbours_hold_each_utterance_many_times():
    numbers = [3, 9, 1, 7, 5]
    batches = neighbour_batches(
        dataset([1.0] * 5, numbers), 3, halve_over_s=18.75, seed=0
    ).items
    assert batches == [[1, 3, 4], [3, 4, 0], [4, 0, 2], [4, 0, 2], [4, 0, 2]]


def test_windows_that_begin_with_a_long_utterance_keep_half():
    durations = [18.75, 18.8, 1.0, 1.0]
    batches = neighbour_batches(
        dataset(durations, [4, 3, 2, 1]), 2, halve_over_s=18.75, seed=0
    ).items
    assert batches == [[0, 1], [1], [2, 3], [2, 3]]


def test_windows_wider_than_the_corpus_are_all_of_it():
    batches = neighbour_batches(dataset([1.0, 1.0]), 16, 18.75, seed=0).items
    assert batches == [[0, 1], [0, 1]]


@pytest.mark.parametrize("make", [halved_batches, neighbour_batches])
def test_evaluations_take_one_utterance_after_another(make):
    options = {"halve_over_s": 2.0} if make is neighbour_batches else {}
    sampler = make(dataset([1.0, 9.0, 3.0]), 4, batches_per_epoch=1, **options)
    assert list(sampler) == [[0], [1], [2]]


@pytest.mark.parametrize("batch_size", [0, 1, 3])
def test_batches_that_cannot_be_halved_are_refused(batch_size):
    with pytest.raises(ValueError, match=f"even .* got {batch_size}"):
        halved_batches(dataset([1.0]), batch_size, seed=0)


def test_batches_hold_no_more_than_their_seconds_and_change_each_epoch():
    seconds = torch.rand(200, generator=torch.Generator().manual_seed(0))
    rows = {
        str(i): {"duration": 1 + 9 * float(s)} for i, s in enumerate(seconds)
    }
    dataset = DynamicItemDataset(rows)
    sampler = dynamic_batches(dataset, 20.0, 8, seed=1)
    epochs = []
    for epoch in (1, 2):
        sampler.set_epoch(epoch)
        epochs.append(list(sampler))
        assert sorted(i for batch in epochs[-1] for i in batch) == list(
            range(200)
        )
        for batch in epochs[-1]:
            longest = max(rows[str(i)]["duration"] for i in batch)
            assert longest * len(batch) <= 20.0
    assert epochs[0] != epochs[1]
    sampler = dynamic_batches(dataset, 20.0, 8, seed=1)
    sampler.set_epoch(1)
    assert list(sampler) == epochs[0]


def test_batches_without_a_seed_keep_the_order_of_the_lengths():
    rows = {str(i): {"duration": 9.0 - i} for i in range(8)}
    batches = list(dynamic_batches(DynamicItemDataset(rows), 10.0, 4))
    longest = [max(rows[str(i)]["duration"] for i in b) for b in batches]
    assert longest == sorted(longest)


def test_a_pass_has_every_item_once_whatever_the_epochs_are():
    sampler = PassSampler(range(5), per_epoch=3, seed=2, pass_size=5)
    numbers = []
    for epoch in range(5):
        sampler.set_epoch(epoch)
        numbers += list(sampler)
        assert len(sampler) == 3
    assert sorted(numbers) == list(range(15))
    assert [n // 5 for n in numbers] == [0] * 5 + [1] * 5 + [2] * 5
    assert [n % 5 for n in numbers[:5]] != [n % 5 for n in numbers[5:10]]


def test_batches_count_on_from_epoch_to_epoch():
    rows = {str(i): {"duration": 1.0 + i % 3} for i in range(12)}
    alone, inside = (
        dynamic_batches(DynamicItemDataset(rows), 6.0, 3, seed=1)
        for _ in range(2)
    )
    sampler = PassSampler(inside, pass_size=12)
    for epoch in (0, 4):
        alone.set_epoch(epoch)
        sampler.set_epoch(epoch)
        assert len(sampler) == len(alone)
        shifted = [[12 * epoch + i for i in batch] for batch in list(alone)]
        assert list(sampler) == shifted
