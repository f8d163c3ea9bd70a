"""Prefix beam search with a language model and hot words.

Words have the times and confidences of the text's best alignment.
``PrefixBeamSearch`` is the search, ``BeamWordDecoder`` runs it on chunks, and
``PrefixBeamSearcher`` is its form in SpeechBrain's ``EncoderASR``.
"""

import math
from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from speechbrain.decoders.ctc import CTCBaseSearcher, CTCHypothesis

from unispeech_sb.decoding.beams import Beams
from unispeech_sb.decoding.scoring import HotWords, LanguageModel, TextScorer
from unispeech_sb.decoding.words import Tokenizer, TokenToWordMapping, Word

_CHECK = 50
"""Frames after which it is looked for what all prefixes agree on."""

_UNLIKELY = -1e4
"""In place of -inf: sums of it still compare."""


@dataclass(frozen=True)
class Hypothesis:
    """One of the texts that a search finds for a recording.

    Arguments
    ---------
    text : str
        All of it.
    words : tuple of Word
        In order, with the times of the best alignment.
    score : float
        Sum of the next two, by which hypotheses are ranked.
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
    words: tuple[Word, ...]
    score: float
    acoustic_score: float
    lm_score: float


class PrefixBeamSearch:
    """Prefix beam search; any number of recordings may use it at once.

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
        Tokens less likely than ``exp(-token_threshold)`` in a frame are
        skipped, but for its best one.
    prune_history : bool
        Whether to drop prefixes that differ from a better one only before
        its last words, as SpeechBrain does: the best hypothesis stays, others
        differ in their ends only.
    patience : int
        Frames after which the best prefix is taken where they disagree, so
        that memory is bounded.

    Raises
    ------
    ValueError
        When a setting is out of its range, or the tokens cannot spell a hot
        word, or any word of the language model.

    Example
    -------
    >>> from unispeech_sb.dataio.tokenizers import CTCTokenizer
    >>> tokenizer = CTCTokenizer.from_tokens(["-", "|", "a", "b"], 0)
    >>> probs = torch.tensor([[0.5, 0.0, 0.3, 0.2], [0.5, 0.0, 0.4, 0.1]])
    >>> (best,) = PrefixBeamSearch(tokenizer).decode(probs.log())
    >>> best.text, round(math.exp(best.score), 3)
    ('a', 0.47)
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        language_model: LanguageModel | None = None,
        hot_words: HotWords | Sequence[str] | None = None,
        beam_size: int = 100,
        beam_threshold: float = 10.0,
        token_threshold: float = 5.0,
        prune_history: bool = True,
        patience: int = 1500,
    ) -> None:
        try:
            fit = isinstance(beam_size, int) and beam_size >= 1
            fit = fit and beam_threshold >= 0 and token_threshold >= 0
        except TypeError:  # no numbers
            fit = False
        if not fit:
            raise ValueError(
                "search: expected a beam_size from 1 and thresholds from 0; "
                f"got {beam_size}, {beam_threshold} and {token_threshold}"
            )
        self.tokenizer, self.language_model = tokenizer, language_model
        self.hot_words, self.beam_size = hot_words, beam_size
        self.beam_threshold = beam_threshold
        self.token_threshold = token_threshold
        self.prune_history, self.patience = prune_history, patience
        self.mapping = TokenToWordMapping(tokenizer)
        if hot_words and not isinstance(hot_words, HotWords):
            hot_words = HotWords(hot_words)
        if isinstance(hot_words, HotWords):
            hot_words = hot_words.split_by(self.mapping.split_text)
        self.scorer, self.headroom = None, 0.0
        if isinstance(language_model, LanguageModel):
            language_model.check_words(self.mapping)
        if language_model is not None or hot_words:
            scorer = TextScorer(self.mapping, language_model, hot_words)
            self.scorer, self.headroom = scorer, scorer.headroom

    def decode(
        self, log_probs: torch.Tensor, num_best: int = 1, frame_s: float = 1.0
    ) -> list[Hypothesis]:
        """Decodes a whole recording.

        Arguments
        ---------
        log_probs : torch.Tensor
            Log-posteriors, [T, V].
        num_best : int
            Most hypotheses to return.
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
    """Prefix beam search over log-posteriors that arrive in chunks.

    How they are cut changes nothing.

    Arguments
    ---------
    search : PrefixBeamSearch
        The settings.
    frame_s : float
        Seconds from one frame to the next.

    Example
    -------
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

    def __init__(self, search: PrefixBeamSearch, frame_s: float) -> None:
        self.search, self.frame_s = search, frame_s
        self.mapping = search.mapping
        self._beams = Beams(search)
        self._before = self.mapping.delimiter
        # Rows of the frames since the last cut; spans of the word it cuts
        self._rows: list[np.ndarray] = []
        self._begin = 0
        self._open: list[_Span] = []

    def fork(self) -> "BeamWordDecoder":
        """A decoder that goes on from here, of which this one knows nothing."""
        twin = copy(self)
        twin._beams = self._beams.fork()
        twin._rows, twin._open = [*self._rows], [*self._open]
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
        rows = self.search.mapping.merge_into_blank(log_probs)
        words = []
        first = _CHECK - self._beams.frame % _CHECK
        for piece in np.split(rows, range(first, len(rows), _CHECK)):
            self._beams.push(piece)
            self._rows.append(piece)
            if self._beams.frame % _CHECK == 0:
                if self.search.prune_history:
                    self._beams.prune_history()
                words += self._commit_agreed()
        return words

    def finish(self) -> list[Word]:
        """Decodes what is left.

        Returns
        -------
        list of Word
            The last words.
        """
        return list(self.hypotheses(1)[0].words)

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

    def partial(self) -> list[Word]:
        """Gives the words that no push has returned; later frames may
        change them.

        Returns
        -------
        list of Word
            The words of the best prefix.
        """
        return self._words(self._beams.alive[0].tokens())

    def hypotheses(
        self, num_best: int, words: Iterable[Word] = ()
    ) -> list[Hypothesis]:
        """Ends the recording and gives the best texts.

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
        scorer = self.search.scorer
        by_text: dict[tuple[str, ...], list[tuple[float, float, list[int]]]]
        by_text = {}
        for node in self._beams.alive:
            tokens = node.tokens()
            acoustic = self._beams.score(node)
            bonus = scorer.finish(node.state) if scorer else 0.0
            found = (acoustic, bonus, tokens)
            by_text.setdefault(self._key(tokens), []).append(found)
        merged = sorted(
            map(_merged, by_text.values()), key=lambda r: -(r[0] + r[1])
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
        """The words of a prefix, by which equal texts are found."""
        before = [span.token for span in self._open]
        mapping = self.search.mapping
        words = mapping.split([*before, *tokens])
        return tuple(filter(None, map(mapping.spell, words)))

    def _commit_agreed(self):
        """Takes out what all prefixes agree on; returns its whole words."""
        best, node = self._beams.alive[0], self._beams.common_prefix()
        waiting = self._beams.frame - self._begin
        if node.parent is None or node.parent.parent is None:
            return (
                self._commit_half(best)
                if waiting > self.search.patience
                else []
            )
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
        return self._commit_half(best) if waiting > self.search.patience else []

    def _commit_half(self, best):
        """Takes the best prefix in the first half of the waiting frames."""
        spans = self._aligned(best.tokens())
        cut = (self._begin + self._beams.frame) // 2
        final = [span for span in spans if span.first < cut]
        if final and final[-1].last > cut:
            # One token on many seconds: the rest of it adds nothing
            final[-1] = replace(final[-1], last=cut)
        node = best
        for _ in spans[len(final) :]:
            node = node.parent
        self._beams.keep_below(node, (self._beams.frame - cut) // 2)
        return self._commit(node, final, cut)

    def _commit(self, node, spans, cut):
        """Cuts tree and frames behind a prefix; returns its whole words."""
        if node.parent is not None:
            node.parent, self._before = None, node.token
        self._rows = [np.concatenate(self._rows)[cut - self._begin :]]
        self._begin = cut
        self._open += spans
        whole = self.search.mapping.num_complete([s.token for s in self._open])
        done, self._open = self._open[:whole], self._open[whole:]
        return self._as_words(done)

    def _aligned(self, tokens):
        """Spans of tokens on the waiting frames."""
        mapping = self.search.mapping
        spans = align(
            np.concatenate(self._rows) if self._rows else np.zeros((0, 1)),
            tokens,
            mapping.blank,
            mapping.delimiter,
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
        """Words of waiting tokens, and of the unfinished word before them."""
        return self._as_words([*self._open, *self._aligned(tokens)])

    def _as_words(self, spans):
        """Words of spans."""
        mapping = self.search.mapping
        words = mapping.split(spans, attrgetter("token"))
        made = (self._word(word) for word in words)
        return [word for word in made if word.text]

    def _word(self, spans):
        """A word of its spans."""
        num_frames = sum(span.last - span.first for span in spans)
        log_prob = sum(span.log_prob for span in spans)
        return Word(
            self.search.mapping.spell([span.token for span in spans]),
            round(spans[0].first * self.frame_s, 6),
            round(spans[-1].last * self.frame_s, 6),
            min(math.exp(log_prob / num_frames), 1.0),
        )


def _merged(found):
    """One of several (acoustic score, bonus, tokens) of the same text."""
    best = max(found, key=lambda one: one[0] + one[1])
    acoustic = np.logaddexp.reduce([one[0] for one in found])
    return float(acoustic), best[1], best[2]


@dataclass(frozen=True)
class _Span:
    """A token on its frames, ``last`` not included, and their summed
    log-posteriors."""

    token: int
    first: int
    last: int
    log_prob: float


def align(rows, tokens, blank, delimiter=None, before=None):
    """Finds the most likely frames of tokens in log-posteriors (Viterbi).

    States are the gaps before, between and after the tokens, and the tokens::

        gap 0 -> token 0 -> gap 1 -> token 1 -> gap 2     and the shortcut
                    |________________^                    past a gap

    A second ``delimiter`` in a row counts as a gap. ``before`` is the token
    before the first frame, ``delimiter`` at the beginning of a recording.
    """
    if not tokens:
        return []
    previous = np.array([-1 if before is None else before, *tokens])
    repeats = previous[1:] == previous[:-1]
    if len(rows) < len(tokens) + repeats.sum():
        raise ValueError(
            f"alignment: expected at least {len(tokens) + repeats.sum()} "
            f"frames for {len(tokens)} tokens; got {len(rows)}"
        )
    scores = _emissions(rows, tokens, blank, previous == delimiter, delimiter)
    path = _best_path(scores, repeats)
    firsts = np.searchsorted(path, range(1, 2 * len(tokens), 2), "left")
    lasts = np.searchsorted(path, range(1, 2 * len(tokens), 2), "right")
    return [
        _Span(token, first, last, float(rows[first:last, token].sum()))
        for token, first, last in zip(tokens, firsts.tolist(), lasts.tolist())
    ]


def _emissions(rows, tokens, blank, after_delimiter, delimiter):
    """Log-posteriors of each state, [T, S]."""
    scores = np.empty((len(rows), 2 * len(tokens) + 1))
    scores[:, 0::2] = rows[:, [blank]]
    scores[:, 1::2] = rows[:, tokens]
    if delimiter is not None:
        either = np.logaddexp(rows[:, blank], rows[:, delimiter])
        scores[:, 0::2][:, after_delimiter] = either[:, None]
    return np.maximum(scores, _UNLIKELY)


def _best_path(scores, repeats):
    """The state of each frame, [T]."""
    num_frames, num_states = scores.shape
    shortcut = np.full(num_states, -np.inf)
    shortcut[1::2] = np.where(repeats, -np.inf, 0.0)
    # Row k: what a state gets from the one k places before
    moves = np.full((3, num_states + 2), -np.inf)
    # The path comes from the place before gap 0: a step to it, or a shortcut
    moves[1, 0] = 0.0
    moves[2, 1] = shortcut[1]
    choices = np.empty((num_frames, num_states), dtype=np.int8)
    for frame in range(num_frames):
        options = moves[:, :num_states]
        choices[frame] = options.argmax(0)
        best = options.max(0) + scores[frame]
        moves[0, :-2] = best
        moves[1, 0], moves[1, 1:-1] = -np.inf, best
        moves[2, :2], moves[2, 2:-2] = -np.inf, best[:-2] + shortcut[2:]
    state = num_states - 1 - int(best[-2] >= best[-1])
    path = np.empty(num_frames, dtype=int)
    for frame in range(num_frames - 1, -1, -1):
        path[frame] = state
        state -= int(choices[frame, state])
    return path


class PrefixBeamSearcher(CTCBaseSearcher):
    """``PrefixBeamSearch`` as ``EncoderASR`` builds and calls it.

    In a pretrained folder's ``hyperparams.yaml``::

        decoding_function: !name:unispeech_sb.decoding.PrefixBeamSearcher
        test_beam_search:
            tokenizer: !ref <tokenizer>
            language_model: !ref <language_model>
            hot_words: []
            beam_size: 100

    Arguments
    ---------
    tokenizer : CTCTokenizer
        Of the model's outputs.
    vocab_list : list of str, optional
        The tokens by index, as ``EncoderASR`` gives them.
    topk : int
        Most hypotheses for each recording.
    **options : dict
        Further arguments of ``PrefixBeamSearch``.

    Example
    -------
    >>> from unispeech_sb.dataio.tokenizers import CTCTokenizer
    >>> tokenizer = CTCTokenizer.from_tokens(["-", "|", "a", "b"], 0)
    >>> searcher = PrefixBeamSearcher(tokenizer, beam_size=10)
    >>> frames = torch.eye(4)[[2, 2, 0, 3, 1, 1, 0, 2]].log()
    >>> searcher(frames[None], torch.ones(1))[0][0].text_frames
    [('ab', (0, 4)), ('a', (7, 8))]
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        vocab_list: Sequence[str] | None = None,
        topk: int = 1,
        **options: Any,
    ) -> None:
        tokens = [tokenizer.ind2lab[index] for index in range(len(tokenizer))]
        if vocab_list is not None and list(vocab_list) != tokens:
            raise ValueError(
                "searcher: expected the tokens of its tokenizer; got "
                f"{len(vocab_list)} others"
            )
        # Not CTCBaseSearcher's: it would load the language model once more
        torch.nn.Module.__init__(self)
        self.vocab_list, self.topk = tokens, topk
        self.blank_index = tokenizer.blank_index
        self.search = PrefixBeamSearch(tokenizer, **options)

    def decode_beams(
        self,
        log_probs: torch.Tensor,
        wav_lens: torch.Tensor | None = None,
        lm_start_state: None = None,
    ) -> list[list[CTCHypothesis]]:
        """Decodes a batch; what calling the searcher does.

        Arguments
        ---------
        log_probs : torch.Tensor
            Log-posteriors, [B, T, V].
        wav_lens : torch.Tensor, optional
            Valid share of each row, in (0, 1], [B]. All of it when omitted.
        lm_start_state : None
            Texts always begin at their beginning.

        Returns
        -------
        list of list of CTCHypothesis
            For each row the best texts, the best first. ``score`` is that of
            the acoustics, ``lm_score`` the sum with the language model's and
            hot words', as in SpeechBrain's own.

        Raises
        ------
        ValueError
            When another start is asked for.
        """
        if lm_start_state is not None:
            raise ValueError(
                "searcher: expected no start state of the language model, as "
                f"texts begin at their beginning; got {lm_start_state!r:.60}"
            )
        num_frames = log_probs.shape[1]
        if wav_lens is None:
            wav_lens = torch.ones(len(log_probs))
        counts = (wav_lens * num_frames).round().int().tolist()
        return [
            [
                _as_speechbrain(made)
                for made in self.search.decode(row[:count], self.topk)
            ]
            for row, count in zip(log_probs, counts)
        ]


def _as_speechbrain(made):
    """One hypothesis in SpeechBrain's form."""
    return CTCHypothesis(
        text=made.text,
        last_lm_state=None,
        score=made.acoustic_score,
        lm_score=made.score,
        text_frames=[
            (word.text, (round(word.start_s), round(word.end_s)))
            for word in made.words
        ],
    )
