"""Statistics over valid frames and windows against torch's, row by row."""

import pytest
import torch
from torch.nn import functional as F

from unispeech_sb.nnet.pooling import (
    LayerMix,
    WindowStatistics,
    instance_norm,
    masked_statistics,
    mix_states,
)


def by_torch(feats, counts):
    """Mean and deviation of each row's valid frames."""
    rows = [row[:count] for row, count in zip(feats, counts)]
    return torch.stack([torch.cat([r.mean(0), r.std(0)]) for r in rows])


def test_statistics_and_gradients_equal_torchs():
    feats = torch.randn(3, 9, 4).relu()
    feats[1, :5, 2] = 0.0  # a shut channel: its deviation has no slope
    counts = torch.tensor([9, 5, 2])
    ours, theirs = (feats.clone().requires_grad_() for _ in range(2))
    found, expected = masked_statistics(ours, counts), by_torch(theirs, counts)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    weights = torch.randn(3, 8)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        masked_statistics(feats), by_torch(feats, [9, 9, 9])
    )


def test_statistics_are_float32_at_least():
    feats = 300 + torch.randn(2, 200, 3)
    halves = masked_statistics(feats.half())
    assert halves.dtype == torch.float32
    expected = by_torch(feats.half().float(), [200, 200])
    torch.testing.assert_close(halves, expected)
    assert masked_statistics(feats.double()).dtype == torch.float64


def test_it_equals_torch_on_whole_rows():
    feats = 5 + 3 * torch.randn(2, 9, 4)
    expected = F.instance_norm(feats.transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(
        instance_norm(feats), expected, rtol=1e-5, atol=1e-5
    )


def test_padding_does_not_count_even_if_it_is_not_a_number():
    feats = torch.randn(2, 9, 4)
    feats[1, 6:] = torch.nan
    normed = instance_norm(feats, torch.tensor([1.0, 6 / 9]))
    torch.testing.assert_close(normed[1, :6], instance_norm(feats[1:, :6])[0])


def test_half_precision_does_not_overflow():
    feats = (1000 * torch.randn(1, 9, 4)).half()
    normed = instance_norm(feats)
    torch.testing.assert_close(normed, instance_norm(feats.float()))
    assert normed.std() > 0.5


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


def test_hidden_states_need_a_layer_mix():
    states = torch.randn(3, 2, 10, 4)
    mixed = mix_states(iter(states), LayerMix(3))
    torch.testing.assert_close(mixed, states.mean(0))
    feats = states[0]
    assert mix_states(feats, None) is feats
    with pytest.raises(ValueError, match="without num_states"):
        mix_states(iter(states), None)
