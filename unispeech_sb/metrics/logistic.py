"""Logistic regression of trials, weighted by a prior (Brümmer et al. 2007)."""

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logit

_AIM = 1e-8  # gradient of a cost near 1: half of float64's digits
_ENOUGH = 1e-6  # where rounding ends the descent


def fit_logistic(columns, targets, prior, smoothing=False):
    """Finds the weights of columns whose sum is the best log-likelihood ratio.

    Least is the cost ``prior * mean(log(1 + 1 / odds))`` of targets plus ``(1 -
    prior) * mean(log(1 + odds))`` of non-targets, where ``log odds = llr +
    logit(prior)``.

    Arguments
    ---------
    columns : dict
        Name -> float64 array with a value of each trial, [N].
    targets : numpy.ndarray
        True for target trials, [N]; both kinds are there.
    prior : float
        Probability of targets, in (0, 1).
    smoothing : bool
        Count one further trial of each kind among those of the other.

    Returns
    -------
    slopes : dict
        Name -> weight of the column.
    offset : float
        What is added.

    Raises
    ------
    ValueError
        When a column is the same everywhere or follows from others, or when,
        without smoothing, the trials part without error.

    Example
    -------
    >>> scores = np.array([0.0, 2.0, 1.0, 3.0])
    >>> targets = np.array([False, False, True, True])
    >>> slopes, offset = fit_logistic({"score": scores}, targets, prior=0.5)
    >>> round(slopes["score"] * 1.5 + offset, 6)
    0.0
    """
    features, means, scales = _standardise(columns)
    weights = _descend(features, targets, prior, smoothing)
    sums = features @ weights[1:]
    if not smoothing and sums[targets].min() >= sums[~targets].max():
        raise ValueError(
            "expected trials that overlap, but a threshold parts all targets "
            "from all non-targets, so that no finite scale is best: use more "
            "trials, or smoothing=True"
        )
    slopes = weights[1:] / scales
    offset = float(weights[0] - slopes @ means)
    return dict(zip(columns, slopes.tolist(), strict=True)), offset


def _standardise(columns):
    """Columns of mean 0 and deviation 1, [N, D], with what that took."""
    features = np.column_stack(list(columns.values()))
    means, scales = features.mean(0), features.std(0)
    for name, mean, scale in zip(columns, means, scales, strict=True):
        if scale <= 1e-12 * abs(mean) or scale == 0:
            raise ValueError(f"expected values that differ in {name!r}")
    features = (features - means) / scales
    if np.linalg.eigvalsh(features.T @ features / len(features))[0] < 1e-10:
        raise ValueError(
            "expected columns that do not follow from each other, got "
            f"{', '.join(columns)}"
        )
    return features, means, scales


def _descend(features, targets, prior, smoothing):
    """Offset and slopes that cost least, by Newton's steps."""
    counts = np.array([(~targets).sum(), targets.sum()])
    shift = float(logit(prior))
    shares = np.array([1 - prior, prior]) / min(prior, 1 - prior)
    trial_weights = (shares / counts)[targets.astype(int)]
    truth = targets.astype(np.float64)
    if smoothing:
        # Among trials of one kind, the other is taken to be as likely as one
        # further trial of it is among all of its own.
        limits = np.log1p(counts)
        truth = expit(np.where(targets, limits[0], -limits[1]) + shift)
    features = np.column_stack([np.ones(len(features)), features])

    def cost(weights):
        odds = features @ weights + shift
        losses = np.logaddexp(0, odds) - truth * odds
        errors = trial_weights * (expit(odds) - truth)
        return trial_weights @ losses, features.T @ errors

    def curvature(weights):
        share = expit(features @ weights + shift)
        curves = trial_weights * share * (1 - share)
        return features.T @ (features * curves[:, None])

    found = minimize(
        cost,
        np.zeros(features.shape[1]),
        method="trust-exact",
        jac=True,
        hess=curvature,
        options={"gtol": _AIM},
    )
    if np.linalg.norm(found.jac) > _ENOUGH:
        raise ValueError(f"the regression found no minimum: {found.message}")
    return found.x
