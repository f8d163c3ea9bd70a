"""Losses, each a function of logits and targets."""

import math
from collections.abc import Sequence

import torch
from torch.nn import functional as F

PROBLEM_TYPES = (
    "single_label_classification",
    "multi_label_classification",
    "regression",
)
_MOST_COMBINATIONS = 100_000
"""Of the values of slots: rows of the file of labels of an export."""


def classification_loss(
    logits: torch.Tensor,
    targets: torch.Tensor,
    problem_type: str = "single_label_classification",
) -> torch.Tensor:
    """Loss of an utterance head, as transformers' sequence classifiers.

    Arguments
    ---------
    logits : torch.Tensor
        Scores, [B, C].
    targets : torch.Tensor
        Class indices, [B], for single label; 0/1 for each class, [B, C], for
        multi label; values, [B, C] (or [B] for C = 1), for regression.
    problem_type : str
        ``single_label_classification``: cross-entropy;
        ``multi_label_classification``: binary cross-entropy;
        ``regression``: mean squared error.

    Returns
    -------
    torch.Tensor
        The mean over the batch, a float32 scalar.

    Raises
    ------
    ValueError
        On another problem type, or targets of another shape.

    Example
    -------
    >>> import torch
    >>> classification_loss(torch.zeros(2, 4), torch.tensor([0, 3]))
    tensor(1.3863)
    """
    if problem_type not in PROBLEM_TYPES:
        raise ValueError(
            f"problem_type: expected one of {', '.join(PROBLEM_TYPES)}; "
            f"got {problem_type!r}"
        )
    logits = logits.float()
    single = problem_type == PROBLEM_TYPES[0]
    if not single and targets.dim() == 1:
        targets = targets[:, None]
    expected = logits.shape[:1] if single else logits.shape
    if targets.shape != expected:
        raise ValueError(
            f"{problem_type}: expected targets of shape {list(expected)}; "
            f"got {list(targets.shape)}"
        )
    if single:
        return F.cross_entropy(logits, targets)
    if problem_type == "regression":
        return F.mse_loss(logits, targets.float())
    return F.binary_cross_entropy_with_logits(logits, targets.float())


def intent_loss(
    logits: torch.Tensor, targets: torch.Tensor, slot_sizes: Sequence[int]
) -> torch.Tensor:
    """Sum of the cross-entropies of slots, each of its own part of the logits
    (SUPERB's intent classification, Yang et al. 2021, section 3).

    Arguments
    ---------
    logits : torch.Tensor
        Scores, those of the first slot's values first, [B, C].
    targets : torch.Tensor
        Index of the right value of each slot, [B, S].
    slot_sizes : list of int
        Number of values of each slot; C in all.

    Returns
    -------
    torch.Tensor
        The sum over slots of means over the batch, a scalar of float32 at
        least.

    Example
    -------
    >>> import torch
    >>> targets = torch.tensor([[0, 2], [1, 0]])
    >>> intent_loss(torch.zeros(2, 5), targets, [2, 3])  # log 2 + log 3
    tensor(1.7918)
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    parts = logits.split(list(slot_sizes), dim=1)
    columns = targets.unbind(1)
    pairs = zip(parts, columns, strict=True)
    return torch.stack([F.cross_entropy(*pair) for pair in pairs]).sum()


def check_combinations(slot_sizes: Sequence[int]) -> None:
    """Refuses slots whose values have too many combinations to list."""
    combinations = math.prod(slot_sizes)
    if combinations > _MOST_COMBINATIONS:
        raise ValueError(
            f"expected slots with at most {_MOST_COMBINATIONS} combinations "
            f"of values in all; got {combinations}"
        )


def am_softmax_loss(
    cosines: torch.Tensor,
    labels: torch.Tensor,
    scale: float = 30.0,
    margin: float = 0.4,
) -> torch.Tensor:
    """Additive-margin softmax (Wang et al. 2018): cross-entropy
    of ``scale * (cosine - margin)`` for the right class among
    ``scale * cosine`` for the others.

    Arguments
    ---------
    cosines : torch.Tensor
        Cosine of each vector with that of each class, [B, C].
    labels : torch.Tensor
        Index of the right class, [B].
    scale : float
        Factor of the cosines.
    margin : float
        How much closer the right class has to be.

    Returns
    -------
    torch.Tensor
        The mean over the batch, a float32 scalar.

    Example
    -------
    >>> import torch
    >>> cosines = torch.tensor([[0.9, 0.5]])
    >>> am_softmax_loss(cosines, torch.tensor([0]), scale=1.0, margin=0.4)
    tensor(0.6931)
    """
    cosines = cosines.float()
    right = F.one_hot(labels, cosines.shape[1])
    return F.cross_entropy(scale * (cosines - margin * right), labels)


def aam_softmax_loss(
    cosines: torch.Tensor,
    labels: torch.Tensor,
    scale: float = 32.0,
    margin: float = 0.2,
    top_k: int = 0,
    top_k_margin: float = 0.0,
) -> torch.Tensor:
    """Additive-angular-margin softmax (Deng et al. 2019, equation 3) with the
    inter-top-k penalty (Zhao et al. 2022).

    The angle to the right class is widened, those to the nearest others are
    narrowed, then cross-entropy of ``scale * cosine``.

    Arguments
    ---------
    cosines : torch.Tensor
        Cosine of each vector with that of each class, [B, C].
    labels : torch.Tensor
        Index of the right class, [B].
    scale : float
        Factor of the cosines.
    margin : float
        Radians added to the angle of the right class.
    top_k : int
        How many of the nearest other classes are made harder: all of them if
        there are no more.
    top_k_margin : float
        Radians taken off the angles of those.

    Returns
    -------
    torch.Tensor
        The mean over the batch, a float32 scalar.

    Example
    -------
    >>> import torch
    >>> cosines = torch.tensor([[0.5, 0.5]])
    >>> aam_softmax_loss(cosines, torch.tensor([0]), scale=1.0, margin=0.0)
    tensor(0.6931)
    """
    cosines = cosines.float()
    right = labels[:, None]  # [B, 1]
    widened = _add_angle(cosines.gather(1, right), margin)
    logits = cosines.scatter(1, right, widened)
    others = cosines.detach().scatter(1, right, -math.inf)
    near = others.topk(min(top_k, cosines.shape[1] - 1)).indices  # [B, top_k]
    # cos(angle - m) = -cos((pi - angle) + m)
    narrowed = -_add_angle(-cosines.gather(1, near), top_k_margin)
    return F.cross_entropy(scale * logits.scatter(1, near, narrowed), labels)


def _add_angle(cosines, margin):
    """Cosines of angles that are wider by a margin in radians.

    Where that is beyond pi, and the cosine would rise again, a straight line
    of the same slope as the cosine itself.
    """
    # The slope of the sine is infinite at cosines of -1 and 1
    inside = cosines.clamp(-1 + 1e-7, 1 - 1e-7)
    sines = (1 - inside.square()).sqrt()
    wider = cosines * math.cos(margin) - sines * math.sin(margin)
    line = cosines - margin * math.sin(margin)
    return wider.where(cosines > -math.cos(margin), line)
