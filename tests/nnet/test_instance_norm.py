"""Normalisation over time against torch's, with and without padding."""

import torch
from torch.nn import functional as F

from unispeech_sb.nnet.instance_norm import instance_norm


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
