"""Output formats: one table for transcripts and one for diarizations.

A format is one row. What the commands have to know of it stands in the row,
so that a new one needs nothing else. Nothing here imports torch.
"""

import csv
import html
import io
import json
import os
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
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
    content = {
        "name": unicode_name(path),
        "duration": round(transcript.duration_s, 6),
        "text": transcript.text,
        "words": [
            {
                "word": word.text,
                "start": word.start_s,
                "end": word.end_s,
                "confidence": round(word.confidence, 6),
            }
            for word in transcript.words
        ],
    }
    if transcript.slots:
        content["slots"] = [
            {"slot": name, "value": value} for name, value in transcript.slots
        ]
    return json.dumps(content, ensure_ascii=False) + "\n"


def _to_srt(transcript, path):
    """SubRip: a number, a line of times, lines of text and an empty line."""
    cues = (
        f"{number}\n{_clock(start, ',')} --> {_clock(end, ',')}\n{text}\n\n"
        for number, (start, end, text) in enumerate(_cues(transcript), 1)
    )
    return "".join(cues)


def _to_vtt(transcript, path):
    """WebVTT: a line of times and lines of text after an empty line."""
    cues = (
        f"\n{_clock(start, '.')} --> {_clock(end, '.')}\n"
        f"{html.escape(text, quote=False)}\n"
        for start, end, text in _cues(transcript)
    )
    return "WEBVTT\n" + "".join(cues)


def _to_tsv(transcript, path):
    """whisper's columns: start and end in milliseconds, and text."""
    between = transcript.separator
    rows = (
        f"{round(1000 * start)}\t{round(1000 * end)}\t"
        f"{text.replace(chr(10), between).replace(chr(9), ' ')}\n"
        for start, end, text in _cues(transcript)
    )
    return "".join(rows)


def _to_ctm(transcript, path):
    """NIST's time-marked words: name, channel, start, duration, word, score."""
    name = recording_name(path)
    lines = (
        f"{name} 1 {word.start_s:.3f} {word.end_s - word.start_s:.3f} "
        f"{word.text} {word.confidence:.3f}\n"
        for word in transcript.words
    )
    return "".join(lines)


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
    return json.dumps([task], ensure_ascii=False) + "\n"


def _classes_to_json(found, path):
    """One JSON object on one line."""
    content = {
        "name": unicode_name(path),
        "duration": round(found.duration_s, 6),
        "label": found.label,
        "posterior": found.posterior,
        "classes": [entry._asdict() for entry in found.classes],
    }
    return json.dumps(content, ensure_ascii=False) + "\n"


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


TRANSCRIPT_FORMATS = {
    "text": Format("txt", _to_text, "a line for each recording", is_bare=True),
    "json": Format(
        "json",
        _to_json,
        "a line for each recording, with time and confidence of each word",
    ),
    "srt": Format("srt", _to_srt, "SubRip subtitles", one_recording=True),
    "vtt": Format("vtt", _to_vtt, "WebVTT subtitles", one_recording=True),
    "tsv": Format(
        "tsv",
        _to_tsv,
        "whisper's table of start, end and text",
        one_recording=True,
        header="start\tend\ttext\n",
    ),
    "ctm": Format("ctm", _to_ctm, "NIST's time-marked words", by_stem=True),
}
"""Name -> how a ``Transcript`` is written."""

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


def subtitle_words(transcript: Any) -> Iterator[list[Any]]:
    """Yields the words of each subtitle of a ``Transcript``."""
    cue: list[Any] = []
    for word in transcript.words:
        if cue and not _fits(cue, word, transcript.separator):
            yield cue
            cue = []
        cue.append(word)
    if cue:
        yield cue


def _cues(transcript):
    """Yields (start, end, text) of each subtitle."""
    for cue in subtitle_words(transcript):
        text = "\n".join(_lines(cue, transcript.separator))
        yield cue[0].start_s, cue[-1].end_s, text


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
