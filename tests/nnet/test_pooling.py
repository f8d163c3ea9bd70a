"""Statistics over valid frames against torch's, one row at a time."""

import torch

from unispeech_sb.nnet.pooling import masked_statistics


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
