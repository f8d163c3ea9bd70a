"""Speakers must keep their places from window to window."""

import numpy as np
import pytest

from unispeech_sb.inference.stitching import OverlapStitcher, spread


@pytest.mark.parametrize("speakers", [1, 2, 4])
def test_permuted_windows_come_back_in_order(speakers):
    draw = np.random.default_rng(speakers)
    whole = np.repeat(draw.random((50, speakers)) > 0.6, 8, 0).astype(float)
    stitcher = OverlapStitcher()
    order = draw.permutation(speakers)  # of the first window, kept by all
    for offset in range(0, 301, 50):
        window = whole[offset : offset + 100]
        noisy = window * 0.8 + 0.2 * draw.random(window.shape)
        found = stitcher.push(offset, noisy[:, draw.permutation(speakers)])
        if offset == 0:
            pairs = window.T @ found
            order = pairs.argmax(0)
        np.testing.assert_array_equal(found > 0.5, window[:, order] > 0.5)


def test_the_highest_of_those_who_are_one_counts():
    activities = np.array([[0.2, 0.9], [0.7, 0.1]])
    assert spread(activities, np.array([1, 1]), 2).tolist() == [
        [0, 0.9], [0, 0.7],
    ]  # fmt: skip
    assert spread(np.zeros((3, 0)), np.zeros(0, int), 0).shape == (3, 0)
