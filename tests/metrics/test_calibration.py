"""Calibration: what it promises of llrs and thresholds, and its file; the
regression against scikit-learn's; Cllr against published numbers and by hand.
"""

import json
import math

import numpy as np
import pytest
import torch
from scipy.special import logit
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from speechbrain.utils.parameter_transfer import Pretrainer

from unispeech_sb.metrics.calibration import (
    Calibration,
    cllr,
    fit_logistic,
    min_cllr,
    quality_measures,
)
from unispeech_sb.metrics.verification import actual_dcf, min_dcf


def scored(num_targets=20_000, num_others=40_000, seed=0):
    """Llrs of d' = 2, hidden in scores: llr = 16 * score - 5."""
    generator = np.random.default_rng(seed)
    truth = np.arange(num_targets + num_others) < num_targets
    llrs = np.where(truth, 2, -2) + generator.normal(0, 2, len(truth))
    return (llrs + 5) / 16, truth


def test_hidden_llrs_are_found():
    calibration = Calibration.fit(*scored(), prior=0.5)
    assert calibration.scale == pytest.approx(16, rel=0.03)
    assert calibration.offset == pytest.approx(-5, rel=0.03)
    assert calibration.prior == 0.5
    assert calibration.num_trials == (20_000, 40_000)


def test_calibrated_llrs_lose_nothing_on_other_trials():
    calibration = Calibration.fit(*scored(), prior=0.1)
    scores, truth = scored(seed=1)
    llrs = calibration.llr(scores)
    cost, least = (f(llrs[truth], llrs[~truth]) for f in (cllr, min_cllr))
    assert least <= cost < 1.01 * least
    assert cllr(scores[truth], scores[~truth]) > 1.2 * least


def test_the_default_threshold_is_for_one_target_in_a_hundred():
    assert Calibration().threshold() == pytest.approx(math.log(99))


@pytest.mark.parametrize("p_target", [0.01, 0.1, 0.5])
def test_the_threshold_costs_hardly_more_than_the_best(p_target):
    calibration = Calibration.fit(*scored(), prior=p_target)
    scores, truth = scored(seed=1)
    trials = scores[truth], scores[~truth]
    threshold = calibration.threshold(p_target)
    cost = actual_dcf(*trials, threshold, p_target)
    assert cost < 1.03 * min_dcf(*trials, p_target)[0]


def test_threshold_by_hand():
    calibration = Calibration(scale=10, offset=-4)
    assert calibration.threshold(0.5) == pytest.approx(0.4)
    expected = (math.log(99) + math.log(3) + 4) / 10
    assert calibration.threshold(0.01, c_fa=3) == pytest.approx(expected)
    assert calibration.threshold(0.01, c_miss=1 / 3) == pytest.approx(expected)


def test_duration_helps_where_short_recordings_score_low():
    generator = np.random.default_rng(5)
    truth = np.arange(30_000) < 10_000
    seconds = np.exp(generator.normal(1, 0.7, (2, len(truth))))
    shortest = np.log(seconds.min(0))
    noise = generator.normal(0, 0.15, len(truth))
    scores = 0.5 * truth + noise + 0.2 * shortest
    measures = quality_measures(durations=seconds)
    plain = Calibration.fit(scores, truth)
    aware = Calibration.fit(scores, truth, measures)
    assert aware.quality["log_duration_min"] < 0
    assert aware.quality["log_duration_min"] == pytest.approx(
        -0.2 * aware.scale, rel=0.1
    )
    aware_llrs, plain_llrs = aware.llr(scores, measures), plain.llr(scores)
    assert cllr(aware_llrs[truth], aware_llrs[~truth]) < (
        0.8 * cllr(plain_llrs[truth], plain_llrs[~truth])
    )
    # A threshold per trial is that of the llr.
    thresholds = aware.threshold(0.1, quality=measures)
    assert ((scores >= thresholds) == (aware_llrs >= math.log(9))).all()


def test_order_of_quality_measures_does_not_matter():
    calibration = Calibration(quality={"a": 1.0, "b": 10.0})
    there = calibration.llr([0.0], {"a": [1.0], "b": [2.0]})
    back = calibration.llr([0.0], {"b": [2.0], "a": [1.0]})
    assert there.tolist() == back.tolist() == [21.0]


def test_small_and_separated_sets_need_smoothing():
    scores, truth = [0.1, 0.2, 0.7, 0.8], [0, 0, 1, 1]
    with pytest.raises(ValueError, match="smoothing=True"):
        Calibration.fit(scores, truth)
    calibration = Calibration.fit(scores, truth, smoothing=True)
    assert 0.2 < calibration.threshold(0.5) < 0.7


def test_scores_upside_down_are_refused():
    scores, truth = scored(100, 100)
    with pytest.raises(ValueError, match="higher for targets, got the scale -"):
        Calibration.fit(-scores, truth)


def test_tensors_are_taken():
    scores, truth = scored(100, 200)
    plain = Calibration.fit(scores, truth)
    tensors = torch.tensor(scores), torch.tensor(truth)
    assert Calibration.fit(*tensors).scale == plain.scale


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.1, 0.2], [1, 1]), "got 2 of one kind"),
        (([0.1, 0.2], [1]), "1 or 0 for each of 2"),
        (([0.1, 0.2], [1, 2]), "1 or 0 for each of 2"),
        (([0.1, math.nan], [1, 0]), "finite scores"),
        (([0.1, 0.2], [1, 0], {"a": [1.0]}), "for 2 trials, got 1 a"),
        (([0.1, 0.2], [1, 0], {"score": [1, 2]}), "name of a quality measure"),
        (([0.1, 0.2], [1, 0], None, 1.0), r"prior in \(0, 1\), got 1.0"),
    ],
)
def test_bad_trials_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Calibration.fit(*arguments)


def test_other_quality_measures_are_refused():
    calibration = Calibration(quality={"a": 1.0})
    with pytest.raises(ValueError, match=r"measures a, got \(none\)"):
        calibration.llr([0.1])
    with pytest.raises(ValueError, match="measures a, got b"):
        calibration.threshold(quality={"b": [1.0]})
    with pytest.raises(ValueError, match=r"measures \(none\), got b"):
        Calibration().llr([0.1], {"b": [1.0]})


@pytest.mark.parametrize(
    "options", [{"p_target": 0}, {"c_miss": -1}, {"c_fa": 0}]
)
def test_bad_costs_are_refused(options):
    with pytest.raises(ValueError, match="expected"):
        Calibration().threshold(**options)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"scale": 0.0}, "got the scale 0"),
        ({"scale": math.inf}, "scale as a finite number, got inf"),
        ({"scale": True}, "scale as a finite number, got True"),
        ({"offset": math.nan}, "offset as a finite number, got nan"),
        ({"offset": "1"}, "offset as a finite number, got '1'"),
        ({"quality": {"a b": 1.0}}, "name of a quality measure, got 'a b'"),
        ({"quality": {"a": None}}, "weight of a as a finite number"),
        ({"prior": 1.0}, "a prior in"),
        ({"num_trials": (1, -2)}, "two numbers of trials"),
        ({"num_trials": (1,)}, "two numbers of trials"),
    ],
)
def test_bad_numbers_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Calibration(**values)


def test_the_file_gives_the_very_numbers_back(tmp_path):
    generator = np.random.default_rng(9)
    scores, truth = scored(200, 300)
    quality = {"magnitude_min": generator.normal(20, 3, 500)}
    calibration = Calibration.fit(scores, truth, quality, prior=0.05)
    calibration.save(tmp_path / "calibration.ckpt")
    again = Calibration.read(tmp_path / "calibration.ckpt")
    assert vars(again) == vars(calibration)
    assert [path.name for path in tmp_path.iterdir()] == ["calibration.ckpt"]


def test_a_byte_order_mark_changes_nothing(tmp_path):
    path = tmp_path / "calibration.json"
    Calibration(3.0).save(path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert Calibration.read(path).scale == 3.0


def test_a_pretrainer_loads_it(tmp_path):
    Calibration(scale=7.5, quality={"a": 2.0}).save(
        tmp_path / "calibration.ckpt"
    )
    calibration = Calibration()
    pretrainer = Pretrainer(loadables={"calibration": calibration})
    pretrainer.collect_files(default_source=str(tmp_path))
    pretrainer.load_collected()
    assert calibration.scale == 7.5
    assert calibration.quality == {"a": 2.0}


def damaged(change):
    """The text of a file after a change of what it holds."""
    calibration = Calibration(quality={"a": 1.0})
    content = {"format": "unispeech_sb calibration 1", **vars(calibration)}
    change(content)
    return json.dumps(content)


def test_what_damaged_makes_is_good_without_a_change(tmp_path):
    path = tmp_path / "calibration.ckpt"
    path.write_text(damaged(lambda content: None))
    assert Calibration.read(path).quality == {"a": 1.0}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "[" * 60_000,
        '{"a": 1, "a": 1}',
        "1" * 5000,
        " " * 100_000,
        "\x00",
        damaged(lambda c: c.update(format="unispeech_sb calibration 2")),
        damaged(lambda c: c.update(scale=-1.0)),
        damaged(lambda c: c.update(scale=10**400)),
        damaged(lambda c: c.update(scale="1")),
        damaged(lambda c: c.update(offset=math.nan)),
        damaged(lambda c: c.update(offset=-math.inf)),
        damaged(lambda c: c.update(offset=None)),
        damaged(lambda c: c.update(prior=False)),
        damaged(lambda c: c.update(quality=[1])),
        damaged(lambda c: c.update(quality={"": 1})),
        damaged(lambda c: c.update(quality={"a": [1]})),
        damaged(lambda c: c.update(num_trials=3)),
        damaged(lambda c: c.update(num_trials=[1, 2.5])),
        damaged(lambda c: c.update(num_trials=[1, True])),
        damaged(lambda c: c.update(more=1)),
        damaged(lambda c: c.pop("offset")),
        damaged(lambda c: c.pop("format")),
    ],
)
def test_damaged_files_are_refused_and_named(text, tmp_path):
    path = tmp_path / "calibration.ckpt"
    path.write_text(text)
    calibration = Calibration(scale=3.0)
    with pytest.raises(ValueError, match="calibration.ckpt: expected") as error:
        calibration.load(path)
    assert len(str(error.value)) < 500 and "\n" not in str(error.value)
    assert calibration.scale == 3.0


def test_other_bytes_and_missing_files_are_refused(tmp_path):
    path = tmp_path / "calibration.ckpt"
    with pytest.raises(ValueError, match="calibration.ckpt: expected"):
        Calibration.read(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="calibration.ckpt: expected"):
        Calibration.read(path)
    with pytest.raises(ValueError, match="expected a calibration"):
        Calibration.read(tmp_path)


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
    # Rounding alone, relative to the mean, is no difference.
    spread = columns["quality"] - columns["quality"].mean()
    spread /= spread.std() * 1e12
    nearly = {**columns, "quality": 1e4 + 0.5e4 * spread}
    with pytest.raises(ValueError, match="values that differ in 'quality'"):
        fit_logistic(nearly, truth, 0.5)
    just = {**columns, "quality": 1e4 + 1.5e4 * spread}
    assert "quality" in fit_logistic(just, truth, 0.5)[0]
    twice = {**columns, "again": 2 * columns["quality"] + 1}
    with pytest.raises(ValueError, match="follow from each other"):
        fit_logistic(twice, truth, 0.5)


def test_the_order_of_a_pair_does_not_matter():
    sides = [2.0, 8.0, 3.0], [4.0, 1.0, 3.0]
    measures = quality_measures(durations=sides, magnitudes=sides)
    swapped = quality_measures(durations=sides[::-1], magnitudes=sides[::-1])
    assert list(measures) == [
        "log_duration_min",
        "log_duration_max",
        "magnitude_min",
        "magnitude_max",
    ]
    for name, values in measures.items():
        assert (values == swapped[name]).all()
    assert measures["magnitude_max"].tolist() == [4, 8, 3]
    assert np.exp(measures["log_duration_min"]).tolist() == (
        pytest.approx([2, 1, 3])
    )


def test_only_what_is_given_is_measured():
    assert quality_measures() == {}
    assert len(quality_measures(durations=([1.0], [2.0]))) == 2


@pytest.mark.parametrize("sides", [([1.0], [0.0]), ([1.0, 2.0], [1.0])])
def test_bad_sides_are_refused(sides):
    with pytest.raises(ValueError, match="one length for magnitude, above 0"):
        quality_measures(magnitudes=sides)


def test_cllr_by_hand():
    # (log2(1 + 1/3) + log2(1 + 1)) / 2 with odds of 3 and of 1.
    expected = (math.log2(4 / 3) + 1) / 2
    assert cllr([math.log(3)], [0.0]) == pytest.approx(expected)


def test_llrs_of_zero_cost_one_bit():
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
