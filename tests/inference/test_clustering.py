"""Groups must be those of the embeddings, and keep apart who must stay apart;
without embeddings speakers must keep their places from window to window.
"""

import numpy as np
import pytest
from sklearn.cluster import AgglomerativeClustering

from unispeech_sb.inference.clustering import (
    OverlapStitcher,
    SpeakerLimits,
    SpeakerTracker,
    cluster_speakers,
    spread,
)


def embeddings_of(speakers, noise=0.1, seed=0, size=16):
    """A noisy vector for each, around its speaker's own direction."""
    draw = np.random.default_rng(seed)
    centres = np.linalg.qr(draw.normal(size=(size, size)))[0]
    noises = draw.normal(size=(len(speakers), size)) * noise / size**0.5
    return centres[np.asarray(speakers)] + noises


def meeting(num_windows, num_speakers, seed):
    """Who speaks in each window, one to three, and the windows' numbers."""
    draw = np.random.default_rng(seed)
    speakers, windows = [], []
    for window in range(num_windows):
        own = draw.permutation(num_speakers)[: draw.integers(1, 4)]
        speakers += list(own)
        windows += [window] * len(own)
    return np.array(speakers), np.array(windows)


def by_first_appearance(labels):
    """The same groups under the numbers in which they come."""
    order = list(dict.fromkeys(labels.tolist()))
    return np.array([order.index(label) for label in labels])


@pytest.mark.parametrize("num_speakers", [1, 2, 6])
def test_speakers_are_found_with_their_number(num_speakers):
    speakers, windows = meeting(40, num_speakers, seed=num_speakers)
    found = cluster_speakers(embeddings_of(speakers), windows)
    np.testing.assert_array_equal(found, by_first_appearance(speakers))


@pytest.mark.parametrize("seed", range(20))
def test_groups_are_those_of_the_authors_scikit_learn(seed):
    draw = np.random.default_rng(seed)
    _, windows = meeting(15, 5, seed)
    vectors = embeddings_of(draw.integers(0, 5, len(windows)), 1.5, seed)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    distances = np.linalg.norm(unit[:, None] - unit[None], axis=2)
    distances[windows[:, None] == windows[None]] = 1e4
    np.fill_diagonal(distances, 0)
    theirs = AgglomerativeClustering(
        n_clusters=None,
        metric="precomputed",
        linkage="average",
        distance_threshold=1.0,
    ).fit_predict(distances)
    found = cluster_speakers(vectors, windows)
    np.testing.assert_array_equal(found, by_first_appearance(theirs))
    assert 1 < found.max() < len(found) - 1


def test_speakers_of_a_window_stay_apart_in_long_recordings():
    windows = np.repeat(np.arange(400), 2)
    vectors = embeddings_of(np.zeros(800, int), 0.05)  # all sound alike
    found = cluster_speakers(vectors, windows)
    assert (found[::2] != found[1::2]).all()


def test_windows_may_come_in_any_order():
    speakers, windows = meeting(30, 4, seed=1)
    order = np.random.default_rng(0).permutation(len(windows))
    vectors = embeddings_of(speakers, 0.3)
    found = cluster_speakers(vectors[order], windows[order])
    np.testing.assert_array_equal(found, by_first_appearance(speakers[order]))


def test_a_fixed_number_is_kept():
    speakers, windows = meeting(30, 4, seed=2)
    vectors = embeddings_of(speakers)
    for number in (1, 2, 3, 4, 9):
        found = cluster_speakers(vectors, windows, limits=SpeakerLimits(number))
        assert set(found) == set(range(number))
    few = cluster_speakers(vectors[:2], windows[:2], limits=SpeakerLimits(5))
    assert len(set(few)) == 2
    same = np.ones((6, 3))  # all distances are equal
    found = cluster_speakers(same, np.arange(6), limits=SpeakerLimits(4))
    assert len(set(found)) == 4


def test_limits_move_what_is_found_only_as_far_as_they_must():
    speakers, windows = meeting(30, 4, seed=3)
    vectors = embeddings_of(speakers)
    for least, most, wanted in ((1, None, 4), (1, 3, 3), (6, 8, 6), (2, 9, 4)):
        limits = SpeakerLimits(None, least, most)
        found = cluster_speakers(vectors, windows, limits=limits)
        assert len(set(found)) == wanted


@pytest.mark.parametrize(
    "limits, message",
    [
        (SpeakerLimits(0), "num_speakers: expected 1 or more; got 0"),
        (SpeakerLimits(least=0), "min_speakers: expected 1 or more; got 0"),
        (SpeakerLimits(most=-1), "max_speakers: expected 1 or more; got -1"),
        (SpeakerLimits(least=3, most=2), r"min_speakers \(3\) or more; got 2"),
        (SpeakerLimits(4), "expected 3 at most, .* no embeddings"),
        (SpeakerLimits(least=4), "expected 3 at most, .* got 4"),
    ],
)
def test_limits_that_make_no_sense_are_refused(limits, message):
    with pytest.raises(ValueError, match=message):
        limits.checked(outputs=3)


def test_nobody_and_one_are_no_trouble():
    assert cluster_speakers(np.zeros((0, 4)), np.zeros(0)).tolist() == []
    assert cluster_speakers(np.ones((1, 4)), np.zeros(1)).tolist() == [0]
    assert SpeakerTracker().assign(np.zeros((0, 4))).tolist() == []


@pytest.mark.parametrize("num_speakers", [1, 2, 6])
def test_a_tracker_finds_the_same_speakers_one_window_at_a_time(num_speakers):
    speakers, windows = meeting(40, num_speakers, seed=num_speakers)
    vectors, tracker = embeddings_of(speakers), SpeakerTracker()
    found = np.concatenate(
        [
            tracker.assign(vectors[windows == number])
            for number in range(windows[-1] + 1)
        ]
    )
    np.testing.assert_array_equal(found, by_first_appearance(speakers))
    assert tracker.count == num_speakers


def test_a_tracker_never_gives_two_of_a_window_one_group():
    tracker = SpeakerTracker()
    alike = embeddings_of([0, 0], 0.01)
    assert tracker.assign(alike).tolist() == [0, 1]
    assert sorted(tracker.assign(alike)) == [0, 1]


def test_a_tracker_keeps_to_the_most_speakers():
    tracker = SpeakerTracker(most=2)
    vectors = embeddings_of([0, 1, 2, 3], 0.01)
    assert set(tracker.assign(vectors[:1])) == {0}
    assert set(tracker.assign(vectors)) == {0, 1}
    assert tracker.count == 2


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
