"""What language models and hot words add to the scores of prefixes."""

import logging
import math
import os
import re
import tempfile
from bisect import bisect_left
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from speechbrain.utils.checkpoints import (
    mark_as_transfer,
    register_checkpoint_hooks,
)

from unispeech_sb.decoding.words import TokenToWordMapping, folds
from unispeech_sb.text import lines_of, named

_logger = logging.getLogger(__name__)

_LN10 = math.log(10.0)
_BINARY = b"mmap lm "
_MANY_UNKNOWN = 500  # words in a row that a model should know one of
_NGRAM_BYTES = 4  # least of a line
_COPIED = (b"\xef\xbb\xbf", b"BZh", b"\xfd7z")
"""First bytes of a byte order mark, bzip2 and xz."""
_MARKS = ("<s>", "</s>", "<unk>")
_BOUNDARY = None
"""Between the words of a phrase in the tree of letters."""

if TYPE_CHECKING:
    import kenlm

_HotState = tuple[int, tuple[tuple["_Letter", int], ...]]
"""Words that count for good; places in the tree, words counted before."""


@register_checkpoint_hooks
class LanguageModel:
    r"""Word n-gram language model that KenLM reads, in nats.

    A word scores ``alpha * ln P(word | words before) + beta``, with
    ``alpha * unk_offset * ln 10`` more where it is unknown. The beginning of
    a word that no known word begins with scores as an unknown word does.

    In a pretrained folder it is ``language_model.ckpt``, which is the ARPA or
    KenLM file itself. Needs the extra ``lm``.

    Arguments
    ---------
    path : str or path-like, optional
        ARPA file, packed by gzip or not, or binary that KenLM made of one.
        Without it, SpeechBrain's Pretrainer loads the file.
    alpha : float
        Weight of the model.
    beta : float
        Added for each word, as a model alone prefers few.
    unk_offset : float
        Added to the log10 probability of unknown words.
    boundary : bool
        Whether the beginning and the end of a sentence count.
    words : iterable of str, optional
        The known words. Those of the file if it is an ARPA; for a binary it
        is unknown, when omitted, which beginnings are those of words.
    case : str, optional
        "upper" or "lower": how the model writes the words that a recogniser
        writes otherwise. When omitted, that in which a recogniser of one case
        can spell the most words of the ARPA file.

    Example
    -------
    >>> path = getfixture("tmp_path") / "two.arpa"
    >>> _ = path.write_text(
    ...     "\\data\\\nngram 1=5\nngram 2=1\n\n"
    ...     "\\1-grams:\n-9\t<unk>\n-9\t<s>\n-.5\t</s>\n-.5\tyes\n-.4\tno\n"
    ...     "\n\\2-grams:\n-0.1\tyes no\n\n\\end\\\n"
    ... )
    >>> model = LanguageModel(path, alpha=1.0, beta=0.0)
    >>> score, _ = model.score(model.start(), "yes")
    >>> round(score, 3)
    -1.151
    >>> model.score_beginning("y"), round(model.score_beginning("x"))
    (0.0, -23)
    """

    def __init__(
        self,
        path: str | Path | None = None,
        alpha: float = 0.5,
        beta: float = 1.5,
        unk_offset: float = -10.0,
        boundary: bool = True,
        words: Iterable[str] | None = None,
        case: str | None = None,
    ) -> None:
        if case not in folds(False):
            raise ValueError(
                f"language model: expected a case of upper or lower; got {case}"
            )
        self.alpha, self.beta, self.unk_offset = alpha, beta, unk_offset
        self.boundary, self.case = boundary, case
        self.path: Path | None = None
        self._model: Any = None
        self._words = None if words is None else sorted(words)
        self._fold = folds(False)[case]
        self._spelt_by: list[str] | None = None
        self._num_unknown: int | None = 0
        if path is not None:
            self.load(path)

    @mark_as_transfer
    def load(self, path: str | Path) -> None:
        """Reads the file.

        Arguments
        ---------
        path : str or path-like
            ARPA file or KenLM binary.

        Raises
        ------
        ValueError
            When it is neither, or no text in UTF-8; the message names the
            line.
        ImportError
            When KenLM is not installed.
        """
        try:
            import kenlm
        except ImportError as error:
            raise ImportError(
                "language models need KenLM: pip install 'unispeech_sb[lm]'"
            ) from error
        quiet = kenlm.Config()
        quiet.show_progress = False
        quiet.arpa_complain = kenlm.ARPALoadComplain.NONE
        # Before KenLM, which takes memory for as many words as a file claims
        words = _read_words(path)
        try:
            with _plain(path) as file:
                model = kenlm.Model(str(file), quiet)
        except (OSError, RuntimeError, UnicodeDecodeError) as error:
            reason = str(error).rpartition("threw ")[2]
            raise _no_model(path, reason) from error
        self.path, self._model, self._state = Path(path), model, kenlm.State
        if self._words is None:
            self._words = words

    def check_words(self, mapping: TokenToWordMapping) -> None:
        """Sees which words tokens can spell, and in which case.

        Arguments
        ---------
        mapping : TokenToWordMapping
            The rules of a recogniser's tokens.

        Raises
        ------
        ValueError
            When they can spell none; some that they cannot are a warning.
        """
        if not self._words or self._spelt_by == mapping.texts:
            return
        self._spelt_by = mapping.texts
        changes = folds(mapping.is_turkish)
        chosen = self.case is not None or mapping.case is None
        spelt = {}
        for case in [self.case] if chosen else changes:
            texts = [changes[case](text) for text in mapping.texts]
            known = set(texts if mapping.by_token else "".join(texts))
            spelt[case] = [
                word
                for word in self._words
                if known.issuperset([word] if mapping.by_token else word)
            ]
        self.case = max(spelt, key=lambda case: len(spelt[case]))
        self._fold, found = changes[self.case], spelt[self.case]
        if not found:
            texts = sorted(filter(None, mapping.texts))
            raise ValueError(
                f"{self.path}: expected words that the model's tokens can "
                f"spell; got {named(self._words)}, but the tokens are "
                f"{named(texts, 10)}"
            )
        if len(found) < len(self._words):
            missing = sorted(set(self._words).difference(found))
            _logger.warning(
                f"{self.path}: the model's tokens can spell {len(found)} of "
                f"{len(self._words)} words, not {named(missing)}"
            )

    def start(self) -> "kenlm.State":
        """Begins a text.

        Returns
        -------
        kenlm.State
            Of the empty text.

        Raises
        ------
        ValueError
            When no file is loaded.
        """
        if self._model is None:
            raise ValueError("language model: expected a file; none is loaded")
        state = self._state()
        if self.boundary:
            self._model.BeginSentenceWrite(state)
        else:
            self._model.NullContextWrite(state)
        return state

    def score(
        self, state: "kenlm.State", word: str
    ) -> tuple[float, "kenlm.State"]:
        """Scores the next word.

        Arguments
        ---------
        state : kenlm.State
            After the words before.
        word : str
            As the recogniser writes it.

        Returns
        -------
        score : float
            In nats.
        state : kenlm.State
            After this word.
        """
        word, after = self._fold(word), self._state()
        score = self._model.BaseScore(state, word, after)
        known = word in self._model
        if not known:
            score += self.unk_offset
        if self._num_unknown is not None and not self._words:
            self._count(word, known)
        return self.alpha * _LN10 * score + self.beta, after

    def _count(self, word, known):
        """Warns once where a model, whose words are not listed, knows none."""
        self._num_unknown = None if known else self._num_unknown + 1
        if self._num_unknown == _MANY_UNKNOWN:
            self._num_unknown = None
            _logger.warning(
                f"{self.path}: it knows none of the first {_MANY_UNKNOWN} "
                f"words, such as {named([word])}; is it in another case?"
            )

    def score_beginning(self, text: str) -> float:
        """Scores the beginning of a word.

        Arguments
        ---------
        text : str
            Its first letters.

        Returns
        -------
        float
            In nats; 0 if it may become a known word.
        """
        if not self._words:
            return 0.0
        text = self._fold(text)
        place = bisect_left(self._words, text)
        if place < len(self._words) and self._words[place].startswith(text):
            return 0.0
        return self.alpha * _LN10 * self.unk_offset

    def score_end(self, state: "kenlm.State") -> float:
        """Scores the end of the text.

        Arguments
        ---------
        state : kenlm.State
            After the last word.

        Returns
        -------
        float
            In nats.
        """
        if not self.boundary:
            return 0.0
        score = self._model.BaseScore(state, "</s>", self._state())
        return self.alpha * _LN10 * score


def _read_words(path):
    """The words of an ARPA file in order; none of a binary."""
    if not os.path.isfile(path):
        raise ValueError(f"{path}: there is no such file")
    with open(path, "rb") as file:
        if file.read(len(_BINARY)) == _BINARY:
            return []
    lines = ((n, line.strip()) for n, line in lines_of(path))
    lines = (pair for pair in lines if pair[1])
    try:
        _, first = next(lines, (0, ""))
    except ValueError as error:
        reason = str(error).removeprefix(f"{path}, ")
        raise _no_model(path, reason) from error
    if first != "\\data\\":
        raise _no_model(path, r"it does not begin with \data\ ")
    counts = _read_counts(path, lines)
    words = {}
    for number, line in lines:
        if line.startswith("\\"):
            break
        fields = re.split("[ \t]+", line)
        if len(fields) not in (2, 3):
            raise _no_model(path, f"line {number} is no 1-gram: {line!r:.60}")
        words[fields[1]] = None
    if len(words) != counts[0]:
        raise _no_model(
            path, f"it has {len(words)} words, but claims {counts[0]}"
        )
    return sorted(set(words).difference(_MARKS))


def _read_counts(path, lines):
    """Reads how many n-grams there are, which the file has to have room for."""
    counts = []
    for number, line in lines:
        if line == "\\1-grams:":
            break
        found = re.fullmatch(r"ngram\s+(\d+)\s*=\s*(\d{1,15})", line)
        if not found or int(found[1]) != len(counts) + 1:
            raise _no_model(path, f"line {number} is no count: {line!r:.60}")
        counts.append(int(found[2]))
    if not counts:
        raise _no_model(path, "it states no number of n-grams")
    if sum(counts) > os.path.getsize(path) // _NGRAM_BYTES:
        num_lines = sum(1 for _ in lines_of(path))
        if sum(counts) > num_lines:
            raise _no_model(
                path, f"it claims {sum(counts)} n-grams in {num_lines} lines"
            )
    return counts


def _no_model(path, reason):
    """The error for a file that is no language model."""
    return ValueError(
        f"{path}: expected an ARPA file or a KenLM binary ({reason.strip()})"
    )


@contextmanager
def _plain(path):
    """The file, or a copy of one of a kind that KenLM refuses."""
    with open(path, "rb") as file:
        start = file.read(3)
    if start not in _COPIED:
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "plain.arpa")
        with open(copy, "w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for _, line in lines_of(path))
        yield copy


class HotWords:
    """Words and phrases that a search prefers, and by how much.

    As in pyctcdecode, each word that is found adds ``weight`` to a text's
    score in nats, and its beginning the share of its letters. The words of a
    phrase count one after the other only; a phrase that breaks off gives
    back what its beginning got.

    A state is the number of words that count for good, and of each phrase
    that may be under way (place in the tree of letters, words that counted
    before it).

    Arguments
    ---------
    words : iterable of str
        Words and phrases.
    weight : float
        Nats for each word.
    split : callable
        Phrase -> list of its words.

    Raises
    ------
    ValueError
        When ``words`` is one string, or holds an empty one.

    Example
    -------
    >>> hot_words = HotWords(["new york"], weight=8.0)
    >>> state = hot_words.start()
    >>> for text in ("new", "yo"):
    ...     state = hot_words.add(state, text)
    ...     print(hot_words.score(state))
    ...     state = hot_words.end_word(state)
    8.0
    12.0
    >>> hot_words.score(state)
    0.0
    """

    def __init__(
        self,
        words: Iterable[str],
        weight: float = 10.0,
        split: Callable[[str], list[str]] = str.split,
    ) -> None:
        several = hasattr(words, "__iter__") and not isinstance(words, str)
        self.words = list(words) if several else [""]
        self.weight = weight
        if not all(isinstance(word, str) and word for word in self.words):
            raise ValueError(
                f"hot words: expected a list of words; got {words!r:.60}"
            )
        self._root = _Letter()
        for phrase in self.words:
            self._root.insert(split(phrase))

    def split_by(self, split: Callable[[str], list[str]]) -> "HotWords":
        """Makes the same words, with phrases split otherwise than at spaces.

        Arguments
        ---------
        split : callable
            Phrase -> list of its words.

        Returns
        -------
        HotWords
            Of the same weight.
        """
        return HotWords(self.words, self.weight, split)

    def start(self) -> _HotState:
        """Begins a text.

        Returns
        -------
        tuple
            The state before the first word.
        """
        return 0, ((self._root, 0),)

    def add(self, state: _HotState, text: str) -> _HotState:
        """Adds letters to the current word.

        Arguments
        ---------
        state : tuple
            After the letters before.
        text : str
            The next letters.

        Returns
        -------
        tuple
            The state after them.
        """
        kept, places = state
        for letter in text:
            places = tuple(
                (place.after[letter], count)
                for place, count in places
                if letter in place.after
            )
        return kept, places

    def end_word(self, state: _HotState) -> _HotState:
        """Ends the current word.

        Arguments
        ---------
        state : tuple
            After its last letter.

        Returns
        -------
        tuple
            The state between two words.
        """
        kept, places = state
        ended = [
            (place.after[_BOUNDARY], count)
            for place, count in places
            if _BOUNDARY in place.after
        ]
        found = [place.done + count for place, count in ended if place.final]
        kept = max([kept, *found])
        return kept, (*(p for p in ended if p[0].after), (self._root, kept))

    def score(self, state: _HotState) -> float:
        """Scores a text so far.

        Arguments
        ---------
        state : tuple
            After any letter or word.

        Returns
        -------
        float
            In nats, the beginning of a word included.
        """
        kept, places = state
        found = (place.share + count for place, count in places)
        return self.weight * max(kept, *found, 0)

    def final_score(self, state: _HotState) -> float:
        """Scores a text that ends here.

        Arguments
        ---------
        state : tuple
            After a word.

        Returns
        -------
        float
            In nats.
        """
        return self.weight * state[0]


class _Letter:
    """A place in the tree of all phrases, after ``done`` words and ``depth``
    letters.

    ``shortest`` is the length of the shortest word that goes on from here; at
    ``final`` a phrase ends.
    """

    def __init__(self, done=0, depth=0):
        self.after, self.done, self.depth = {}, done, depth
        self.shortest, self.final = float("inf"), False

    @property
    def share(self):
        """Words before this place, and the share of the one it is in."""
        return self.done + (self.depth / self.shortest if self.depth else 0)

    def insert(self, words):
        """Adds a phrase below the root."""
        place = self
        for done, word in enumerate(words):
            for depth, letter in enumerate(word, 1):
                place = place.after.setdefault(letter, _Letter(done, depth))
                place.shortest = min(place.shortest, len(word))
            place = place.after.setdefault(_BOUNDARY, _Letter(done + 1))
        place.final = True


class _TextState(NamedTuple):
    """Of a prefix: the letters of its last word, the language model's score of
    the words before it in nats, and the states of model and hot words."""

    word: str
    score: float
    model: Any
    hot: Any


class TextScorer:
    """Scores prefixes token by token."""

    def __init__(self, mapping, language_model=None, hot_words=None):
        self.language_model, self.hot_words = language_model, hot_words
        self._texts, self._delimiter = mapping.texts, mapping.delimiter
        self._word_starts = mapping.word_starts
        self._by_token = mapping.by_token

    @property
    def headroom(self):
        """The most nats by which one more token can raise a score."""
        room = 0.0
        if self.language_model is not None:
            room += max(self.language_model.beta, 0.0)
        if self.hot_words is not None:
            room += max(self.hot_words.weight, 0.0)
        return room

    def start(self):
        """The state of the empty prefix."""
        model, hot = self.language_model, self.hot_words
        return _TextState(
            "",
            0.0,
            None if model is None else model.start(),
            None if hot is None else hot.start(),
        )

    def extend(self, state, token):
        """The state of the prefix with one more token."""
        if token == self._delimiter:
            return self._end_word(state)
        if token in self._word_starts:
            state = self._end_word(state)
        text, hot = self._texts[token], state.hot
        if hot is not None:
            hot = self.hot_words.add(hot, text)
        state = _TextState(state.word + text, state.score, state.model, hot)
        return self._end_word(state) if self._by_token else state

    def score(self, state):
        """The score of a prefix in nats, its unfinished word included."""
        score = state.score
        if state.word and self.language_model is not None:
            score += self.language_model.score_beginning(state.word)
        if state.hot is not None:
            score += self.hot_words.score(state.hot)
        return score

    def context(self, state):
        """What the scores of all further tokens depend on, as a key."""
        if state.hot is None:
            return state.word, state.model
        kept, places = state.hot
        hot = tuple((id(place), count - kept) for place, count in places)
        return state.word, state.model, hot

    def finish(self, state):
        """The score in nats of a text that ends here."""
        state = self._end_word(state)
        score = state.score
        if self.language_model is not None:
            score += self.language_model.score_end(state.model)
        if state.hot is not None:
            score += self.hot_words.final_score(state.hot)
        return score

    def _end_word(self, state):
        """Ends the word, if there is one."""
        if not state.word:
            return state
        score, model, hot = state.score, state.model, state.hot
        if model is not None:
            added, model = self.language_model.score(model, state.word)
            score += added
        if hot is not None:
            hot = self.hot_words.end_word(hot)
        return _TextState("", score, model, hot)
