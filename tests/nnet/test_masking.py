"""Span masks: counts, lengths and places."""

import numpy as np
import pytest
import torch
from transformers.models.unispeech.modeling_unispeech import (
    _compute_mask_indices,
)

from unispeech_sb.nnet.masking import span_mask


def spans(row):
    """Lengths of the runs of True."""
    text = "".join("x" if value else " " for value in row.tolist())
    return [len(run) for run in text.split()]


def test_masks_stay_within_the_valid_frames_and_come_in_whole_spans():
    lengths = torch.tensor([100, 60, 11, 10, 9])
    for _ in range(50):
        mask = span_mask(lengths, 100, 0.3, span=10, min_spans=1)
        for row, length in zip(mask, lengths):
            assert not row[length:].any()
            assert all(run >= 10 for run in spans(row))
        assert mask[:4].any(1).all()
        assert not mask[4].any()  # shorter than one span


@pytest.mark.parametrize("prob", [0.05, 0.3, 0.65])
def test_share_of_masked_frames_equals_transformers(prob):
    np.random.seed(0)
    shape, attention = (100, 200), torch.ones(100, 200, dtype=torch.long)
    attention[50:, 120:] = 0
    theirs = torch.stack(
        [
            torch.from_numpy(
                _compute_mask_indices(shape, prob, 10, attention, 2)
            )
            for _ in range(80)
        ]
    ).float()
    lengths = attention.sum(1)
    ours = torch.stack(
        [span_mask(lengths, 200, prob, 10, 2) for _ in range(80)]
    ).float()
    for rows in (slice(0, 50), slice(50, 100)):
        difference = ours[:, rows].mean() - theirs[:, rows].mean()
        assert abs(difference) < 0.01


def test_fewest_spans_are_kept_and_no_more_than_fit():
    mask = span_mask(torch.tensor([20, 100]), 100, 0.0, span=10, min_spans=4)
    assert mask[0].sum() <= 20
    assert mask[1].sum() >= 13  # four distinct starts


def test_a_generator_repeats_the_mask():
    lengths = torch.tensor([100, 50])
    masks = [
        span_mask(lengths, 100, 0.5, 5, generator=generator)
        for generator in (
            torch.Generator().manual_seed(1),
            torch.Generator().manual_seed(1),
            torch.Generator().manual_seed(2),
        )
    ]
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


@pytest.mark.parametrize(("prob", "span"), [(1.5, 5), (-0.1, 5), (0.5, 0)])
def test_senseless_options_are_refused(prob, span):
    with pytest.raises(ValueError, match="prob in .0, 1. and span"):
        span_mask(torch.tensor([10]), 10, prob, span)
