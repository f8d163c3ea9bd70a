"""Turns must be the same whether activities come whole or in pieces."""

import numpy as np
import pytest

from unispeech_sb.inference.turns import Smoothing, SpeakerNames, TurnFinder
from unispeech_sb.nnet.activities import activity_segments

RULES = [
    Smoothing(),
    Smoothing(0.4, 25, frame_s=0.04),
    Smoothing(0.6, 5, min_speech_s=0.1, min_pause_s=0.2),
    Smoothing(0.5, 1, min_speech_s=0.06, min_pause_s=0.06),
]


def talk(frames, speakers, seed):
    """Probabilities that change every few frames."""
    draw = np.random.default_rng(seed)
    rows = draw.random((frames // 4 + 1, speakers)) ** 0.7
    return np.repeat(rows, 4, 0)[:frames] * draw.uniform(
        0.9, 1, (frames, speakers)
    )


def expected(activities, rule):
    """What the whole gives, with confidences."""
    found = activity_segments(
        activities, rule.threshold, rule.median_filter, rule.frame_s,
        rule.min_speech_s, rule.min_pause_s,
    )  # fmt: skip
    return [
        (start, end, who, activities[round(start / rule.frame_s) : round(
            end / rule.frame_s), who].mean())
        for start, end, who in found
    ]  # fmt: skip


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("most", [1, 7, 300, 5000])
def test_pieces_give_the_turns_of_the_whole(most, rule):
    for seed in range(5):
        activities = talk(1500, 3, seed)
        finder, found, begin = TurnFinder(rule), [], 0
        draw = np.random.default_rng(seed)
        while begin < len(activities):
            end = begin + draw.integers(1, most + 1)
            found += finder.push(activities[begin:end])
            begin = end
        found += finder.finish()
        wanted = expected(activities, rule)
        assert len(wanted) > 20
        np.testing.assert_allclose(sorted(found), wanted, atol=2e-6)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_turn_is_given_as_soon_as_nothing_can_change_it(rule):
    activities = talk(600, 2, seed=7)
    finder = TurnFinder(rule)
    latest = 0
    for place, row in enumerate(activities):
        for _, end, _, _ in finder.push(row[None]):
            late = place + 1 - round(end / rule.frame_s)
            assert late == rule.half + rule.pause
            latest = max(latest, late)
    assert latest <= rule.reach


def test_only_turns_that_go_on_are_held():
    finder = TurnFinder(RULES[1])
    for _ in range(2000):
        finder.push(np.zeros((5, 2)))
    assert len(finder._held) <= 2 * (RULES[1].half + RULES[1].pause) + 5


def test_speakers_may_join_later():
    finder = TurnFinder(Smoothing(frame_s=1.0))
    found = finder.push(np.zeros((3, 0)))
    found += finder.push(np.array([[0.9]] * 2))
    found += finder.push(np.array([[0.9, 0.0], [0.0, 0.8]]))
    found += finder.finish()
    assert [turn[:3] for turn in found] == [(3, 6, 0), (6, 7, 1)]
    assert TurnFinder(Smoothing()).finish() == []


def test_names_follow_the_order_of_asking():
    names = SpeakerNames()
    assert [names[n] for n in (3, 0, 3, 5)] == [
        "speaker1", "speaker2", "speaker1", "speaker3",
    ]  # fmt: skip
