"""Who said what: the words of a transcript and the turns of a diarization."""

import html
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from unispeech_sb.dataio.audio import AudioError, attempt
from unispeech_sb.decoding import Transcript, Word
from unispeech_sb.decoding.words import MOST_SHOWN
from unispeech_sb.inference.audio_blocks import read_blocks
from unispeech_sb.inference.diarization import SpeakerDiarization
from unispeech_sb.inference.embedding_store import EmbeddingStore
from unispeech_sb.inference.formats import recording_name
from unispeech_sb.inference.segments import Diarization, Turn
from unispeech_sb.inference.speaker_verification import SpeakerVerification
from unispeech_sb.text import notebook_html

UNKNOWN = "unknown"
"""The speaker of words in a recording without any turn."""
_PAUSE_S = 2.0
"""A pause of this many seconds ends a segment."""
_NAMED_S = 30.0
"""Seconds of a speaker's speech that are compared with those enrolled."""


class SpeakerSegment(NamedTuple):
    """Words in a row of one speaker.

    Arguments
    ---------
    speaker : str
        Name of the speaker.
    text : str
        The words.
    words : tuple of Word
        At least one.

    Example
    -------
    >>> SpeakerSegment("anna", "yes", (Word("yes", 0.1, 0.4, 0.9),)).end_s
    0.4
    """

    speaker: str
    text: str
    words: tuple[Word, ...]

    @property
    def start_s(self) -> float:
        """Where the first word begins, in seconds."""
        return self.words[0].start_s

    @property
    def end_s(self) -> float:
        """Where the last word ends, in seconds."""
        return self.words[-1].end_s


@dataclass(frozen=True)
class SpeakerTranscript(Transcript):
    """A transcript that says whose each word is.

    Arguments
    ---------
    text : str
        All of it, without the speakers.
    words : tuple of Word
        In order.
    duration_s : float
        Length of the recording in seconds.
    separator : str
        What stands between two words.
    speakers : tuple of str
        The speaker of each word.
    turns : tuple of Turn
        When who speaks, whatever words there are.

    Example
    -------
    >>> words = Word("so", 0.1, 0.4, 0.9), Word("yes", 0.8, 1.0, 0.9)
    >>> found = SpeakerTranscript(
    ...     "so yes", words, 1.0, speakers=("anna", "bob")
    ... )
    >>> [(segment.speaker, segment.text) for segment in found.segments]
    [('anna', 'so'), ('bob', 'yes')]
    """

    speakers: tuple[str, ...] = ()
    turns: tuple[Turn, ...] = ()

    @property
    def segments(self) -> list[SpeakerSegment]:
        """Words of one speaker without a long pause, in order."""
        return [*self._segments()]

    def to_rttm(self, name: str) -> str:
        """Gives the turns as an RTTM file of a recording.

        Arguments
        ---------
        name : str
            What the file calls the recording.

        Returns
        -------
        str
            A line for each turn.
        """
        return Diarization(name, self.duration_s, self.turns).to_rttm()

    def _segments(self) -> Iterator[SpeakerSegment]:
        """Yields the segments."""
        pairs = zip(self.speakers, self.words, strict=True)
        for speaker, run in groupby(pairs, lambda pair: pair[0]):
            words: list[Word] = []
            for _, word in run:
                if words and word.start_s - words[-1].end_s >= _PAUSE_S:
                    yield self._segment(speaker, words)
                    words = []
                words.append(word)
            yield self._segment(speaker, words)

    def _segment(self, speaker, words):
        """The segment of some words."""
        text = self.separator.join(word.text for word in words)
        return SpeakerSegment(speaker, text, tuple(words))

    def _repr_html_(self):
        """What notebooks show: a paragraph for each segment."""
        rows, left = [], len(self.words)
        for speaker, _, words in self._segments():
            if len(self.words) - left >= MOST_SHOWN:
                break
            left -= len(words)
            # <bdi>: the direction is that of the words, not of the name
            rows.append(
                f'<p dir="auto"><b><bdi>{html.escape(speaker)}</bdi></b> '
                f"<small><bdi>{words[0].start_s:.1f} s</bdi></small> "
                f"{self._html(words)}</p>"
            )
        note = "" if rows else "(no words)"
        if left:
            note = f"\u2026 and {left} more words"
        return notebook_html("".join(rows), note)


def attribute_words(
    transcript: Transcript, diarization: Diarization
) -> SpeakerTranscript:
    """Gives each word to the speaker who speaks most of its time.

    Of two who speak as much, the one of the word before; where nobody speaks,
    the one of the nearest turn.

    Arguments
    ---------
    transcript : Transcript
        Words of a recording.
    diarization : Diarization
        Of the same recording, best without overlap (``exclusive``).

    Returns
    -------
    SpeakerTranscript
        The words with their speakers.

    Example
    -------
    >>> words = Word("so", 0.1, 0.4, 0.9), Word("yes", 0.8, 1.0, 0.9)
    >>> turns = Turn(0, 0.5, "anna", 1.0), Turn(0.5, 1.0, "bob", 1.0)
    >>> attribute_words(
    ...     Transcript("so yes", words, 1.0), Diarization("talk", 1.0, turns)
    ... ).speakers
    ('anna', 'bob')
    """
    turns = diarization.segments
    names = diarization.speakers
    speakers: list[str] = []
    starts, ends = (np.array([t[k] for t in turns]) for k in (0, 1))
    numbers = np.array([names.index(turn.speaker) for turn in turns], int)
    for word in transcript.words:
        if not turns:
            speakers.append(UNKNOWN)
            continue
        shared = np.minimum(ends, word.end_s) - np.maximum(starts, word.start_s)
        sums = np.bincount(numbers, shared.clip(min=0), len(names))
        if sums.max() <= 0:
            speakers.append(turns[int(shared.argmax())].speaker)
            continue
        best = [names[k] for k in np.flatnonzero(sums > sums.max() - 1e-6)]
        before = speakers[-1:]
        speakers.append(before[0] if before and before[0] in best else best[0])
    return SpeakerTranscript(
        transcript.text,
        transcript.words,
        transcript.duration_s,
        transcript.separator,
        tuple(speakers),
        turns,
    )


class EnrolledSpeakers:
    """Names the speakers of diarizations by embeddings that have names.

    Arguments
    ---------
    store : EmbeddingStore
        An embedding of each person, by a recording's name.
    verification : SpeakerVerification
        The model that the embeddings are of.
    threshold : float, optional
        Least cosine of one person; that of the model's calibration when
        omitted.

    Raises
    ------
    ValueError
        When there is neither a threshold nor a calibration by cosines alone,
        or the store is empty.
    """

    def __init__(
        self,
        store: EmbeddingStore,
        verification: SpeakerVerification,
        threshold: float | None = None,
    ) -> None:
        calibration = verification.calibration
        if threshold is None and (calibration is None or calibration.quality):
            raise ValueError(
                "enrolled speakers: expected a speaker model with a "
                "calibration by its cosines, or a threshold (--threshold)"
            )
        if not len(store):
            raise ValueError("enrolled speakers: expected some; got none")
        if threshold is None:
            assert calibration is not None
            threshold = float(calibration.threshold(0.5))
        self.store, self.verification = store, verification
        self.threshold = threshold

    def name(self, diarization: Diarization, source: Path) -> Diarization:
        """The diarization of a recording, its speakers called as the nearest
        of those enrolled; others keep the names that they have."""
        names = {}
        for speaker, wav in self._speech(diarization, source).items():
            found = attempt(speaker, self.verification.embed, wav)
            if isinstance(found, AudioError):
                continue  # too short or silent: nothing to compare
            ((match,),) = self.store.search([found], top_k=1)
            if match.score >= self.threshold:
                names[speaker] = recording_name(match.name)
        turns = (
            turn._replace(speaker=names.get(turn.speaker, turn.speaker))
            for turn in diarization.segments
        )
        return replace(diarization, segments=tuple(turns))

    def _speech(self, diarization, source):
        """Speaker -> waveform of the longest turns, [N]."""
        rate = self.verification.audio_normalizer.sample_rate
        chosen, left = [], dict.fromkeys(diarization.speakers, _NAMED_S)
        for turn in sorted(diarization.segments, key=lambda t: t[0] - t[1]):
            length = min(turn.end - turn.start, left[turn.speaker])
            left[turn.speaker] -= length
            start = round(turn.start * rate)
            chosen.append((start, start + round(length * rate), turn.speaker))
        parts: dict[str, list[torch.Tensor]] = {name: [] for name in left}
        begin = 0
        for block in read_blocks(source, self.verification.audio_normalizer):
            for start, end, speaker in sorted(chosen):
                part = block[max(start - begin, 0) : max(end - begin, 0)]
                parts[speaker] += [part] if len(part) else []
            begin += len(block)
        return {name: torch.cat(own) for name, own in parts.items() if own}


class SpeakerTranscriber:
    """Adds speakers to transcripts.

    Arguments
    ---------
    diarization : SpeakerDiarization
        Finds who speaks when.
    enrolled : EnrolledSpeakers, optional
        Names them.
    **limits : dict
        ``num_speakers``, ``min_speakers`` and ``max_speakers`` of
        ``diarize_file``.

    Raises
    ------
    ValueError
        When the model has fewer speakers.
    """

    def __init__(
        self,
        diarization: SpeakerDiarization,
        enrolled: EnrolledSpeakers | None = None,
        **limits: Any,
    ) -> None:
        self.diarization, self.enrolled = diarization, enrolled
        self.limits = limits
        list(diarization.diarize_files([], **limits))  # refuses wrong limits

    def add_speakers(
        self, source: str | Path, transcript: Transcript
    ) -> SpeakerTranscript:
        """The transcript of a file with the speaker of each word."""
        found = self.diarization.diarize_file(
            source, exclusive=True, **self.limits
        )
        if self.enrolled is not None:
            found = self.enrolled.name(found, Path(source))
        return attribute_words(transcript, found)
