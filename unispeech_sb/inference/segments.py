"""Segments of speakers: binarized activities, and the output of diarization.

``Binarizer`` finds segments in activities that come piece by piece;
``Diarization`` is who spoke when in a recording, in the forms of files.
"""

import itertools
import json
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.ndimage import uniform_filter1d

from unispeech_sb.dataio.rttm import (
    Segment,
    write_audacity,
    write_files,
    write_rttm,
)
from unispeech_sb.metrics.diarization import diarization_error
from unispeech_sb.nnet.binarize import BinarizeConfig, binarize
from unispeech_sb.plots import timeline_svg, write_timeline
from unispeech_sb.text import notebook_html

_MEAN_S = 0.25
"""Seconds over which activities are compared, so that they do not alternate
frame by frame."""


class Turn(NamedTuple):
    """A segment in which one speaker is active.

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


class Binarizer:
    """Finds the segments of ``binarize`` in activities that come in pieces.

    It keeps the frames of segments that are not over.
    """

    def __init__(self, config: BinarizeConfig) -> None:
        self.config = config
        self._begin = self._final = 0  # of the whole, in frames
        self._buffer: np.ndarray | None = None

    def push(
        self, activities: np.ndarray
    ) -> list[tuple[float, float, int, float]]:
        """Takes the next activities, [T, K], where K may grow.

        Gives the segments that no later frame changes, sorted: start and end in
        seconds, number of the speaker, confidence.
        """
        if self._buffer is None:
            self._buffer = activities
        else:
            grown = activities.shape[1] - self._buffer.shape[1]
            padded = np.pad(self._buffer, ((0, 0), (0, grown)))
            self._buffer = np.concatenate([padded, activities])
        reach = self.config.half + self.config.pause
        final = self._begin + len(self._buffer) - reach
        return self._take(max(final, self._final))

    def finish(self) -> list[tuple[float, float, int, float]]:
        """Ends the recording; gives the segments that are left."""
        if self._buffer is None:
            return []
        return self._take(self._begin + len(self._buffer))

    def _take(self, final):
        """Segments that end after what was final before, and no later."""
        config, found, kept_from = self.config, [], final
        for start, end, speaker in binarize(
            self._buffer,
            config.threshold,
            config.median_filter,
            frame_s=1,
            min_pause_s=config.min_pause_s / config.frame_s,
            start_s=0,
        ):
            if self._begin + end > final:
                kept_from = min(kept_from, self._begin + start)
            elif self._begin + end > self._final:
                found.append((start, end, speaker))
        turns = [
            self._turn(start, end, speaker)
            for start, end, speaker in found
            if (end - start + 1e-6) * config.frame_s >= config.min_speech_s
        ]
        begin = max(kept_from - config.half, self._begin)  # filter's reach
        self._buffer = self._buffer[begin - self._begin :]
        self._begin, self._final = begin, final
        return turns

    def _turn(self, start, end, speaker):
        """Seconds of a segment of the buffered frames, and its confidence."""
        confidence = self._buffer[start:end, speaker].mean()
        frame_s = self.config.frame_s
        return (
            round((self._begin + start) * frame_s, 6),
            round((self._begin + end) * frame_s, 6),
            speaker,
            round(float(confidence), 6),
        )


def exclusive_turns(
    turns: list[tuple[float, float, int, float]],
    activities: np.ndarray,
    config: BinarizeConfig,
) -> list[tuple[float, float, int, float]]:
    """Segments without overlap: where several are active, the one with the
    greatest activity, as a mean over ``_MEAN_S``, remains.

    ``turns`` are those of ``Binarizer``, sorted, for the activities, [T, K].
    """
    active = np.zeros(activities.shape, bool)
    for start, end, speaker, _ in turns:
        first, last = (round(time / config.frame_s) for time in (start, end))
        active[first:last, speaker] = True
    size = max(1, round(_MEAN_S / config.frame_s)) | 1
    means = uniform_filter1d(activities.astype(float), size, axis=0)
    best = np.where(active, means, -1.0).argmax(1)
    best[~active.any(1)] = -1
    cuts = np.flatnonzero(np.diff(best, prepend=-2, append=-2))
    return [
        (
            round(first * config.frame_s, 6),
            round(last * config.frame_s, 6),
            int(best[first]),
            round(float(activities[first:last, best[first]].mean()), 6),
        )
        for first, last in itertools.pairwise(cuts.tolist())
        if best[first] >= 0
    ]


class SpeakerNames:
    """Names speakers in the order in which they are first asked for."""

    def __init__(self) -> None:
        self._names: dict[int, str] = {}

    def __getitem__(self, number: int) -> str:
        """Name of a speaker: speaker1, speaker2, ..."""
        return self._names.setdefault(number, f"speaker{len(self._names) + 1}")


@dataclass(frozen=True)
class Diarization:
    """Who spoke when in a recording.

    Arguments
    ---------
    name : str
        What the recording is called in files, without blanks.
    duration_s : float
        Length of the recording in seconds.
    segments : tuple of Turn
        Sorted by start, end and speaker.

    Example
    -------
    >>> found = Diarization("talk", 3.0, (Turn(0.5, 2.0, "speaker1", 0.9),))
    >>> found.speakers, found.annotation
    (['speaker1'], [Segment(start=0.5, end=2.0, speaker='speaker1')])
    >>> print(found.to_rttm(), end="")
    SPEAKER talk 1 0.500 1.500 <NA> <NA> speaker1 <NA> <NA>
    """

    name: str
    duration_s: float
    segments: tuple[Turn, ...]

    @property
    def speakers(self) -> list[str]:
        """Names of the speakers, in the order in which they begin."""
        return list(dict.fromkeys(turn.speaker for turn in self.segments))

    @property
    def annotation(self) -> list[Segment]:
        """The segments without confidences, a list of ``Segment``."""
        return [Segment(*turn[:3]) for turn in self.segments]

    def _repr_html_(self):
        """What notebooks show: the timeline."""
        return notebook_html(timeline_svg(self.segments, self.duration_s))

    def to_rttm(self, path: str | Path | None = None) -> str:
        """Gives the content of an RTTM file, and writes it.

        Arguments
        ---------
        path : str or path-like, optional
            The file to write or to replace.

        Returns
        -------
        str
            A line for each segment.
        """
        return _written(
            lambda file: write_rttm(file, {self.name: self.annotation}), path
        )

    def to_audacity(self, path: str | Path | None = None) -> str:
        """Gives the content of a file of Audacity labels, and writes it.

        Arguments
        ---------
        path : str or path-like, optional
            The file to write or to replace.

        Returns
        -------
        str
            A line for each segment: start, end, speaker.
        """
        return _written(
            lambda file: write_audacity(file, self.annotation), path
        )

    def to_json(self, path: str | Path | None = None) -> str:
        """Gives one JSON object on one line, and writes it.

        Arguments
        ---------
        path : str or path-like, optional
            The file to write or to replace.

        Returns
        -------
        str
            Name, duration, speakers, and each segment with start, end,
            speaker and confidence; times in seconds.

        Example
        -------
        >>> Diarization("talk", 3.0, ()).to_json()
        '{"name": "talk", "duration": 3.0, "speakers": [], "segments": []}\\n'
        """
        content = {
            "name": self.name,
            "duration": round(self.duration_s, 6),
            "speakers": self.speakers,
            "segments": [turn._asdict() for turn in self.segments],
        }
        line = json.dumps(content, ensure_ascii=False)
        return _written(lambda file: write_files({file: [line]}), path)

    def to_text(self) -> str:
        """Gives lines to read: from, to, speaker.

        Returns
        -------
        str
            A line for each segment.

        Example
        -------
        >>> turn = Turn(3600.5, 3602.25, "speaker1", 0.9)
        >>> Diarization("talk", 4000.0, (turn,)).to_text()
        '1:00:00.50  1:00:02.25  speaker1\\n'
        """
        return "".join(
            f"{_clock(start)}  {_clock(end)}  {speaker}\n"
            for start, end, speaker, _ in self.segments
        )

    def plot(
        self,
        path: str | Path,
        reference: Iterable[tuple[Any, ...]] | None = None,
    ) -> None:
        """Draws the timeline: see ``write_timeline``.

        Arguments
        ---------
        path : str or path-like
            The PNG to write or to replace.
        reference : iterable of tuple, optional
            (start, end, speaker) of the true segments. The title then says the
            diarization error rate (without a collar, overlaps scored) and its
            parts.
        """
        title = self.name
        if reference is not None:
            reference = [s[:3] for s in reference if s[0] < s[1]]
            title = f"{title}: {self._error_of(reference)}"
        write_timeline(path, self.segments, self.duration_s, reference, title)

    def _error_of(self, reference):
        """The diarization error rate against a reference, in words."""
        found = [(s.start, s.end, s.speaker) for s in self.segments]
        errors = diarization_error(reference, found)
        if not errors.total_s:
            return "no speech in the reference"
        parts = {
            "missed": errors.miss_s,
            "false alarm": errors.false_alarm_s,
            "confused": errors.confusion_s,
        }
        shares = ", ".join(
            f"{name} {100 * seconds / errors.total_s:.1f} %"
            for name, seconds in parts.items()
        )
        return f"DER {100 * errors.rate:.1f} % ({shares})"


def _clock(seconds):
    """H:MM:SS and hundredths."""
    hundredths = round(100 * seconds)
    minutes, hundredths = divmod(hundredths, 6000)
    hours, minutes = divmod(minutes, 60)
    whole, hundredths = divmod(hundredths, 100)
    return f"{hours}:{minutes:02d}:{whole:02d}.{hundredths:02d}"


def _written(write, path):
    """Content of a file that a function writes; kept where there is a path."""
    if path is not None:
        write(path)
        return Path(path).read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        return _written(write, Path(folder) / "content")
