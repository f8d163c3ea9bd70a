"""Search for the weights of a language model on transcribed recordings."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from speechbrain.utils.edit_distance import accumulatable_wer_stats

from unispeech_sb.decoding.scoring import LanguageModel
from unispeech_sb.decoding.search import PrefixBeamSearch
from unispeech_sb.decoding.words import Tokenizer

ALPHAS = (0.0, 0.3, 0.6, 0.9, 1.2, 1.6, 2.0)
BETAS = (-1.0, 0.0, 1.0, 2.0, 4.0)
"""The coarse grid."""


class Point(NamedTuple):
    """Weights of ``LanguageModel``, and their word error rate in percent."""

    alpha: float
    beta: float
    wer: float


def word_error_rate(found: Sequence[str], texts: Sequence[str]) -> float:
    """Word error rate of hypotheses against reference texts, in percent."""
    stats = accumulatable_wer_stats(
        [text.split() for text in texts], [text.split() for text in found]
    )
    if not stats["num_ref_tokens"]:
        raise ValueError("tuning: expected texts with words; got none")
    return stats["WER"]


def tune(
    log_probs: Sequence[torch.Tensor],
    texts: Sequence[str],
    tokenizer: Tokenizer,
    language_model: LanguageModel,
    rounds: int = 2,
    on_point: Callable[[Point], object] | None = None,
    **search_options: Any,
) -> tuple[Point, list[Point]]:
    """Finds the alpha and beta with the lowest word error rate.

    A coarse grid, then ``rounds`` times the eight points around the best one
    at half of the distance before. Of equal ones the first that was tried is
    taken; smaller weights are tried first. The language model keeps the best.

    Arguments
    ---------
    log_probs : list of torch.Tensor
        Log-posteriors of each recording, [T, V].
    texts : list of str
        The reference text of each.
    tokenizer : CTCTokenizer
        Of the model's outputs.
    language_model : LanguageModel
        Its ``alpha`` and ``beta`` are set.
    rounds : int
        Refinements.
    on_point : callable, optional
        Called with each ``Point``.
    **search_options
        Further arguments of ``PrefixBeamSearch``.

    Returns
    -------
    best : Point
        The best weights.
    tried : list of Point
        All, in the order in which they were tried.

    Raises
    ------
    ValueError
        When there is not one text for each recording, or no text has words.

    Example
    -------
    >>> import torch
    >>> from unispeech_sb.dataio.tokenizers import CTCTokenizer
    >>> class Nothing:  # a language model without a preference
    ...     def start(self):
    ...         return None
    ...
    ...     def score(self, state, word):
    ...         return self.beta, None
    ...
    ...     score_beginning = score_end = lambda self, text: 0.0
    >>> tokenizer = CTCTokenizer.from_tokens(["-", "|", "a"], 0)
    >>> frames = torch.tensor([[0.1, 0.0, 0.9], [0.4, 0.5, 0.1], [0, 0, 1]])
    >>> best, _ = tune([frames.log()], ["a a"], tokenizer, Nothing(), rounds=0)
    >>> best.wer
    0.0
    """
    if len(log_probs) != len(texts):
        raise ValueError(
            "tuning: expected one text for each recording; got "
            f"{len(texts)} for {len(log_probs)}"
        )
    tried = {}

    def measure(alpha, beta):
        if (alpha, beta) in tried:
            return
        language_model.alpha, language_model.beta = alpha, beta
        search = PrefixBeamSearch(tokenizer, language_model, **search_options)
        found = [search.decode(row)[0].text for row in log_probs]
        point = Point(alpha, beta, word_error_rate(found, texts))
        tried[alpha, beta] = point
        if on_point is not None:
            on_point(point)

    for alpha in ALPHAS:
        for beta in BETAS:
            measure(alpha, beta)
    steps = 0.3, 1.0
    for _ in range(rounds):
        best = _best(tried)
        steps = steps[0] / 2, steps[1] / 2
        for alpha, beta in _around(best, *steps):
            measure(alpha, beta)
    best = _best(tried)
    language_model.alpha, language_model.beta = best.alpha, best.beta
    return best, list(tried.values())


def _best(tried):
    """The point of the least error, the first of equal ones."""
    return min(tried.values(), key=lambda point: point.wer)


def _around(point, alpha_step, beta_step):
    """The neighbours of a point; alpha stays at least 0."""
    return [
        (
            max(0.0, round(point.alpha + i * alpha_step, 6)),
            round(point.beta + j * beta_step, 6),
        )
        for i in (-1, 0, 1)
        for j in (-1, 0, 1)
    ]
