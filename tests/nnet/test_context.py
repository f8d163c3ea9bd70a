"""Statistics of windows: what they are of, and that padding is no part."""

import pytest
import torch

from unispeech_sb.nnet.context import WindowStatistics


def plain(feats, frames):
    """The same by hand, without the projection and the norm."""
    half, length = frames // 2, feats.shape[1]
    windows = [feats[:, max(0, t - half) : t + half + 1] for t in range(length)]
    mean = torch.stack([w.mean(1) for w in windows], 1)
    std = torch.stack([w.std(1, correction=0) for w in windows], 1)
    return torch.cat([feats, mean, std.clamp(min=1e-5**0.5)], 2)


def test_they_are_of_the_frames_around():
    layer, feats = WindowStatistics(4, 6, frames=5).eval(), torch.randn(2, 9, 4)
    wanted = plain(layer.projector(feats).relu(), 5)
    wanted = layer.norm(wanted.transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(layer(feats), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("training", [False, True])
def test_padding_is_no_part_of_them(training):
    layer = WindowStatistics(4, 6, frames=5).train(training)
    feats, counts = torch.randn(2, 9, 4), torch.tensor([9, 4])
    found = layer(feats, counts)
    feats[1, 4:] = 1e3
    again = layer(feats, counts)
    torch.testing.assert_close(found[0], again[0])
    torch.testing.assert_close(found[1, :4], again[1, :4])
    if not training:
        alone = layer(feats[1:, :4])
        torch.testing.assert_close(found[1, :4], alone[0])


def test_an_even_window_is_refused():
    with pytest.raises(ValueError, match="odd number of frames; got 4"):
        WindowStatistics(4, 6, frames=4)
