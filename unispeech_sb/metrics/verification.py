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

_Indices = np.ndarray | torch.Tensor | Sequence[int]
"""Places of trials' embeddings in a list of them, [N]."""

_BLOCK = 4096
"""Rows that are scored at once, which bounds the memory."""

_BLOCK_BYTES = 2**26
_MIN_SPEAKERS = 3


def cosine_scores(
    embeddings: torch.Tensor,
    left: _Indices,
    right: _Indices,
    block: int = _BLOCK,
) -> torch.Tensor:
    """Cosines, [N], float64, of pairs of the embeddings [U, D].

    ``left`` and ``right`` are rows, [N]; their order does not matter.
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
    """Mean and unbiased deviation, [U] each, of cosines with a cohort, [C, D].

    By the ``top_n`` highest cosines for AS-norm, by all for S-norm. The cohort
    has one embedding each of speakers that are in no trial.
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
    left: _Indices,
    right: _Indices,
    statistics: tuple[torch.Tensor, torch.Tensor],
) -> torch.Tensor:
    """Scores, [N], in the deviations of both sides' cohorts, in their mean."""
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
    """Thresholds, miss and false-alarm rates, [K] each, where they change.

    A trial is accepted from the threshold on. Thresholds are the distinct
    scores, ascending, and infinity. A weight says how often a trial counts.
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
    """Equal error rate, and the threshold of it, from which on to accept.

    Both rates are interpolated linearly between neighbouring points of the
    curve, as ``roc_curve``, ``interp1d`` and ``brentq`` together do it.
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
    """Least detection cost over all thresholds (NIST, VoxSRC), and where it is.

    ``c_miss * p_target * miss + c_fa * (1 - p_target) * fa`` is divided by that
    of a system that accepts or rejects everything, whichever is cheaper, so
    that 1 is worthless. Of several thresholds it is the lowest.
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
    """Detection cost at a chosen threshold, normalised as ``min_dcf``."""
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

    Halfway to the next lower score, so that rounding a score does not turn its
    decision; just above all scores where nothing is accepted.
    """
    if index == 0:
        return float(thresholds[0])
    below, above = thresholds[index - 1], thresholds[index]
    if math.isinf(above):
        return float(np.nextafter(below, above))
    middle = below + (above - below) / 2
    return float(middle if middle > below else above)


class Interval(NamedTuple):
    """A metric and its interval of probability ``level``."""

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

    Trials that share a speaker are not independent, so speakers are resampled.
    A target trial of a speaker drawn c times counts c times, a non-target trial
    c times d, d for the other speaker. Draws without one kind are made again.
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


def mean_interval(
    scores: Scores,
    groups: ArrayLike,
    num_draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Mean of scores, [N], and its confidence interval by the bootstrap.

    Scores of one group, [N], are not independent: groups are resampled. With
    one group, or without draws, the interval is the mean alone.
    """
    scores = as_scores(scores, "scores")
    _, places = np.unique(groups, return_inverse=True)
    sums, sizes = np.bincount(places, scores), np.bincount(places)
    value, generator = float(scores.mean()), np.random.default_rng(seed)
    means = []
    for _ in range(num_draws if len(sums) > 1 else 0):
        drawn = generator.integers(len(sums), size=len(sums))
        means.append(float(sums[drawn].sum() / sizes[drawn].sum()))
    means = means or [value]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), level, len(sums))


def check_speakers(speakers: ArrayLike) -> int:
    """Counts speakers, which have to be enough to be drawn from."""
    found = len(np.unique(speakers))
    if found < _MIN_SPEAKERS:
        raise ValueError(
            f"expected at least {_MIN_SPEAKERS} speakers, got {found}"
        )
    return found


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
    return targets, left, right, check_speakers(names)


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
