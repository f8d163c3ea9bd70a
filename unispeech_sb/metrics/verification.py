"""Error rates of verification scores: the error curve, EER and the detection
cost of NIST's evaluations, sorted once, for up to tens of millions of trials.
"""

import math

import numpy as np
import torch


def as_scores(scores, name):
    """Checks scores and makes an array of them.

    Arguments
    ---------
    scores : numpy.ndarray or torch.Tensor or list of float
        One number per trial, [N].
    name : str
        What they are, for the message.

    Returns
    -------
    numpy.ndarray
        [N], float32 or float64; not copied where it already was one.

    Raises
    ------
    ValueError
        When there is none, the shape is not [N], or one is not finite.

    Example
    -------
    >>> as_scores(torch.tensor([0.5, -0.5]), "scores").tolist()
    [0.5, -0.5]
    """
    if isinstance(scores, torch.Tensor):
        scores = scores.detach().cpu()
        # numpy has no bfloat16
        scores = (
            scores.float() if scores.element_size() < 4 else scores
        ).numpy()
    scores = np.asarray(scores)
    if scores.dtype.kind not in "fiub":
        raise ValueError(f"expected {name} as numbers, got {scores.dtype}")
    if scores.dtype not in (np.float32, np.float64):
        scores = scores.astype(np.float64)
    if scores.ndim != 1 or scores.size == 0:
        raise ValueError(
            f"expected {name} of shape [N] with N > 0, got {list(scores.shape)}"
        )
    finite = np.isfinite(scores)
    if not finite.all():
        first = int(finite.argmin())
        raise ValueError(
            f"expected finite {name}, got {scores[first]} at index {first}"
        )
    return scores


def error_curve(
    positive, negative, positive_weights=None, negative_weights=None
):
    """Tells both error rates at every threshold that makes a difference.

    A trial is accepted when its score is at least the threshold, so trials of
    one score are accepted or rejected together.

    Arguments
    ---------
    positive : numpy.ndarray or torch.Tensor
        Scores of target trials (one speaker), [P].
    negative : numpy.ndarray or torch.Tensor
        Scores of non-target trials (two speakers), [N].
    positive_weights : numpy.ndarray or torch.Tensor, optional
        How often each target trial counts, [P]. Once when omitted.
    negative_weights : numpy.ndarray or torch.Tensor, optional
        How often each non-target trial counts, [N]. Once when omitted.

    Returns
    -------
    thresholds : numpy.ndarray
        The distinct scores in ascending order, then infinity, [K].
    miss : numpy.ndarray
        Share of target trials below each threshold, 0 to 1, ascending, [K].
    false_alarm : numpy.ndarray
        Share of non-target trials at or above it, 1 to 0, descending, [K].

    Raises
    ------
    ValueError
        When scores are missing or not finite, or when weights do not fit
        them, are negative or all zero.

    Example
    -------
    >>> thresholds, miss, false_alarm = error_curve([0.4, 0.9], [0.1, 0.4])
    >>> thresholds.tolist()
    [0.1, 0.4, 0.9, inf]
    >>> miss.tolist(), false_alarm.tolist()
    ([0.0, 0.0, 0.5, 1.0], [1.0, 0.5, 0.0, 0.0])
    """
    positive = as_scores(positive, "scores of targets")
    negative = as_scores(negative, "scores of non-targets")
    thresholds = _distinct(positive, negative)
    below = _share_below(thresholds, positive, positive_weights)
    false_alarm = _share_below(thresholds, negative, negative_weights)
    np.subtract(1, false_alarm, out=false_alarm)
    return thresholds, below, false_alarm


def eer(positive, negative, positive_weights=None, negative_weights=None):
    """Equal error rate: where miss and false-alarm rate cross.

    Between two neighbouring points of the curve both rates are interpolated
    linearly, as ``roc_curve``, ``interp1d`` and ``brentq`` together do it.

    Arguments
    ---------
    positive : numpy.ndarray or torch.Tensor
        Scores of target trials, [P].
    negative : numpy.ndarray or torch.Tensor
        Scores of non-target trials, [N].
    positive_weights : numpy.ndarray or torch.Tensor, optional
        How often each target trial counts, [P].
    negative_weights : numpy.ndarray or torch.Tensor, optional
        How often each non-target trial counts, [N].

    Returns
    -------
    rate : float
        In [0, 1].
    threshold : float
        Accept scores from here on. Halfway between the scores on both sides
        where that rate is exactly reached.

    Example
    -------
    >>> eer([0.5, 0.6, 0.7, 0.8], [0.1, 0.2, 0.3, 0.6])
    (0.25, 0.55)
    """
    thresholds, miss, false_alarm = error_curve(
        positive, negative, positive_weights, negative_weights
    )
    # miss - false_alarm ascends from -1 to 1.
    right = int(np.searchsorted(miss - false_alarm, 0.0))
    left = right - 1
    before = float(miss[left] - false_alarm[left])
    after = float(miss[right] - false_alarm[right])
    share = before / (before - after)
    rate = float(miss[left] + share * (miss[right] - miss[left]))
    low, high = (_decision(thresholds, index) for index in (left, right))
    return rate, low + share * (high - low)


def min_dcf(
    positive,
    negative,
    p_target=0.01,
    c_miss=1.0,
    c_fa=1.0,
    positive_weights=None,
    negative_weights=None,
):
    """Least detection cost over all thresholds, as NIST and VoxSRC define it.

    The cost ``c_miss * p_target * miss + c_fa * (1 - p_target) * fa`` is
    divided by that of a system that accepts or rejects everything, whichever
    is cheaper, so that 1 is worthless.

    Arguments
    ---------
    positive : numpy.ndarray or torch.Tensor
        Scores of target trials, [P].
    negative : numpy.ndarray or torch.Tensor
        Scores of non-target trials, [N].
    p_target : float
        How probable a target is before the scores are seen, in (0, 1).
    c_miss : float
        Cost of a miss, above 0.
    c_fa : float
        Cost of a false alarm, above 0.
    positive_weights : numpy.ndarray or torch.Tensor, optional
        How often each target trial counts, [P].
    negative_weights : numpy.ndarray or torch.Tensor, optional
        How often each non-target trial counts, [N].

    Returns
    -------
    cost : float
        In [0, 1].
    threshold : float
        Accept scores from here on; the lowest one where several cost as
        little. Halfway between the scores on both sides.

    Raises
    ------
    ValueError
        When ``p_target`` or a cost is out of range, or as ``error_curve``.

    Example
    -------
    >>> min_dcf([0.5, 0.6, 0.7, 0.8], [0.1, 0.2, 0.3, 0.6], p_target=0.5)
    (0.25, 0.4)
    """
    weigh_miss, weigh_fa = _cost_weights(p_target, c_miss, c_fa)
    thresholds, miss, false_alarm = error_curve(
        positive, negative, positive_weights, negative_weights
    )
    costs = weigh_miss * miss + weigh_fa * false_alarm
    best = int(costs.argmin())
    return float(costs[best]), _decision(thresholds, best)


def actual_dcf(
    positive, negative, threshold, p_target=0.01, c_miss=1.0, c_fa=1.0
):
    """Detection cost at a threshold that was chosen before.

    Arguments
    ---------
    positive : numpy.ndarray or torch.Tensor
        Scores of target trials, [P].
    negative : numpy.ndarray or torch.Tensor
        Scores of non-target trials, [N].
    threshold : float
        Scores from here on are accepted.
    p_target : float
        How probable a target is before the scores are seen, in (0, 1).
    c_miss : float
        Cost of a miss, above 0.
    c_fa : float
        Cost of a false alarm, above 0.

    Returns
    -------
    float
        Normalised as for ``min_dcf`` and never below it; may exceed 1.

    Raises
    ------
    ValueError
        When the threshold is no number, or as ``min_dcf``.

    Example
    -------
    >>> actual_dcf([0.5, 0.8], [0.1, 0.6], threshold=0.7, p_target=0.5)
    0.5
    """
    weigh_miss, weigh_fa = _cost_weights(p_target, c_miss, c_fa)
    if math.isnan(threshold):
        raise ValueError("expected a threshold, got nan")
    miss = (as_scores(positive, "scores of targets") < threshold).mean()
    accepted = as_scores(negative, "scores of non-targets") >= threshold
    return float(weigh_miss * miss + weigh_fa * accepted.mean())


def _distinct(positive, negative):
    """Scores of both kinds, each once and ascending, then infinity."""
    scores = np.concatenate([positive, negative])
    scores.sort()
    is_first = np.empty(len(scores), bool)
    is_first[0] = True
    np.not_equal(scores[1:], scores[:-1], out=is_first[1:])
    return np.append(scores[is_first], scores.dtype.type(math.inf))


def _share_below(thresholds, scores, weights):
    """Weighted share of the scores below each of the ascending thresholds."""
    if weights is None:
        scores = np.sort(scores)
        return np.searchsorted(scores, thresholds) / len(scores)
    weights = as_scores(weights, "weights").astype(np.float64)
    if weights.shape != scores.shape:
        raise ValueError(
            f"expected one weight per score, got {len(weights)} for "
            f"{len(scores)} scores"
        )
    if weights.min() < 0 or weights.max() == 0:
        raise ValueError("expected weights from 0 on that are not all 0")
    order = np.argsort(scores, kind="stable")
    sums = np.cumsum(np.append(0.0, weights[order]))
    return sums[np.searchsorted(scores[order], thresholds)] / sums[-1]


def _cost_weights(p_target, c_miss, c_fa):
    """Cost of each error rate, in units of the cost of not listening."""
    if not (0 < p_target < 1 and 0 < c_miss < math.inf and 0 < c_fa < math.inf):
        raise ValueError(
            "expected p_target in (0, 1) and costs above 0, got "
            f"{p_target}, {c_miss} and {c_fa}"
        )
    weigh_miss, weigh_fa = c_miss * p_target, c_fa * (1 - p_target)
    worthless = min(weigh_miss, weigh_fa)
    return weigh_miss / worthless, weigh_fa / worthless


def _decision(thresholds, index):
    """A finite threshold that decides as the given one, in its own precision.

    Halfway to the next lower score, so that rounding a score does not turn
    its decision; just above all scores where nothing is accepted.
    """
    if index == 0:
        return float(thresholds[0])
    below, above = thresholds[index - 1], thresholds[index]
    if math.isinf(above):
        return float(np.nextafter(below, above))
    middle = below + (above - below) / 2
    return float(middle if middle > below else above)
