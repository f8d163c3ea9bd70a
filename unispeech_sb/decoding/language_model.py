"""N-gram language models of words, read by KenLM."""

import math
from bisect import bisect_left
from itertools import dropwhile, takewhile
from pathlib import Path

from speechbrain.utils.checkpoints import (
    mark_as_transfer,
    register_checkpoint_hooks,
)

_LN10 = math.log(10.0)
_CASES = {None: str, "upper": str.upper, "lower": str.lower}
_BINARY = b"mmap lm "
_MARKS = ("<s>", "</s>", "<unk>")


@register_checkpoint_hooks
class LanguageModel:
    r"""Scores of words after words, in nats.

    A word scores ``alpha * ln P(word | words before) + beta``, with
    ``alpha * unk_offset * ln 10`` more where it is unknown. The beginning of
    a word that no known word begins with scores as an unknown word does.

    In a pretrained folder it is ``language_model.ckpt``, which is the ARPA or
    KenLM file itself. Needs the extra ``lm``.

    Arguments
    ---------
    path : str or path-like, optional
        ARPA file, or binary that KenLM made of one. Without it, SpeechBrain's
        Pretrainer loads the file.
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
        writes otherwise.

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

    __module__ = "unispeech_sb.decoding"  # pretrained folders name it

    def __init__(
        self,
        path=None,
        alpha=0.5,
        beta=1.5,
        unk_offset=-10.0,
        boundary=True,
        words=None,
        case=None,
    ):
        if case not in _CASES:
            raise ValueError(
                f"language model: expected a case of upper or lower; got {case}"
            )
        self.alpha, self.beta, self.unk_offset = alpha, beta, unk_offset
        self.boundary, self.case = boundary, case
        self.path = self._model = None
        self._words = None if words is None else sorted(words)
        if path is not None:
            self.load(path)

    @mark_as_transfer
    def load(self, path):
        """Reads the file.

        Arguments
        ---------
        path : str or path-like
            ARPA file or KenLM binary.

        Raises
        ------
        ValueError
            When it is neither.
        ImportError
            When KenLM is not there.
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
        try:
            model = kenlm.Model(str(path), quiet)
        except (OSError, RuntimeError) as error:
            reason = str(error).rpartition("threw ")[2]
            raise ValueError(
                f"{path}: expected an ARPA file or a KenLM binary ({reason})"
            ) from error
        self.path, self._model, self._state = Path(path), model, kenlm.State
        if self._words is None:
            self._words = _read_words(path)

    def start(self):
        """Begins a text.

        Returns
        -------
        kenlm.State
            What the model knows before the first word.

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

    def score(self, state, word):
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
        word, after = _CASES[self.case](word), self._state()
        score = self._model.BaseScore(state, word, after)
        if word not in self._model:
            score += self.unk_offset
        return self.alpha * _LN10 * score + self.beta, after

    def score_beginning(self, text):
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
        text = _CASES[self.case](text)
        place = bisect_left(self._words, text)
        if place < len(self._words) and self._words[place].startswith(text):
            return 0.0
        return self.alpha * _LN10 * self.unk_offset

    def score_end(self, state):
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
    with open(path, "rb") as file:
        if file.read(len(_BINARY)) == _BINARY:
            return []
    with open(path, encoding="utf-8") as file:
        lines = dropwhile(lambda line: line.strip() != "\\1-grams:", file)
        next(lines, None)
        unigrams = takewhile(lambda line: not line.startswith("\\"), lines)
        words = {line.split()[1] for line in unigrams if line.strip()}
    return sorted(words.difference(_MARKS))
