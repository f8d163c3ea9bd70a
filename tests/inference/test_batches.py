"""Windows hold every sample once; batches every item once."""

import pytest
import torch

from unispeech_sb.inference.batches import (
    even_windows,
    groups,
    length_batches,
)


@pytest.mark.parametrize("block", [1, 7, 100, 1000])
@pytest.mark.parametrize(("size", "count"), [(100, 4), (37, 10), (9, 2)])
def test_windows_hold_every_sample_once(block, size, count):
    wav = torch.arange(370)
    windows = list(even_windows(wav.split(block), size, count))
    assert torch.equal(torch.cat(windows), wav)
    assert len(windows) <= count
    assert {len(window) for window in windows[:-1]} == {size}


def test_windows_come_as_soon_as_they_are_whole():
    read = []

    def blocks():
        for start in range(5):
            read.append(start)
            yield torch.full((10,), start)

    windows = even_windows(blocks(), 10, 5)
    for number, _ in enumerate(windows):
        assert read == list(range(number + 1)) or len(read) == 5


def test_what_has_no_samples_has_no_windows():
    assert list(even_windows([], 10, 3)) == []
    assert list(even_windows([torch.zeros(0)], 10, 3)) == []


def test_groups_hold_every_item_once():
    assert list(groups(iter(range(7)), 3)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(groups([], 3)) == []


def test_batches_hold_no_more_than_asked_but_one_file():
    lengths = [(n / 2, n) for n in range(1, 20)]
    batches = list(length_batches(lengths, 6.0))
    assert [pair for batch in batches for pair in batch] == lengths
    for batch in batches:
        assert len(batch) == 1 or batch[-1][0] * len(batch) <= 6.0
    assert max(len(batch) for batch in batches) == 3
