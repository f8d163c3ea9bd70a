"""Valid frames side by side, and back."""

import pytest
import torch

from unispeech_sb.nnet.packing import Packing


@pytest.mark.parametrize("row_frames", [1, 6, 100])
def test_a_batch_comes_back_with_zeros_in_its_padding(row_frames):
    counts, feats = [5, 2, 7, 1], torch.randn(4, 9, 3)
    packing = Packing(counts, 9, row_frames)
    rows = packing.pack(feats)
    assert [n for own in packing.counts for n in own] == counts
    assert [row.shape[1] for row in rows] == list(map(sum, packing.counts))
    for own in packing.counts:
        assert sum(own[:-1]) < row_frames
    back = packing.unpack(rows)
    assert back.shape == feats.shape
    for row, count in enumerate(counts):
        assert torch.equal(back[row, :count], feats[row, :count])
        assert not back[row, count:].any()
