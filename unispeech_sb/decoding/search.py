"""Prefix beam search with a language model and hot words.

Words come with the times and confidences of the text's best alignment.
"""

import inspect
import math
from dataclasses import dataclass, replace
from operator import attrgetter

import numpy as np

from unispeech_sb.decoding.alignment import align
from unispeech_sb.decoding.beams import Beams
from unispeech_sb.decoding.hot_words import HotWords
from unispeech_sb.decoding.scoring import TextScorer
from unispeech_sb.decoding.spelling import Spelling
from unispeech_sb.decoding.words import Word

_CHECK = 50
"""Frames after which it is looked for what all prefixes agree on."""


@dataclass(frozen=True)
class Hypothesis:
    """One reading of a recording.

    Arguments
    ---------
    text : str
        All of it.
    words : tuple of Word
        In order, with the times of the best alignment.
    score : float
        Sum of the next two, which the readings are ranked by.
    acoustic_score : float
        Log-probability of the text, over all its alignments that the search
        kept.
    lm_score : float
        What the language model and hot words add, in nats.

    Example
    -------
    >>> Hypothesis("yes", (), -3.0, -1.0, -2.0).text
    'yes'
    """

    text: str
    words: tuple
    score: float
    acoustic_score: float
    lm_score: float


class PrefixBeamSearch:
    """Settings of a search; any number of recordings may use them at once.

    Arguments
    ---------
    tokenizer : CTCTokenizer
        Of the model's outputs. Its special tokens count as blank.
    language_model : LanguageModel, optional
        Scores words.
    hot_words : HotWords or list of str, optional
        Words and phrases to prefer.
    beam_size : int
        Most prefixes that are kept.
    beam_threshold : float
        Prefixes that are so many nats worse than the best are dropped.
    token_threshold : float
        Tokens less likely than exp of minus this in a frame are passed over,
        but for its best one.
    prune_history : bool
        Whether to drop prefixes that differ from a better one only before
        its last words, as SpeechBrain does: the best reading stays, others
        differ in their ends only.
    patience : int
        Frames after which the best prefix is believed where they disagree,
        so that memory is bounded.

    Example
    -------
    >>> import torch
    >>> from unispeech_sb.dataio.tokenizers import CTCTokenizer
    >>> tokenizer = CTCTokenizer.from_tokens(["-", "|", "a", "b"], 0)
    >>> probs = torch.tensor([[0.5, 0.0, 0.3, 0.2], [0.5, 0.0, 0.4, 0.1]])
    >>> (best,) = PrefixBeamSearch(tokenizer).decode(probs.log())
    >>> best.text, round(math.exp(best.score), 3)
    ('a', 0.47)
    """

    def __init__(
        self,
        tokenizer,
        language_model=None,
        hot_words=None,
        beam_size=100,
        beam_threshold=10.0,
        token_threshold=5.0,
        prune_history=True,
        patience=1500,
    ):
        if beam_size < 1 or beam_threshold < 0 or token_threshold < 0:
            raise ValueError(
                "search: expected a beam_size from 1 and thresholds from 0; "
                f"got {beam_size}, {beam_threshold} and {token_threshold}"
            )
        self.tokenizer, self.language_model = tokenizer, language_model
        self.hot_words, self.beam_size = hot_words, beam_size
        self.beam_threshold = beam_threshold
        self.token_threshold = token_threshold
        self.prune_history, self.patience = prune_history, patience
        self.spelling = Spelling(tokenizer)
        if hot_words and not isinstance(hot_words, HotWords):
            hot_words = HotWords(hot_words)
        if hot_words:
            hot_words = hot_words.split_by(self.spelling.words_of)
        self.scorer, self.headroom = None, 0.0
        if language_model is not None or hot_words:
            scorer = TextScorer(self.spelling, language_model, hot_words)
            self.scorer, self.headroom = scorer, scorer.headroom

    def with_options(self, **options):
        """Makes the same search with other settings.

        Arguments
        ---------
        **options : dict
            Arguments of the class.

        Returns
        -------
        PrefixBeamSearch
            A new one.
        """
        names = inspect.signature(PrefixBeamSearch).parameters
        old = {name: getattr(self, name) for name in names}
        return PrefixBeamSearch(**{**old, **options})

    def decode(self, log_probs, num_best=1, frame_s=1.0):
        """Decodes a whole recording.

        Arguments
        ---------
        log_probs : torch.Tensor
            Log-posteriors, [T, V].
        num_best : int
            Most readings to return.
        frame_s : float
            Seconds from one frame to the next; 1 for times in frames.

        Returns
        -------
        list of Hypothesis
            Of different texts, the best first.
        """
        decoder = BeamWordDecoder(self, frame_s)
        words = decoder.push(log_probs)
        return decoder.hypotheses(num_best, words)


class BeamWordDecoder:
    """Prefix beam search over log-posteriors that come in pieces.

    How they are cut changes nothing.

    Arguments
    ---------
    search : PrefixBeamSearch
        The settings.
    frame_s : float
        Seconds from one frame to the next.

    Example
    -------
    >>> import torch
    >>> from unispeech_sb.dataio.tokenizers import CTCTokenizer
    >>> tokenizer = CTCTokenizer.from_tokens(["-", "|", "a", "b"], 0)
    >>> decoder = BeamWordDecoder(PrefixBeamSearch(tokenizer), frame_s=0.02)
    >>> decoder.push(torch.eye(4)[[2, 2, 0, 3, 1, 1, 0, 2]].log())
    []
    >>> [word.text for word in decoder.partial()]
    ['ab', 'a']
    >>> decoder.finish()[0]
    Word(text='ab', start_s=0.0, end_s=0.08, confidence=1.0)
    """

    def __init__(self, search, frame_s):
        self.search, self.frame_s = search, frame_s
        self._beams = Beams(search)
        self._before = search.spelling.delimiter
        # Rows of the frames since the last cut; what the word before it has
        self._rows, self._begin, self._open = [], 0, []

    def push(self, log_probs):
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
        rows = self.search.spelling.fold(log_probs)
        words = []
        first = _CHECK - self._beams.frame % _CHECK
        for piece in np.split(rows, range(first, len(rows), _CHECK)):
            self._beams.push(piece)
            self._rows.append(piece)
            if self._beams.frame % _CHECK == 0:
                if self.search.prune_history:
                    self._beams.prune_history()
                words += self._settle()
        return words

    def finish(self):
        """Decodes what is left.

        Returns
        -------
        list of Word
            The last words.
        """
        return list(self.hypotheses(1)[0].words)

    def join(self, words):
        """Writes words as one text.

        Arguments
        ---------
        words : iterable of Word
            In order.

        Returns
        -------
        str
            The text.
        """
        return self.search.spelling.joint.join(word.text for word in words)

    def partial(self):
        """Reads what no push has returned yet; later frames may change it.

        Returns
        -------
        list of Word
            The words of the best prefix.
        """
        return self._words(self._beams.alive[0].tokens())

    def hypotheses(self, num_best, words=()):
        """Ends the recording and reads the best texts.

        Arguments
        ---------
        num_best : int
            Most of them.
        words : iterable of Word
            What ``push`` returned.

        Returns
        -------
        list of Hypothesis
            Of different texts, the best first.
        """
        scorer, readings = self.search.scorer, {}
        for node in self._beams.alive:
            tokens = node.tokens()
            acoustic = self._beams.score(node)
            bonus = scorer.finish(node.state) if scorer else 0.0
            reading = (acoustic, bonus, tokens)
            readings.setdefault(self._key(tokens), []).append(reading)
        merged = sorted(
            map(_merged, readings.values()), key=lambda r: -(r[0] + r[1])
        )
        made = []
        for acoustic, bonus, tokens in merged[:num_best]:
            ours = (*words, *self._words(tokens))
            score = acoustic + bonus
            made.append(
                Hypothesis(self.join(ours), ours, score, acoustic, bonus)
            )
        return made

    def _key(self, tokens):
        """What tells the text of a prefix from those of others."""
        before = [span.token for span in self._open]
        spelling = self.search.spelling
        words = spelling.split([*before, *tokens])
        return tuple(filter(None, map(spelling.word, words)))

    def _settle(self):
        """Takes out what is final, and returns the words that are whole."""
        best, node = self._beams.alive[0], self._beams.agreed()
        waiting = self._beams.frame - self._begin
        if node.parent is None or node.parent.parent is None:
            return self._force(best) if waiting > self.search.patience else []
        spans = self._aligned(best.tokens())
        deepest = max(other.depth for other in self._beams.alive)
        # The last token all agree on may go on, so it stays. What stays has
        # to fit into the frames that stay, for every prefix.
        node, left = node.parent, best.depth - node.parent.depth
        while node.parent is not None:
            cut = spans[len(spans) - left - 1].last
            if self._beams.frame - cut >= 2 * (deepest - node.depth):
                return self._commit(node, spans[: len(spans) - left], cut)
            node, left = node.parent, left + 1
        return self._force(best) if waiting > self.search.patience else []

    def _force(self, best):
        """Believes the best prefix in the first half of what waits."""
        spans = self._aligned(best.tokens())
        cut = (self._begin + self._beams.frame) // 2
        final = [span for span in spans if span.first < cut]
        if final and final[-1].last > cut:
            # One token on many seconds: it says nothing more in the rest
            final[-1] = replace(final[-1], last=cut)
        node = best
        for _ in spans[len(final) :]:
            node = node.parent
        self._beams.keep(node, (self._beams.frame - cut) // 2)
        return self._commit(node, final, cut)

    def _commit(self, node, spans, cut):
        """Ends the tree and the frames that wait at a prefix."""
        if node.parent is not None:
            node.parent, self._before = None, node.token
        self._rows = [np.concatenate(self._rows)[cut - self._begin :]]
        self._begin = cut
        self._open += spans
        whole = self.search.spelling.num_whole([s.token for s in self._open])
        done, self._open = self._open[:whole], self._open[whole:]
        return self._spelled(done)

    def _aligned(self, tokens):
        """Spans of tokens on the frames that wait."""
        spelling = self.search.spelling
        spans = align(
            np.concatenate(self._rows) if self._rows else np.zeros((0, 1)),
            tokens,
            spelling.blank,
            spelling.delimiter,
            self._before,
        )
        return [
            replace(
                span,
                first=span.first + self._begin,
                last=span.last + self._begin,
            )
            for span in spans
        ]

    def _words(self, tokens):
        """Words of the tokens that wait, and what is open before them."""
        return self._spelled([*self._open, *self._aligned(tokens)])

    def _spelled(self, spans):
        """Words of spans."""
        spelling = self.search.spelling
        words = spelling.split(spans, attrgetter("token"))
        made = (self._word(word) for word in words)
        return [word for word in made if word.text]

    def _word(self, spans):
        """A word of its spans."""
        num_frames = sum(span.last - span.first for span in spans)
        log_prob = sum(span.log_prob for span in spans)
        return Word(
            self.search.spelling.word([span.token for span in spans]),
            round(spans[0].first * self.frame_s, 6),
            round(spans[-1].last * self.frame_s, 6),
            min(math.exp(log_prob / num_frames), 1.0),
        )


def _merged(readings):
    """One of several readings with the same text."""
    best = max(readings, key=lambda reading: reading[0] + reading[1])
    acoustic = np.logaddexp.reduce([reading[0] for reading in readings])
    return float(acoustic), best[1], best[2]
