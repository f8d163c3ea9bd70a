"""Confidence intervals of error rates by resampling speakers.

Trials that share a speaker are not independent, so resampling trials gives
intervals that are far too narrow. Here speakers are drawn with replacement,
and a trial counts as often as its two speakers were drawn together.
"""

from typing import NamedTuple

import numpy as np
import torch

from unispeech_sb.metrics.verification import as_scores

_BLOCK_BYTES = 2**26
_MIN_SPEAKERS = 3


class Interval(NamedTuple):
    """A metric, with the interval that holds it.

    Arguments
    ---------
    value : float
        On all trials.
    low : float
        Lower end.
    high : float
        Upper end.
    level : float
        Probability of the interval, such as 0.95.
    num_speakers : int
        Speakers that were resampled.

    Example
    -------
    >>> print(Interval(0.05, 0.04, 0.065, 0.95, 40))
    0.0500 [0.0400, 0.0650]
    """

    value: float
    low: float
    high: float
    level: float
    num_speakers: int

    def __str__(self):
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


def bootstrap(
    metric,
    scores,
    targets,
    speakers,
    num_draws=1000,
    level=0.95,
    seed=0,
):
    """Confidence interval of a metric, for other speakers of the same kind.

    In each draw, as many speakers as there are are drawn with replacement. A
    target trial of a speaker drawn c times counts c times; a non-target trial
    counts c times d, d for the other speaker. Draws without a trial of one
    kind are made again.

    Arguments
    ---------
    metric : callable
        ``metric(positive, negative, positive_weights=, negative_weights=)``
        -> a number, or a tuple that begins with it, as ``eer`` and
        ``min_dcf`` give it.
    scores : numpy.ndarray or torch.Tensor
        Scores of trials, [N].
    targets : numpy.ndarray or torch.Tensor
        Which of them are target trials: booleans, or 1 and 0, [N].
    speakers : tuple of sequences
        Speaker of the left and of the right side of each trial, each [N].
    num_draws : int
        How many draws; at least 100.
    level : float
        Probability of the interval, in (0, 1).
    seed : int
        Seed of the draws.

    Returns
    -------
    Interval
        With the percentiles of the draws as its ends.

    Raises
    ------
    ValueError
        When lengths differ, a kind of trial is missing, truth and speakers
        disagree, there are fewer than three speakers, or most draws would
        lack a kind of trial.

    Example
    -------
    >>> from unispeech_sb.metrics.verification import eer
    >>> left, right = np.triu_indices(6)
    >>> scores = (left == right) + np.sin(np.arange(21))
    >>> bootstrap(eer, scores, left == right, (left, right)).num_speakers
    6
    """
    if num_draws < 100 or not 0 < level < 1:
        raise ValueError(
            "expected num_draws from 100 on and a level in (0, 1), got "
            f"{num_draws} and {level}"
        )
    scores = as_scores(scores, "scores")
    targets, left, right, num_speakers = _check(scores, targets, speakers)
    # A metric that sorts stably is done much faster with sorted trials.
    order = np.argsort(scores, kind="stable")
    kinds = [order[targets[order]], order[~targets[order]]]
    positive, negative = (scores[kind] for kind in kinds)
    values = [
        _value(
            metric(
                positive,
                negative,
                positive_weights=positive_weights,
                negative_weights=negative_weights,
            )
        )
        for positive_weights, negative_weights in _draws(
            left, right, kinds, num_draws, seed
        )
    ]
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    value = _value(metric(positive, negative))
    return Interval(value, float(low), float(high), level, num_speakers)


def _value(result):
    """The number that a metric's result begins with."""
    return float(result[0] if isinstance(result, tuple) else result)


def _check(scores, targets, speakers):
    """Truth and indices of both speakers of each trial, [N]."""
    targets = np.asarray(targets)
    sides = [np.asarray(side) for side in speakers]
    shapes = {scores.shape, targets.shape, *(side.shape for side in sides)}
    if len(sides) != 2 or len(shapes) > 1:
        raise ValueError(
            "expected the truth and two speakers for each of "
            f"{len(scores)} trials"
        )
    if not np.isin(targets, (0, 1)).all() or len(np.unique(targets)) < 2:
        raise ValueError("expected both kinds of trials, as 1 and 0")
    targets = targets.astype(bool)
    names, places = np.unique(np.concatenate(sides), return_inverse=True)
    left, right = places.reshape(2, -1)
    wrong = np.flatnonzero((left == right) != targets)
    if len(wrong):
        kind = "target" if targets[wrong[0]] else "non-target"
        raise ValueError(
            f"trial {wrong[0]} is a {kind} trial of the speakers "
            f"{sides[0][wrong[0]]} and {sides[1][wrong[0]]}"
        )
    if len(names) < _MIN_SPEAKERS:
        raise ValueError(
            f"expected at least {_MIN_SPEAKERS} speakers, got {len(names)}"
        )
    return targets, left, right, len(names)


def _draws(left, right, kinds, num_draws, seed):
    """Weights of targets and of non-targets, for one draw after another."""
    num_speakers = int(max(left.max(), right.max())) + 1
    generator = torch.Generator().manual_seed(seed)
    block = max(1, _BLOCK_BYTES // (8 * len(left)))
    done = tried = 0
    while done < num_draws:
        shape = min(block, num_draws - done), num_speakers
        drawn = torch.randint(num_speakers, shape, generator=generator)
        counts = torch.zeros(shape, dtype=torch.float64)
        counts = counts.scatter_add_(1, drawn, torch.ones_like(counts)).numpy()
        positive = counts[:, left[kinds[0]]]
        negative = counts[:, left[kinds[1]]] * counts[:, right[kinds[1]]]
        whole = positive.any(1) & negative.any(1)
        done, tried = done + int(whole.sum()), tried + len(whole)
        if done < tried / 2 and tried >= 20:
            raise ValueError(
                "expected more trials per speaker: most draws of speakers "
                "have no target or no non-target trial"
            )
        yield from zip(positive[whole], negative[whole], strict=True)
