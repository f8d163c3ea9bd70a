"""Intervals: their coverage, their weights by hand, and what is refused."""

from functools import partial

import numpy as np
import pytest

from unispeech_sb.metrics.verification import (
    Interval,
    bootstrap,
    eer,
    mean_interval,
    min_dcf,
)


def scored(num_speakers=20, num_each=3, spread=0.0, seed=0):
    """All trials of a few recordings per speaker.

    ``spread`` is how much speakers differ in how easy they are.
    """
    generator = np.random.default_rng(seed)
    owners = np.repeat(np.arange(num_speakers), num_each)
    left, right = np.triu_indices(len(owners), 1)
    left, right = owners[left], owners[right]
    targets = left == right
    ease = generator.normal(0, spread, num_speakers)
    noise = generator.normal(0, 1, len(left))
    sign = np.where(targets, 1, -1)
    scores = 1.0 * sign + noise + sign * (ease[left] + ease[right]) / 2
    return scores, targets, (left, right)


def test_the_value_is_that_of_all_trials():
    scores, targets, speakers = scored()
    interval = bootstrap(eer, scores, targets, speakers, 100)
    assert interval.value == eer(scores[targets], scores[~targets])[0]
    assert interval.low < interval.value < interval.high
    assert interval[3:] == (0.95, 20)


def test_weights_are_products_of_how_often_speakers_were_drawn():
    left, right = np.triu_indices(4)
    targets = left == right
    seen = []

    def spy(positive, negative, positive_weights=None, negative_weights=None):
        if positive_weights is not None:
            drawn = dict(
                zip(positive.astype(int) // 10, positive_weights, strict=True)
            )
            assert sum(drawn.values()) == 4
            for score, weight in zip(
                negative.astype(int), negative_weights, strict=True
            ):
                assert weight == drawn[score // 10] * drawn[score % 10]
            seen.append(tuple(drawn.values()))
        return 0.0

    # The score of a trial tells its speakers.
    bootstrap(spy, 10.0 * left + right, targets, (left, right), 400)
    assert len(seen) == 400
    # Over all draws, each speaker is drawn once on average.
    assert np.mean(seen, axis=0) == pytest.approx([1] * 4, abs=0.15)


def test_the_seed_gives_the_same_interval():
    trials = scored()
    there = bootstrap(eer, *trials, 100, seed=3)
    assert bootstrap(eer, *trials, 100, seed=3) == there
    assert bootstrap(eer, *trials, 100, seed=4) != there


def test_order_of_trials_and_names_of_speakers_do_not_matter():
    scores, targets, (left, right) = scored()
    there = bootstrap(eer, scores, targets, (left, right), 100)
    order = np.random.default_rng(0).permutation(len(scores))
    names = np.array([f"id{number:05d}" for number in range(20)])
    speakers = names[right[order]].tolist(), names[left[order]].tolist()
    again = bootstrap(
        eer, scores[order].tolist(), targets[order].tolist(), speakers, 100
    )
    assert again == pytest.approx(there)


def test_higher_levels_are_wider():
    trials = scored()
    narrow = bootstrap(eer, *trials, 200, level=0.5)
    wide = bootstrap(eer, *trials, 200, level=0.95)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_any_metric_with_weights_can_be_taken():
    trials = scored()
    cost = bootstrap(partial(min_dcf, p_target=0.05), *trials, 100)
    assert cost.low <= cost.value <= cost.high


@pytest.mark.slow
def test_intervals_hold_the_truth_about_as_often_as_they_say():
    # Speakers differ a lot: with as many trials, and no such differences, the
    # same formulas would make intervals a fraction as wide.
    truth = np.mean([bootstrap_value(seed) for seed in range(1000, 1150)])
    hits, widths, trial_widths = 0, [], []
    for seed in range(60):
        scores, targets, speakers = scored(spread=0.6, seed=seed)
        interval = bootstrap(eer, scores, targets, speakers, 100, 0.8)
        hits += interval.low <= truth <= interval.high
        widths.append(interval.high - interval.low)
        trial_widths.append(width_by_trials(scores, targets, seed))
    assert 0.62 <= hits / 60 <= 0.95  # 0.8 within three deviations
    assert np.mean(widths) > 1.5 * np.mean(trial_widths)


def bootstrap_value(seed):
    """EER of one set of other speakers."""
    scores, targets, _ = scored(spread=0.6, seed=seed)
    return eer(scores[targets], scores[~targets])[0]


def width_by_trials(scores, targets, seed):
    """Width of the interval that resampling trials would give."""
    generator = np.random.default_rng(seed)
    positive, negative = scores[targets], scores[~targets]
    rates = [
        eer(
            generator.choice(positive, len(positive)),
            generator.choice(negative, len(negative)),
        )[0]
        for _ in range(50)
    ]
    low, high = np.quantile(rates, [0.1, 0.9])
    return high - low


def test_an_interval_reads_well():
    assert (
        str(Interval(0.05, 0.04, 0.065, 0.95, 9)) == "0.0500 [0.0400, 0.0650]"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_draws": 99}, "num_draws from 100 on"),
        ({"level": 1.0}, "a level in"),
        ({"targets": [1, 0]}, "for each of 1770 trials"),
        ({"targets": np.ones(1770)}, "both kinds of trials"),
        ({"scores": np.full(1770, np.nan)}, "finite scores"),
    ],
)
def test_bad_input_is_refused(change, message):
    scores, targets, speakers = scored()
    given = {"scores": scores, "targets": targets, "speakers": speakers}
    with pytest.raises(ValueError, match=message):
        bootstrap(eer, **{**given, **change})


def test_truth_and_speakers_have_to_agree():
    scores, targets, (left, right) = scored()
    targets[7] = not targets[7]
    with pytest.raises(ValueError, match="trial 7 is a target trial of the"):
        bootstrap(eer, scores, targets, (left, right))


def test_two_speakers_are_too_few():
    with pytest.raises(ValueError, match="at least 3 speakers, got 2"):
        bootstrap(eer, *scored(num_speakers=2))


def test_lists_that_hang_on_one_pair_are_refused():
    # Of forty speakers only one has a target trial: most draws lack it.
    left, right = np.arange(39), np.arange(1, 40)
    left, right = np.append(left, 0), np.append(right, 0)
    targets = left == right
    scores = np.sin(np.arange(40))
    interval = bootstrap(eer, scores, targets, (left, right), 100)
    assert interval.num_speakers == 40  # in 63 % of the draws it is there
    few = np.array([0, 0]), np.array([0, 1])
    others = np.arange(2, 30), np.arange(2, 30)
    left, right = (np.append(a, b) for a, b in zip(few, others, strict=True))
    targets = left == right
    with pytest.raises(ValueError, match="more trials per speaker"):
        bootstrap(eer, np.sin(np.arange(30)), targets, (left, right))


def test_a_mean_is_drawn_by_groups():
    generator = np.random.default_rng(0)
    covered, widths = 0, []
    for seed in range(200):
        offsets = generator.normal(0.5, 0.2, 30)
        groups = np.repeat(np.arange(30), 4)
        scores = offsets[groups] + generator.normal(0, 0.05, 120)
        found = mean_interval(scores, groups, 200, seed=seed)
        assert found.value == scores.mean() and found.num_speakers == 30
        covered += found.low <= 0.5 <= found.high
        widths.append(found.high - found.low)
    assert 0.9 <= covered / 200 <= 0.99
    # 2 x 1.96 x 0.2 / sqrt(30), where single scores would give a half
    assert np.mean(widths) == pytest.approx(0.143, rel=0.1)


def test_a_mean_of_one_group_or_without_draws_has_no_interval():
    for groups, draws in (([0, 0], 100), ([0, 1], 0)):
        found = mean_interval([0.25, 0.75], groups, draws)
        assert (found.value, found.low, found.high) == (0.5, 0.5, 0.5)
