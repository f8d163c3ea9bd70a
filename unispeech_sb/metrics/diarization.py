"""Scores of speaker diarization, exact on intervals: the diarization error rate
(NIST's RT-09 evaluation plan; by default in dscore's setting), the Jaccard
error rate (second DIHARD challenge, Ryant et al. 2019), and the speaker count.

Annotations are sequences of (start, end, speaker), times in seconds. Where a
speaker overlaps itself, it counts once. A UEM is a sequence of (start, end) to
score. At an instant with R speakers in the reference and H in the hypothesis,
max(R - H, 0) are missed, max(H - R, 0) false alarms, and the others confused
whose speakers are not mapped to each other. Speakers are mapped one to one such
that they have the most time in common, or the least Jaccard errors.
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
    """Seconds of each kind of diarization error, and of reference speech.

    ``total_s`` is scored; where several reference speakers speak, each counts.
    """

    miss_s: float
    false_alarm_s: float
    confusion_s: float
    total_s: float

    @property
    def rate(self) -> float:
        """Error rate, which may exceed 1; without speech 0 or infinite."""
        error_s = self.miss_s + self.false_alarm_s + self.confusion_s
        return _share(error_s, self.total_s, math.inf if error_s else 0.0)


class JaccardErrors(NamedTuple):
    """Sum of the reference speakers' errors, in [0, 1] each; both counts."""

    error_sum: float
    num_reference: int
    num_hypothesis: int

    @property
    def rate(self) -> float:
        """Error rate, in [0, 1]; without reference 0 or 1, as in dscore."""
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

    ``collar`` is one side's, as in md-eval; pyannote.metrics counts both.
    ``nist_mapping`` maps speakers by all time in the UEM, as md-eval does, else
    by the scored time. Without a UEM all time counts.
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
    """Jaccard errors of one recording's reference speakers, as dscore's.

    An error is 1 minus the time in common with the mapped speaker over the time
    of either, 1 without one. dscore counts frames of 10 ms: the third digit
    differs.
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
    """Speakers of the hypothesis minus those of the reference, in the UEM."""
    found = jaccard_error(reference, hypothesis, uem)
    return found.num_hypothesis - found.num_reference


def sum_errors(errors: Iterable[_Errors]) -> _Errors:
    """Adds up the errors of recordings: its ``rate`` is that of all of them."""
    errors = list(errors)
    if not errors:
        raise ValueError("expected the errors of a recording, got none")
    return type(errors[0])(*(sum(parts) for parts in zip(*errors)))


class _Cells:
    """Time cut at every boundary, so that nothing changes within a cell.

    ``evaluated`` [K] is True within the UEM and ``scored`` [K] outside the
    collars, too; ``reference`` [R, K] and ``hypothesis`` [H, K] where a speaker
    is active.
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
