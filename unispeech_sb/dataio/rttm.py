"""Who speaks when: segments, and the files that hold them: NIST's RTTM and UEM,
Kaldi's ``segments`` with ``utt2spk``, and Audacity's labels.
"""

import logging
import re
from collections.abc import Collection, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from unispeech_sb.atomic import atomic
from unispeech_sb.text import MOST_S, fields_of, named, read_number

__all__ = [
    "Segment",
    "normalized",
    "read_rttm",
    "read_uem",
    "write_audacity",
    "write_rttm",
]

_logger = logging.getLogger(__name__)

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
        does, and leave out those of 0 s; how many is logged. Otherwise
        segments stay as they are, and overlapping ones, beyond the rounding
        to milliseconds, or those of 0 s are refused.

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
        _, recording, channel, begins, lasts, _, _, speaker, *_ = fields
        _check_channel(recording, channel, channels, where)
        start = read_number(begins, where)
        end = round(start + read_number(lasts, where), _DIGITS)
        segment = _checked_segment(start, end, speaker, where, merge)
        lines.setdefault(recording, []).append((segment, where))
    return _gathered(lines, path, merge)


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
        recording, channel, *times = fields
        _check_channel(recording, channel, channels, where)
        start, end = (read_number(field, where) for field in times)
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
        start, end = (read_number(field, where) for field in fields[:2])
        speaker = fields[2].strip()
        segment = _checked_segment(start, end, speaker, where, merge)
        lines.append((segment, where))
    name = Path(path).stem
    return _gathered({name: lines}, path, merge).get(name, [])


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
    path, lines = Path(folder) / "segments", dict[str, list[Any]]()

    def rows():
        for name, (where, fields) in kaldi_table(path, 3).items():
            yield where, [name, *fields]

    for where, recording, segment in _spoken(folder, rows(), merge):
        lines.setdefault(recording, []).append((segment, where))
    return _gathered(lines, path, merge)


def kaldi_segment_lines(folder: str | Path) -> dict[str, list[Segment]]:
    """Reads ``segments`` as SUPERB's labels take it: all of its lines as they
    are, also those of one name and those of one speaker that overlap; of a
    name in ``utt2spk`` the last line."""
    found: dict[str, list[Segment]] = {}
    rows = fields_of(Path(folder) / "segments")
    for _, recording, segment in _spoken(folder, rows, may_be_empty=True):
        found.setdefault(recording, []).append(segment)
    return found


def _spoken(folder, rows, may_be_empty):
    """Yields file with line, recording and segment of rows of ``segments``:
    file with line, and fields."""
    speakers_file = Path(folder) / "utt2spk"
    speakers = {
        utterance: fields[0]
        for utterance, (_, fields) in kaldi_table(speakers_file, 1).items()
    }
    for where, fields in rows:
        if len(fields) != 4:
            raise ValueError(f"{where}: expected 4 fields, got {len(fields)}")
        utterance, recording, *times = fields
        if utterance not in speakers:
            raise ValueError(
                f"{where}: {utterance} has no speaker in {speakers_file}"
            )
        start, end = (read_number(field, where) for field in times)
        speaker = speakers[utterance]
        yield (
            where,
            recording,
            _checked_segment(start, end, speaker, where, may_be_empty),
        )


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


def read_annotations(
    path: str | Path, merge: bool = False
) -> dict[str, list[Segment]]:
    """Reads an RTTM file, or ``segments`` with ``utt2spk`` beside it.

    Recording -> list of Segment, as ``normalized`` gives it. ``merge`` is as
    for ``read_rttm``.
    """
    path = Path(path)
    if path.name == "segments":
        found = read_kaldi_segments(path.parent, merge)
    else:
        found = read_rttm(path, merge)
    return {name: normalized(segments) for name, segments in found.items()}


def match_names(
    recordings: Mapping[str, str | Path], names: Collection[str]
) -> dict[str, str]:
    """Recording -> the one of some names that means it, where there is one.

    It is the recording's own, else the only one that differs from it, or from
    its file, ``recordings``' value, in folder, suffix, case, or ``_`` for
    blanks; that of no other recording.
    """
    found = {name: name for name in recordings if name in names}
    alike: dict[str, list[str]] = {}
    for name in names:
        if name not in found:
            alike.setdefault(_name_key(name), []).append(name)
    meant: dict[str, list[str]] = {}
    for recording, wav in recordings.items():
        if recording in found:
            continue
        keys = {_name_key(recording), _name_key(wav)} - {""}
        others = [name for key in keys for name in alike.get(key, [])]
        if len(others) == 1:
            meant.setdefault(others[0], []).append(recording)
    return found | {
        those[0]: name for name, those in meant.items() if len(those) == 1
    }


def _name_key(name):
    """What is left of a name without what writers of lists change."""
    last = re.split(r"[/\\]", str(name))[-1]
    last = re.sub(r"\.(wav|flac|mp3|ogg|opus|sph|m4a)$", "", last, flags=re.I)
    return re.sub(r"\s", "_", last).casefold()


def kaldi_table(
    path: str | Path, num_fields: int | None = None
) -> dict[str, tuple[str, list[str]]]:
    """Name -> file with line, and the fields after the name, of a Kaldi file.

    Of a name that occurs several times the last line counts, which is logged.
    ``num_fields`` are asked for behind the name, any number when omitted.
    """
    found: dict[str, tuple[str, list[str]]] = {}
    again: dict[str, None] = {}
    for where, (name, *fields) in fields_of(path):
        if num_fields is not None and len(fields) != num_fields:
            raise ValueError(
                f"{where}: expected {num_fields + 1} fields, got "
                f"{len(fields) + 1}"
            )
        if name in found:
            again[name] = None
        found[name] = where, fields
    if again:
        _logger.warning(
            f"{path}: {len(again)} names occur several times, the last line "
            f"of each is taken: {named(again)}"
        )
    return found


def kaldi_files(path: str | Path) -> dict[str, tuple[str, str]]:
    """Recording -> place in the list, and its file as written there, of a
    ``wav.scp``; commands are refused, and not run."""
    found = {}
    for name, (where, words) in kaldi_table(path).items():
        file = " ".join(words)
        if file.endswith("|") or file in ("", "-"):
            raise ValueError(
                f"{where}: expected the path of a recording, got {file!r}; "
                "commands are not run: write what they give to files"
            )
        found[name] = where, file
    return found


def write_files(texts: Mapping[str | Path, Iterable[str]]) -> None:
    """Writes text files, path -> lines without ends; all of them or none."""
    with ExitStack() as files:
        for path, lines in texts.items():
            file = files.enter_context(atomic(path))
            file.writelines(f"{line}\n" for line in lines)


def _checked_segment(start, end, speaker, where, may_be_empty=False):
    """Makes a segment that ends behind its start."""
    if not (start < end or may_be_empty and start == end):
        hint = "; merge_segments=True drops it" if start == end else ""
        raise ValueError(
            f"{where}: expected an end behind the start {start}, got {end}"
            + hint
        )
    return Segment(start, end, speaker)


def _gathered(lines, path, merge=False):
    """Recording -> sorted segments, of recording -> (segment, line) pairs.

    A speaker that overlaps itself is an error unless ``merge``.
    """
    annotations, num_overlaps, num_empty = {}, 0, 0
    for recording, found in lines.items():
        kept = [pair for pair in sorted(found) if pair[0].start < pair[0].end]
        num_empty += len(found) - len(kept)
        by_speaker = {}
        for segment, where in kept:
            by_speaker.setdefault(segment.speaker, []).append((segment, where))
        overlaps = [
            fault
            for own in by_speaker.values()
            for fault in _overlaps(own, recording)
        ]
        if overlaps and not merge:
            raise ValueError(overlaps[0])
        num_overlaps += len(overlaps)
        segments = [segment for segment, _ in kept]
        if segments or not found:
            annotations[recording] = normalized(segments) if merge else segments
    if num_overlaps or num_empty:
        _logger.warning(
            f"{path}: joined {num_overlaps} segments with one of the same "
            f"speaker that they overlap, left out {num_empty} of 0 s"
        )
    return annotations


def _check_channel(recording, channel, channels, where):
    """Raises where a recording has another channel than before."""
    before = channels.setdefault(recording, channel)
    if channel != before:
        raise ValueError(
            f"{where}: expected one channel per recording; {recording} has "
            f"{before} before and {channel} here"
        )


def _overlaps(lines, recording):
    """What is wrong with sorted segments of one speaker that overlap."""
    latest = None
    for segment, where in lines:
        if latest is not None and latest.end > segment.start + _ROUNDING_S:
            yield (
                f"{where}: {segment.speaker} of {recording} starts at "
                f"{segment.start}, before the same speaker's segment from "
                f"{latest.start} to {latest.end} is over; merge_segments=True "
                "joins them"
            )
        if latest is None or latest.end < segment.end:
            latest = segment


def _segments_to_write(path, annotations, separator=None):
    """Yields recordings and segments, checked, rounded and in order."""
    for recording, segments in annotations.items():
        for start, end, speaker in sorted(segments):
            for name in (recording, speaker):
                _check_name(name, path, separator)
            start, end = (round(float(time), _DIGITS) for time in (start, end))
            where = f"{path}, {recording}"
            if not 0 <= start <= MOST_S:
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
