"""Contrastive losses against hand-worked cases and the plain way."""

import math

import pytest
import torch
from torch.nn import functional as F

from unispeech_sb.nnet.contrastive import (
    candidate_cosines,
    contrastive_loss,
    diversity_loss,
    feature_penalty,
    utterance_contrastive_loss,
)


def vectors():
    """Anchors, positives, pool and candidates, with gradients."""
    shapes = (5, 8), (5, 8), (9, 8)
    tensors = [torch.randn(*shape, requires_grad=True) for shape in shapes]
    return *tensors, torch.randint(9, (5, 4))


def test_cosines_and_gradients_equal_those_of_copied_candidates():
    anchors, positives, pool, indices = vectors()
    targets = torch.cat([positives[:, None], pool[indices]], 1)
    plain = torch.cosine_similarity(anchors[:, None], targets, dim=-1)
    found = candidate_cosines(anchors, positives, pool, indices)
    torch.testing.assert_close(found, plain)
    weights, inputs = torch.randn(5, 5), (anchors, positives, pool)
    slopes = [
        torch.autograd.grad((each * weights).sum(), inputs)
        for each in (found, plain)
    ]
    torch.testing.assert_close(*slopes)


def test_cosines_are_float32_under_autocast():
    anchors, positives, pool, indices = vectors()
    with torch.autocast("cpu", torch.bfloat16):
        low = candidate_cosines(anchors, positives, pool, indices)
    assert low.dtype == torch.float32
    exact = candidate_cosines(anchors, positives, pool, indices)
    assert torch.equal(low, exact)


def test_contrastive_loss_by_hand():
    cosines = torch.tensor([[0.1, 0.0, 0.2], [0.3, 0.3, -0.1]])
    equal = torch.tensor([[False, True], [False, False]])
    rows = [
        math.log(math.exp(1) + math.exp(0)) - 1,
        math.log(2 * math.exp(3) + math.exp(-1)) - 3,
    ]
    loss, accuracy = contrastive_loss(cosines, equal)
    assert loss.item() == pytest.approx(sum(rows))
    assert accuracy.item() == 0.5  # a tie is no success
    loss, accuracy = contrastive_loss(cosines[:1, :2], equal[:1, 1:], 0.5)
    assert (loss.item(), accuracy.item()) == (0, 1)  # nothing to mistake it for


def test_candidates_equal_to_the_positive_get_no_gradient():
    cosines = torch.zeros(2, 3, requires_grad=True)
    equal = torch.tensor([[True, True], [False, True]])
    contrastive_loss(cosines, equal)[0].backward()
    assert torch.equal(cosines.grad != 0, torch.tensor(
        [[False, False, False], [True, True, False]]
    ))  # fmt: skip


def test_utterance_contrastive_loss_by_hand():
    cosines = torch.tensor([[0.1, 0.1, -0.1]])
    same = torch.tensor([[False, True]])
    softplus = [math.log(1 + math.exp(x)) for x in (-1, 1, 1)]
    loss, accuracy = utterance_contrastive_loss(cosines, same)
    assert loss.item() == pytest.approx(sum(softplus) / 3)
    assert accuracy.item() == pytest.approx(1 / 3)


def test_diversity_is_least_where_all_entries_are_used():
    assert diversity_loss(torch.tensor(640.0), 640) == 0
    assert diversity_loss(torch.tensor(2.0), 640).item() == pytest.approx(
        638 / 640
    )


def test_the_penalty_counts_valid_frames_only():
    feats = torch.randn(2, 5, 3)
    mask = torch.tensor([[True] * 5, [True] * 2 + [False] * 3])
    kept = torch.cat([feats[0], feats[1, :2]])
    expected = F.mse_loss(kept, torch.zeros_like(kept))
    torch.testing.assert_close(feature_penalty(feats, mask), expected)
    torch.testing.assert_close(
        feature_penalty(feats.bfloat16()),
        feats.bfloat16().float().square().mean(),
    )
