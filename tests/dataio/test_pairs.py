"""Pairs of utterances: all of them, or a fair sample."""

from itertools import combinations

import numpy as np
import pytest

from unispeech_sb.dataio.pairs import pair_trials

NAMES = [f"{speaker}{number}" for number in range(7) for speaker in "cabd"]
SPEAKERS = [name[0] for name in NAMES]


def pairs(trials):
    """Name, name, truth of each trial."""
    sides = zip(trials.left, trials.right, trials.targets, strict=True)
    return [(trials.names[a], trials.names[b], bool(t)) for a, b, t in sides]


@pytest.mark.parametrize("max_trials", [None, 10**6])
def test_all_pairs_are_compared_once(max_trials):
    found = pairs(pair_trials(NAMES, SPEAKERS, max_trials))
    assert found == [(a, b, a[0] == b[0]) for a, b in combinations(NAMES, 2)]


@pytest.mark.parametrize("max_trials", [2, 40, 100, 300])
def test_a_sample_has_both_kinds_and_no_pair_twice(max_trials):
    trials = pair_trials(NAMES, SPEAKERS, max_trials)
    found = pairs(trials)
    every = {(a, b): a[0] == b[0] for a, b in combinations(NAMES, 2)}
    assert len(set(found)) == len(found) == max_trials
    assert all(every[a, b] == truth for a, b, truth in found)
    num_targets = 4 * 21
    assert trials.targets.sum() == min(max_trials // 2, num_targets)


def test_rare_pairs_of_two_speakers_are_found_once_each():
    trials = pair_trials(range(100), 99 * "a" + "b", 180)
    assert (~trials.targets).sum() == 90
    assert len(set(zip(trials.left, trials.right, strict=True))) == 180


def test_the_sample_is_drawn_from_the_seed():
    one, same, other = (
        pairs(pair_trials(NAMES, SPEAKERS, 40, seed)) for seed in (1, 1, 2)
    )
    assert one == same != other


def test_every_pair_may_be_drawn():
    seen = set()
    for seed in range(200):
        seen.update(pairs(pair_trials(NAMES, SPEAKERS, 60, seed)))
    assert len(seen) == len(NAMES) * (len(NAMES) - 1) // 2


def test_a_sample_of_a_hundred_thousand_utterances_is_exact():
    owners = np.arange(100_000) % 5000
    trials = pair_trials(range(100_000), owners, 20_000)
    assert len(set(zip(trials.left, trials.right, strict=True))) == 20_000
    assert (trials.left < trials.right).all()
    truth = owners[trials.left] == owners[trials.right]
    assert (truth == trials.targets).all()
    assert truth.sum() == 10_000


@pytest.mark.parametrize("names", ["", "a", "abc", "aaa"])
def test_one_utterance_per_speaker_or_one_speaker_cannot_be_paired(names):
    with pytest.raises(ValueError, match="one of them with two utterances"):
        pair_trials(range(len(names)), names)


def test_one_trial_is_not_enough():
    with pytest.raises(ValueError, match="expected 2 trials or more, got 1"):
        pair_trials(NAMES, SPEAKERS, max_trials=1)
