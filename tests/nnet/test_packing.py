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


def test_windows_come_with_the_frames_beside_them():
    feats = torch.arange(12.0)[None, :, None].repeat(2, 1, 1)
    packing = Packing([12, 4], 12, 100, window=6, context=1)
    rows, (sides,) = packing.pack(feats, reach=2), packing.sides(2)
    assert packing.counts == [[6, 5, 5, 4]] or len(packing.counts) == 1
    parts = rows[0][0, :, 0].split(
        [n + sum(own) for n, own in zip(packing.counts[0], sides)]
    )
    assert sides[0] == (0, 2) and sides[-2][1] == 0 and sides[-1] == (0, 0)
    cores = []
    for part, count, (before, behind) in zip(parts, packing.counts[0], sides):
        assert torch.equal(part.diff(), torch.ones(len(part) - 1))
        assert len(part) == before + count + behind
        cores.append(part[before : before + count])
    back = packing.unpack([torch.cat(cores)[None, :, None]])
    assert torch.equal(back[0], feats[0])
    assert torch.equal(back[1, :4], feats[1, :4])
