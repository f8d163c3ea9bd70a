"""Negative samples: which frames, how often, and the authors' bugs; the
contrastive losses against hand-worked cases and the plain way.
"""

import math

import pytest
import torch
from torch.nn import functional as F

from unispeech_sb.nnet.contrastive import (
    NegativeSampler,
    Pool,
    authors_negatives,
    candidate_cosines,
    contrastive_loss,
    diversity_loss,
    draw_negatives,
    feature_penalty,
    utterance_contrastive_loss,
)

COUNTS = torch.tensor([20, 12, 7])
FRAMES = 20


def some_mask():
    """Masked frames of three rows, some frames of each."""
    mask = torch.zeros(3, FRAMES, dtype=torch.bool)
    for row, count in enumerate(COUNTS):
        mask[row, : count : 1 + row] = True
    return mask


def where(indices):
    """Row and frame of places in the list of all frames."""
    return indices // FRAMES, indices % FRAMES


@pytest.mark.parametrize("num_across", [0, 300])
def test_everywhere_never_gives_padding_or_the_anchor_itself(num_across):
    mask = some_mask()
    sampler = NegativeSampler(300, num_across, everywhere=True)
    indices = sampler(mask, COUNTS)
    rows, places = mask.nonzero(as_tuple=True)
    assert indices.shape == (len(rows), 300 + num_across)
    found, frames = where(indices)
    assert (frames < COUNTS[found]).all()
    assert not (indices == (rows * FRAMES + places)[:, None]).any()
    assert (found[:, :300] == rows[:, None]).all()


@pytest.mark.parametrize("everywhere", [True, False])
def test_all_other_frames_are_drawn_equally_often(everywhere):
    mask, times = some_mask(), 20_000
    sampler = NegativeSampler(times, times, everywhere)
    indices = sampler(mask, COUNTS)
    rows, places = mask.nonzero(as_tuple=True)
    own = rows * FRAMES + places
    allowed = mask
    if everywhere:
        allowed = torch.arange(FRAMES) < COUNTS[:, None]
        pool = torch.arange(mask.numel())
    else:
        pool = own  # the list of masked frames
    for anchor in (0, 7, len(own) - 1):
        others = allowed.flatten().clone()
        others[own[anchor]] = False
        for drawn, among in (
            (indices[anchor, times:], others),
            (
                indices[anchor, :times],
                others & (torch.arange(mask.numel()) // FRAMES == rows[anchor]),
            ),
        ):
            found = pool[drawn].bincount(minlength=mask.numel()) / times
            expected = among / among.sum()
            assert (found - expected).abs().max() < 0.02
            assert not found[~among].any()


def test_masked_frames_are_drawn_from_the_own_row_only():
    mask = some_mask()
    indices = NegativeSampler(50)(mask, COUNTS)
    rows = mask.nonzero()[:, 0]
    assert (rows[indices] == rows[:, None]).all()
    assert not (indices == torch.arange(len(rows))[:, None]).any()


def test_the_authors_draw_the_anchor_and_padding_now_and_then():
    mask = torch.zeros(400, FRAMES, dtype=torch.bool)
    mask[:, 3:15] = True
    counts = torch.full((400,), 16)
    sampler = NegativeSampler(100, everywhere=True, paper_code_compat=True)
    indices = sampler(mask, counts)
    rows, places = mask.nonzero(as_tuple=True)
    own = rows * FRAMES + places
    rate = (indices == own[:, None]).float().mean().item()
    assert rate == pytest.approx(1 / (FRAMES - 1), abs=0.003)
    found, frames = where(indices)
    assert (found == rows[:, None]).all()
    assert (frames >= 16).float().mean().item() == pytest.approx(0.2, abs=0.02)


@pytest.mark.parametrize(("by_sample", "expected"), [(True, 1), (False, 0)])
def test_the_authors_exclude_the_anchor_in_one_layout_only(by_sample, expected):
    mask = torch.ones(200, 10, dtype=torch.bool)
    sampler = NegativeSampler(20, paper_code_compat=True, by_sample=by_sample)
    indices = sampler(mask, torch.full((200,), 10))
    itself = indices == torch.arange(2000)[:, None]
    rate = itself.float().mean().item()
    assert rate == pytest.approx(expected / 10, abs=0.01)


def test_both_kinds_of_the_authors_by_hand():
    # Two rows of two anchors, one sample from the row and two from all
    within = torch.tensor([[0, 0], [1, 0]])
    across = torch.tensor([[0, 2, 0, 2], [1, 1, 0, 0]])
    moved = [[1, 0, 1, 3, 0, 3], [5, 3, 2, 2, 0, 0]]
    found = authors_negatives(within, across, num_anchors=2, num_frames=3)
    rows = torch.tensor(moved).view(2, 2, 3)
    assert torch.equal(found, rows.flatten(0, 1))
    found = authors_negatives(within, across, 2, 3, by_sample=True)
    rows = torch.tensor(moved).view(2, 3, 2).transpose(1, 2)
    assert torch.equal(found, rows.flatten(0, 1))


def test_a_generator_repeats_the_draw():
    one, two, other = (
        NegativeSampler(9, 9)(
            some_mask(), COUNTS, torch.Generator().manual_seed(seed)
        )
        for seed in (1, 1, 2)
    )
    assert torch.equal(one, two) and not torch.equal(one, other)


def test_one_frame_alone_has_no_negative():
    pool = Pool(torch.tensor([0]), torch.tensor([1]))
    zero = torch.tensor([0])
    with pytest.raises(ValueError, match="at least 2 frames .* got 1"):
        draw_negatives(pool, zero, zero, num_within=3)
    lonely = torch.ones(1, 1, dtype=torch.bool)
    compat = NegativeSampler(3, paper_code_compat=True)
    with pytest.raises(ValueError, match="at least 2 frames .* got 1"):
        compat(lonely, torch.tensor([1]))
    with pytest.raises(ValueError, match="got 3 to 20"):
        compat(some_mask()[[0, 2]], COUNTS[[0, 2]])
    nothing = draw_negatives(pool, zero, zero, num_within=0)
    assert nothing.shape == (1, 0)


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
