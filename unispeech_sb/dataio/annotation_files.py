"""Annotations in the files of other programs: Audacity's labels, and
``segments`` with ``utt2spk`` as Kaldi has them.
"""

from pathlib import Path

from unispeech_sb.dataio.annotation_lines import (
    fields_of,
    read_seconds,
    seconds_text,
    write_files,
)
from unispeech_sb.dataio.annotations import (
    checked_segment,
    gathered,
    segments_to_write,
)


def read_audacity(path, merge=False):
    """Reads the labels of a recording that Audacity exported.

    Arguments
    ---------
    path : str or path-like
        Lines of start, end and label, with tabs between; the label is the
        speaker. Lines of frequencies (``\\``) are passed over.
    merge : bool
        As for ``read_rttm``.

    Returns
    -------
    list of Segment
        Sorted.

    Raises
    ------
    ValueError
        When the file is missing, a line has another form or no label, a time
        is negative or no number, a label does not last, or a speaker overlaps
        itself; the message names file and line.

    Example
    -------
    >>> path = getfixture("tmp_path") / "labels.txt"
    >>> _ = path.write_text("0.500000\\t1.750000\\tanna\\n")
    >>> read_audacity(path)
    [Segment(start=0.5, end=1.75, speaker='anna')]
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
        lines.append((checked_segment(start, end, speaker, where), where))
    return gathered({Path(path).stem: lines}, merge)[Path(path).stem]


def write_audacity(path, segments):
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
        f"{seconds_text(start)}\t{seconds_text(end)}\t{speaker}"
        for _, (start, end, speaker) in segments_to_write(path, named, "\t")
    ]
    write_files({path: lines})


def read_kaldi_segments(folder, merge=False):
    """Reads the annotations of a Kaldi folder.

    Arguments
    ---------
    folder : str or path-like
        With ``segments`` (utterance, recording, start, end) and ``utt2spk``
        (utterance, speaker).
    merge : bool
        As for ``read_rttm``.

    Returns
    -------
    dict
        Recording -> list of Segment, sorted.

    Raises
    ------
    ValueError
        When a file is missing, a line has another form, an utterance occurs
        twice or has no speaker, a time is negative or no number, a segment
        does not last, or a speaker overlaps itself; the message names file
        and line.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> _ = (folder / "segments").write_text("anna-1 talk 0.5 1.75\\n")
    >>> _ = (folder / "utt2spk").write_text("anna-1 anna\\n")
    >>> read_kaldi_segments(folder)
    {'talk': [Segment(start=0.5, end=1.75, speaker='anna')]}
    """
    speakers_file = Path(folder) / "utt2spk"
    speakers = {
        utterance: speaker
        for _, (utterance, speaker) in _utterances(speakers_file, 2)
    }
    lines = {}
    for where, fields in _utterances(Path(folder) / "segments", 4):
        utterance, recording, start, end = fields
        if utterance not in speakers:
            raise ValueError(
                f"{where}: {utterance} has no speaker in {speakers_file}"
            )
        start, end = (read_seconds(field, where) for field in (start, end))
        segment = checked_segment(start, end, speakers[utterance], where)
        lines.setdefault(recording, []).append((segment, where))
    return gathered(lines, merge)


def write_kaldi_segments(folder, annotations):
    """Writes ``segments`` and ``utt2spk`` of a Kaldi folder.

    Utterances are named by speaker, recording, start and end in milliseconds,
    and sorted as Kaldi wants them.

    Arguments
    ---------
    folder : str or path-like
        A folder that is there; its two files are replaced.
    annotations : dict
        Recording -> iterable of Segment, or of tuples (start, end, speaker).

    Raises
    ------
    ValueError
        When a name is empty or has blanks, a segment does not last, or two
        segments would have one name.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> write_kaldi_segments(folder, {"talk": [(0.5, 1.75, "anna")]})
    >>> print((folder / "segments").read_text(), end="")
    anna_talk_000500_001750 talk 0.500 1.750
    """
    segments_file = Path(folder) / "segments"
    lines = {}
    for recording, segment in segments_to_write(segments_file, annotations):
        start, end, speaker = segment
        span = f"{round(1000 * start):06d}_{round(1000 * end):06d}"
        utterance = f"{speaker}_{recording}_{span}"
        if utterance in lines:
            raise ValueError(
                f"{segments_file}: two segments are named {utterance}"
            )
        times = f"{seconds_text(start)} {seconds_text(end)}"
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
