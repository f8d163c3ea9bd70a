"""Cllr against published numbers, scikit-learn and hand."""

import math

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression

from unispeech_sb.metrics.cllr import cllr, min_cllr


def test_cllr_by_hand():
    # (log2(1 + 1/3) + log2(1 + 1)) / 2 with odds of 3 and of 1.
    expected = (math.log2(4 / 3) + 1) / 2
    assert cllr([math.log(3)], [0.0]) == pytest.approx(expected)


def test_saying_nothing_costs_one_bit():
    assert cllr([0.0], [0.0, 0.0]) == 1.0
    assert min_cllr([0.5, 0.5], [0.5]) == pytest.approx(1.0)


def test_large_llrs_do_not_overflow():
    assert cllr([2000.0], [-2000.0]) == 0.0
    assert cllr([-2000.0], [-2000.0]) == pytest.approx(1000 / math.log(2))


def test_calibrated_llrs_reach_the_published_cost():
    # Expected by the tests of van Leeuwen's ROC.jl for means of +-2 and
    # deviations of 2: calibrated llrs of d' = 2.
    generator = np.random.default_rng(0)
    positive = generator.normal(2, 2, 400_000)
    negative = generator.normal(-2, 2, 400_000)
    assert cllr(positive, negative) == pytest.approx(0.5140558, abs=3e-3)
    assert min_cllr(positive, negative) == pytest.approx(0.5140558, abs=3e-3)


@pytest.mark.parametrize("sizes", [(200, 300), (40, 4000), (3, 3)])
def test_min_cllr_is_that_of_isotonic_regression(sizes):
    generator = np.random.default_rng(2)
    positive = generator.normal(1, 1, sizes[0]).round(1)
    negative = generator.normal(0, 1, sizes[1]).round(1)
    scores = np.concatenate([positive, negative])
    truth = np.arange(len(scores)) < sizes[0]
    shares = IsotonicRegression().fit_transform(scores, truth)
    odds = shares / (1 - shares).clip(1e-300) * sizes[1] / sizes[0]
    costs = np.log2(1 + 1 / odds[truth].clip(1e-300)), np.log2(1 + odds[~truth])
    expected = (costs[0].mean() + costs[1].mean()) / 2
    assert min_cllr(positive, negative) == pytest.approx(expected, abs=1e-9)


def test_min_cllr_depends_on_the_order_of_scores_only():
    generator = np.random.default_rng(4)
    positive, negative = generator.normal(1, 1, 90), generator.normal(0, 1, 90)
    least = min_cllr(positive, negative)
    assert min_cllr(np.exp(positive), np.exp(negative)) == pytest.approx(least)
    for scale in (0.1, 0.5, 1.0, 2.0):
        assert cllr(scale * positive, scale * negative) >= least


def test_perfect_scores_cost_nothing():
    assert min_cllr([3.0, 4.0], [1.0, 2.0]) == 0.0
