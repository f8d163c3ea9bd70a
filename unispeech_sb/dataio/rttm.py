"""Who speaks when: segments, and the files that hold them: NIST's RTTM and UEM,
Kaldi's ``segments`` with ``utt2spk``, and Audacity's labels.
"""

import math
import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from unispeech_sb.atomic import atomic

__all__ = [
    "Segment",
    "normalized",
    "read_rttm",
    "read_uem",
    "write_audacity",
    "write_rttm",
]

_DIGITS = 6  # of the seconds in files: finer than a sample
_ROUNDING_S = 0.0015  # by which segments overlap that round to milliseconds
_RTTM_TYPES = {
    *("SPEAKER", "SPKR-INFO", "SEGMENT", "NOSCORE", "NO_RT_METADATA"),
    *("LEXEME", "NON-LEX", "NON-SPEECH", "FILLER", "EDIT", "IP", "SU", "CB"),
    "A/P",
}


class Segment(NamedTuple):
    """A stretch of a recording in which one speaker is active.

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


def normalized(segments: Iterable[tuple[float, float, str]]) -> list[Segment]:
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
    joined: list[Segment] = []
    latest: dict[str, int] = {}
    for segment in sorted(Segment(*segment) for segment in segments):
        place = latest.get(segment.speaker)
        if place is None or joined[place].end < segment.start:
            latest[segment.speaker] = len(joined)
            joined.append(segment)
        elif joined[place].end < segment.end:
            joined[place] = joined[place]._replace(end=segment.end)
    return sorted(joined)


def read_rttm(
    path: str | Path, merge: bool = False
) -> dict[str, list[Segment]]:
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
    lines: dict[str, list[Any]] = {}
    channels: dict[str, str] = {}
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
        end = round(start + read_seconds(duration, where), _DIGITS)
        segment = _checked_segment(start, end, speaker, where)
        lines.setdefault(recording, []).append((segment, where))
    return _gathered(lines, merge)


def write_rttm(
    path: str | Path,
    annotations: Mapping[str, Iterable[tuple[float, float, str]]],
) -> None:
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
    for recording, segment in _segments_to_write(path, annotations):
        start, end, speaker = segment
        duration = _seconds_text(end - start)
        lines.append(
            f"SPEAKER {recording} 1 {_seconds_text(start)} {duration} <NA> "
            f"<NA> {speaker} <NA> <NA>"
        )
    write_files({path: lines})


def read_uem(path: str | Path) -> dict[str, list[tuple[float, float]]]:
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
    stretches: dict[str, list[Segment]] = {}
    channels: dict[str, str] = {}
    for where, fields in fields_of(path):
        if len(fields) != 4:
            raise ValueError(
                f"{where}: expected four fields, got {len(fields)}"
            )
        recording, channel, start, end = fields
        _check_channel(recording, channel, channels, where)
        start, end = (read_seconds(field, where) for field in (start, end))
        stretch = _checked_segment(start, end, "stretch", where)
        stretches.setdefault(recording, []).append(stretch)
    return {
        recording: [(start, end) for start, end, _ in normalized(found)]
        for recording, found in stretches.items()
    }


def write_uem(
    path: str | Path, stretches: Mapping[str, Iterable[tuple[float, float]]]
) -> None:
    """Writes recording -> (start, end) in seconds, the stretches to score."""
    named = {
        recording: [(start, end, "stretch") for start, end in found]
        for recording, found in stretches.items()
    }
    lines = [
        f"{recording} 1 {_seconds_text(start)} {_seconds_text(end)}"
        for recording, (start, end, _) in _segments_to_write(path, named)
    ]
    write_files({path: lines})


def read_audacity(path: str | Path, merge: bool = False) -> list[Segment]:
    """Reads the labels of a recording that Audacity exported: sorted segments.

    Lines have start, end and label, the speaker, with tabs between; those of
    frequencies (``\\``) are passed over. ``merge`` is as for ``read_rttm``.
    """
    lines = []
    for where, fields in fields_of(path, separator="\t"):
        if fields[0] == "\\":
            continue
        if len(fields) != 3 or not fields[2].strip():
            raise ValueError(
                f"{where}: expected start, end and the speaker's name with "
                f"tabs between, got {fields}"
            )
        start, end = (read_seconds(field, where) for field in fields[:2])
        speaker = fields[2].strip()
        lines.append((_checked_segment(start, end, speaker, where), where))
    return _gathered({Path(path).stem: lines}, merge)[Path(path).stem]


def write_audacity(
    path: str | Path, segments: Iterable[tuple[float, float, str]]
) -> None:
    """Writes segments as labels for Audacity, whole or not at all.

    Arguments
    ---------
    path : str or path-like
        The file to write or to replace.
    segments : iterable of Segment
        Of one recording; or tuples (start, end, speaker).

    Raises
    ------
    ValueError
        When a name is empty or holds a tab, or a segment does not last.

    Example
    -------
    >>> path = getfixture("tmp_path") / "labels.txt"
    >>> write_audacity(path, [(0.5, 1.75, "anna")])
    >>> path.read_text()
    '0.500\\t1.750\\tanna\\n'
    """
    named = {Path(path).stem: segments}
    lines = [
        f"{_seconds_text(start)}\t{_seconds_text(end)}\t{speaker}"
        for _, (start, end, speaker) in _segments_to_write(path, named, "\t")
    ]
    write_files({path: lines})


def read_kaldi_segments(
    folder: str | Path, merge: bool = False
) -> dict[str, list[Segment]]:
    """Reads the annotations of a Kaldi folder: recording -> sorted segments.

    It has ``segments`` (utterance, recording, start, end) and ``utt2spk``
    (utterance, speaker). ``merge`` is as for ``read_rttm``.
    """
    speakers_file = Path(folder) / "utt2spk"
    speakers = {
        utterance: speaker
        for _, (utterance, speaker) in _utterances(speakers_file, 2)
    }
    lines: dict[str, list[Any]] = {}
    for where, fields in _utterances(Path(folder) / "segments", 4):
        utterance, recording, start, end = fields
        if utterance not in speakers:
            raise ValueError(
                f"{where}: {utterance} has no speaker in {speakers_file}"
            )
        start, end = (read_seconds(field, where) for field in (start, end))
        segment = _checked_segment(start, end, speakers[utterance], where)
        lines.setdefault(recording, []).append((segment, where))
    return _gathered(lines, merge)


def write_kaldi_segments(
    folder: str | Path,
    annotations: Mapping[str, Iterable[tuple[float, float, str]]],
) -> None:
    """Writes ``segments`` and ``utt2spk`` of a Kaldi folder that is there.

    Utterances are named by speaker, recording, start and end in milliseconds,
    and sorted as Kaldi wants them.
    """
    segments_file = Path(folder) / "segments"
    lines = {}
    for recording, segment in _segments_to_write(segments_file, annotations):
        start, end, speaker = segment
        span = f"{round(1000 * start):06d}_{round(1000 * end):06d}"
        utterance = f"{speaker}_{recording}_{span}"
        if utterance in lines:
            raise ValueError(
                f"{segments_file}: two segments are named {utterance}"
            )
        times = f"{_seconds_text(start)} {_seconds_text(end)}"
        lines[utterance] = f"{recording} {times}", speaker
    # Kaldi compares bytes.
    names = sorted(lines, key=str.encode)
    write_files(
        {
            segments_file: [f"{name} {lines[name][0]}" for name in names],
            Path(folder) / "utt2spk": [
                f"{name} {lines[name][1]}" for name in names
            ],
        }
    )


def read_annotations(path: str | Path) -> dict[str, list[Segment]]:
    """Reads an RTTM file, or ``segments`` with ``utt2spk`` beside it.

    Recording -> list of Segment, as ``normalized`` gives it.
    """
    path = Path(path)
    if path.name == "segments":
        found = read_kaldi_segments(path.parent)
    else:
        found = read_rttm(path)
    return {name: normalized(segments) for name, segments in found.items()}


def fields_of(path, separator=None):
    """File with line number, and the fields, of each line that is not empty.

    Comments (``;``) are passed over. Fields are separated by blanks, or by
    ``separator``. A missing file, or one that is not UTF-8, is an error.
    """
    if not os.path.isfile(path):
        raise ValueError(f"{path}: there is no such file")
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected text in UTF-8") from error
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip() and not line.lstrip().startswith(";"):
            yield f"{path}, line {number}", line.split(separator)


def read_seconds(field, where):
    """Reads a time, in seconds from 0 on; ``where`` is for messages."""
    try:
        seconds = float(field)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ValueError(f"{where}: expected seconds from 0 on, got {field!r}")
    return seconds


def write_files(texts: Mapping[str | Path, Iterable[str]]) -> None:
    """Writes text files, path -> lines without ends; all of them or none."""
    with ExitStack() as files:
        for path, lines in texts.items():
            file = files.enter_context(atomic(path))
            file.writelines(f"{line}\n" for line in lines)


def _utterances(path, num_fields):
    """File with line, and fields, of utterances that occur once."""
    seen = set()
    for where, fields in fields_of(path):
        if len(fields) != num_fields:
            raise ValueError(
                f"{where}: expected {num_fields} fields, got {len(fields)}"
            )
        if fields[0] in seen:
            raise ValueError(f"{where}: {fields[0]} occurs twice")
        seen.add(fields[0])
        yield where, fields


def _checked_segment(start, end, speaker, where):
    """Makes a segment that ends behind its start."""
    if not start < end:
        raise ValueError(
            f"{where}: expected an end behind the start {start}, got {end}"
        )
    return Segment(start, end, speaker)


def _gathered(lines, merge=False):
    """Recording -> sorted segments, of recording -> (segment, line) pairs.

    A speaker that overlaps itself is an error unless ``merge``.
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


def _segments_to_write(path, annotations, separator=None):
    """Yields recordings and segments, checked, rounded and in order."""
    for recording, segments in annotations.items():
        for start, end, speaker in sorted(segments):
            for name in (recording, speaker):
                _check_name(name, path, separator)
            start, end = (round(float(time), _DIGITS) for time in (start, end))
            where = f"{path}, {recording}"
            if not 0 <= start < math.inf:
                raise ValueError(
                    f"{where}: expected seconds from 0 on, got {start}"
                )
            yield recording, _checked_segment(start, end, speaker, where)


def _check_name(name, where, separator=None):
    """Raises unless a name is one field of a line."""
    forbidden = "blanks" if separator is None else "tabs and line ends"
    one_line = len(name.splitlines()) == 1
    if not one_line or name.strip().split(separator) != [name]:
        raise ValueError(
            f"{where}: expected a name without {forbidden}, got {name!r}"
        )


def _seconds_text(seconds):
    """A time with three digits behind the point, up to six where needed."""
    text = f"{seconds:.{_DIGITS}f}"
    kept = text.rstrip("0")
    return text[: max(len(kept), len(text) - 3)]
