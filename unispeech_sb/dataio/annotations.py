"""Who spoke when: the segments of an annotation, and NIST's files of them,
RTTM (segments of speakers) and UEM (stretches of recordings to be scored).
"""

import math
from itertools import pairwise
from typing import NamedTuple

from unispeech_sb.dataio.annotation_lines import (
    DIGITS,
    check_name,
    fields_of,
    read_seconds,
    seconds_text,
    write_files,
)

_ROUNDING_S = 0.0015  # by which segments overlap that round to milliseconds
_RTTM_TYPES = {
    *("SPEAKER", "SPKR-INFO", "SEGMENT", "NOSCORE", "NO_RT_METADATA"),
    *("LEXEME", "NON-LEX", "NON-SPEECH", "FILLER", "EDIT", "IP", "SU", "CB"),
    "A/P",
}


class Segment(NamedTuple):
    """A stretch of a recording in which one speaker is heard.

    Arguments
    ---------
    start : float
        Where it begins, in seconds.
    end : float
        Where it ends, in seconds.
    speaker : str
        Name of the speaker.

    Example
    -------
    >>> sorted([Segment(2.0, 3.0, "anna"), Segment(0.5, 2.5, "ben")])[0].speaker
    'ben'
    """

    start: float
    end: float
    speaker: str


def normalized(segments):
    """Sorts segments, and joins those of one speaker that overlap or touch.

    Arguments
    ---------
    segments : iterable of Segment
        Or of tuples (start, end, speaker).

    Returns
    -------
    list of Segment
        Sorted by start, end and speaker.

    Example
    -------
    >>> normalized([(2.0, 3.0, "anna"), (0.0, 2.0, "anna"), (1.0, 4.0, "ben")])
    [Segment(start=0.0, end=3.0, speaker='anna'), Segment(start=1.0, ...)]
    """
    joined, latest = [], {}
    for segment in sorted(Segment(*segment) for segment in segments):
        place = latest.get(segment.speaker)
        if place is None or joined[place].end < segment.start:
            latest[segment.speaker] = len(joined)
            joined.append(segment)
        elif joined[place].end < segment.end:
            joined[place] = joined[place]._replace(end=segment.end)
    return sorted(joined)


def read_rttm(path, merge=False):
    """Reads the segments of the recordings in an RTTM file.

    Lines of other types than SPEAKER, comments (``;``) and empty lines are
    passed over.

    Arguments
    ---------
    path : str or path-like
        The file.
    merge : bool
        Join segments of one speaker that overlap or touch, as ``normalized``
        does. Otherwise segments stay as they are and overlapping ones, beyond
        the rounding to milliseconds, are refused.

    Returns
    -------
    dict
        Recording -> list of Segment, sorted. Without an entry for a
        recording of which the file has no segment.

    Raises
    ------
    ValueError
        When the file is missing, a line has another form, a time is negative
        or no number, a segment does not last, a speaker overlaps itself, or a
        recording has several channels; the message names file and line.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.rttm"
    >>> line = "SPEAKER talk 1 0.5 1.25 <NA> <NA> anna <NA> <NA>"
    >>> _ = path.write_text(line)
    >>> read_rttm(path)
    {'talk': [Segment(start=0.5, end=1.75, speaker='anna')]}
    """
    lines, channels = {}, {}
    for where, fields in fields_of(path):
        if fields[0] not in _RTTM_TYPES:
            raise ValueError(
                f"{where}: expected a type of RTTM such as SPEAKER, got "
                f"{fields[0]!r}"
            )
        if fields[0] != "SPEAKER":
            continue
        if len(fields) not in (9, 10):
            raise ValueError(
                f"{where}: expected nine or ten fields, got {len(fields)}"
            )
        _, recording, channel, start, duration, _, _, speaker, *_ = fields
        _check_channel(recording, channel, channels, where)
        start = read_seconds(start, where)
        end = round(start + read_seconds(duration, where), DIGITS)
        segment = checked_segment(start, end, speaker, where)
        lines.setdefault(recording, []).append((segment, where))
    return gathered(lines, merge)


def write_rttm(path, annotations):
    """Writes the segments of recordings as RTTM, whole or not at all.

    Arguments
    ---------
    path : str or path-like
        The file to write or to replace.
    annotations : dict
        Recording -> iterable of Segment, or of tuples (start, end, speaker).
        A recording without segments has no line.

    Raises
    ------
    ValueError
        When a name is empty or has blanks, or a segment does not last.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.rttm"
    >>> write_rttm(path, {"talk": [Segment(0.5, 1.75, "anna")]})
    >>> print(path.read_text(), end="")
    SPEAKER talk 1 0.500 1.250 <NA> <NA> anna <NA> <NA>
    """
    lines = []
    for recording, segment in segments_to_write(path, annotations):
        start, end, speaker = segment
        duration = seconds_text(end - start)
        lines.append(
            f"SPEAKER {recording} 1 {seconds_text(start)} {duration} <NA> "
            f"<NA> {speaker} <NA> <NA>"
        )
    write_files({path: lines})


def read_uem(path):
    """Reads which stretches of recordings are to be scored.

    Arguments
    ---------
    path : str or path-like
        A UEM file: lines of recording, channel, start and end.

    Returns
    -------
    dict
        Recording -> list of (start, end) in seconds, sorted; those that
        overlap or touch are joined.

    Raises
    ------
    ValueError
        When the file is missing, or a line has another form; the message
        names file and line.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.uem"
    >>> _ = path.write_text("talk 1 0.0 30.0")
    >>> read_uem(path)
    {'talk': [(0.0, 30.0)]}
    """
    stretches, channels = {}, {}
    for where, fields in fields_of(path):
        if len(fields) != 4:
            raise ValueError(
                f"{where}: expected four fields, got {len(fields)}"
            )
        recording, channel, start, end = fields
        _check_channel(recording, channel, channels, where)
        start, end = (read_seconds(field, where) for field in (start, end))
        stretch = checked_segment(start, end, "stretch", where)
        stretches.setdefault(recording, []).append(stretch)
    return {
        recording: [(start, end) for start, end, _ in normalized(found)]
        for recording, found in stretches.items()
    }


def write_uem(path, stretches):
    """Writes which stretches of recordings are to be scored.

    Arguments
    ---------
    path : str or path-like
        The file to write or to replace.
    stretches : dict
        Recording -> iterable of (start, end) in seconds.

    Raises
    ------
    ValueError
        When a name is empty or has blanks, or a stretch does not last.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.uem"
    >>> write_uem(path, {"talk": [(0.0, 30.0)]})
    >>> print(path.read_text(), end="")
    talk 1 0.000 30.000
    """
    named = {
        recording: [(start, end, "stretch") for start, end in found]
        for recording, found in stretches.items()
    }
    lines = [
        f"{recording} 1 {seconds_text(start)} {seconds_text(end)}"
        for recording, (start, end, _) in segments_to_write(path, named)
    ]
    write_files({path: lines})


def checked_segment(start, end, speaker, where):
    """Makes a segment that lasts.

    Arguments
    ---------
    start : float
        Where it begins, in seconds.
    end : float
        Where it ends, in seconds.
    speaker : str
        Name of the speaker.
    where : str
        File and line, for messages.

    Returns
    -------
    Segment
        The segment.

    Raises
    ------
    ValueError
        When it does not end behind its start.

    Example
    -------
    >>> checked_segment(1.0, 1.0, "anna", "a.rttm, line 1")
    Traceback (most recent call last):
    ...
    ValueError: a.rttm, line 1: expected an end behind the start 1.0, got 1.0
    """
    if not start < end:
        raise ValueError(
            f"{where}: expected an end behind the start {start}, got {end}"
        )
    return Segment(start, end, speaker)


def gathered(lines, merge=False):
    """Annotations of what the lines of a file say.

    Arguments
    ---------
    lines : dict
        Recording -> list of (Segment, file and line).
    merge : bool
        As for ``read_rttm``.

    Returns
    -------
    dict
        Recording -> list of Segment, sorted.

    Raises
    ------
    ValueError
        When a speaker overlaps itself and segments are not to be merged.

    Example
    -------
    >>> gathered({"talk": [(Segment(0.0, 1.0, "anna"), "a.rttm, line 1")]})
    {'talk': [Segment(start=0.0, end=1.0, speaker='anna')]}
    """
    if merge:
        return {
            recording: normalized(segment for segment, _ in found)
            for recording, found in lines.items()
        }
    annotations = {}
    for recording, found in lines.items():
        by_speaker = {}
        for segment, where in sorted(found):
            by_speaker.setdefault(segment.speaker, []).append((segment, where))
        for own in by_speaker.values():
            _check_overlap(own, recording)
        annotations[recording] = sorted(segment for segment, _ in found)
    return annotations


def segments_to_write(path, annotations, separator=None):
    """Segments of recordings as a file can hold them, checked and rounded.

    Arguments
    ---------
    path : str or path-like
        The file, for messages.
    annotations : dict
        Recording -> iterable of tuples (start, end, speaker).
    separator : str, optional
        What names must not hold; blanks when omitted.

    Yields
    ------
    recording : str
        Its name.
    segment : Segment
        The next one, in order.

    Raises
    ------
    ValueError
        When a name is empty or has blanks, or a segment does not last.

    Example
    -------
    >>> list(segments_to_write("a.rttm", {"talk": [(0.0, 1.0, "anna")]}))
    [('talk', Segment(start=0.0, end=1.0, speaker='anna'))]
    """
    for recording, segments in annotations.items():
        for start, end, speaker in sorted(segments):
            for name in (recording, speaker):
                check_name(name, path, separator)
            start, end = (round(float(time), DIGITS) for time in (start, end))
            where = f"{path}, {recording}"
            if not 0 <= start < math.inf:
                raise ValueError(
                    f"{where}: expected seconds from 0 on, got {start}"
                )
            yield recording, checked_segment(start, end, speaker, where)


def _check_channel(recording, channel, channels, where):
    """Raises where a recording has another channel than before."""
    before = channels.setdefault(recording, channel)
    if channel != before:
        raise ValueError(
            f"{where}: expected one channel per recording; {recording} has "
            f"{before} before and {channel} here"
        )


def _check_overlap(lines, recording):
    """Raises where sorted segments of one speaker overlap."""
    for (before, _), (segment, where) in pairwise(lines):
        if before.end > segment.start + _ROUNDING_S:
            raise ValueError(
                f"{where}: {segment.speaker} of {recording} starts at "
                f"{segment.start}, before the same speaker's segment from "
                f"{before.start} to {before.end} is over"
            )
