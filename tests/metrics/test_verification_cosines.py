"""Cosines and their normalization, against plain formulas and by properties."""

import pytest
import torch
from torch.nn import functional

from unispeech_sb.metrics.verification import (
    cohort_statistics,
    cosine_scores,
    s_norm,
)


@pytest.fixture
def embeddings():
    """Fifty embeddings of norms that differ."""
    return torch.randn(50, 16) * torch.rand(50, 1).add(0.1).mul(30)


@pytest.fixture
def cohort():
    """Embeddings of thirty others."""
    return torch.randn(30, 16)


def pairs(num_trials=200, num_embeddings=50):
    """Both sides of random trials."""
    return torch.randint(num_embeddings, (2, num_trials))


def reference(scores, left, right, top_n):
    """AS-norm of one trial as SpeechBrain's VoxCeleb recipe writes it."""
    left = torch.topk(left, k=top_n).values
    right = torch.topk(right, k=top_n).values
    return 0.5 * (
        (scores - left.mean()) / left.std()
        + (scores - right.mean()) / right.std()
    )


def test_cosines_are_those_of_torch(embeddings):
    left, right = pairs()
    expected = functional.cosine_similarity(embeddings[left], embeddings[right])
    scores = cosine_scores(embeddings, left, right)
    torch.testing.assert_close(scores.float(), expected)


def test_an_embedding_with_itself_gives_one(embeddings):
    every = torch.arange(50)
    scores = cosine_scores(embeddings, every, every)
    torch.testing.assert_close(scores, torch.ones(50).double())
    assert scores.max() <= 1


def test_order_of_a_pair_does_not_matter(embeddings, cohort):
    left, right = pairs()
    there = cosine_scores(embeddings, left, right)
    assert torch.equal(there, cosine_scores(embeddings, right, left))
    statistics = cohort_statistics(embeddings, cohort, top_n=7)
    assert torch.equal(
        s_norm(there, left, right, statistics),
        s_norm(there, right, left, statistics),
    )


def test_length_of_an_embedding_does_not_matter(embeddings, cohort):
    left, right = pairs()
    scaled = embeddings * 1e-3
    torch.testing.assert_close(
        cosine_scores(scaled, left, right),
        cosine_scores(embeddings, left, right),
        atol=1e-6,
        rtol=0,
    )


@pytest.mark.parametrize("top_n", [30, 7, 2])
def test_normalised_scores_are_those_of_the_formula(embeddings, cohort, top_n):
    left, right = pairs(40)
    scores = cosine_scores(embeddings, left, right)
    statistics = cohort_statistics(embeddings, cohort, top_n)
    ours = s_norm(scores, left, right, statistics)
    table = functional.cosine_similarity(
        embeddings.double()[:, None], cohort.double()[None], dim=2
    )
    expected = [
        reference(score, table[one], table[other], top_n)
        for score, one, other in zip(scores, left, right, strict=True)
    ]
    torch.testing.assert_close(ours, torch.stack(expected))


def test_s_norm_takes_the_whole_cohort(embeddings, cohort):
    whole = cohort_statistics(embeddings, cohort)
    counted = cohort_statistics(embeddings, cohort, top_n=30)
    assert all(torch.equal(a, b) for a, b in zip(whole, counted, strict=True))


@pytest.mark.parametrize("block", [1, 7, 50, 1000])
def test_blocks_do_not_matter(embeddings, cohort, block):
    left, right = pairs()
    scores = cosine_scores(embeddings, left, right, block)
    assert torch.equal(scores, cosine_scores(embeddings, left, right))
    torch.testing.assert_close(
        cohort_statistics(embeddings, cohort, 7, block),
        cohort_statistics(embeddings, cohort, 7),
    )


def test_an_offset_of_one_side_is_normalised_away():
    # Two microphones: embeddings of the second all lean to one direction.
    speakers = functional.normalize(torch.randn(60, 32), dim=1)
    noise = 0.05 * torch.randn(2, 60, 32)
    lean = torch.zeros(32).index_fill_(0, torch.tensor([0]), 1.5)
    plain, leaning = speakers + noise[0], speakers + noise[1] + lean
    embeddings = torch.cat([plain, leaning])
    cohort = torch.randn(200, 32)
    cohort = torch.cat([cohort, functional.normalize(cohort, dim=1) + lean])
    left = torch.cat([torch.arange(60), torch.arange(60, 119)])
    right = torch.cat([torch.arange(60, 120), torch.arange(61, 120)])
    same = torch.arange(119) < 60
    scores = cosine_scores(embeddings, left, right)
    statistics = cohort_statistics(embeddings, cohort, top_n=100)
    normalised = s_norm(scores, left, right, statistics)
    assert scores[same].median() < scores[~same].median()
    assert normalised[same].median() > normalised[~same].median()


@pytest.mark.parametrize("bad", [0.0, float("nan"), float("inf")])
def test_embeddings_without_direction_are_refused(embeddings, cohort, bad):
    embeddings[3] = bad
    with pytest.raises(ValueError, match="finite embeddings .* number 3 has"):
        cosine_scores(embeddings, [0], [1])
    with pytest.raises(ValueError, match="finite cohort .* number 3 has"):
        cohort_statistics(cohort, embeddings)


@pytest.mark.parametrize("top_n", [0, 1, 31])
def test_the_cohort_has_to_be_large_enough(embeddings, cohort, top_n):
    with pytest.raises(ValueError, match=r"top_n in 2\.\.\.30"):
        cohort_statistics(embeddings, cohort, top_n)


def test_a_cohort_of_one_speaker_is_refused(embeddings):
    with pytest.raises(ValueError, match="with embedding 0 are all the same"):
        cohort_statistics(embeddings, torch.ones(5, 16))


def test_bad_indices_are_refused(embeddings, cohort):
    with pytest.raises(ValueError, match=r"left in 0\.\.\.49, got 50"):
        cosine_scores(embeddings, [50], [1])
    with pytest.raises(ValueError, match=r"right in 0\.\.\.49, got -1"):
        cosine_scores(embeddings, [0], [-1])
    with pytest.raises(ValueError, match="left as a list of indices"):
        cosine_scores(embeddings, [0.5], [1])
    with pytest.raises(ValueError, match="one length, got 2 and 1"):
        cosine_scores(embeddings, [0, 1], [1])
    statistics = cohort_statistics(embeddings, cohort)
    with pytest.raises(ValueError, match="one index per score in left"):
        s_norm(torch.ones(2), [0], [1, 2], statistics)


def test_bad_shapes_are_refused(embeddings):
    with pytest.raises(ValueError, match=r"shape \[U, D\], got \[16\]"):
        cosine_scores(embeddings[0], [0], [0])
