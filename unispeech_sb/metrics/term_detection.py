"""Spoken query in spoken documents: subsequence dynamic time warping of their
features, and the term-weighted value of the scores (Fiscus et al. 2007), as
SUPERB has both of QUESST 2014.
"""

import numpy as np

TARGET_PRIOR, MISS_COST, ALARM_COST = 0.0008, 100.0, 1.0
"""Of QUESST 2014: how probable a true trial is, and the costs of errors."""

BETA = ALARM_COST / MISS_COST * (1 / TARGET_PRIOR - 1)
"""Weight of a share of false alarms against a share of misses: 12.49."""

_LEAST = 1e-9  # of a range or a deviation that is divided by


def unit_frames(frames: np.ndarray) -> np.ndarray:
    """Frames, [T, D], each divided by its length."""
    lengths = np.linalg.norm(frames, axis=1, keepdims=True)
    return frames / np.maximum(lengths, _LEAST)


def cosine_exp(query: np.ndarray, documents: np.ndarray) -> np.ndarray:
    """exp(d) - 1 of the cosine distances d of the unit frames of a query,
    [N, D], to those of documents, [T, D]: from 0 to 6.39, float64, [N, T]."""
    distances = (query @ documents.T).astype(np.float64)
    np.subtract(1.0, distances, out=distances)
    return np.expm1(distances, out=distances)


def subsequence_costs(distances: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Cost of the best path of a query through a part of each document.

    ``distances`` are those of the N frames of a query to the frames of all
    documents, one after the other, [N, T], ``lengths`` the frames of each
    document, at least 1, int, [M]. The distances of a frame of the query to a
    document are first brought to [0, 1]. A path begins and ends anywhere in a
    document, and takes with each frame of the query none, one or two frames of
    it: dtw-python's ``asymmetric`` with open ends. Given is the mean over its
    frames of the query, float64, [M].
    """
    starts = np.cumsum(lengths) - lengths
    low = np.minimum.reduceat(distances, starts, axis=1)
    span = np.maximum.reduceat(distances, starts, axis=1) - low
    span = np.maximum(span, _LEAST)
    distances = distances - np.repeat(low, lengths, axis=1)
    distances /= np.repeat(span, lengths, axis=1)
    # Two columns before each document keep paths in it
    gaps = np.repeat(starts, 2)
    costs, *others = np.insert(distances, gaps, np.inf, axis=1)
    for row in others:
        best = np.minimum(costs[2:], costs[1:-1])
        row[2:] += np.minimum(best, costs[:-2], out=best)
        costs = row
    starts = starts + 2 * np.arange(len(lengths))
    return np.minimum.reduceat(costs, starts) / len(distances)


def normalized_scores(scores: np.ndarray) -> np.ndarray:
    """Scores of each query, [Q, M], with mean 0 and deviation 1 over its
    documents."""
    centred = scores - scores.mean(1, keepdims=True)
    spread = np.maximum(scores.std(1, keepdims=True), _LEAST)
    return centred / spread + 0.0  # which is never -0.0


def term_weighted_value(
    scores: np.ndarray, truth: np.ndarray, threshold: float
) -> float:
    """1 less the mean over queries of the share of missed documents and
    ``BETA`` times the share of false alarms, of scores, [Q, M], above a
    threshold. ``truth``, bool, [Q, M], says which documents hold a query;
    queries that none holds do not count."""
    scores, gains = _gains(scores, truth)
    return float(gains[scores > threshold].sum())


def max_term_weighted_value(
    scores: np.ndarray, truth: np.ndarray
) -> tuple[float, float]:
    """The highest value over the thresholds, one for all queries, and the
    lowest score that is then reported: inf where it is best to report none."""
    scores, gains = _gains(scores, truth)
    order = np.argsort(-scores, kind="stable")
    values, ordered = np.cumsum(gains[order]), scores[order]
    ends = np.append(ordered[1:] != ordered[:-1], True)  # of equal scores
    values, ordered = values[ends], ordered[ends]
    best = int(values.argmax())
    if values[best] <= 0:
        return 0.0, float("inf")
    return float(values[best]), float(ordered[best])


def _gains(scores, truth):
    """Scores of the queries that count, and what reporting each adds."""
    held = truth.any(1)
    if not held.any():
        raise ValueError(
            "expected a query that a document holds; got none among "
            f"{len(truth)} queries and {truth.shape[1]} documents"
        )
    scores, truth = scores[held], truth[held]
    right = truth.sum(1, keepdims=True)
    wrong = np.maximum(truth.shape[1] - right, 1)
    gains = np.where(truth, 1 / right, -BETA / wrong) / len(truth)
    return scores.ravel(), gains.ravel()
