"""From activities to speakers: how it is decided, and how well a decision
does on recordings whose speakers are known.
"""

import json
import os
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np

from unispeech_sb.metrics.diarization import (
    diarization_error,
    jaccard_error,
    speaker_count_error,
    sum_errors,
)
from unispeech_sb.nnet.binarize import binarize


class Decision(NamedTuple):
    """How activities become speakers.

    Arguments
    ---------
    threshold : float
        A speaker is active above it.
    median_filter : int
        Frames of the window that smooths what is above, odd.

    Example
    -------
    >>> path = getfixture("tmp_path") / "decision.ckpt"
    >>> Decision(0.4, 25).save(path)
    >>> Decision.read(path)
    Decision(threshold=0.4, median_filter=25)
    """

    threshold: float = 0.5
    median_filter: int = 1

    def save(self, path):
        """Writes a JSON file, whole or not at all.

        Arguments
        ---------
        path : str or pathlib.Path
            The file to write or to replace.
        """
        path = Path(path)
        partial = path.with_name(f"{path.name}.partial")
        partial.write_text(json.dumps(self._asdict()) + "\n", encoding="utf-8")
        os.replace(partial, path)

    @classmethod
    def read(cls, path):
        """Makes the decision that a file holds.

        Arguments
        ---------
        path : str or pathlib.Path
            A file that ``save`` wrote.

        Returns
        -------
        Decision
            With the numbers that were saved.

        Raises
        ------
        ValueError
            When the file holds something else.
        """
        try:
            found = json.loads(Path(path).read_text(encoding="utf-8"))
            return cls(float(found["threshold"]), int(found["median_filter"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path}: expected a threshold and a median filter, as save() "
                f"writes them; got {error}"
            ) from error


class Piece(NamedTuple):
    """A recording, or a stretch of one, that a model has listened to.

    Arguments
    ---------
    name : str
        Name of the piece.
    recording : str
        Name of the recording.
    start_s : float
        Where the piece begins in the recording, in seconds.
    activities : numpy.ndarray
        Probability that each speaker is active, [T, S].
    reference : list of tuple
        True segments (start, end, speaker) of the whole recording.
    uem : list of tuple of float or None
        Stretches (start, end) to score; all time without.

    Example
    -------
    >>> Piece("a", "a", 0.0, np.zeros((5, 2)), [], None).activities.shape
    (5, 2)
    """

    name: str
    recording: str
    start_s: float
    activities: np.ndarray
    reference: list
    uem: list | None


def within(uem, start_s, stop_s):
    """What is to be scored of a stretch of a recording.

    Arguments
    ---------
    uem : list of tuple of float or None
        Stretches (start, end) of the recording to score; None for all of it.
    start_s : float
        Where the stretch begins, in seconds.
    stop_s : float
        Where it ends, in seconds.

    Returns
    -------
    list of tuple of float
        Their parts within the stretch.

    Example
    -------
    >>> within([(0.0, 5.0), (7.0, 9.0)], 3.0, 6.0)
    [(3.0, 5.0)]
    """
    if uem is None:
        return [(start_s, stop_s)]
    cut = [(max(start, start_s), min(stop, stop_s)) for start, stop in uem]
    return [(start, stop) for start, stop in cut if start < stop]


def joined(pieces):
    """Puts the pieces of each recording together, as if its outputs were the
    same speakers in all of them.

    Arguments
    ---------
    pieces : iterable of Piece
        In any order.

    Returns
    -------
    list of Piece
        One for each recording, with its name.

    Example
    -------
    >>> first = Piece("a_0", "a", 0.0, np.zeros((2, 1)), [], None)
    >>> second = Piece("a_1", "a", 1.0, np.ones((1, 1)), [], None)
    >>> joined([second, first])[0].activities[:, 0]
    array([0., 0., 1.])
    """
    parts = {}
    for piece in sorted(pieces, key=lambda p: (p.recording, p.start_s)):
        parts.setdefault(piece.recording, []).append(piece)
    return [
        found[0]._replace(
            name=recording,
            activities=np.concatenate([p.activities for p in found]),
        )
        for recording, found in parts.items()
    ]


def found_segments(piece, decision, frame_s, min_speech_s=0.0, min_pause_s=0.0):
    """Decides who speaks when in a piece.

    Arguments
    ---------
    piece : Piece
        With activities.
    decision : Decision
        Threshold and median filter.
    frame_s : float
        Seconds of a frame.
    min_speech_s : float
        Shorter segments are left out.
    min_pause_s : float
        Shorter pauses of a speaker are closed.

    Returns
    -------
    list of tuple
        (start, end, speaker) in seconds of the recording; the speakers bear
        the name of the piece, for only in it they are known to be the same.

    Example
    -------
    >>> piece = Piece("a", "a", 8.0, np.ones((5, 1)), [], None)
    >>> found_segments(piece, Decision(), 0.5)
    [(8.0, 10.5, 'a_0')]
    """
    segments = binarize(
        piece.activities,
        *decision,
        frame_s,
        min_speech_s,
        min_pause_s,
        piece.start_s,
    )
    return [(s, e, f"{piece.name}_{index}") for s, e, index in segments]


def decision_error(pieces, decision, **options):
    """Error times of a decision.

    Arguments
    ---------
    pieces : iterable of Piece
        What was listened to; one or more.
    decision : Decision
        Threshold and median filter.
    **options
        Of ``found_segments``.

    Returns
    -------
    unispeech_sb.metrics.diarization.ErrorTimes
        Over all pieces, without collar and with overlapped speech.

    Example
    -------
    >>> piece = Piece("a", "a", 0.0, np.ones((4, 1)), [(0.0, 1.0, "ann")], None)
    >>> decision_error([piece], Decision(), frame_s=0.5).rate
    1.0
    """
    return sum_errors(
        diarization_error(
            piece.reference,
            found_segments(piece, decision, **options),
            piece.uem,
        )
        for piece in pieces
    )


def compare_decisions(pieces, thresholds, median_filters, **options):
    """Tries all thresholds with all median filters.

    Arguments
    ---------
    pieces : list of Piece
        What was listened to; one or more.
    thresholds : iterable of float
        Thresholds to try.
    median_filters : iterable of int
        Windows to try.
    **options
        Of ``found_segments``.

    Returns
    -------
    dict
        ``Decision`` -> its error times, the one with the least error first;
        of equal ones that with the threshold nearest to 0.5, then that with
        the shortest filter.

    Example
    -------
    >>> found = np.array([[0.2], [0.6], [0.9], [0.1]])
    >>> piece = Piece("a", "a", 0.0, found, [(0.5, 1.5, "ann")], None)
    >>> errors = compare_decisions([piece], [0.1, 0.7, 0.4], [1], frame_s=0.5)
    >>> next(iter(errors))
    Decision(threshold=0.4, median_filter=1)
    """
    decisions = [Decision(*p) for p in product(thresholds, median_filters)]
    decisions.sort(key=lambda d: (abs(d.threshold - 0.5), d.median_filter))
    errors = {d: decision_error(pieces, d, **options) for d in decisions}
    return dict(sorted(errors.items(), key=lambda item: sum(item[1][:3])))


def score_pieces(pieces, decision, thorough=False, **options):
    """Error rates of a decision.

    Arguments
    ---------
    pieces : list of Piece
        What was listened to; one or more.
    decision : Decision
        Threshold and median filter.
    thorough : bool
        Whether to score speakers one by one, too.
    **options
        Of ``found_segments``.

    Returns
    -------
    dict
        ``DER`` and of it ``miss``, ``false alarm`` and ``confusion``; if
        thorough also ``JER``, all in percent, and ``speakers off``, the mean
        error of the number of speakers.

    Example
    -------
    >>> piece = Piece("a", "a", 0.0, np.ones((4, 1)), [(0.0, 1.0, "ann")], None)
    >>> score_pieces([piece], Decision(), frame_s=0.5)["false alarm"]
    100.0
    """
    times = decision_error(pieces, decision, **options)
    scores = {"DER": 100 * times.rate}
    for name in ("miss", "false_alarm", "confusion"):
        part_s = getattr(times, f"{name}_s")
        scores[name.replace("_", " ")] = 100 * part_s / (times.total_s or 1.0)
    if not thorough:
        return scores
    cases = [
        (p.reference, found_segments(p, decision, **options), p.uem)
        for p in pieces
    ]
    scores["JER"] = 100 * sum_errors(jaccard_error(*c) for c in cases).rate
    off = [abs(speaker_count_error(*case)) for case in cases]
    return {**scores, "speakers off": float(np.mean(off))}
