"""The diarization of a recording: who spoke when, in the forms of files."""

import json
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from unispeech_sb.dataio.rttm import (
    Segment,
    write_audacity,
    write_files,
    write_rttm,
)
from unispeech_sb.inference.timeline import write_timeline


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
    >>> from unispeech_sb.inference.turns import Turn
    >>> found = Diarization("talk", 3.0, (Turn(0.5, 2.0, "speaker1", 0.9),))
    >>> found.speakers, found.annotation
    (['speaker1'], [Segment(start=0.5, end=2.0, speaker='speaker1')])
    >>> print(found.to_rttm(), end="")
    SPEAKER talk 1 0.500 1.500 <NA> <NA> speaker1 <NA> <NA>
    """

    name: str
    duration_s: float
    segments: tuple

    @property
    def speakers(self):
        """Names of those who speak, in the order in which they begin."""
        return list(dict.fromkeys(turn.speaker for turn in self.segments))

    @property
    def annotation(self):
        """The segments without confidences, a list of ``Segment``."""
        return [Segment(*turn[:3]) for turn in self.segments]

    def to_rttm(self, path=None):
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

    def to_audacity(self, path=None):
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

    def to_json(self, path=None):
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

    def to_text(self):
        """Gives lines to read: from, to, speaker.

        Returns
        -------
        str
            A line for each segment.

        Example
        -------
        >>> from unispeech_sb.inference.turns import Turn
        >>> turn = Turn(3600.5, 3602.25, "speaker1", 0.9)
        >>> Diarization("talk", 4000.0, (turn,)).to_text()
        '1:00:00.50  1:00:02.25  speaker1\\n'
        """
        return "".join(
            f"{_clock(start)}  {_clock(end)}  {speaker}\n"
            for start, end, speaker, _ in self.segments
        )

    def plot(self, path, reference=None):
        """Draws the timeline: see ``write_timeline``.

        Arguments
        ---------
        path : str or path-like
            The PNG to write or to replace.
        reference : iterable of tuple, optional
            (start, end, speaker) of who really spoke when.
        """
        write_timeline(
            path, self.segments, self.duration_s, reference, self.name
        )


def recording_name(path):
    """What files of annotations call a recording: its stem without blanks.

    Arguments
    ---------
    path : str or path-like
        Of the recording.

    Returns
    -------
    str
        The name.

    Example
    -------
    >>> recording_name("a/my talk.wav")
    'my_talk'
    """
    return re.sub(r"\s", "_", Path(path).stem)


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
