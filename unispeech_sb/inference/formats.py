"""Transcripts as plain text, JSON, SubRip, WebVTT and NIST's CTM."""

import html
import json
import re
from pathlib import Path

LINE_CHARS = 42
"""Characters of a subtitle's line, as broadcasters count."""
CUE_LINES = 2
CUE_S = 7.0
"""Seconds that a subtitle stays at most."""
GAP_S = 1.0
"""A pause of this many seconds begins a new subtitle."""


def to_text(transcript, name):
    """Writes the text on one line.

    Arguments
    ---------
    transcript : Transcript
        What is said.
    name : str
        Not used; taken so that all formats are called alike.

    Returns
    -------
    str
        The file's content.

    Example
    -------
    >>> from unispeech_sb.decoding.words import Transcript, Word
    >>> to_text(Transcript("yes", (Word("yes", 0.1, 0.4, 0.9),), 1.0), "a")
    'yes\\n'
    """
    return transcript.text + "\n"


def to_json(transcript, name):
    """Writes one JSON object on one line.

    Arguments
    ---------
    transcript : Transcript
        What is said.
    name : str
        The recording's file.

    Returns
    -------
    str
        The file's content: name, duration, text, and each word with start,
        end and confidence; times in seconds.

    Example
    -------
    >>> from unispeech_sb.decoding.words import Transcript, Word
    >>> to_json(Transcript("", (), 1.0), "a")
    '{"name": "a", "duration": 1.0, "text": "", "words": []}\\n'
    """
    content = {
        "name": name,
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
    return json.dumps(content, ensure_ascii=False) + "\n"


def to_srt(transcript, name):
    """Writes SubRip subtitles.

    Arguments
    ---------
    transcript : Transcript
        What is said.
    name : str
        Not used; taken so that all formats are called alike.

    Returns
    -------
    str
        The file's content: cues of a number, a line of times, lines of text
        and an empty line.

    Example
    -------
    >>> from unispeech_sb.decoding.words import Transcript, Word
    >>> word = Word("yes", 0.1, 0.4, 0.9)
    >>> print(to_srt(Transcript("yes", (word,), 1.0), "a"), end="")
    1
    00:00:00,100 --> 00:00:00,400
    yes
    <BLANKLINE>
    """
    cues = (
        f"{number}\n{_clock(start, ',')} --> {_clock(end, ',')}\n{text}\n\n"
        for number, (start, end, text) in enumerate(_cues(transcript), 1)
    )
    return "".join(cues)


def to_vtt(transcript, name):
    """Writes WebVTT subtitles.

    Arguments
    ---------
    transcript : Transcript
        What is said.
    name : str
        Not used; taken so that all formats are called alike.

    Returns
    -------
    str
        The file's content: the word WEBVTT, then cues of a line of times and
        lines of text, with an empty line before each.

    Example
    -------
    >>> from unispeech_sb.decoding.words import Transcript, Word
    >>> word = Word("R&B", 0.1, 0.4, 0.9)
    >>> print(to_vtt(Transcript("R&B", (word,), 1.0), "a"), end="")
    WEBVTT
    <BLANKLINE>
    00:00:00.100 --> 00:00:00.400
    R&amp;B
    """
    cues = (
        f"\n{_clock(start, '.')} --> {_clock(end, '.')}\n"
        f"{html.escape(text, quote=False)}\n"
        for start, end, text in _cues(transcript)
    )
    return "WEBVTT\n" + "".join(cues)


def to_ctm(transcript, name):
    """Writes NIST's time-marked words.

    Arguments
    ---------
    transcript : Transcript
        What is said.
    name : str
        The recording's file; its stem goes in, with ``_`` for white space.

    Returns
    -------
    str
        The file's content, a line for each word: name, channel, start,
        duration, word, confidence; times in seconds.

    Example
    -------
    >>> from unispeech_sb.decoding.words import Transcript, Word
    >>> word = Word("yes", 0.1, 0.4, 0.9)
    >>> to_ctm(Transcript("yes", (word,), 1.0), "a/my talk.wav")
    'my_talk 1 0.100 0.300 yes 0.900\\n'
    """
    name = re.sub(r"\s", "_", Path(name).stem)
    lines = (
        f"{name} 1 {word.start_s:.3f} {word.end_s - word.start_s:.3f} "
        f"{word.text} {word.confidence:.3f}\n"
        for word in transcript.words
    )
    return "".join(lines)


FORMATS = {
    "text": ("txt", to_text),
    "json": ("json", to_json),
    "srt": ("srt", to_srt),
    "vtt": ("vtt", to_vtt),
    "ctm": ("ctm", to_ctm),
}
"""Name -> suffix of its files, and the function that writes it."""


def _cues(transcript):
    """Yields (start, end, text) of each subtitle."""
    cue = []
    for word in transcript.words:
        if cue and not _fits(cue, word):
            yield cue[0].start_s, cue[-1].end_s, "\n".join(_lines(cue))
            cue = []
        cue.append(word)
    if cue:
        yield cue[0].start_s, cue[-1].end_s, "\n".join(_lines(cue))


def _fits(cue, word):
    """Whether a subtitle still has room and time for a word."""
    return (
        word.start_s - cue[-1].end_s < GAP_S
        and word.end_s - cue[0].start_s <= CUE_S
        and len(_lines([*cue, word])) <= CUE_LINES
    )


def _lines(words):
    """Breaks words into lines; a longer word has one to itself."""
    lines = [words[0].text]
    for word in words[1:]:
        if len(lines[-1]) + 1 + len(word.text) > LINE_CHARS:
            lines.append(word.text)
        else:
            lines[-1] += " " + word.text
    return lines


def _clock(seconds, mark):
    """HH:MM:SS and milliseconds after a mark; hours go past 99."""
    milliseconds = round(seconds * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    whole, milliseconds = divmod(milliseconds, 1000)
    return f"{hours:02d}:{minutes:02d}:{whole:02d}{mark}{milliseconds:03d}"
