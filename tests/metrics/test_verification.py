"""Error rates against scikit-learn, SpeechBrain and published examples."""

import math

import numpy as np
import pytest
import torch
from scipy.interpolate import interp1d
from scipy.optimize import brentq
from scipy.stats import norm
from sklearn.metrics import roc_curve
from speechbrain.utils.metric_stats import EER, minDCF

from unispeech_sb.metrics.verification import (
    actual_dcf,
    as_scores,
    eer,
    error_curve,
    min_dcf,
)

# Twenty scored instances of Fawcett (2006), "An introduction to ROC analysis",
# figure 3: the truth from the highest score down.
FAWCETT_SCORES = [
    *(0.9, 0.8, 0.7, 0.6, 0.55, 0.54, 0.53, 0.52, 0.51, 0.505),
    *(0.4, 0.39, 0.38, 0.37, 0.36, 0.35, 0.34, 0.33, 0.3, 0.1),
]
FAWCETT_TRUTH = "ppnpppnnpnpnpnnnpnpn"


def trials(num_positive=300, num_negative=700, ties=False, seed=0):
    """Scores of two overlapping normal distributions."""
    generator = np.random.default_rng(seed)
    positive = generator.normal(1.0, 1.0, num_positive)
    negative = generator.normal(-0.5, 0.7, num_negative)
    if ties:
        return positive.round(1), negative.round(1)
    return positive, negative


def reference_curve(positive, negative):
    """scikit-learn's false-alarm and hit rates, with every threshold."""
    scores = np.concatenate([positive, negative])
    truth = np.arange(len(scores)) < len(positive)
    return roc_curve(truth, scores, drop_intermediate=False)


def reference_eer(positive, negative):
    """The three calls that SUPERB's toolkit and many others make."""
    false_alarm, hits, _ = reference_curve(positive, negative)
    hit_rate = interp1d(false_alarm, hits)
    return brentq(lambda x: 1.0 - x - hit_rate(x), 0.0, 1.0, xtol=1e-14)


@pytest.mark.parametrize("ties", [False, True])
def test_curve_is_that_of_scikit_learn(ties):
    positive, negative = trials(ties=ties)
    thresholds, miss, false_alarm = error_curve(positive, negative)
    expected = reference_curve(positive, negative)
    np.testing.assert_allclose(false_alarm[::-1], expected[0], atol=1e-15)
    np.testing.assert_allclose(1 - miss[::-1], expected[1], atol=1e-15)
    np.testing.assert_array_equal(thresholds[::-1], expected[2])


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("sizes", [(300, 700), (3, 1000), (7, 5), (1, 1)])
def test_eer_is_that_of_roc_curve_interp1d_and_brentq(sizes, ties):
    for seed in range(20):
        positive, negative = trials(*sizes, ties, seed)
        rate, _ = eer(positive, negative)
        expected = reference_eer(positive, negative)
        assert rate == pytest.approx(expected, abs=1e-9)


def test_eer_of_two_normal_distributions_is_the_theoretical_one():
    # Calibrated llrs of d' = 2: van Leeuwen and Brümmer (2013), and the tests
    # of van Leeuwen's ROC.jl, which expect an EER of Phi(-1).
    generator = np.random.default_rng(1)
    positive = generator.normal(2, 2, 200_000)
    negative = generator.normal(-2, 2, 200_000)
    rate, threshold = eer(positive, negative)
    assert rate == pytest.approx(norm.cdf(-1), abs=2e-3)
    assert threshold == pytest.approx(0, abs=0.03)


def test_published_example_of_fawcett():
    scores, truth = np.array(FAWCETT_SCORES), np.array([*FAWCETT_TRUTH])
    positive, negative = scores[truth == "p"], scores[truth == "n"]
    thresholds, miss, false_alarm = error_curve(positive, negative)
    # The paper: at 0.54, five of ten positives and one of ten negatives; the
    # accuracy is best there, 70 %.
    place = int(np.flatnonzero(thresholds == 0.54)[0])
    assert (false_alarm[place], miss[place]) == (pytest.approx(0.1), 0.5)
    cost, threshold = min_dcf(positive, negative, p_target=0.5)
    assert cost == pytest.approx(2 * (1 - 0.7))
    assert thresholds[place - 1] < threshold <= thresholds[place]
    assert eer(positive, negative)[0] == pytest.approx(0.4)


def test_eer_interpolates_along_ties():
    # All of 1 target and 2 of 4 non-targets are tied: the curve runs from
    # (fa 3/4, miss 0) to (fa 1/4, miss 1), and crosses at 1/2 - x/2 + 1/4 = x.
    rate, _ = eer([0.5], [0.1, 0.5, 0.5, 0.9])
    assert rate == pytest.approx(0.5)
    rate, _ = eer([0.5], [0.1, 0.5, 0.5, 0.5, 0.9])
    assert rate == pytest.approx(0.5)
    rate, _ = eer([0.5, 0.7], [0.1, 0.5, 0.2, 0.3])
    assert rate == pytest.approx(1 / 6)


def test_perfect_scores_have_no_error_and_a_threshold_halfway():
    assert eer([0.8, 0.9], [0.1, 0.4]) == (0.0, pytest.approx(0.6))
    assert min_dcf([0.8, 0.9], [0.1, 0.4]) == (0.0, pytest.approx(0.6))


def test_reversed_scores_are_always_wrong():
    assert eer([0.1, 0.2], [0.8, 0.9])[0] == 1.0
    assert min_dcf([0.1, 0.2], [0.8, 0.9])[0] == 1.0


def test_constant_scores_are_worth_nothing():
    assert eer([0.5, 0.5], [0.5]) == (0.5, pytest.approx(0.5))
    assert min_dcf([0.5, 0.5], [0.5])[0] == 1.0


@pytest.mark.parametrize("p_target", [0.001, 0.01, 0.05, 0.5, 0.9])
def test_min_dcf_is_the_least_cost_of_every_threshold(p_target):
    positive, negative = trials(ties=True)
    cost, threshold = min_dcf(positive, negative, p_target, c_miss=10, c_fa=2)
    candidates = [*np.linspace(-4, 5, 2000), threshold]
    costs = [
        actual_dcf(positive, negative, candidate, p_target, 10, 2)
        for candidate in candidates
    ]
    assert cost == pytest.approx(min(costs), abs=1e-12)
    assert cost == pytest.approx(costs[-1], abs=1e-12)


def test_min_dcf_by_hand():
    # At 0.45 one of two targets is missed and no false alarm made:
    # (0.1 * 1/2) / min(0.1, 0.9) = 1/2.
    cost, threshold = min_dcf([0.2, 0.5], [0.1, 0.4], p_target=0.1)
    assert (cost, threshold) == (pytest.approx(0.5), pytest.approx(0.45))


def test_the_threshold_stays_finite_where_nothing_is_accepted():
    positive = torch.tensor([0.1, 0.2])
    cost, threshold = min_dcf(positive, torch.tensor([0.3, 0.4]), 0.01)
    assert cost == 1.0
    assert math.isfinite(threshold)
    assert not (torch.tensor([0.3, 0.4]) >= threshold).any()


def test_thresholds_decide_alike_in_the_precision_of_the_scores():
    low = np.float32(0.5)
    high = np.nextafter(low, np.float32(1))
    _, threshold = eer(np.array([high]), np.array([low]))
    assert low < np.float32(threshold) <= high


def test_speechbrain_agrees_on_scores_without_ties():
    positive, negative = trials(200, 200)
    scores = torch.tensor(positive), torch.tensor(negative)
    # Theirs takes the middle of both rates at the closest threshold.
    assert eer(*scores)[0] == pytest.approx(EER(*scores)[0], abs=1 / 200)
    for p_target in (0.01, 0.05, 0.5):
        theirs, threshold = minDCF(*scores, p_target=p_target)
        ours, own_threshold = min_dcf(*scores, p_target)
        # Theirs is not divided by the cost of rejecting everything.
        assert ours == pytest.approx(theirs / p_target, rel=1e-5)
        assert actual_dcf(*scores, threshold + 1e-9, p_target) == (
            pytest.approx(actual_dcf(*scores, own_threshold, p_target))
        )


def test_speechbrain_never_accepts_everything():
    # Where targets are likely, accepting all costs least; theirs never tries.
    scores = torch.tensor([0.1, 0.2]), torch.tensor([0.3, 0.4])
    assert minDCF(*scores, p_target=0.9)[0] == pytest.approx(0.55)
    assert min_dcf(*scores, p_target=0.9)[0] == 1.0  # 0.1 of 0.1


def test_one_trial_in_a_hundred_is_a_target_when_nothing_is_given():
    positive, negative = [0.5, 0.9], [0.7] + [0.0] * 199
    # One false alarm of 200, each as much as 99 misses.
    assert min_dcf(positive, negative)[0] == pytest.approx(99 / 200)
    cost = actual_dcf(positive, negative, 0.6)
    assert cost == pytest.approx(1 / 2 + 99 / 200)


@pytest.mark.parametrize("function", [eer, min_dcf])
def test_whole_weights_are_repetitions(function):
    positive, negative = trials(30, 40, ties=True)
    generator = np.random.default_rng(3)
    weights = [generator.integers(0, 4, len(s)) for s in (positive, negative)]
    repeated = function(
        np.repeat(positive, weights[0]), np.repeat(negative, weights[1])
    )
    weighted = function(
        positive,
        negative,
        positive_weights=weights[0],
        negative_weights=weights[1],
    )
    assert weighted[0] == pytest.approx(repeated[0], abs=1e-12)


def test_order_and_kind_of_array_do_not_matter():
    positive, negative = (part.astype(np.float32) for part in trials())
    expected = eer(positive, negative)
    assert eer(positive[::-1], np.sort(negative)) == expected
    tensors = torch.from_numpy(positive), torch.from_numpy(negative)
    assert eer(*tensors) == expected
    assert eer(positive.tolist(), negative.tolist())[0] == expected[0]


def test_scores_are_not_changed():
    positive, negative = trials()
    copies = positive.copy(), negative.copy()
    eer(positive, negative)
    min_dcf(positive, negative)
    assert (positive == copies[0]).all() and (negative == copies[1]).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int64])
def test_other_types_of_tensors_are_read(dtype):
    assert as_scores(torch.tensor([1, 2], dtype=dtype), "x").tolist() == [1, 2]


def test_gradients_are_left_behind():
    scores = torch.ones(2, requires_grad=True)
    assert as_scores(scores, "x").tolist() == [1, 1]


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([], r"targets of shape \[N\] with N > 0, got \[0\]"),
        ([[0.5]], r"got \[1, 1\]"),
        ([0.5, math.nan], "finite scores of targets, got nan at index 1"),
        ([math.inf], "got inf at index 0"),
        (["high"], "targets as numbers"),
    ],
)
def test_bad_scores_are_refused(scores, message):
    with pytest.raises(ValueError, match=message):
        eer(scores, [0.1])


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0], "one weight per score, got 1 for 2"),
        ([1.0, -1.0], "from 0 on"),
        ([0.0, 0.0], "not all 0"),
        ([1.0, math.nan], "finite weights"),
    ],
)
def test_bad_weights_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        eer([0.5, 0.6], [0.1], positive_weights=weights)


@pytest.mark.parametrize(
    "options", [{"p_target": 0}, {"p_target": 1}, {"c_miss": 0}, {"c_fa": -1}]
)
def test_bad_costs_are_refused(options):
    with pytest.raises(ValueError, match="p_target in"):
        min_dcf([0.5], [0.1], **options)
    with pytest.raises(ValueError, match="p_target in"):
        actual_dcf([0.5], [0.1], 0.3, **options)


def test_a_threshold_has_to_be_a_number():
    with pytest.raises(ValueError, match="a threshold, got nan"):
        actual_dcf([0.5], [0.1], math.nan)
