"""Frames are labelled by their centres, or as s3prl labels them."""

import numpy as np
import pytest
import torch

from unispeech_sb.dataio.activity import (
    clipped,
    count_frames,
    frame_labels,
    longest_speakers,
    superb_labels,
)
from unispeech_sb.nnet.lengths import conv_lengths

KERNELS, STRIDES = [10, 3, 3, 3, 3, 2, 2], [5, 2, 2, 2, 2, 2, 2]


@pytest.mark.parametrize("num_samples", [400, 719, 720, 16000, 123457, 479999])
def test_frames_are_those_of_the_backbone(num_samples):
    frames = conv_lengths(num_samples, KERNELS, STRIDES)
    assert count_frames(num_samples) == frames
    assert count_frames(num_samples, 0.04) == (frames + 1) // 2
    with pytest.raises(ValueError, match=r"0\.02 or 0\.04, got 0\.01"):
        count_frames(num_samples, 0.01)


def test_whole_chunks_of_40_ms_have_one_frame_each():
    assert count_frames(30 * 16000, 0.04) == 750


@pytest.mark.parametrize("frame_s", [0.02, 0.04])
def test_a_frame_is_active_if_its_centre_is(frame_s):
    random = np.random.default_rng(0)
    times = np.sort(random.uniform(0, 2, (50, 2)), axis=1).round(3)
    num_frames = round(2 / frame_s)
    centres = (np.arange(num_frames) + 0.5) * frame_s
    for start, end in times:
        labels = frame_labels([(start, end, "a")], ["a"], num_frames, frame_s)
        inside = (start - 1e-9 <= centres) & (centres < end - 1e-9)
        np.testing.assert_array_equal(labels[:, 0].numpy(), inside)


def test_labels_end_with_the_chunk_and_unlisted_speakers_have_none():
    segments = [(-1.0, 0.03, "b"), (0.05, 9.0, "a"), (0.0, 9.0, "c")]
    labels = frame_labels(segments, ["a", "b"], 5)
    assert labels.tolist() == [[0, 1], [0, 0], [1, 0], [1, 0], [1, 0]]


def test_segments_are_cut_to_the_chunk():
    segments = [(0.0, 2.0, "a"), (1.5, 2.5, "b"), (2.5, 3.5, "c"), (4, 5, "d")]
    assert clipped(segments, 2.0, 3.0) == [(0.0, 0.5, "b"), (0.5, 1.0, "c")]
    assert clipped([(0.0, 9.0, "a")], 2.0, 3.0) == [(0.0, 1.0, "a")]


def test_those_who_speak_longest_are_kept_in_the_order_of_their_names():
    segments = [(0, 2, "d"), (0, 3, "b"), (2, 3, "a"), (5, 8, "a"), (0, 1, "c")]
    assert longest_speakers(segments, 2) == ["a", "b"]
    assert longest_speakers(segments, 9) == ["a", "b", "c", "d"]
    assert longest_speakers([], 2) == []


def s3prl_labels(segments, speakers, start, end):
    """What s3prl's ``_get_labeled_speech`` states, one time at a time."""
    labels = np.zeros((end - start, len(speakers)))
    for begin, finish, speaker in segments:
        first, last = (
            int(np.rint(np.float32(time) * 16000 / 320))
            for time in (begin, finish)
        )
        inside = slice(
            first - start if start <= first < end else None,
            last - start if start < last <= end else None,
        )
        if inside != slice(None, None):
            labels[inside, speakers.index(speaker)] = 1
    return labels


def test_superb_labels_are_those_of_s3prl():
    random = np.random.default_rng(1)
    for _ in range(50):
        times = np.sort(random.uniform(0, 12, (6, 2)).round(2), axis=1)
        segments = [
            (start, end, "ab"[n % 2]) for n, (start, end) in enumerate(times)
        ]
        for first in (0, 200, 400):
            labels = superb_labels(segments, ["a", "b"], first, 200)
            expected = s3prl_labels(segments, ["a", "b"], first, first + 200)
            np.testing.assert_array_equal(labels.numpy(), expected)


def test_a_segment_over_a_whole_chunk_of_superb_is_not_labelled():
    segments = [(0.5, 100.0, "a")]
    labels = [superb_labels(segments, ["a"], n, 2000) for n in (0, 2000, 4000)]
    assert [float(found.sum()) for found in labels] == [1975.0, 0.0, 1000.0]


def test_superb_rounds_halves_to_even_frames():
    labels = superb_labels([(0.05, 0.15, "a")], ["a"], 0, 10)
    assert labels[:, 0].nonzero()[:, 0].tolist() == [2, 3, 4, 5, 6, 7]
    assert labels.dtype == torch.float32
