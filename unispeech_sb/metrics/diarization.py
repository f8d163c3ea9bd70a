"""Scores of speaker diarization, exact on intervals: the diarization error rate
(NIST's RT-09 evaluation plan; by default in dscore's setting), the Jaccard
error rate (second DIHARD challenge, Ryant et al. 2019), and the speaker count.

Annotations are sequences of (start, end, speaker), times in seconds. Where a
speaker overlaps itself, it counts once.
"""

import math
from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from scipy.optimize import linear_sum_assignment

Segments = Sequence[tuple[float, float, Hashable]]
"""(start, end, speaker) of each segment, in seconds."""

_Errors = TypeVar("_Errors", "ErrorTimes", "JaccardErrors")


class ErrorTimes(NamedTuple):
    """What a diarization error rate is made of.

    Arguments
    ---------
    miss_s : float
        Seconds of reference speakers without a speaker of the hypothesis.
    false_alarm_s : float
        Seconds of speakers of the hypothesis beyond those of the reference.
    confusion_s : float
        Seconds of reference speakers with the wrong speaker instead.
    total_s : float
        Scored seconds of reference speakers, each speaker counted.

    Example
    -------
    >>> ErrorTimes(1.0, 2.0, 1.0, 16.0).rate
    0.25
    """

    miss_s: float
    false_alarm_s: float
    confusion_s: float
    total_s: float

    @property
    def rate(self) -> float:
        """Diarization error rate; may exceed 1.

        Without reference speech it is 0 if there is no error, and otherwise
        infinite.
        """
        error_s = self.miss_s + self.false_alarm_s + self.confusion_s
        return _share(error_s, self.total_s, math.inf if error_s else 0.0)


class JaccardErrors(NamedTuple):
    """What a Jaccard error rate is made of.

    Arguments
    ---------
    error_sum : float
        Sum of the reference speakers' errors, each in [0, 1].
    num_reference : int
        Number of reference speakers.
    num_hypothesis : int
        Number of speakers of the hypothesis.

    Example
    -------
    >>> JaccardErrors(0.5, 2, 2).rate
    0.25
    """

    error_sum: float
    num_reference: int
    num_hypothesis: int

    @property
    def rate(self) -> float:
        """Jaccard error rate, in [0, 1].

        Without reference speakers it is 0 if the hypothesis has none either,
        and otherwise 1, as in dscore.
        """
        alone = float(self.num_hypothesis > 0)
        return _share(self.error_sum, self.num_reference, alone)


def diarization_error(
    reference: Segments,
    hypothesis: Segments,
    uem: Sequence[tuple[float, float]] | None = None,
    collar: float = 0.0,
    skip_overlap: bool = False,
    nist_mapping: bool = False,
) -> ErrorTimes:
    """Seconds of each kind of diarization error of one recording.

    At each instant with R speakers in the reference and H in the hypothesis,
    max(R - H, 0) are missed, max(H - R, 0) false alarms, and of the others
    those are confused whose speakers are not mapped to each other. Speakers are
    mapped one to one such that they have the most time in common.

    Arguments
    ---------
    reference : sequence of tuple
        True segments (start, end, speaker).
    hypothesis : sequence of tuple
        Found segments; their speakers may have any names.
    uem : sequence of tuple of float, optional
        Stretches (start, end) to score. All time when omitted, which is the
        same as from the first to the last boundary of both annotations, as
        dscore and pyannote.metrics have it; md-eval takes the reference's.
    collar : float
        Seconds not scored on each side of each boundary of a reference
        segment, as in md-eval; ``collar`` of pyannote.metrics is the whole
        width, twice as much.
    skip_overlap : bool
        Leave out where the reference has several speakers. (md-eval fails to
        where one such stretch begins as another one ends.)
    nist_mapping : bool
        Map speakers by their time within the UEM, as md-eval does, also where
        it is not scored; otherwise by the scored time, as pyannote.metrics
        does. The same unless there is a collar or overlap is skipped.

    Returns
    -------
    ErrorTimes
        Of several recordings they add up by ``sum_errors``.

    Raises
    ------
    ValueError
        When a segment or stretch does not end behind its start, or the collar
        is negative or infinite.

    Example
    -------
    >>> reference = [(0.0, 10.0, "anna"), (8.0, 14.0, "ben")]
    >>> hypothesis = [(1.0, 9.0, "x"), (9.0, 16.0, "y")]
    >>> diarization_error(reference, hypothesis)
    ErrorTimes(miss_s=3.0, false_alarm_s=2.0, confusion_s=0.0, total_s=16.0)
    """
    if not 0 <= collar < math.inf:
        raise ValueError(f"expected a collar from 0 on, got {collar}")
    cells = _Cells(reference, hypothesis, uem, collar)
    scored = cells.scored
    if skip_overlap:
        scored = scored & (cells.reference.sum(0) < 2)
    mapped = cells.evaluated if nist_mapping else scored
    common = cells.common(mapped)
    rows, columns = linear_sum_assignment(common, maximize=True)
    durations = np.where(scored, cells.durations, 0.0)
    num_true = cells.reference.sum(0)
    num_found = cells.hypothesis.sum(0)
    right = cells.reference[rows] & cells.hypothesis[columns]
    confused = np.minimum(num_true, num_found) - right.sum(0)
    counts = [
        np.maximum(num_true - num_found, 0),
        np.maximum(num_found - num_true, 0),
        confused,
        num_true,
    ]
    return ErrorTimes(*(float(durations @ count) for count in counts))


def jaccard_error(
    reference: Segments,
    hypothesis: Segments,
    uem: Sequence[tuple[float, float]] | None = None,
) -> JaccardErrors:
    """Jaccard errors of the reference speakers of one recording, as dscore's.

    A reference speaker's error is 1 minus the time in common with its speaker
    of the hypothesis over the time of either, and 1 without such a speaker.
    Speakers are mapped one to one such that the errors' sum is least. Nothing
    is left out around boundaries. dscore counts frames of 10 ms and so differs
    in the third digit.

    Arguments
    ---------
    reference : sequence of tuple
        True segments (start, end, speaker).
    hypothesis : sequence of tuple
        Found segments.
    uem : sequence of tuple of float, optional
        Stretches (start, end) to score; all time when omitted.

    Returns
    -------
    JaccardErrors
        Of several recordings they add up by ``sum_errors``, so that each
        reference speaker counts as much.

    Raises
    ------
    ValueError
        When a segment or stretch does not end behind its start.

    Example
    -------
    >>> reference = [(0.0, 4.0, "anna"), (4.0, 8.0, "ben")]
    >>> jaccard_error(reference, [(0.0, 5.0, "x")]).rate
    0.6
    """
    cells = _Cells(reference, hypothesis, uem)
    common = cells.common(cells.scored)
    durations = np.where(cells.scored, cells.durations, 0.0)
    true_s, found_s = cells.reference @ durations, cells.hypothesis @ durations
    common = common[true_s > 0][:, found_s > 0]
    true_s, found_s = true_s[true_s > 0], found_s[found_s > 0]
    shares = common / (true_s[:, None] + found_s - common)
    rows, columns = linear_sum_assignment(shares, maximize=True)
    error_sum = float(len(true_s) - shares[rows, columns].sum())
    return JaccardErrors(error_sum, len(true_s), len(found_s))


def speaker_count_error(
    reference: Segments,
    hypothesis: Segments,
    uem: Sequence[tuple[float, float]] | None = None,
) -> int:
    """How many speakers too many, or too few, were found in a recording.

    Arguments
    ---------
    reference : sequence of tuple
        True segments (start, end, speaker).
    hypothesis : sequence of tuple
        Found segments.
    uem : sequence of tuple of float, optional
        Stretches (start, end) to score; all time when omitted. Speakers who
        speak elsewhere only do not count.

    Returns
    -------
    int
        Speakers of the hypothesis minus those of the reference.

    Raises
    ------
    ValueError
        When a segment or stretch does not end behind its start.

    Example
    -------
    >>> speaker_count_error([(0, 1, "anna"), (1, 2, "ben")], [(0, 2, "x")])
    -1
    """
    found = jaccard_error(reference, hypothesis, uem)
    return found.num_hypothesis - found.num_reference


def sum_errors(errors: Iterable[_Errors]) -> _Errors:
    """Adds up the errors of recordings.

    Arguments
    ---------
    errors : iterable of ErrorTimes or of JaccardErrors
        One per recording.

    Returns
    -------
    ErrorTimes or JaccardErrors
        Its ``rate`` is that of all recordings.

    Raises
    ------
    ValueError
        When there is none.

    Example
    -------
    >>> times = [ErrorTimes(1.0, 0.0, 0.0, 3.0), ErrorTimes(0.0, 1.0, 0.0, 5.0)]
    >>> sum_errors(times).rate
    0.25
    """
    errors = list(errors)
    if not errors:
        raise ValueError("expected the errors of a recording, got none")
    return type(errors[0])(*(sum(parts) for parts in zip(*errors)))


class _Cells:
    """Time cut at every boundary, so that nothing changes within a cell.

    ``durations`` [K] are those of the cells; ``evaluated`` [K] is True within
    the UEM and ``scored`` [K] outside the collars, too; ``reference`` [R, K]
    and ``hypothesis`` [H, K] are True where a speaker is active.
    """

    def __init__(self, reference, hypothesis, uem, collar=0.0):
        reference, hypothesis = _by_speaker(reference), _by_speaker(hypothesis)
        stretches = _spans(() if uem is None else uem)
        edges = np.concatenate([np.empty(0), *map(np.ravel, reference)])
        collars = edges[:, None] + np.array([-collar, collar])
        self.cuts = np.unique(
            np.concatenate(
                [
                    *map(np.ravel, [*reference, *hypothesis, stretches]),
                    collars.ravel(),
                ]
            )
        )
        self.durations = np.diff(self.cuts)
        self.reference = self._inside(reference)
        self.hypothesis = self._inside(hypothesis)
        self.evaluated = np.ones(len(self.durations), bool)
        if uem is not None:
            self.evaluated = self._inside([stretches])[0]
        self.scored = self.evaluated & ~self._inside([collars])[0]

    def _inside(self, groups):
        """Where any span of each group is, [G, K]."""
        inside = np.zeros((len(groups), len(self.durations)), bool)
        for row, spans in zip(inside, groups):
            changes = np.zeros(len(row) + 1, int)
            np.add.at(changes, np.searchsorted(self.cuts, spans[:, 0]), 1)
            np.add.at(changes, np.searchsorted(self.cuts, spans[:, 1]), -1)
            row[:] = changes.cumsum()[: len(row)] > 0
        return inside

    def common(self, where):
        """Seconds that each two speakers have in common, [R, H]."""
        durations = np.where(where, self.durations, 0.0)
        return (self.reference * durations) @ self.hypothesis.T


def _by_speaker(segments):
    """Spans [N, 2] of each speaker."""
    found = {}
    for start, end, speaker in segments:
        found.setdefault(speaker, []).append((start, end))
    return [_spans(spans) for spans in found.values()]


def _spans(pairs):
    """Starts and ends that follow each other, [N, 2]."""
    spans = np.array(list(pairs), float).reshape(-1, 2)
    wrong = np.flatnonzero(~(spans[:, 0] < spans[:, 1]))
    if len(wrong):
        start, end = spans[wrong[0]].tolist()
        raise ValueError(f"expected an end behind the start {start}, got {end}")
    return spans


def _share(part, whole, without):
    """Part of the whole, or what counts as such where there is none."""
    return part / whole if whole else without
