"""Groups of the speakers of windows: the speakers of a recording.

By clustering of their embeddings in which those of one window stay apart
(Kinoshita et al. 2021, section 3.3), of a whole recording or window by
window; where there are no embeddings, by the time that two windows share.
"""

import logging
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist, pdist

from unispeech_sb.inference.sliding_window import Window

_logger = logging.getLogger(__name__)


class SpeakerLimits(NamedTuple):
    """How many speakers there are: ``number``, else between the limits."""

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
                "so many outputs and no embeddings, and no speaker model is "
                f"given; got {asked}"
            )
        return self


def warn_of_fewer(name: str | Path, asked: int, heard: int, count: int) -> None:
    """Logs why fewer speakers are active in a recording than were asked for.

    ``count`` is how many are in its windows, if those of each are others.
    """
    if 0 < heard < asked:
        why = "others are nowhere active for long enough"
        if count < asked:
            why = f"its windows have {count} of them in all"
        _logger.warning(f"{name}: found {heard} of {asked} speakers: {why}")


def cluster_speakers(
    embeddings: np.ndarray,
    windows: np.ndarray,
    threshold: float = 1.0,
    limits: SpeakerLimits | None = None,
) -> np.ndarray:
    """Groups the speakers, [n, E], of all windows, whose numbers are [n].

    Average linkage of Euclidean distances of unit vectors, below ``threshold``;
    those of one window merge only where the limits leave no other way. Groups
    count from 0 by first appearance. Ten hours, n = 3600, take 100 MB and 6 s.
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

    Those of a window go to different groups, at the least sum of distances to
    the groups' means; beyond the threshold one begins a group. With ``most``
    groups, it goes to the nearest free one, or to the nearest of all.
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
        """Groups, [n], of the next window's speakers, [n, E], other than 0."""
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

    The next window's outputs are ordered to differ least (mean square, which is
    greatest correlation) from those before on the frames that both have. Where
    a speaker is silent in all of these, the order is a guess.
    """

    def __init__(self) -> None:
        self._offset = 0
        self._before: np.ndarray | None = None

    def push(self, offset: int, activities: np.ndarray) -> np.ndarray:
        """Orders activities, [T, S], of the window from frame ``offset`` on."""
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
    """Puts activities, [T, n], in the columns of ``speakers``, [n]: [T, count].

    Each column has the highest of its speakers, 0 where it has none.
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


def cluster_segments(
    found: list[tuple[Window, Any]],
    threshold: float,
    cluster_threshold: float,
    limits: SpeakerLimits,
) -> np.ndarray:
    """Activities of a recording's speakers, [T, K], of the windows and their
    ``LocalSegmentation``, by clusters of their speaker embeddings."""
    parts: list[np.ndarray] = []
    embeddings: Any = []
    places: list[int] = []
    for number, (window, local) in enumerate(found):
        part = local.activities[window.kept, local.active]
        # A speaker who is never above the threshold would take a place
        counted = np.ones(len(local.active), bool)
        if (limits.number or limits.least) > 1 and len(part):
            counted = part.max(0) > threshold
        embeddings += list(local.embeddings[counted])
        places += [number] * int(counted.sum())
        parts.append(part[:, counted])
    owners = cluster_speakers(
        embeddings, np.array(places), cluster_threshold, limits
    )
    count, begin, rows = int(owners.max(initial=-1)) + 1, 0, []
    for part in parts:
        own = owners[begin : begin + part.shape[1]]
        rows.append(spread(part, own, count))
        begin += part.shape[1]
    return np.concatenate(rows)


def stitch_segments(
    found: list[tuple[Window, Any]], threshold: float, limits: SpeakerLimits
) -> np.ndarray:
    """Activities of the head's speakers, [T, S], of the windows and their
    ``LocalSegmentation``; beyond the limit, those who are active least are
    left out."""
    stitcher, rows = OverlapStitcher(), []
    for window, local in found:
        row = stitcher.push(window.offset, local.activities)
        rows.append(row[window.kept])
    activities = np.concatenate(rows)
    frames = (activities > threshold).sum(0)
    most = np.argsort(-frames, kind="stable")[: limits.most_or_number]
    return activities[:, np.sort(most)]
