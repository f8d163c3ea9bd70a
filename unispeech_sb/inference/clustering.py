"""Who is who among the speakers of windows.

By clustering of their embeddings in which those of one window stay apart
(Kinoshita et al. 2021, section 3.3), of a whole recording or window by
window; where there are no embeddings, by the time that two windows share.
"""

from typing import NamedTuple

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist, pdist


class SpeakerLimits(NamedTuple):
    """How many speakers there may be.

    Arguments
    ---------
    number : int, optional
        How many there are; found when omitted.
    least : int
        Fewest, where they are found.
    most : int, optional
        Most, where they are found.
    """

    number: int | None = None
    least: int = 1
    most: int | None = None

    @property
    def most_or_number(self) -> int | None:
        """Most speakers; None where there may be any number."""
        return self.most if self.number is None else self.number

    def of(self, found: int) -> int:
        """Brings a number that was found between the limits."""
        if self.number is not None:
            return self.number
        found = max(found, self.least)
        return found if self.most is None else min(found, self.most)

    def checked(self, outputs: int | None = None) -> "SpeakerLimits":
        """Gives these back; a ``ValueError`` where they make no sense.

        ``outputs`` is how many speakers a model without embeddings has.
        """
        named = {
            "num_speakers": self.number,
            "min_speakers": self.least,
            "max_speakers": self.most,
        }
        for name, value in named.items():
            if value is not None and value < 1:
                raise ValueError(f"{name}: expected 1 or more; got {value}")
        if self.number is None and self.of(self.least) < self.least:
            raise ValueError(
                f"max_speakers: expected min_speakers ({self.least}) or more; "
                f"got {self.most}"
            )
        asked = self.least if self.number is None else self.number
        if outputs is not None and asked > outputs:
            raise ValueError(
                f"num_speakers: expected {outputs} at most, for the head has "
                "so many outputs and no vectors, and no speaker model is "
                f"given; got {asked}"
            )
        return self


def cluster_speakers(
    embeddings: np.ndarray,
    windows: np.ndarray,
    threshold: float = 1.0,
    limits: SpeakerLimits | None = None,
) -> np.ndarray:
    """Groups the speakers of all windows of a recording.

    By average linkage of Euclidean distances between unit vectors. Two
    speakers of one window come together only where the limits leave no
    other way. It takes about ``8 n ** 2`` bytes, and time as ``n ** 2``. With
    windows of 30 s and three speakers in each, n is 360 an hour, 2 MB and
    0.04 s; ten hours take 100 MB and 6 s, a day 0.5 GB and two minutes.

    Arguments
    ---------
    embeddings : numpy.ndarray
        One for each speaker of each window, other than 0, [n, E].
    windows : numpy.ndarray
        Number of the window of each, [n].
    threshold : float
        Groups at this distance or more stay apart, in (0, 2].
    limits : SpeakerLimits, optional
        How many groups there may be; any number when omitted.

    Returns
    -------
    numpy.ndarray
        Number of each one's group, from 0 in the order of first appearance,
        [n]. There are fewer groups than asked for where n is less.
    """
    count = len(embeddings)
    if count < 2:
        return np.zeros(count, np.int64)
    distances = pdist(_unit(embeddings))
    first, second = _pairs(np.asarray(windows))
    # Where pdist has the pair (i, j), i < j
    places = count * first - first * (first + 1) // 2 + second - first - 1
    # Means over pairs of groups stay above 2 if a single pair has this
    distances[places] = 4.0 * count**2
    tree = linkage(distances, "average")
    groups = count - int((tree[:, 2] < threshold).sum())
    groups = (limits or SpeakerLimits()).of(groups)
    # Merges by their order, as several may be at one distance
    tree[:, 2] = np.arange(1, count)
    found = fcluster(tree, max(count - groups, 0), "distance")
    _, firsts, inverse = np.unique(
        found, return_index=True, return_inverse=True
    )
    return np.argsort(np.argsort(firsts))[inverse]


class SpeakerTracker:
    """Groups the speakers of windows as they come, for good.

    Each speaker of a window goes to another group, so that the sum of the
    distances to the groups' means is least; or begins one, where that is
    farther than the threshold. It keeps a vector for each group.

    Arguments
    ---------
    threshold : float
        Distance from which on a speaker is a new one, in (0, 2].
    most : int, optional
        Most groups. Where they are used up, a speaker goes to the nearest
        that is free, or to the nearest of all.
    """

    def __init__(self, threshold: float = 1.0, most: int | None = None) -> None:
        self.threshold = threshold
        self.most = float("inf") if most is None else most
        self._sums: np.ndarray | None = None

    @property
    def count(self) -> int:
        """Number of groups so far."""
        return 0 if self._sums is None else len(self._sums)

    def assign(self, embeddings: np.ndarray) -> np.ndarray:
        """Finds the groups of the speakers of the next window.

        From an embedding of each, other than 0, [n, E], to the number of its
        group, from 0, [n].
        """
        if not len(embeddings):
            return np.zeros(0, np.int64)
        vectors = _unit(embeddings)
        if self._sums is None:
            self._sums = np.zeros((0, vectors.shape[1]))
        known, rows = self.count, len(vectors)
        near = cdist(vectors, _unit(self._sums))
        fresh = int(min(rows, self.most - known))
        costs = np.concatenate(
            [near, np.full((rows, fresh), self.threshold)], axis=1
        )
        # Those that are left over go to the nearest
        groups = near.argmin(1) if known else np.zeros(rows, np.int64)
        places, columns = linear_sum_assignment(costs)
        order = np.argsort(places[columns >= known])
        new = places[columns >= known][order]
        groups[places] = columns
        groups[new] = known + np.arange(len(new))
        grown = np.zeros((len(new), vectors.shape[1]))
        self._sums = np.concatenate([self._sums, grown])
        np.add.at(self._sums, groups, vectors)
        return groups


class OverlapStitcher:
    """Keeps the order of a head's outputs from window to window.

    A head without embeddings numbers its speakers anew in each window. The
    outputs of the next one are put into the order in which they differ least
    from those of the window before it, on the frames that both have (mean
    square, which is greatest correlation). Where a speaker is silent in all
    of these, the order is a guess.
    """

    def __init__(self) -> None:
        self._offset = 0
        self._before: np.ndarray | None = None

    def push(self, offset: int, activities: np.ndarray) -> np.ndarray:
        """Puts the speakers of the next window in order.

        ``activities`` are probabilities, [T, S], from the frame ``offset`` of
        the recording on.
        """
        if self._before is not None:
            before = self._before[offset - self._offset :]
            shared = min(len(before), len(activities))
            products = before[:shared].T @ activities[:shared]
            _, order = linear_sum_assignment(products, maximize=True)
            activities = activities[:, order]
        self._offset, self._before = offset, activities
        return activities


def spread(
    activities: np.ndarray, speakers: np.ndarray, count: int
) -> np.ndarray:
    """Puts the speakers of a window in the places of those of the recording.

    Arguments
    ---------
    activities : numpy.ndarray
        Probabilities of the window's speakers, [T, n].
    speakers : numpy.ndarray
        Number of each among those of the recording, [n].
    count : int
        Number of these.

    Returns
    -------
    numpy.ndarray
        Probabilities, the highest where several are one, 0 for those who are
        not in the window, [T, count].
    """
    found = np.zeros((len(activities), count), activities.dtype)
    for column, speaker in zip(activities.T, speakers):
        np.maximum(found[:, speaker], column, out=found[:, speaker])
    return found


def _unit(vectors):
    """Vectors of length 1, in float64."""
    vectors = np.asarray(vectors, np.float64)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _pairs(windows):
    """Places of all pairs of one window, the smaller one first."""
    order = np.argsort(windows, kind="stable")
    pairs = [
        (min(a, b), max(a, b))
        for group in np.split(
            order, np.flatnonzero(np.diff(windows[order])) + 1
        )
        for place, a in enumerate(group)
        for b in group[place + 1 :]
    ]
    both = np.array(pairs, np.int64).reshape(-1, 2)
    return both[:, 0], both[:, 1]
