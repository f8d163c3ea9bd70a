"""The parts of ECAPA-TDNN: what padding may not change, and what trains."""

import pytest
import torch

from unispeech_sb.nnet.ecapa import (
    AttentiveStatistics,
    ChannelGate,
    ConvReluNorm,
    MaskedBatchNorm,
    Res2Conv,
    SERes2Block,
)

LENGTHS = (12, 7, 1)


def padded_batch():
    """Channels of 8 over 12 frames, with noise in the padding."""
    mask = torch.arange(12) < torch.tensor(LENGTHS)[:, None]
    return torch.randn(3, 8, 12), mask[:, None]


@pytest.mark.parametrize(
    "module",
    [
        ConvReluNorm(8, 8, kernel=5),
        Res2Conv(8, kernel=3, dilation=3, scale=4),
        ChannelGate(8, bottleneck=4),
        SERes2Block(8, dilation=4, scale=4, bottleneck=4),
    ],
    ids=lambda module: type(module).__name__,
)
def test_valid_frames_of_a_batch_equal_each_row_alone(module):
    feats, mask = padded_batch()
    batched = module.eval()(feats, mask)
    for row, frames in enumerate(LENGTHS):
        alone = module(feats[row : row + 1, :, :frames])
        torch.testing.assert_close(
            batched[row, :, :frames], alone[0], rtol=1e-5, atol=1e-6
        )


def test_pooling_of_a_batch_equals_each_row_alone():
    feats, mask = padded_batch()
    pooling = AttentiveStatistics(8, bottleneck=4)
    batched = pooling(feats, mask)
    for row, frames in enumerate(LENGTHS):
        alone = pooling(feats[row : row + 1, :, :frames])
        torch.testing.assert_close(batched[row], alone[0], rtol=1e-5, atol=1e-6)


def test_equal_attention_gives_mean_and_deviation():
    pooling = AttentiveStatistics(8, bottleneck=4)
    torch.nn.init.zeros_(pooling.linear2.weight)
    torch.nn.init.zeros_(pooling.linear2.bias)
    feats = torch.randn(2, 8, 50)
    expected = torch.cat([feats.mean(2), feats.std(2, correction=0)], 1)
    torch.testing.assert_close(pooling(feats), expected, rtol=1e-4, atol=1e-5)


def test_training_statistics_are_of_valid_frames_only():
    feats, mask = padded_batch()
    norm, reference = MaskedBatchNorm(8), torch.nn.BatchNorm1d(8)
    normed = norm(feats, mask)
    valid = feats.transpose(1, 2)[mask[:, 0]]  # [frames, C]
    torch.testing.assert_close(
        normed.transpose(1, 2)[mask[:, 0]], reference(valid)
    )
    torch.testing.assert_close(norm.running_mean, reference.running_mean)
    torch.testing.assert_close(norm.running_var, reference.running_var)


def test_groups_of_channels_run_one_after_the_other():
    layer = Res2Conv(6, kernel=1, dilation=1, scale=3).eval()
    feats = torch.randn(1, 6, 4)
    first = layer.bns[0](layer.convs[0](feats[:, :2]).relu())
    second = layer.bns[1](layer.convs[1](feats[:, 2:4] + first).relu())
    expected = torch.cat([first, second, feats[:, 4:]], 1)
    torch.testing.assert_close(layer(feats), expected)


@pytest.mark.parametrize("scale", [1, 3])
def test_channels_that_do_not_part_are_refused(scale):
    with pytest.raises(ValueError, match=f"got 8 and {scale}"):
        Res2Conv(8, 3, 1, scale)
