"""Output formats: a table for each kind of result.

A format is one row. What the commands have to know of it stands in the row,
so that a new one needs nothing else. Nothing here imports torch.
"""

import csv
import html
import io
import itertools
import json
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

_LINE_CHARS = 42
"""Characters of a subtitle's line, as broadcasters count."""
_CUE_LINES = 2
_CUE_S = 7.0
"""Seconds that a subtitle stays at most."""
_GAP_S = 1.0
"""A pause of this many seconds begins a new subtitle."""


class RecordingId(str):
    """A recording's name that is no path, as of Kaldi's ``wav.scp``."""


class Format(NamedTuple):
    """How a result is written: ``write`` turns it and its path into text.

    ``one_recording``: several need a file each, as subtitles. ``by_stem``:
    stems of files name recordings, so they have to differ. ``is_bare``: lines
    name none, so among several the path goes in front of each. ``header``
    stands once above all results.
    """

    suffix: str
    write: Callable[[Any, str | Path], Any]
    about: str
    one_recording: bool = False
    by_stem: bool = False
    is_bare: bool = False
    header: str = ""

    def on_stream(self, result: Any, path: str | Path, several: bool) -> str:
        """What is printed of a recording, alone or as one of several."""
        text, name = self.write(result, path), unicode_name(path)
        if not (several and self.is_bare):
            return text
        return "".join(f"{name}\t{line}\n" for line in text.split("\n")[:-1])


def unicode_name(path: str | Path) -> str:
    """A path as a text: bytes of it that are no UTF-8 become ``\\xHH``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def recording_name(path: str | Path) -> str:
    """What outputs call a recording: its stem, with ``_`` for white space."""
    stem = path if isinstance(path, RecordingId) else Path(path).stem
    return re.sub(r"\s", "_", unicode_name(stem))


def describe(formats: Mapping[str, Format]) -> str:
    """The part of a command's help about the formats of a table."""
    return "; ".join(f"{name}: {form.about}" for name, form in formats.items())


def _to_text(transcript, path):
    """The text on one line."""
    return transcript.text + "\n"


def _to_json(transcript, path):
    """One JSON object on one line; times in seconds."""
    content = _content(transcript, path)
    if transcript.slots:
        content["slots"] = [
            {"slot": name, "value": value} for name, value in transcript.slots
        ]
    return _json_line(content)


def _json_line(content):
    """JSON on one line."""
    return json.dumps(content, ensure_ascii=False) + "\n"


def _content(transcript, path):
    """What JSON says of a transcript."""
    return {
        "name": unicode_name(path),
        "duration": round(transcript.duration_s, 6),
        "text": transcript.text,
        "words": [_timed("word", word) for word in transcript.words],
    }


def _timed(kind, word):
    """What JSON says of a word or a letter."""
    return {
        kind: word.text,
        "start": word.start_s,
        "end": word.end_s,
        "confidence": round(word.confidence, 6),
    }


def _alignment_to_json(alignment, path):
    """One JSON object on one line, with letters and lines."""
    content = _content(alignment, path)
    pairs = zip(content["words"], alignment.letters, strict=True)
    for word, letters in pairs:
        word["letters"] = [_timed("letter", letter) for letter in letters]
    content["lines"] = [
        {"text": line.text, "start": line.start_s, "end": line.end_s}
        for line in alignment.lines
    ]
    return _json_line(content)


def _speakers_to_json(transcript, path):
    """One JSON object on one line, with the speaker of each word."""
    content = _content(transcript, path)
    pairs = zip(content["words"], transcript.speakers, strict=True)
    for word, speaker in pairs:
        word["speaker"] = speaker
    segments = transcript.segments
    content["speakers"] = list(dict.fromkeys(s.speaker for s in segments))
    content["segments"] = [
        {
            "start": segment.start_s,
            "end": segment.end_s,
            "speaker": segment.speaker,
            "text": segment.text,
        }
        for segment in segments
    ]
    return _json_line(content)


class _Cue(NamedTuple):
    """A subtitle, and who speaks, where that is known."""

    start: float
    end: float
    text: str
    speaker: str = ""


def _to_srt(transcript, path, cues_of):
    """SubRip: a number, a line of times, lines of text and an empty line."""
    return "".join(
        f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n"
        f"{cue.speaker}{': ' * bool(cue.speaker)}{cue.text}\n\n"
        for number, cue in enumerate(cues_of(transcript), 1)
    )


def _to_vtt(transcript, path, cues_of):
    """WebVTT: a line of times and lines of text after an empty line."""
    cues = (
        f"\n{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n"
        + f"<v {html.escape(cue.speaker, quote=False)}>" * bool(cue.speaker)
        + f"{html.escape(cue.text, quote=False)}\n"
        for cue in cues_of(transcript)
    )
    return "WEBVTT\n" + "".join(cues)


def _to_tsv(transcript, path, cues_of):
    """whisper's columns: start and end in milliseconds, and text; before the
    text the speaker, where that is known."""
    between = transcript.separator
    rows = (
        f"{round(1000 * cue.start)}\t{round(1000 * cue.end)}\t"
        + f"{cue.speaker}\t" * bool(cue.speaker)
        + f"{cue.text.replace(chr(10), between).replace(chr(9), ' ')}\n"
        for cue in cues_of(transcript)
    )
    return "".join(rows)


def _to_ctm(transcript, path):
    """NIST's time-marked words: name, channel, start, duration, word, score;
    then ``lex`` and the speaker, where that is known."""
    name, speakers = recording_name(path), getattr(transcript, "speakers", ())
    lines = (
        f"{name} 1 {word.start_s:.3f} {word.end_s - word.start_s:.3f} "
        f"{word.text} {word.confidence:.3f}"
        for word in transcript.words
    )
    ends = [f" lex {speaker}" for speaker in speakers]
    pairs = itertools.zip_longest(lines, ends, fillvalue="")
    return "".join(f"{line}{end}\n" for line, end in pairs)


def _to_stm(transcript, path):
    """NIST's segments with text: name, channel, speaker, start, end, text."""
    name = recording_name(path)
    return "".join(
        f"{name} 1 {segment.speaker} {segment.start_s:.3f} "
        f"{segment.end_s:.3f} {segment.text}\n"
        for segment in transcript.segments
    )


def _to_labels(alignment, path):
    """Start and end in seconds, and word, with tabs in between."""
    return "".join(
        f"{word.start_s:.3f}\t{word.end_s:.3f}\t{word.text}\n"
        for word in alignment.words
    )


def _to_label_studio(found, path):
    """A list of one task, whose regions are predictions."""
    regions = [
        {
            "from_name": "labels",
            "to_name": "audio",
            "type": "labels",
            "original_length": round(found.duration_s, 6),
            "score": turn.confidence,
            "value": {
                "start": turn.start,
                "end": turn.end,
                "channel": 0,
                "labels": [turn.speaker],
            },
        }
        for turn in found.segments
    ]
    task = {
        "data": {"audio": unicode_name(path)},
        "predictions": [{"model_version": "unispeech_sb", "result": regions}],
    }
    return _json_line([task])


def _classes_to_json(found, path):
    """One JSON object on one line."""
    content = {
        "name": unicode_name(path),
        "duration": round(found.duration_s, 6),
        "label": found.label,
        "posterior": found.posterior,
        "classes": [entry._asdict() for entry in found.classes],
    }
    return _json_line(content)


def _rows_of(found, path, delimiter):
    """Rows of a table, the most probable class first."""
    rows = []
    for rank, (label, posterior) in enumerate(found.classes, 1):
        text = io.StringIO()
        # Only what is in the end of a line, too, is certain to be quoted
        writer = csv.writer(text, delimiter=delimiter, lineterminator="\r\n")
        writer.writerow([unicode_name(path), rank, label, f"{posterior:.6f}"])
        rows.append(text.getvalue().removesuffix("\r\n") + "\n")
    return "".join(rows)


def _subtitles(cues_of, header="start\tend\ttext\n"):
    """The formats that are made of subtitles."""
    return {
        "srt": Format(
            "srt",
            partial(_to_srt, cues_of=cues_of),
            "SubRip subtitles",
            one_recording=True,
        ),
        "vtt": Format(
            "vtt",
            partial(_to_vtt, cues_of=cues_of),
            "WebVTT subtitles",
            one_recording=True,
        ),
        "tsv": Format(
            "tsv",
            partial(_to_tsv, cues_of=cues_of),
            f"whisper's table of {', '.join(header.split())}",
            one_recording=True,
            header=header,
        ),
    }


def _cues(transcript):
    """Yields the subtitles of a transcript."""
    return _cut(transcript.words, transcript.separator)


def _line_cues(alignment):
    """Yields the lines of a text as subtitles; cuts one that is all of it."""
    if len(alignment.lines) == 1:
        yield from _cut(alignment.lines[0].words, alignment.separator)
        return
    for line in alignment.lines:
        yield _Cue(line.start_s, line.end_s, line.text)


def _speaker_cues(transcript):
    """Yields the subtitles of each speaker's segments."""
    for segment in transcript.segments:
        for cue in _cut(segment.words, transcript.separator):
            yield cue._replace(speaker=segment.speaker)


TRANSCRIPT_FORMATS = {
    "text": Format("txt", _to_text, "a line for each recording", is_bare=True),
    "json": Format(
        "json",
        _to_json,
        "a line for each recording, with time and confidence of each word",
    ),
    **_subtitles(_cues),
    "ctm": Format("ctm", _to_ctm, "NIST's time-marked words", by_stem=True),
}
"""Name -> how a ``Transcript`` is written."""

SPEAKER_FORMATS = {
    "text": Format(
        "txt",
        lambda found, path: "".join(
            f"{segment.speaker}: {segment.text}\n" for segment in found.segments
        ),
        "a line for each segment of a speaker",
        is_bare=True,
    ),
    "json": Format(
        "json",
        _speakers_to_json,
        "a line for each recording, with the speaker of each word",
    ),
    **_subtitles(_speaker_cues, "start\tend\tspeaker\ttext\n"),
    "ctm": TRANSCRIPT_FORMATS["ctm"],
    "stm": Format("stm", _to_stm, "NIST's segments with text", by_stem=True),
    "rttm": Format(
        "rttm",
        lambda found, path: found.to_rttm(recording_name(path)),
        "NIST's segments",
        by_stem=True,
    ),
}
"""Name -> how a ``SpeakerTranscript`` is written."""

ALIGNMENT_FORMATS = {
    "text": Format(
        "txt",
        _to_labels,
        "start, end and word, which is a label track of Audacity",
        is_bare=True,
    ),
    "json": Format(
        "json",
        _alignment_to_json,
        "a line for each recording, with words, letters and lines",
    ),
    "textgrid": Format(
        "TextGrid",
        lambda found, path: found.to_textgrid(),
        "Praat's tiers of words and letters",
        one_recording=True,
    ),
    **_subtitles(_line_cues),
    "ctm": TRANSCRIPT_FORMATS["ctm"],
}
"""Name -> how an ``Alignment`` is written."""

DIARIZATION_FORMATS = {
    "text": Format(
        "txt",
        lambda found, path: found.to_text(),
        "start, end and speaker of each segment",
        is_bare=True,
    ),
    "rttm": Format(
        "rttm",
        lambda found, path: found.to_rttm(),
        "NIST's segments",
        by_stem=True,
    ),
    "json": Format(
        "json",
        lambda found, path: found.to_json(),
        "a line for each recording",
        by_stem=True,
    ),
    "audacity": Format(
        "labels.txt",
        lambda found, path: found.to_audacity(),
        "a label track, of one recording",
        one_recording=True,
    ),
    "labelstudio": Format(
        "labelstudio.json",
        _to_label_studio,
        "a task of Label Studio, of one recording",
        one_recording=True,
    ),
}
"""Name -> how a ``Diarization`` is written."""

_COLUMNS = ("name", "rank", "label", "posterior")

CLASSIFICATION_FORMATS = {
    "text": Format(
        "txt",
        lambda found, path: "".join(
            f"{label}\t{posterior:.4f}\n" for label, posterior in found.classes
        ),
        "label and posterior, a line for each class",
        is_bare=True,
    ),
    "json": Format(
        "json", _classes_to_json, "a line for each recording, with its classes"
    ),
    "csv": Format(
        "csv",
        lambda found, path: _rows_of(found, path, ","),
        f"a table with the columns {', '.join(_COLUMNS)}",
        header=",".join(_COLUMNS) + "\n",
    ),
    "tsv": Format(
        "tsv",
        lambda found, path: _rows_of(found, path, "\t"),
        "the same with tabs",
        header="\t".join(_COLUMNS) + "\n",
    ),
}
"""Name -> how a ``Classification`` is written."""


def subtitle_words(words: Iterable[Any], between: str) -> Iterator[list[Any]]:
    """Yields the words of each subtitle."""
    cue: list[Any] = []
    for word in words:
        if cue and not _fits(cue, word, between):
            yield cue
            cue = []
        cue.append(word)
    if cue:
        yield cue


def _cut(words, between):
    """Yields the subtitles of words."""
    for cue in subtitle_words(words, between):
        text = "\n".join(_lines(cue, between))
        yield _Cue(cue[0].start_s, cue[-1].end_s, text)


def _fits(cue, word, between):
    """Whether a subtitle still has room and time for a word."""
    return (
        word.start_s - cue[-1].end_s < _GAP_S
        and word.end_s - cue[0].start_s <= _CUE_S
        and len(_lines([*cue, word], between)) <= _CUE_LINES
    )


def _lines(words, between):
    """Breaks words into lines; a longer word has one to itself."""
    lines = [words[0].text]
    for word in words[1:]:
        if _width(lines[-1] + between + word.text) > _LINE_CHARS:
            lines.append(word.text)
        else:
            lines[-1] += between + word.text
    return lines


def _width(text):
    """Columns of a text: two for a wide character, as those of Chinese."""
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    return len(text) + wide


def _clock(seconds, mark):
    """HH:MM:SS and milliseconds after a mark; hours go past 99."""
    milliseconds = round(seconds * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    whole, milliseconds = divmod(milliseconds, 1000)
    return f"{hours:02d}:{minutes:02d}:{whole:02d}{mark}{milliseconds:03d}"
