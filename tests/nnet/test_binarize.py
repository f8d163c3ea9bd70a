"""Activities to segments: hand-worked cases."""

import numpy as np
import pytest
from scipy.signal import medfilt

from unispeech_sb.nnet.binarize import binarize, smoothed


def column(text):
    """A speaker's frames, ``#`` where active, [T, 1]."""
    return np.array([[letter == "#"] for letter in text], float)


def test_the_median_is_scipys_with_silence_outside():
    active = np.random.default_rng(3).random((200, 3)) > 0.6
    for window in (1, 3, 11, 25):
        wanted = medfilt(active.astype(float), (window, 1)) > 0.5
        assert np.array_equal(smoothed(active, window), wanted)
    assert smoothed(active, 0) is active


@pytest.mark.parametrize("window", [2, -1, -3])
def test_a_window_must_be_odd(window):
    with pytest.raises(ValueError, match=f"odd number .* got {window}"):
        smoothed(np.zeros((4, 1), bool), window)


def test_a_speaker_is_active_above_the_threshold_only():
    activities = np.array([[0.5], [0.51], [0.5]])
    assert binarize(activities, 0.5, frame_s=1.0) == [(1.0, 2.0, 0)]


def test_segments_of_all_speakers_come_in_the_order_of_time():
    activities = np.hstack([column("..##"), column("##.."), column("....")])
    found = binarize(activities, 0.5, frame_s=0.5, start_s=10.0)
    assert found == [(10.0, 11.0, 1), (11.0, 12.0, 0)]


@pytest.mark.parametrize("text", ["....", "", "####"])
def test_silence_has_no_segment_and_speech_one(text):
    found = binarize(column(text).reshape(-1, 1), 0.5, frame_s=1.0)
    assert found == [(0.0, 4.0, 0)] * (text == "####")


def test_pauses_are_closed_before_short_segments_are_left_out():
    activities = column("#.#...##.#.....#")
    options = {"frame_s": 0.02, "min_speech_s": 0.06, "min_pause_s": 0.04}
    found = binarize(activities, 0.5, **options)
    assert [(round(s, 9), round(e, 9)) for s, e, _ in found] == [
        (0.0, 0.06),
        (0.12, 0.2),
    ]


def test_what_is_exactly_as_long_as_the_least_stays():
    activities = column("###...###")
    for frame_s in (0.02, 0.04, 0.1):
        limits = {"min_speech_s": 3 * frame_s, "min_pause_s": 3 * frame_s}
        found = binarize(activities, 0.5, frame_s=frame_s, **limits)
        assert len(found) == 2
