"""Speaker verification: cosine scores and their normalization by a cohort of
other speakers, error rates, and confidence intervals of these.

S-norm is Kenny's (2010), AS-norm that of Matějka et al. (2017); EER and the
detection cost of NIST's evaluations are exact, for tens of millions of trials.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch.nn import functional

Scores = np.ndarray | torch.Tensor | Sequence[float]
"""Numbers of trials, [N]: scores, or 1 and 0 for what is true of each."""

Indices = np.ndarray | torch.Tensor | Sequence[int]
"""Places of trials' embeddings in a list of them, [N]."""

_BLOCK = 4096
"""Rows that are scored at once, which bounds the memory."""

_BLOCK_BYTES = 2**26
_MIN_SPEAKERS = 3


def cosine_scores(
    embeddings: torch.Tensor, left: Indices, right: Indices, block: int = _BLOCK
) -> torch.Tensor:
    """Cosines of pairs of embeddings, in float64.

    Arguments
    ---------
    embeddings : torch.Tensor
        One per utterance, [U, D].
    left : torch.Tensor or numpy.ndarray
        Index of each trial's one side, [N].
    right : torch.Tensor or numpy.ndarray
        Index of its other side, [N].
    block : int
        Trials that are scored at once.

    Returns
    -------
    torch.Tensor
        In [-1, 1], [N]. The order of a pair does not matter.

    Raises
    ------
    ValueError
        When an embedding is zero or not finite, or an index has none.

    Example
    -------
    >>> embeddings = torch.tensor([[1.0, 0.0], [3.0, 4.0]])
    >>> [
    ...     round(x, 6)
    ...     for x in cosine_scores(embeddings, [0, 1], [1, 1]).tolist()
    ... ]
    [0.6, 1.0]
    """
    left, right = (
        _indices(side, len(embeddings), name)
        for side, name in ((left, "left"), (right, "right"))
    )
    if len(left) != len(right):
        raise ValueError(
            f"expected two sides of one length, got {len(left)} and "
            f"{len(right)}"
        )
    # The products of one row commute, so a swapped pair sums the same terms.
    directions = _directions(embeddings, "embeddings")
    scores = directions.new_empty(len(left))
    for start in range(0, len(left), block):
        part = slice(start, start + block)
        products = directions[left[part]] * directions[right[part]]
        scores[part] = products.sum(1)
    return scores.clamp(-1, 1)


def cohort_statistics(
    embeddings: torch.Tensor,
    cohort: torch.Tensor,
    top_n: int | None = None,
    block: int = _BLOCK,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation of each embedding's cosines with a cohort.

    Arguments
    ---------
    embeddings : torch.Tensor
        One per utterance, [U, D].
    cohort : torch.Tensor
        Embeddings of speakers that are in no trial, one each, [C, D].
    top_n : int, optional
        Take the highest so many cosines only, as AS-norm does. All of them,
        as S-norm does, when omitted.
    block : int
        Embeddings that are compared with the cohort at once.

    Returns
    -------
    means : torch.Tensor
        [U], float64.
    deviations : torch.Tensor
        Unbiased standard deviations, [U], float64.

    Raises
    ------
    ValueError
        When an embedding is zero or not finite, ``top_n`` is not in 2...C, or
        the cosines with the cohort do not differ.

    Example
    -------
    >>> cohort = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    >>> means, _ = cohort_statistics(cohort[:1], cohort, top_n=2)
    >>> means.tolist()
    [0.5]
    """
    top_n = len(cohort) if top_n is None else top_n
    if not 2 <= top_n <= len(cohort):
        raise ValueError(
            f"expected top_n in 2...{len(cohort)}, the size of the cohort, "
            f"got {top_n}"
        )
    directions = _directions(embeddings, "embeddings")
    cohort = _directions(cohort, "cohort").T
    means, deviations = (directions.new_empty(len(directions)) for _ in "ms")
    for start in range(0, len(directions), block):
        part = slice(start, start + block)
        scores = directions[part] @ cohort  # [block, C]
        if top_n < scores.shape[1]:
            scores = scores.topk(top_n, dim=1, sorted=False).values
        means[part] = scores.mean(1)
        deviations[part] = scores.std(1)
    flat = (deviations < 1e-9).nonzero()
    if len(flat):
        raise ValueError(
            "expected a cohort of different speakers, but its scores with "
            f"embedding {flat[0].item()} are all the same"
        )
    return means, deviations


def s_norm(
    scores: torch.Tensor,
    left: Indices,
    right: Indices,
    statistics: tuple[torch.Tensor, torch.Tensor],
) -> torch.Tensor:
    """Normalises scores by the cohort's on both sides, in their mean.

    Arguments
    ---------
    scores : torch.Tensor
        Cosines of trials, [N].
    left : torch.Tensor or numpy.ndarray
        Index of each trial's one side, [N].
    right : torch.Tensor or numpy.ndarray
        Index of its other side, [N].
    statistics : tuple of torch.Tensor
        What ``cohort_statistics`` gave for the embeddings: S-norm with all of
        the cohort, AS-norm with ``top_n``.

    Returns
    -------
    torch.Tensor
        Scores in standard deviations, [N], float64.

    Raises
    ------
    ValueError
        When there are no statistics for an index, or lengths differ.

    Example
    -------
    >>> means, deviations = torch.tensor([0.0, 0.25]), torch.ones(2) / 4
    >>> s_norm(torch.tensor([0.5]), [0], [1], (means, deviations)).tolist()
    [1.5]
    """
    means, deviations = (values.double() for values in statistics)
    scores = torch.as_tensor(scores).double()
    total = torch.zeros_like(scores)
    for side, name in ((left, "left"), (right, "right")):
        indices = _indices(side, len(means), name)
        if indices.shape != scores.shape:
            raise ValueError(
                f"expected one index per score in {name}, got {len(indices)} "
                f"for {len(scores)}"
            )
        total += (scores - means[indices]) / deviations[indices]
    return total / 2


def _directions(embeddings, name):
    """Embeddings of length 1, float64."""
    if embeddings.dim() != 2 or 0 in embeddings.shape:
        raise ValueError(
            f"expected {name} of shape [U, D], got {list(embeddings.shape)}"
        )
    embeddings = embeddings.detach().double()
    norms = embeddings.norm(dim=1)
    wrong = ~((norms > 0) & norms.isfinite())
    if wrong.any():
        first = int(wrong.nonzero()[0])
        raise ValueError(
            f"expected finite {name} with a direction, but number {first} has "
            f"the norm {norms[first]:g}"
        )
    return functional.normalize(embeddings, dim=1, eps=0.0)


def _indices(values, limit, name):
    """Indices below a limit, [N]."""
    indices = torch.as_tensor(values)
    if indices.dim() != 1 or indices.is_floating_point():
        raise ValueError(f"expected {name} as a list of indices")
    indices = indices.long()
    if len(indices) and not 0 <= indices.min() <= indices.max() < limit:
        raise ValueError(
            f"expected {name} in 0...{limit - 1}, got "
            f"{indices.min()}...{indices.max()}"
        )
    return indices


def as_scores(scores: Scores, name: str) -> np.ndarray:
    """Scores as a float array [N]; ValueError, by the name, for others."""
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
    positive: Scores,
    negative: Scores,
    positive_weights: Scores | None = None,
    negative_weights: Scores | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both error rates at every threshold that makes a difference.

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


def eer(
    positive: Scores,
    negative: Scores,
    positive_weights: Scores | None = None,
    negative_weights: Scores | None = None,
) -> tuple[float, float]:
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
    positive: Scores,
    negative: Scores,
    p_target: float = 0.01,
    c_miss: float = 1.0,
    c_fa: float = 1.0,
    positive_weights: Scores | None = None,
    negative_weights: Scores | None = None,
) -> tuple[float, float]:
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
    positive: Scores,
    negative: Scores,
    threshold: float,
    p_target: float = 0.01,
    c_miss: float = 1.0,
    c_fa: float = 1.0,
) -> float:
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
    """Cost of each error rate, in units of the cost of no decision."""
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

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


def bootstrap(
    metric: Callable[..., float | tuple[float, ...]],
    scores: Scores,
    targets: Scores,
    speakers: tuple[ArrayLike, ArrayLike],
    num_draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Confidence interval of a metric, for other speakers of the same kind.

    Trials that share a speaker are not independent, so resampling trials
    gives intervals that are far too narrow; here speakers are resampled. In
    each draw, as many speakers as there are are drawn with replacement. A
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
    targets, left, right, num_speakers = _checked(scores, targets, speakers)
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


def _checked(
    scores: np.ndarray,
    targets: Scores,
    speakers: tuple[ArrayLike, ArrayLike],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
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
        yield from zip(positive[whole], negative[whole])
