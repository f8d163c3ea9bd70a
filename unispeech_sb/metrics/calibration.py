"""Calibration of scores to log-likelihood ratios: logistic regression with
quality measures (Brümmer et al. 2007, Mandasari et al. 2013), kept in one
small JSON file, and Cllr, the cost of log-likelihood ratios (Brümmer and du
Preez 2006).
"""

import json
import math
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path

import numpy as np
from scipy.optimize import isotonic_regression, minimize
from scipy.special import expit, logit
from speechbrain.utils.checkpoints import (
    mark_as_saver,
    mark_as_transfer,
    register_checkpoint_hooks,
)

from unispeech_sb.atomic import atomic
from unispeech_sb.metrics.verification import Scores, as_scores

_FORMAT = "unispeech_sb calibration 1"
_MAX_BYTES = 2**16
_LIMIT = 1e300
_AIM = 1e-8  # gradient of a cost near 1: half of float64's digits
_ENOUGH = 1e-6  # where rounding ends the descent


@register_checkpoint_hooks
class Calibration:
    """Linear map from scores to natural log-likelihood ratios.

    ``llr = scale * score + offset + sum_q weight_q * quality_q``. As a loadable
    of SpeechBrain's ``Pretrainer`` it reads the file of ``save``. ``prior`` and
    ``num_trials`` (of targets, of non-targets) are those of the fit.
    """

    def __init__(
        self,
        scale: float = 1.0,
        offset: float = 0.0,
        quality: Mapping[str, float] | None = None,
        prior: float = 0.5,
        num_trials: Sequence[int] = (0, 0),
    ) -> None:
        self.scale = _number("scale", scale)
        self.offset = _number("offset", offset)
        self.quality = {
            _name(name): _number(f"weight of {name}", weight)
            for name, weight in (quality or {}).items()
        }
        self.prior = _number("prior", prior)
        self.num_trials = tuple(num_trials)
        if self.scale <= 0:
            raise ValueError(
                "expected scores that are higher for targets, got the scale "
                f"{self.scale:g}"
            )
        if not 0 < self.prior < 1:
            raise ValueError(f"expected a prior in (0, 1), got {prior}")
        whole = [type(n) is int and n >= 0 for n in self.num_trials]
        if whole != [True, True]:
            raise ValueError(
                f"expected two numbers of trials, got {num_trials}"
            )

    @classmethod
    def fit(
        cls,
        scores: Scores,
        targets: Scores,
        quality: Mapping[str, Scores] | None = None,
        prior: float = 0.01,
        smoothing: bool = False,
    ) -> "Calibration":
        """Fits to trials whose truth, [N], is known, by logistic regression.

        Minimises ``prior * mean(log(1 + 1 / odds))`` of targets plus ``(1 -
        prior) * mean(log(1 + odds))`` of non-targets, with ``log odds = llr +
        logit(prior)``. With ``smoothing`` (Laplace's rule) it is finite without
        a wrong trial, too.
        """
        scores = as_scores(scores, "scores").astype(np.float64)
        targets = _truth(targets, len(scores))
        columns = {"score": scores, **_columns(quality or {}, len(scores))}
        if not 0 < prior < 1:
            raise ValueError(f"expected a prior in (0, 1), got {prior}")
        slopes, offset = fit_logistic(columns, targets, prior, smoothing)
        return cls(
            slopes.pop("score"),
            offset,
            slopes,
            prior,
            (int(targets.sum()), int((~targets).sum())),
        )

    def llr(
        self, scores: Scores, quality: Mapping[str, Scores] | None = None
    ) -> np.ndarray:
        """Natural log-likelihood ratios, [N], by the fit's quality measures."""
        scores = as_scores(scores, "scores").astype(np.float64)
        return self.scale * scores + self._shift(quality, len(scores))

    def threshold(
        self,
        p_target: float = 0.01,
        c_miss: float = 1.0,
        c_fa: float = 1.0,
        quality: Mapping[str, Scores] | None = None,
    ) -> float | np.ndarray:
        """The score, one per trial with quality, from which accepting is best.

        It costs least if the llrs are right: ``llr >= log(c_fa / c_miss) -
        logit(p_target)``.
        """
        if not (0 < p_target < 1 and 0 < c_miss < math.inf):
            raise ValueError(
                "expected p_target in (0, 1) and c_miss above 0, got "
                f"{p_target} and {c_miss}"
            )
        if not 0 < c_fa < math.inf:
            raise ValueError(f"expected c_fa above 0, got {c_fa}")
        least_llr = math.log(c_fa / c_miss) - float(logit(p_target))
        return (least_llr - self._shift(quality, None)) / self.scale

    @mark_as_saver
    def save(self, path: str | Path) -> None:
        """Writes a JSON file, whole or not at all."""
        content = {"format": _FORMAT, **vars(self)}
        with atomic(path) as file:
            file.write(json.dumps(content, indent=2) + "\n")

    @mark_as_transfer
    def load(self, path: str | Path) -> None:
        """Takes over the values of a file of ``save``."""
        self.__dict__.update(vars(self.read(path)))

    @classmethod
    def read(cls, path: str | Path) -> "Calibration":
        """Reads a file of ``save``; a ``ValueError`` for others."""
        try:
            return cls(**_read_fields(Path(path), set(vars(cls()))))
        except (OSError, ValueError, RecursionError) as error:
            reason = str(error).splitlines()[0][:200]
            raise ValueError(
                f"{path}: expected a calibration as save() writes it; {reason}"
            ) from error

    def _shift(self, quality, num_trials):
        """What is added to a scaled score: a number, or one per trial."""
        quality = quality or {}
        if set(quality) != set(self.quality):
            raise ValueError(
                "expected the quality measures "
                f"{', '.join(self.quality) or '(none)'}, "
                f"got {', '.join(map(str, quality)) or '(none)'}"
            )
        columns = _columns(quality, num_trials)
        terms = (w * columns[name] for name, w in self.quality.items())
        return self.offset + sum(terms)


def _truth(targets: Scores, num_trials: int) -> np.ndarray:
    """Which trials are targets, [N], with both kinds among them."""
    values = as_scores(targets, "targets")
    if len(values) != num_trials or not np.isin(values, (0, 1)).all():
        raise ValueError(
            f"expected 1 or 0 for each of {num_trials} trials in targets"
        )
    if values.min() == values.max():
        raise ValueError(
            "expected target and non-target trials, got "
            f"{num_trials} of one kind"
        )
    return values == 1


def _columns(quality, num_trials):
    """Quality measures as arrays of one length."""
    columns = {}
    for name, values in quality.items():
        columns[_name(name)] = as_scores(values, name).astype(np.float64)
    lengths = {len(values) for values in columns.values()}
    if num_trials is not None:
        lengths.add(num_trials)
    if len(lengths) > 1:
        raise ValueError(
            f"expected quality measures for {num_trials or 'the same'} trials, "
            f"got {', '.join(f'{len(v)} {k}' for k, v in columns.items())}"
        )
    return columns


def _name(name):
    """A name that a quality measure may have."""
    if not isinstance(name, str) or not name.isidentifier() or name == "score":
        raise ValueError(
            f"expected the name of a quality measure, got {name!r}"
        )
    return name


def _number(name, value):
    """A finite number as float; a bool is none."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number or not abs(value) < _LIMIT:
        raise ValueError(f"expected {name} as a finite number, got {value!r}")
    return float(value)


def _read_fields(path, names):
    """The values of a file that names exactly these."""
    with open(path, "rb") as file:
        text = file.read(_MAX_BYTES + 1)
    if len(text) > _MAX_BYTES:
        raise ValueError(f"got more than {_MAX_BYTES} bytes")
    content = json.loads(text.decode("utf-8-sig"), object_pairs_hook=_once)
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise ValueError(f"expected the format {_FORMAT!r}")
    if set(content) != {"format", *names}:
        raise ValueError(f"got the keys {', '.join(content)}")
    for name, kind in (("quality", dict), ("num_trials", list)):
        if not isinstance(content[name], kind):
            raise ValueError(f"got {name} as {type(content[name]).__name__}")
    del content["format"]
    return content


def _once(pairs):
    """A dict of pairs whose names are all different."""
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("got a name twice")
    return content


def fit_logistic(
    columns: Mapping[str, np.ndarray],
    targets: np.ndarray,
    prior: float,
    smoothing: bool = False,
) -> tuple[dict[str, float], float]:
    """Weights of columns [N], and an offset, whose sum is the best
    log-likelihood ratio at a prior; ``Calibration.fit`` states the cost."""
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
    return dict(zip(columns, slopes.tolist())), offset


def _standardise(columns):
    """Columns at mean 0 and deviation 1, [N, D], and both as they were."""
    features = np.column_stack(list(columns.values()))
    means, scales = features.mean(0), features.std(0)
    for name, mean, scale in zip(columns, means, scales):
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


def quality_measures(
    durations: tuple[Scores, Scores] | None = None,
    magnitudes: tuple[Scores, Scores] | None = None,
) -> dict[str, np.ndarray]:
    """Measures of a trial's reliability, [N] each (Thienpondt et al. 2020).

    From (left, right) seconds and norms of embeddings before normalisation: the
    lesser and the greater log of the durations, and of the magnitudes
    themselves.
    """
    measures = {}
    for name, sides in (
        ("log_duration", durations),
        ("magnitude", magnitudes),
    ):
        if sides is None:
            continue
        left, right = (as_scores(side, name) for side in sides)
        if left.shape != right.shape or min(left.min(), right.min()) <= 0:
            raise ValueError(
                f"expected two sides of one length for {name}, above 0"
            )
        if name == "log_duration":
            left, right = np.log(left), np.log(right)
        measures[f"{name}_min"] = np.minimum(left, right)
        measures[f"{name}_max"] = np.maximum(left, right)
    return measures


def cllr(positive: Scores, negative: Scores) -> float:
    """Cost of natural log-likelihood ratios over all priors, in bits.

    ``(mean(log2(1 + exp(-llr))) of targets + mean(log2(1 + exp(llr))) of
    non-targets) / 2``; 1 is the cost of an llr of 0 for every trial.
    """
    positive = as_scores(positive, "llrs of targets").astype(np.float64)
    negative = as_scores(negative, "llrs of non-targets").astype(np.float64)
    return _bits(positive, negative, None, None)


def min_cllr(positive: Scores, negative: Scores) -> float:
    """The least Cllr that any ascending map of the scores reaches, in bits.

    That map is the isotonic regression (pool adjacent violators) of the truth;
    the difference from ``cllr`` is what the calibration loses.
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
    """Cllr of llrs with their counts; one each for None."""
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
