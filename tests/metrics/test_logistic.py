"""The regression against scikit-learn's, and where it has no answer."""

import numpy as np
import pytest
from scipy.special import logit
from sklearn.linear_model import LogisticRegression

from unispeech_sb.metrics.logistic import fit_logistic


def columns_and_truth(num_targets=150, num_others=400, seed=0):
    """Scores, one quality measure that matters, and the truth."""
    generator = np.random.default_rng(seed)
    truth = np.arange(num_targets + num_others) < num_targets
    quality = generator.normal(50, 10, len(truth))
    noise = generator.normal(0, 0.2, len(truth))
    scores = 0.3 * truth + noise + 0.01 * quality
    return {"score": scores, "quality": quality}, truth


@pytest.mark.parametrize("prior", [0.01, 0.5, 0.9])
def test_weights_are_those_of_scikit_learn(prior):
    columns, truth = columns_and_truth()
    slopes, offset = fit_logistic(columns, truth, prior)
    features = np.column_stack(list(columns.values()))
    weights = np.where(truth, prior / truth.sum(), (1 - prior) / (~truth).sum())
    theirs = LogisticRegression(C=1e12, tol=1e-10, max_iter=1000)
    theirs.fit(
        (features - features.mean(0)) / features.std(0), truth, weights * 1e4
    )
    expected = theirs.coef_[0] / features.std(0)
    assert list(slopes.values()) == pytest.approx(expected, rel=1e-4)
    # Their intercept is of posterior odds, ours of likelihood ratios.
    intercept = theirs.intercept_[0] - expected @ features.mean(0)
    assert offset == pytest.approx(intercept - logit(prior), rel=1e-4)


def test_units_of_a_column_do_not_matter():
    columns, truth = columns_and_truth()
    slopes, offset = fit_logistic(columns, truth, 0.1)
    scaled = {"score": columns["score"], "quality": 1e6 + columns["quality"]}
    others, _ = fit_logistic(scaled, truth, 0.1)
    assert others == pytest.approx(slopes, rel=1e-5)


def test_balance_of_kinds_does_not_matter():
    columns, truth = columns_and_truth()
    often = np.repeat(np.arange(len(truth)), np.where(truth, 7, 1))
    repeated = {name: values[often] for name, values in columns.items()}
    once = fit_logistic(columns, truth, 0.05)
    again = fit_logistic(repeated, truth[often], 0.05)
    assert again[0] == pytest.approx(once[0], rel=1e-6)
    assert again[1] == pytest.approx(once[1], rel=1e-6)


@pytest.mark.parametrize("scores", [[0, 1, 2, 3], [0, 1, 1, 3], [0, 0, 1, 1]])
def test_trials_without_overlap_have_no_finite_scale(scores):
    truth = np.array([False, False, True, True])
    columns = {"score": np.array(scores, float)}
    with pytest.raises(ValueError, match="smoothing=True"):
        fit_logistic(columns, truth, 0.5)


@pytest.mark.parametrize("prior", [0.001, 0.5])
def test_smoothing_keeps_llrs_within_what_the_counts_can_tell(prior):
    scores = np.concatenate([np.linspace(0, 0.2, 300), np.linspace(0.8, 1, 99)])
    truth = np.arange(399) >= 300
    slopes, offset = fit_logistic({"score": scores}, truth, prior, True)
    llrs = slopes["score"] * scores + offset
    # On average a target stands where one in 301 non-targets may stand.
    assert llrs[truth].mean() == pytest.approx(np.log(301), rel=0.1)
    assert llrs[~truth].mean() == pytest.approx(-np.log(100), rel=0.1)


def test_smoothing_hardly_matters_with_many_trials():
    columns, truth = columns_and_truth(20_000, 50_000)
    plain, smooth = (
        fit_logistic(columns, truth, 0.05, s) for s in (False, True)
    )
    assert smooth[0] == pytest.approx(plain[0], rel=0.01)


def test_columns_have_to_tell_something_of_their_own():
    columns, truth = columns_and_truth()
    constant = {**columns, "quality": np.full(len(truth), 3.0)}
    with pytest.raises(ValueError, match="values that differ in 'quality'"):
        fit_logistic(constant, truth, 0.5)
    twice = {**columns, "again": 2 * columns["quality"] + 1}
    with pytest.raises(ValueError, match="follow from each other"):
        fit_logistic(twice, truth, 0.5)
