"""Turns are taken with pauses and with the overlap that is wanted."""

import pytest
import torch

from unispeech_sb.dataio.turns import (
    Turn,
    arrange_turns,
    overlap_ratio,
    turn_segments,
    uniform,
)


def speech(speaker, duration):
    """A turn without pauses."""
    return Turn(speaker, duration, [(0.0, duration)])


def generator(seed=0):
    """A generator with a seed."""
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("segments", "ratio"),
    [
        ([], 0.0),
        ([(0.0, 2.0, "a"), (3.0, 5.0, "a")], 0.0),
        ([(0.0, 2.0, "a"), (2.0, 5.0, "b")], 0.0),
        ([(0.0, 4.0, "a"), (3.0, 5.0, "b")], 0.2),
        ([(0.0, 4.0, "a"), (1.0, 2.0, "b"), (1.5, 3.0, "c")], 0.5),
        ([(0.0, 4.0, "a"), (0.0, 4.0, "b")], 1.0),
    ],
)
def test_overlap_is_counted_once_however_many_speak(segments, ratio):
    assert overlap_ratio(segments) == pytest.approx(ratio)


@pytest.mark.parametrize("wanted", [0.0, 0.1, 0.25, 0.4])
@pytest.mark.parametrize("seed", range(5))
def test_the_overlap_is_what_is_wanted_and_never_of_three(wanted, seed):
    turns = [speech("abc"[n % 3], 2.0 + n % 4 / 2) for n in range(12)]
    starts = arrange_turns(turns, 20.0, wanted, (0.1, 0.8), generator(seed))
    segments = turn_segments(turns, starts, 20.0)
    assert overlap_ratio(segments) == pytest.approx(wanted, abs=0.02)
    for time in torch.arange(0.0, 20.0, 0.05).tolist():
        assert sum(s.start < time < s.end for s in segments) <= 2


def test_without_overlap_pauses_are_in_their_limits():
    turns = [speech("ab"[n % 2], 1.0) for n in range(20)]
    starts = arrange_turns(turns, 60.0, 0.0, (0.2, 0.6), generator())
    ends = [0.0, *(start + 1.0 for start in starts)]
    pauses = [start - end for start, end in zip(starts, ends)]
    assert 0.2 <= min(pauses) < 0.3 and 0.5 < max(pauses) <= 0.6


def test_a_speaker_who_goes_on_never_overlaps_with_itself():
    turns = [speech("a", 1.0) for _ in range(6)]
    starts = arrange_turns(turns, 9.0, 0.4, (0.2, 0.2), generator())
    assert starts == pytest.approx([0.2 + 1.2 * n for n in range(6)])


def test_where_overlap_is_wanted_there_are_pauses_too():
    turns = [speech("ab"[n % 2], 2.0) for n in range(30)]
    starts = arrange_turns(turns, 60.0, 0.15, (0.5, 1.0), generator())
    gaps = [after - 2.0 - before for before, after in zip(starts, starts[1:])]
    assert min(gaps) < -0.2 and max(gaps) > 0.5


def test_pauses_inside_a_turn_are_no_speech_and_the_end_is_cut():
    turn = Turn("a", 3.0, [(0.0, 1.0), (2.0, 3.0)])
    segments = turn_segments([turn, turn], [1.0, 4.5], 5.0)
    assert segments == [(1.0, 2.0, "a"), (3.0, 4.0, "a"), (4.5, 5.0, "a")]


def test_numbers_are_drawn_from_the_whole_range():
    draws = [uniform((2.0, 3.0), generator(seed)) for seed in range(50)]
    assert 2.0 <= min(draws) < 2.2 and 2.8 < max(draws) <= 3.0
