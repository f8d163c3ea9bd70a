"""Words of CTC models: how tokens make them, and those of the greedy path.

Tokens are characters with a delimiter between words, SentencePiece pieces of
which "▁" begins a word, or words of their own: phones, and scripts without
spaces. Tags of slots, whose tokens have a space at an end, are words too.
"""

import html
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import Protocol

import numpy as np
import torch

from unispeech_sb.text import find_slots, is_tag, lower, upper

_WORD_START = "▁"
"""What SentencePiece writes before the first piece of a word."""

_MOST_SHOWN = 400
"""Words that a notebook shows of a transcript."""


@dataclass(frozen=True)
class Word:
    """A word, or a phone, with its times.

    Arguments
    ---------
    text : str
        The word.
    start_s, end_s : float
        Beginning of the first frame on which the model emits it, and end of
        the last, in seconds. CTC models emit a token on one or two frames
        near its middle: the spoken word may be a little longer.
    confidence : float
        Geometric mean of the probabilities of its tokens on their frames, in
        [0, 1].

    Example
    -------
    >>> Word("yes", 0.1, 0.4, 0.9).text
    'yes'
    """

    text: str
    start_s: float
    end_s: float
    confidence: float


@dataclass(frozen=True)
class Transcript:
    """The transcript of a recording.

    Arguments
    ---------
    text : str
        All of it.
    words : tuple of Word
        In order; one per token where the tokenizer has no word delimiter.
    duration_s : float
        Length of the recording in seconds.
    separator : str
        What stands between two words of the text: nothing in scripts without
        spaces.

    Example
    -------
    >>> Transcript("yes", (Word("yes", 0.1, 0.4, 0.9),), 1.0).duration_s
    1.0
    """

    text: str
    words: tuple[Word, ...]
    duration_s: float
    separator: str = " "

    def _repr_html_(self):
        """What notebooks show: the words, with the times of each as a hint."""
        words = [
            f'<span title="{word.start_s:.2f} to {word.end_s:.2f} s, '
            f'{word.confidence:.0%}">{html.escape(word.text)}</span>'
            for word in self.words[:_MOST_SHOWN]
        ]
        left = len(self.words) - len(words)
        more = f" &hellip; and {left} more words" if left else ""
        return (
            f'<p dir="auto">{html.escape(self.separator).join(words)}{more}</p>'
        )

    @property
    def slots(self) -> list[tuple[str, str]]:
        """Name and value of each slot; none of a model without tags."""
        return find_slots(self.text)


class Tokenizer(Protocol):
    """What decoders need of a tokenizer: ``CTCTokenizer`` has it all."""

    ind2lab: Mapping[int, str]
    lab2ind: Mapping[Hashable, int]
    specials: list[str]
    separator: str
    word_delimiter: str | None
    delimiter_text: str

    @property
    def blank_index(self) -> int:
        """Index of the blank."""

    def encode(self, text: str) -> list[int]:
        """Indices of a text."""

    def decode(self, indices: Sequence[int]) -> str:
        """Text of indices, repeats and blanks among them."""

    def __len__(self) -> int:
        """Number of tokens."""


def folds(is_turkish: bool) -> dict[str | None, Callable[[str], str]]:
    """Case, None for any -> what changes a text to it.

    Turkish and its relatives have i with and without a dot.
    """
    if is_turkish:
        change = {"upper": upper, "lower": lower}
        return {
            None: str,
            **{case: partial(f, language="tr") for case, f in change.items()},
        }
    return {None: str, "upper": str.upper, "lower": str.lower}


class TokenToWordMapping:
    """A tokenizer's rules of how tokens make words, ready for decoders.

    ``silent`` tokens have no text, of which ``specials`` are not the blank; at
    ``boundaries`` a word ends or, if in ``word_starts``, begins; ``tags`` are
    words of their own. ``case`` is "upper" or "lower" where all tokens are of
    one.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.blank = tokenizer.blank_index
        names = [tokenizer.ind2lab[index] for index in range(len(tokenizer))]
        delimiter = tokenizer.lab2ind.get(tokenizer.word_delimiter)
        if delimiter is None and not tokenizer.separator:
            delimiter = tokenizer.lab2ind.get(" ")  # SpeechBrain's letters
        self.by_token = tokenizer.separator != "" or delimiter is None
        self.word_starts = set()
        if self.by_token and not tokenizer.separator:
            self.word_starts = {
                index
                for index, name in enumerate(names)
                if name.startswith(_WORD_START)
            }
            self.by_token = not self.word_starts
        specials = {tokenizer.lab2ind[name] for name in tokenizer.specials}
        if self.by_token and delimiter is not None:
            specials.add(delimiter)
            delimiter = None
        self.delimiter = delimiter
        self.tags = {
            index
            for index, name in enumerate(names)
            if delimiter is not None and is_tag(name)
        }
        self.boundaries = {delimiter, *self.word_starts, *self.tags}
        self.separator = " " if self.word_starts else tokenizer.delimiter_text
        if self.by_token:
            self.separator = tokenizer.separator
        self.specials = sorted(specials - {self.blank})
        self.silent = {self.blank, *self.specials}
        self.texts = [
            tokenizer.decode([index]).removeprefix(_WORD_START)
            for index in range(len(names))
        ]
        shown = "".join(self.texts)
        self.is_turkish = not {"ı", "İ"}.isdisjoint(shown)
        self.case = None
        if not any(letter.islower() for letter in shown):
            self.case = "upper"
        elif not any(letter.isupper() for letter in shown):
            self.case = "lower"
        self.fold = folds(self.is_turkish)[self.case]

    def merge_into_blank(self, log_probs: torch.Tensor) -> np.ndarray:
        """Log-posteriors as float64, [T, V]; specials count as blank."""
        rows = log_probs.detach().cpu().double().numpy()
        size = len(self.texts)
        if rows.ndim != 2 or rows.shape[1] != size:
            raise ValueError(
                f"log-posteriors: expected [T, {size}], one for each token; "
                f"got {list(rows.shape)}"
            )
        if not (rows.max(-1, initial=-np.inf) > -np.inf).all():
            raise ValueError(
                "log-posteriors: expected numbers; got NaN, or a frame of -inf"
            )
        if self.specials:
            silent = rows[:, [self.blank, *self.specials]]
            rows = rows.copy()
            rows[:, self.specials] = -np.inf
            rows[:, self.blank] = np.logaddexp.reduce(silent, axis=1)
        return rows

    def split(self, items, token=lambda item: item):
        """Items with tokens as lists, one per word, without delimiters."""
        words, index = [[]], None
        for item in items:
            after_tag, index = index in self.tags, token(item)
            if self.by_token or after_tag or index in self.boundaries:
                words.append([])
            if index != self.delimiter:
                words[-1].append(item)
        return [word for word in words if word]

    def num_complete(self, tokens: Sequence[int]) -> int:
        """How many of the first tokens make words no later one can change."""
        if self.by_token:
            return len(tokens)
        count, ends = len(tokens), {self.delimiter, *self.tags}
        while count and tokens[count - 1] not in ends:
            count -= 1
            if tokens[count] in self.word_starts:
                break
        return count

    def spell(self, indices: Sequence[int]) -> str:
        """The text of one word's tokens."""
        text = self.tokenizer.decode(indices)
        return text.replace(_WORD_START, "") if self.word_starts else text

    def transcript(
        self, words: Iterable[Word], duration_s: float
    ) -> Transcript:
        """The transcript of all words of a recording."""
        words = tuple(words)
        text = self.separator.join(word.text for word in words)
        return Transcript(text, words, duration_s, self.separator)

    def split_text(self, text: str) -> list[str]:
        """Words of a text, in the case in which the model writes them."""
        text = self.fold(text)
        if self.word_starts:
            return text.split()
        words = [text] if self.by_token else text.split()
        indices = [self.tokenizer.encode(word) for word in words]
        if not words or not all(
            row and self.silent.isdisjoint(row) for row in indices
        ):
            raise ValueError(
                f"words: expected symbols that have tokens; got {text!r:.60}"
            )
        if self.by_token:
            return [self.texts[index] for index in indices[0]]
        return [self.spell(row) for row in indices]


@dataclass(frozen=True)
class _Run:
    """A run of frames with one best index; ``last`` is the frame after it, and
    silent ones have no scores."""

    index: int
    first: int
    last: int
    scores: list[float]


class WordDecoder:
    """Greedy decoding of log-posteriors that arrive in chunks.

    Arguments
    ---------
    tokenizer : CTCTokenizer
        Of the model's outputs.
    frame_s : float
        Seconds from one frame to the next.

    Example
    -------
    >>> from unispeech_sb.dataio.tokenizers import CTCTokenizer
    >>> tokenizer = CTCTokenizer.from_tokens(["-", "|", "a", "b"], 0)
    >>> decoder = WordDecoder(tokenizer, frame_s=0.02)
    >>> frames = torch.eye(4)[[2, 2, 0, 3, 1, 1, 0, 2]].log()
    >>> [word.text for word in decoder.push(frames)]
    ['ab']
    >>> decoder.finish()
    [Word(text='a', start_s=0.14, end_s=0.16, confidence=1.0)]
    """

    def __init__(self, tokenizer: Tokenizer, frame_s: float) -> None:
        self.frame_s, self.mapping = frame_s, TokenToWordMapping(tokenizer)
        self._last = 0
        self._waiting: list[_Run] = []

    def fork(self) -> "WordDecoder":
        """A decoder that goes on from here, of which this one knows nothing."""
        twin = copy(self)
        twin._waiting = [*self._waiting]
        return twin

    def push(self, log_probs: torch.Tensor) -> list[Word]:
        """Decodes the next frames.

        Arguments
        ---------
        log_probs : torch.Tensor
            Log-posteriors, [T, V].

        Returns
        -------
        list of Word
            Those that no later frame can change.
        """
        best, indices = log_probs.float().max(-1)
        frames = zip(indices.tolist(), best.tolist())
        for index, run in groupby(frames, key=itemgetter(0)):
            scores = [score for _, score in run]
            first, self._last = self._last, self._last + len(scores)
            if index in self.mapping.silent:
                scores = []
            if self._waiting and self._waiting[-1].index == index:
                before = self._waiting.pop()
                first, scores = before.first, before.scores + scores
            self._waiting.append(_Run(index, first, self._last, scores))
        return self._decode(self._num_final())

    def finish(self) -> list[Word]:
        """Decodes what is left.

        Returns
        -------
        list of Word
            The last words.
        """
        return self._decode(len(self._waiting))

    def partial(self) -> list[Word]:
        """Gives the words that no push has returned; later frames may
        change them.

        Returns
        -------
        list of Word
            The words so far.
        """
        return self._words(self._waiting)

    def join(self, words: Iterable[Word]) -> str:
        """Joins words to one text.

        Arguments
        ---------
        words : iterable of Word
            In order.

        Returns
        -------
        str
            The text.
        """
        return self.mapping.separator.join(word.text for word in words)

    def _num_final(self):
        """Counts the runs up to where the last unfinished word begins."""
        waiting, mapping = self._waiting, self.mapping
        last = len(waiting) - 1
        if not mapping.by_token:
            while last >= 0 and waiting[last].index not in mapping.boundaries:
                last -= 1
        if last < 0 or waiting[last].index == mapping.delimiter:
            return last + 1
        return last  # this token begins or is a word, and may go on

    def _decode(self, num_runs):
        """Takes runs off the front and returns their words."""
        words = self._words(self._waiting[:num_runs])
        self._waiting = self._waiting[num_runs:]
        return words

    def _words(self, runs):
        """Words of runs that begin where the first unfinished word does."""
        tokens = [run for run in runs if run.index not in self.mapping.silent]
        words = self.mapping.split(tokens, attrgetter("index"))
        made = (self._word(word) for word in words)
        return [word for word in made if word.text]

    def _word(self, tokens):
        """The word of some tokens; special tokens give one without text."""
        scores = torch.tensor(
            [score for token in tokens for score in token.scores],
            dtype=torch.float64,
        )
        return Word(
            self.mapping.spell([token.index for token in tokens]),
            round(tokens[0].first * self.frame_s, 6),
            round(tokens[-1].last * self.frame_s, 6),
            min(scores.mean().exp().item(), 1.0),
        )


def greedy_transcript(
    log_probs: torch.Tensor,
    tokenizer: Tokenizer,
    frame_s: float,
    duration_s: float,
) -> Transcript:
    """Decodes the log-posteriors of a whole recording.

    Arguments
    ---------
    log_probs : torch.Tensor
        Log-posteriors, [T, V].
    tokenizer : CTCTokenizer
        Of the model's outputs.
    frame_s : float
        Seconds from one frame to the next.
    duration_s : float
        Length of the recording in seconds.

    Returns
    -------
    Transcript
        Its text and words.

    Example
    -------
    >>> from unispeech_sb.dataio.tokenizers import CTCTokenizer
    >>> tokenizer = CTCTokenizer.from_tokens(["-", "|", "a", "b"], 0)
    >>> frames = torch.eye(4)[[2, 2, 0, 3, 1, 1, 0, 2]].log()
    >>> greedy_transcript(frames, tokenizer, 0.02, 0.2).text
    'ab a'
    """
    decoder = WordDecoder(tokenizer, frame_s)
    words = [*decoder.push(log_probs), *decoder.finish()]
    return decoder.mapping.transcript(words, duration_s)
