"""Binarization: probabilities of speakers over time to segments of speech.

Training and use of a diarization model do it in this one way.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy.ndimage import median_filter as scipy_median


class BinarizeConfig(NamedTuple):
    """How probabilities of activity become segments: see ``binarize``.

    Arguments
    ---------
    threshold : float
        A speaker is active above it, in (0, 1).
    median_filter : int
        Frames of the median filter, odd; 0 and 1 change nothing.
    min_speech_s : float
        Shorter segments are left out, after pauses are closed.
    min_pause_s : float
        Shorter pauses of a speaker are closed.
    frame_s : float
        Seconds of a frame.

    Example
    -------
    >>> BinarizeConfig(0.5, 25, 0.1, 0.2, frame_s=0.04).reach
    20
    """

    threshold: float = 0.5
    median_filter: int = 1
    min_speech_s: float = 0.0
    min_pause_s: float = 0.0
    frame_s: float = 0.02

    @property
    def pause(self) -> int:
        """Frames of the shortest pause that stays."""
        return max(1, math.ceil(self.min_pause_s / self.frame_s - 1e-6))

    @property
    def half(self) -> int:
        """Frames that the median filter reaches to either side."""
        return self.median_filter // 2

    @property
    def reach(self) -> int:
        """Frames behind one that decide whether it belongs to a segment."""
        speech = math.ceil(self.min_speech_s / self.frame_s - 1e-6)
        return self.half + self.pause + speech


def smoothed(active: np.ndarray, median_filter: int) -> np.ndarray:
    """Takes away what is shorter than half a window, speaker by speaker.

    Arguments
    ---------
    active : numpy.ndarray
        Bool, True where a speaker is active, [T, S].
    median_filter : int
        Frames of the window, odd; 0 and 1 change nothing. Outside of the
        recording nobody speaks.

    Returns
    -------
    numpy.ndarray
        Bool, [T, S].

    Raises
    ------
    ValueError
        When the window is even or negative.

    Example
    -------
    >>> smoothed(np.array([[1], [0], [1], [1], [0], [0]], bool), 3)[:, 0]
    array([False,  True,  True,  True, False, False])
    """
    if median_filter == 0:
        return active
    if median_filter < 0 or median_filter % 2 == 0:
        raise ValueError(
            "median_filter: expected an odd number of frames, or 0; got "
            f"{median_filter}"
        )
    return scipy_median(
        active.astype(np.uint8), (median_filter, 1), mode="constant"
    ).astype(bool)


def binarize(
    activities: np.ndarray,
    threshold: float,
    median_filter: int = 1,
    frame_s: float = 0.02,
    min_speech_s: float = 0.0,
    min_pause_s: float = 0.0,
    start_s: float = 0.0,
) -> list[tuple[float, float, int]]:
    """Turns probabilities of activity into segments.

    Frame i is the time from ``i * frame_s`` to ``(i + 1) * frame_s``.

    Arguments
    ---------
    activities : numpy.ndarray
        Probability that a speaker is active, [T, S].
    threshold : float
        A speaker is active above it.
    median_filter : int
        Frames of the window that smooths what is above; see ``smoothed``.
    frame_s : float
        Seconds of a frame.
    min_speech_s : float
        Shorter segments are left out, after pauses are closed.
    min_pause_s : float
        Shorter pauses of a speaker are closed.
    start_s : float
        Where the first frame begins, in seconds.

    Returns
    -------
    list of tuple
        (start, end, index of the speaker), by start, end and index; seconds.

    Example
    -------
    >>> activities = np.array([[0.9, 0.1], [0.8, 0.6], [0.2, 0.7]])
    >>> binarize(activities, 0.5, frame_s=0.5)
    [(0.0, 1.0, 0), (0.5, 1.5, 1)]
    """
    active = smoothed(np.asarray(activities) > threshold, median_filter)
    found = []
    for speaker, column in enumerate(active.T):
        edges = np.diff(np.concatenate([[0], column.astype(np.int8), [0]]))
        starts, ends = np.flatnonzero(edges > 0), np.flatnonzero(edges < 0)
        # In frames, for 3 * 0.02 is not 0.06
        kept = np.ones(len(starts), bool)
        kept[1:] = starts[1:] - ends[:-1] + 1e-6 >= min_pause_s / frame_s
        last = np.append(kept[1:], True)[: len(ends)]  # before a kept pause
        starts, ends = starts[kept], ends[last]
        long = ends - starts + 1e-6 >= min_speech_s / frame_s
        found += [
            (start_s + first * frame_s, start_s + stop * frame_s, speaker)
            for first, stop in zip(
                starts[long].tolist(), ends[long].tolist(), strict=True
            )
        ]
    return sorted(found)
