"""Cllr, the cost that tells how good log-likelihood ratios are (Brümmer and
du Preez 2006), and the least one that a system's scores allow.
"""

import math

import numpy as np
from scipy.optimize import isotonic_regression
from scipy.special import logit

from unispeech_sb.metrics.verification import as_scores


def cllr(positive, negative):
    """Cost of log-likelihood ratios over all priors, in bits.

    ``(mean(log2(1 + exp(-llr))) of targets + mean(log2(1 + exp(llr))) of
    non-targets) / 2``.

    Arguments
    ---------
    positive : numpy.ndarray or torch.Tensor
        Natural log-likelihood ratios of target trials, [P].
    negative : numpy.ndarray or torch.Tensor
        Those of non-target trials, [N].

    Returns
    -------
    float
        0 is perfect, 1 is what saying nothing (llr 0) costs.

    Example
    -------
    >>> cllr([0.0, 0.0], [0.0])
    1.0
    """
    positive = as_scores(positive, "llrs of targets").astype(np.float64)
    negative = as_scores(negative, "llrs of non-targets").astype(np.float64)
    return _bits(positive, negative, None, None)


def min_cllr(positive, negative):
    """The least Cllr that any ascending map of the scores reaches.

    It is the isotonic regression (pool adjacent violators) of the truth; the
    difference from ``cllr`` is what the calibration loses.

    Arguments
    ---------
    positive : numpy.ndarray or torch.Tensor
        Scores of target trials, [P].
    negative : numpy.ndarray or torch.Tensor
        Scores of non-target trials, [N].

    Returns
    -------
    float
        In [0, 1], bits.

    Example
    -------
    >>> min_cllr([3.0, 4.0], [1.0, 2.0])
    0.0
    """
    positive = as_scores(positive, "scores of targets")
    negative = as_scores(negative, "scores of non-targets")
    levels, places = np.unique(
        np.concatenate([positive, negative]), return_inverse=True
    )
    counts = [
        np.bincount(part, minlength=len(levels)).astype(np.float64)
        for part in (places[: len(positive)], places[len(positive) :])
    ]
    totals = counts[0] + counts[1]
    shares = isotonic_regression(counts[0] / totals, weights=totals).x
    prior = len(positive) / (len(positive) + len(negative))
    # A block of one kind only has an infinite llr, and costs nothing.
    llrs = logit(np.clip(shares, 0, 1)) - logit(prior)
    return _bits(llrs, llrs, *counts)


def _bits(positive, negative, positive_counts, negative_counts):
    """Cllr of llrs that occur as often as told; once for None."""
    costs = []
    for llrs, counts in (
        (-positive, positive_counts),
        (negative, negative_counts),
    ):
        kept = slice(None) if counts is None else counts > 0
        weights = None if counts is None else counts[kept]
        bits = np.logaddexp(0, llrs[kept]) / math.log(2)
        costs.append(np.average(bits, weights=weights))
    return float(sum(costs) / 2)
