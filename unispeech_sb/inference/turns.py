"""Turns of speakers, found in activities that come piece by piece."""

from typing import NamedTuple

import numpy as np

from unispeech_sb.nnet.activities import activity_segments


class Turn(NamedTuple):
    """A stretch in which one speaker is heard.

    Arguments
    ---------
    start : float
        Where it begins, in seconds.
    end : float
        Where it ends, in seconds.
    speaker : str
        Name of the speaker.
    confidence : float
        Mean probability that the speaker is active in it, 0 to 1.

    Example
    -------
    >>> Turn(0.5, 2.0, "speaker1", 0.9).speaker
    'speaker1'
    """

    start: float
    end: float
    speaker: str
    confidence: float


class Smoothing(NamedTuple):
    """How probabilities become turns: see ``activity_segments``.

    Arguments
    ---------
    threshold : float
        A speaker is active above it, in (0, 1).
    median_filter : int
        Frames of the median filter, odd.
    min_speech_s : float
        Shorter turns are left out.
    min_pause_s : float
        Shorter pauses are closed.
    frame_s : float
        Seconds of a frame.

    Example
    -------
    >>> Smoothing(0.5, 25, 0.1, 0.2, frame_s=0.04).reach
    20
    """

    threshold: float = 0.5
    median_filter: int = 1
    min_speech_s: float = 0.0
    min_pause_s: float = 0.0
    frame_s: float = 0.02

    @property
    def pause(self):
        """Frames of the shortest pause that stays."""
        return max(1, int(np.ceil(self.min_pause_s / self.frame_s - 1e-6)))

    @property
    def half(self):
        """Frames that the median filter reaches to either side."""
        return self.median_filter // 2

    @property
    def reach(self):
        """Frames behind one that tell whether it belongs to a turn."""
        speech = int(np.ceil(self.min_speech_s / self.frame_s - 1e-6))
        return self.half + self.pause + speech


class TurnFinder:
    """Finds turns in activities that come piece by piece.

    They are those that ``activity_segments`` finds in the whole. It holds the
    turns that are not over.

    Arguments
    ---------
    smoothing : Smoothing
        What counts as a turn.

    Example
    -------
    >>> finder = TurnFinder(Smoothing(frame_s=0.5))
    >>> finder.push(np.array([[0.9], [0.75], [0.1], [0.6]]))
    [(0.0, 1.0, 0, 0.825)]
    >>> finder.finish()
    [(1.5, 2.0, 0, 0.6)]
    """

    def __init__(self, smoothing):
        self.smoothing = smoothing
        self._begin = self._final = 0  # of the whole, in frames
        self._held = None

    def push(self, activities):
        """Takes the next frames.

        Arguments
        ---------
        activities : numpy.ndarray
            Probabilities, [T, K]; K may grow.

        Returns
        -------
        list of tuple
            (start, end, number of the speaker, confidence) of turns that no
            later frame changes, in seconds; sorted.
        """
        if self._held is None:
            self._held = activities
        else:
            grown = activities.shape[1] - self._held.shape[1]
            held = np.pad(self._held, ((0, 0), (0, grown)))
            self._held = np.concatenate([held, activities])
        reach = self.smoothing.half + self.smoothing.pause
        final = self._begin + len(self._held) - reach
        return self._take(max(final, self._final))

    def finish(self):
        """Ends the recording.

        Returns
        -------
        list of tuple
            The turns that are left, as from ``push``.
        """
        if self._held is None:
            return []
        return self._take(self._begin + len(self._held))

    def _take(self, final):
        """Turns that end after what was final before, and no later."""
        rule, found, kept_from = self.smoothing, [], final
        for start, end, speaker in activity_segments(
            self._held,
            rule.threshold,
            rule.median_filter,
            frame_s=1,
            min_pause_s=rule.min_pause_s / rule.frame_s,
            start_s=0,
        ):
            if self._begin + end > final:
                kept_from = min(kept_from, self._begin + start)
            elif self._begin + end > self._final:
                found.append((start, end, speaker))
        turns = [
            self._turn(start, end, speaker)
            for start, end, speaker in found
            if (end - start + 1e-6) * rule.frame_s >= rule.min_speech_s
        ]
        begin = max(kept_from - rule.half, self._begin)  # the filter's reach
        self._held = self._held[begin - self._begin :]
        self._begin, self._final = begin, final
        return turns

    def _turn(self, start, end, speaker):
        """Seconds of a turn among the held frames, and its confidence."""
        sure = self._held[start:end, speaker].mean()
        frame_s = self.smoothing.frame_s
        return (
            round((self._begin + start) * frame_s, 6),
            round((self._begin + end) * frame_s, 6),
            speaker,
            round(float(sure), 6),
        )


class SpeakerNames:
    """Names speakers in the order in which they are first asked for.

    Example
    -------
    >>> names = SpeakerNames()
    >>> names[7], names[2], names[7]
    ('speaker1', 'speaker2', 'speaker1')
    """

    def __init__(self):
        self._names = {}

    def __getitem__(self, number):
        """Name of a speaker."""
        return self._names.setdefault(number, f"speaker{len(self._names) + 1}")
