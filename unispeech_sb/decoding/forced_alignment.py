"""Forced alignment: the times of a known text, by a CTC model.

The path of the text's tokens and blanks of the highest probability goes
through the frames (Graves et al. 2006, section 4, with max in place of sum).
It is exact for a recording of any length in memory that grows with the text
and the frames, not with their product: a long problem is cut where the path
crosses the middle frame (Hirschberg 1975), which takes twice the time.
"""

import unicodedata
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import groupby
from tempfile import SpooledTemporaryFile
from typing import NamedTuple

import numpy as np
import torch

from unispeech_sb.decoding.words import (
    Tokenizer,
    TokenToWordMapping,
    Transcript,
    Word,
)
from unispeech_sb.text import composed, named, plain_words, upper

_MOST_CELLS = 2**25
"""States times frames that are traced back at once, a byte each."""
_IN_MEMORY = 2**26
"""Bytes of log-posteriors of a recording that are not put on the disk."""
_LEAST = -1e6
"""Log-posterior that stands for -inf, so that there is a path always."""
_TAIL_S = 0.08
"""Seconds that a word goes on at most after the frames of its last token: a CTC
model writes a token near its beginning (``benchmarks/align.py``)."""
_STAR_COST = 0.5
"""Nats a frame that an unknown word costs where the model is silent: its ends
are then where the model begins and ceases to write."""


class AlignedLine(NamedTuple):
    """A line of a text.

    Arguments
    ---------
    text : str
        As it was given, but for white space at its ends.
    words : tuple of Word
        Those that have times; punctuation that stands by itself goes with the
        word before it, or with the first one.

    Example
    -------
    >>> AlignedLine("Yes.", (Word("Yes.", 0.1, 0.4, 0.9),)).start_s
    0.1
    """

    text: str
    words: tuple[Word, ...]

    @property
    def start_s(self) -> float:
        """Where its first word begins, in seconds."""
        return self.words[0].start_s

    @property
    def end_s(self) -> float:
        """Where its last word ends, in seconds."""
        return self.words[-1].end_s


@dataclass(frozen=True)
class Alignment(Transcript):
    """A known text and the times of its words in a recording.

    Arguments
    ---------
    text : str
        As it was given.
    words : tuple of Word
        As they are written, punctuation included. They end up to 80 ms after
        the frames of their last letter, but not after the next word begins.
        ``confidence`` is 0 for those that the model cannot spell.
    duration_s : float
        Length of the recording in seconds.
    separator : str
        What stands between two words.
    letters : tuple of tuple of Word
        Tokens of each word, as the model writes them; none of a word that it
        cannot spell.
    lines : tuple of AlignedLine
        Lines with words; words and lines are in the order of the text.

    Example
    -------
    >>> word = Word("Yes.", 0.1, 0.4, 0.9)
    >>> Alignment("Yes.", (word,), 1.0, letters=((word,),)).letters[0][0].text
    'Yes.'
    """

    letters: tuple[tuple[Word, ...], ...] = ()
    lines: tuple[AlignedLine, ...] = ()

    def to_textgrid(self) -> str:
        """Gives the content of a TextGrid, as Praat writes it.

        Returns
        -------
        str
            With the tiers words and letters; times in seconds.

        Example
        -------
        >>> word = Word("Yes.", 0.1, 0.4, 0.9)
        >>> text = Alignment("Yes.", (word,), 1.0).to_textgrid()
        >>> text.splitlines()[-1]
        '            text = ""'
        """
        letters = [letter for own in self.letters for letter in own]
        end = max([self.duration_s, *(word.end_s for word in self.words)])
        lines = [
            'File type = "ooTextFile"',
            'Object class = "TextGrid"\n',
            *("xmin = 0", f"xmax = {end:.6f}"),
            *("tiers? <exists>", "size = 2", "item []:"),
        ]
        tiers = (("words", self.words), ("letters", letters))
        for number, (name, words) in enumerate(tiers, 1):
            intervals = _tiled(words, end)
            lines += [
                f"    item [{number}]:",
                '        class = "IntervalTier"',
                f'        name = "{name}"',
                *("        xmin = 0", f"        xmax = {end:.6f}"),
                f"        intervals: size = {len(intervals)}",
            ]
            for place, (first, last, text) in enumerate(intervals, 1):
                quoted = text.replace('"', '""')
                lines += [
                    f"        intervals [{place}]:",
                    f"            xmin = {first:.6f}",
                    f"            xmax = {last:.6f}",
                    f'            text = "{quoted}"',
                ]
        return "\n".join(lines) + "\n"


def _tiled(words, end):
    """Intervals that follow each other from 0 to the end: words, and nothing
    in between."""
    found, time = [], 0.0
    for word in words:
        if word.start_s > time:
            found.append((time, word.start_s, ""))
        found.append((word.start_s, word.end_s, word.text))
        time = word.end_s
    if end > time:
        found.append((time, end, ""))
    return found


class _Written(NamedTuple):
    """A word as it is written, its line, its tokens, which are None for a word
    that the model cannot spell, and the word with the punctuation beside it."""

    text: str
    line: int
    tokens: list[int] | None
    shown: str


class ForcedAligner:
    """Aligns a text with log-posteriors that arrive in chunks.

    Of a text of several lines, each is a line of the result. A word is spelt
    as the model writes: as it stands, else in the model's case, without
    punctuation, and at last without accents and apostrophes, whichever comes
    first in its tokens. Special tokens count as blanks.

    Arguments
    ---------
    tokenizer : CTCTokenizer
        Of the model's outputs.
    frame_s : float
        Seconds from one frame to the next.
    text : str
        What is spoken. Punctuation by itself has no times.
    skip_unknown : bool
        A word that has no spelling takes the frames between its neighbours on
        which the model writes something, whatever it is.

    Raises
    ------
    ValueError
        When the text has no words, or some without a spelling and
        ``skip_unknown`` is not set.

    Example
    -------
    >>> from unispeech_sb.dataio.tokenizers import CTCTokenizer
    >>> tokenizer = CTCTokenizer.from_tokens(["-", "|", "a", "b"], 0)
    >>> aligner = ForcedAligner(tokenizer, 0.02, "A, b!")
    >>> frames = torch.eye(4)[[0, 2, 2, 1, 0, 3, 0, 0]].add(1e-3).log()
    >>> aligner.push(frames)
    []
    >>> found = aligner.finish(0.16)
    >>> [(word.text, word.start_s, word.end_s) for word in found.words]
    [('A,', 0.02, 0.1), ('b!', 0.1, 0.16)]
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        frame_s: float,
        text: str,
        skip_unknown: bool = False,
    ) -> None:
        if not isinstance(text, str):
            raise ValueError(
                f"text: expected what is spoken; got {type(text).__name__}"
            )
        self.frame_s, self.text = frame_s, text
        self.mapping = TokenToWordMapping(tokenizer)
        self._lines = [line.strip() for line in text.splitlines()]
        self._words = _written_words(self._lines, self.mapping)
        if not self._words:
            raise ValueError(
                f"text: expected words; got {' '.join(text.split())!r:.60}"
            )
        unknown = [w for w in self._words if w.tokens is None]
        if unknown and not skip_unknown:
            raise ValueError(_unknown_sentence(unknown, self.mapping))
        self._owners, tokens = _joined(self._words, self.mapping)
        star = len(self.mapping.texts)
        self._columns, columns = np.unique(
            [self.mapping.blank, *tokens], return_inverse=True
        )
        self._has_star = bool(self._columns[-1] == star)
        self._blank, self._tokens = int(columns[0]), columns[1:]
        self._token_texts = [*self.mapping.texts, ""]
        self._frames = _Frames(len(self._columns))

    def push(self, log_probs: torch.Tensor) -> list[Word]:
        """Takes the next frames.

        Arguments
        ---------
        log_probs : torch.Tensor
            Log-posteriors, [T, V].

        Returns
        -------
        list of Word
            None, as later frames may change the times of all words.
        """
        mapping = self.mapping
        rows = mapping.merge_into_blank(log_probs)
        tags = sorted(mapping.tags - set(self._columns.tolist()))
        if tags:
            silent = rows[:, [mapping.blank, *tags]]
            rows = rows.copy()  # it may be the caller's
            rows[:, mapping.blank] = np.logaddexp.reduce(silent, axis=1)
        if self._has_star:
            silence = rows[:, mapping.blank] - _STAR_COST
            others = np.delete(rows, mapping.blank, axis=1)
            star = np.maximum(np.logaddexp.reduce(others, axis=1), silence)
            rows = np.column_stack([rows, star])
        self._frames.add(np.maximum(rows[:, self._columns], _LEAST))
        return []

    def finish(self, duration_s: float) -> Alignment:
        """Aligns the text with all frames.

        Arguments
        ---------
        duration_s : float
            Length of the recording in seconds.

        Returns
        -------
        Alignment
            The words and their times.

        Raises
        ------
        ValueError
            When there are fewer frames than the text needs.
        """
        rows = self._frames.all()
        tokens = self._tokens
        # Between two equal tokens there has to be a blank
        needed = len(tokens) + int((tokens[1:] == tokens[:-1]).sum())
        if len(rows) < needed:
            raise ValueError(
                f"text: expected at most what {len(rows)} frames can hold, "
                f"{duration_s:.2f} s; its {len(self._words)} words take "
                f"{needed} frames, {needed * self.frame_s:.2f} s"
            )
        spans = align_tokens(rows, tokens, self._blank)
        return self._alignment(rows, spans, duration_s)

    def _alignment(self, rows, spans, duration_s):
        """The words of spans of tokens."""
        letters: list[list[Word]] = [[] for _ in self._words]
        scores: list[list[float]] = [[] for _ in self._words]
        ends: list[list[float]] = [[] for _ in self._words]
        for owner, token, (first, last) in zip(
            self._owners, self._tokens, spans.tolist(), strict=True
        ):
            if owner is None:
                continue
            own = rows[first:last, token].astype(np.float64)
            times = (
                round(first * self.frame_s, 6),
                round(last * self.frame_s, 6),
            )
            text = self._token_texts[self._columns[token]]
            if text:
                letters[owner].append(Word(text, *times, _probability(own)))
            scores[owner] += own.tolist()
            ends[owner] += times
        limits = [own[0] for own in ends[1:]] + [len(rows) * self.frame_s]
        words = [
            Word(
                word.text,
                ends[number][0],
                round(min(ends[number][-1] + _TAIL_S, limits[number]), 6),
                _probability(scores[number]) if word.tokens else 0.0,
            )
            for number, word in enumerate(self._words)
        ]
        return Alignment(
            self.text.strip(),
            tuple(words),
            duration_s,
            self.mapping.separator,
            tuple(map(tuple, letters)),
            tuple(self._aligned_lines(words)),
        )

    def _aligned_lines(self, words):
        """The lines that have words."""
        pairs = zip(self._words, words, strict=True)
        for number, own in groupby(pairs, lambda pair: pair[0].line):
            shown = (replace(word, text=w.shown) for w, word in own)
            yield AlignedLine(self._lines[number], tuple(shown))


def _probability(scores):
    """Geometric mean of log-probabilities, 0 to 1."""
    return min(float(np.exp(np.mean(scores))), 1.0)


def _written_words(lines, mapping):
    """The words of lines, but for punctuation by itself."""
    found: list[_Written] = []
    between, spell = mapping.separator, cache(partial(_spelling, mapping))
    for number, line in enumerate(lines):
        parts, before = line.split(), ""
        if mapping.by_token and not between:
            parts = [char for part in parts for char in composed(part)]
        for part in parts:
            tokens = spell(part)
            if tokens is not None or plain_words(part):
                found.append(_Written(part, number, tokens, before + part))
                before = ""
            elif found and found[-1].line == number:
                shown = f"{found[-1].shown}{between}{part}"
                found[-1] = found[-1]._replace(shown=shown)
            else:
                before += part + between
    return found


def _spelling(mapping, word):
    """Tokens of a written word as the model spells it; None where it cannot."""
    language = "tr" if mapping.is_turkish else None
    plain = plain_words(word, language)
    marked = unicodedata.normalize("NFD", plain.replace("'", ""))
    bare = "".join(c for c in marked if unicodedata.category(c) != "Mn")
    bare = unicodedata.normalize("NFC", bare)
    for form in (
        composed(word),
        mapping.fold(composed(word)),
        *(mapping.fold(plain), plain, upper(plain, language)),
        *(mapping.fold(bare), bare, upper(bare, language)),
    ):
        tokens = _encoded(form, mapping)
        if tokens:
            return tokens
    return None


def _encoded(form, mapping):
    """Tokens of a form of a word; none where one of them has no text."""
    tokenizer = mapping.tokenizer
    unknown = tokenizer.lab2ind.get(getattr(tokenizer, "unk_label", None))
    within = {mapping.delimiter} - {None} if " " in form else set()
    wrong = {*mapping.silent, unknown, *mapping.tags, mapping.delimiter}
    try:
        tokens = tokenizer.encode(form)
    except ValueError:  # no token, and none for the unknown
        return []
    return [] if (wrong - within) & set(tokens) else tokens


def _unknown_sentence(unknown, mapping):
    """The error for words that the model cannot spell."""
    first = unknown[0]
    letters = dict.fromkeys(plain_words(first.text))
    strange = [c for c in letters if c != " " and _spelling(mapping, c) is None]
    why = f" (no token for {' '.join(strange)})" if strange else ""
    words = dict.fromkeys(word.text for word in unknown)
    return (
        f"text, line {first.line + 1}: expected words that the model can "
        f"spell; it cannot spell {named(words)}{why}: write them as they are "
        "spoken, or skip them by --skip-unknown (skip_unknown=True)"
    )


def _joined(words, mapping):
    """Tokens of all words with delimiters in between, a star, the index after
    the last token, for a word without any; and the word of each, or None."""
    owners, tokens = [], []
    for number, word in enumerate(words):
        if number and mapping.delimiter is not None:
            owners.append(None)
            tokens.append(mapping.delimiter)
        own = word.tokens or [len(mapping.texts)]
        tokens += own
        owners += [
            None if token == mapping.delimiter else number for token in own
        ]
    return owners, tokens


class _Frames:
    """Rows of numbers that are read when all are there; many are on disk."""

    def __init__(self, width):
        self.width, self._bytes = width, 0
        self._file = SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115

    def add(self, rows):
        """Takes the next rows, [T, width]."""
        data = np.ascontiguousarray(rows, np.float32).tobytes()
        self._bytes += len(data)
        self._file.write(data)

    def all(self):
        """All rows, [T, width]."""
        shape = -1, self.width
        with self._file as file:
            if not self._bytes:
                return np.zeros((0, self.width), np.float32)
            if self._bytes > _IN_MEMORY:
                file.flush()
                return np.memmap(file, np.float32, "r").reshape(shape)
            file.seek(0)
            return np.frombuffer(file.read(), np.float32).reshape(shape)


def align_tokens(
    log_probs: np.ndarray, tokens: np.ndarray, blank: int
) -> np.ndarray:
    """First frame of each token, and the frame after its last, [L, 2], on the
    best path; ``log_probs`` are [T, V], of at least as many frames as the
    tokens and a blank between equal ones take."""
    num_states = 2 * len(tokens) + 1  # a blank before and after each token
    labels = np.full(num_states, blank)
    labels[1::2] = tokens
    skips = np.full(num_states, -np.inf)  # from a token to the next one
    skips[3::2][tokens[1:] != tokens[:-1]] = 0.0
    path = np.empty(len(log_probs), np.int64)
    _solve(log_probs, _States(labels, skips, 2, 2), path)
    cuts = np.flatnonzero(np.diff(path, prepend=-1, append=-1))
    starts = cuts[:-1]
    is_token = path[starts] % 2 == 1
    return np.stack([starts, cuts[1:]], axis=1)[is_token]


class _States(NamedTuple):
    """States of a problem: column of each; 0 where the one before the last
    may come before it, else -inf; in how many of the first a path may begin,
    and end in how many of the last; number of the first one."""

    labels: np.ndarray
    skips: np.ndarray
    entries: int
    exits: int
    first: int = 0

    def reversed(self):
        """The same in the other direction of time."""
        skips = np.full(len(self.skips), -np.inf)
        skips[2:] = self.skips[:1:-1]
        return _States(self.labels[::-1], skips, self.exits, self.entries)

    def until(self, state):
        """Up to a state, in which the path ends."""
        return self._replace(
            labels=self.labels[: state + 1],
            skips=self.skips[: state + 1],
            entries=min(self.entries, state + 1),
            exits=1,
        )

    def since(self, state):
        """From a state on, in which the path begins."""
        return self._replace(
            labels=self.labels[state:],
            skips=self.skips[state:],
            entries=1,
            exits=min(self.exits, len(self.labels) - state),
            first=self.first + state,
        )


def _solve(rows, states, path):
    """Writes the state of each row on the best path into ``path``."""
    if len(rows) * len(states.labels) <= _MOST_CELLS or len(rows) == 1:
        path[:] = states.first + _traced(rows, states)
        return
    middle = len(rows) // 2
    before = _scores(rows[:middle], states)
    after = _scores(rows[middle:][::-1], states.reversed())[::-1]
    steps = np.full((3, len(before)), -np.inf)
    for step in range(3):
        size = len(before) - step
        if size > 0:
            steps[step, :size] = before[:size] + after[step:]
    steps[2, :-2] += states.skips[2:]
    step, last = np.unravel_index(steps.argmax(), steps.shape)
    _solve(rows[:middle], states.until(last), path[:middle])
    _solve(rows[middle:], states.since(last + step), path[middle:])


def _scores(rows, states):
    """Score of the best path to each state at the last row, [S]."""
    scores = _begin(rows, states)
    for row in rows[1:]:
        best = scores.copy()
        np.maximum(best[1:], scores[:-1], out=best[1:])
        np.maximum(best[2:], scores[:-2] + states.skips[2:], out=best[2:])
        best += row[states.labels]
        scores = best
    return scores


def _traced(rows, states):
    """State of each row on the best path, [T]."""
    scores = _begin(rows, states)
    steps = np.zeros((len(rows), len(scores)), np.uint8)
    for row, step in zip(rows[1:], steps[1:], strict=True):
        best = scores.copy()
        np.greater(scores[:-1], best[1:], out=step[1:], casting="unsafe")
        np.maximum(best[1:], scores[:-1], out=best[1:])
        skipped = scores[:-2] + states.skips[2:]
        step[2:][skipped > best[2:]] = 2
        np.maximum(best[2:], skipped, out=best[2:])
        best += row[states.labels]
        scores = best
    ends = scores[-states.exits :]
    state = len(scores) - len(ends) + int(ends.argmax())
    path = np.empty(len(rows), np.int64)
    for place in range(len(rows) - 1, -1, -1):
        path[place] = state
        state -= int(steps[place, state])
    return path


def _begin(rows, states):
    """Scores at the first row: -inf where no path begins."""
    scores = np.full(len(states.labels), -np.inf)
    labels = states.labels[: states.entries]
    scores[: states.entries] = rows[0, labels]
    return scores
