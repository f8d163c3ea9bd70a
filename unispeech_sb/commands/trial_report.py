"""What scores of trials come to: error rates, calibration, files and pictures.

Nothing here imports torch before it is used.
"""

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from unispeech_sb.atomic import write_json

if TYPE_CHECKING:
    import numpy as np

    from unispeech_sb.dataio.trials import Trials

SCORES = "scores.csv"
"""Name of the table of scores in the folder of results."""


class _TrialScores(NamedTuple):
    """Trials with a score for each."""

    trials: "Trials"
    values: "np.ndarray"
    """In the order of the trials, [N]."""
    normalization: str
    """What was done to the cosines."""
    embeddings: object
    """A store of those of the recordings, in the order of ``trials.names``."""

    @property
    def sides(self):
        """Scores of target trials, [P], and of non-target trials."""
        targets = self.trials.targets
        return self.values[targets], self.values[~targets]


def score_trials(embeddings, trials, cohort=None, top_n=None):
    """Scores trials by cosines, normalized by a cohort if there is one.

    ``embeddings`` is a store with one for each recording of the trials,
    ``cohort`` one of speakers in no trial: AS-norm by its ``top_n`` nearest,
    S-norm by all.
    """
    from unispeech_sb.metrics.verification import (
        cohort_statistics,
        cosine_scores,
        s_norm,
    )

    chosen = embeddings.select(trials.names)
    pairs = trials.left, trials.right
    values, done = cosine_scores(chosen.vectors, *pairs), "none"
    if cohort is not None:
        statistics = cohort_statistics(chosen.vectors, cohort.vectors, top_n)
        values = s_norm(values, *pairs, statistics)
        done = f"S-norm by {len(cohort)} embeddings"
        if top_n is not None:
            done = f"AS-norm by the nearest {top_n} of {len(cohort)} embeddings"
    return _TrialScores(trials, values.numpy(), done, chosen)


def fit_calibration(scores):
    """Fits a calibration to scores that were not normalized."""
    from unispeech_sb.metrics.calibration import Calibration

    return Calibration.fit(
        scores.values, scores.trials.targets, prior=0.5, smoothing=True
    )


def summarize(scores, calibration=None, p_target=0.01, draws=1000):
    """Measures scores: a dict, with intervals of 95 % by draws of speakers.

    ``eer`` (a share) and ``min_dcf`` have value and threshold; a calibration
    adds ``cllr``, ``min_cllr`` and ``actual_dcf``.
    """
    from unispeech_sb.metrics.verification import eer, min_dcf

    positive, negative = scores.sides
    summary = {
        "num_target": len(positive),
        "num_nontarget": len(negative),
        "normalization": scores.normalization,
        "p_target": p_target,
    }
    metrics = {"eer": eer, "min_dcf": partial(min_dcf, p_target=p_target)}
    for name, metric in metrics.items():
        value, threshold = metric(positive, negative)
        summary[name] = {"value": value, "threshold": threshold}
        if draws:
            found = _interval(metric, scores, draws)
            summary["num_speakers"] = found.num_speakers
            summary[name]["interval"] = [found.low, found.high]
    if calibration is not None:
        summary |= _calibrated(scores, calibration, p_target)
    return summary


def summary_table(summary):
    """A line for each entry of a summary; intervals behind the values."""
    rows = {}
    for name, entry in summary.items():
        known = entry if isinstance(entry, dict) else {"value": entry}
        value = known["value"]
        rows[name] = f"{value:.4f}" if isinstance(value, float) else str(value)
        if "interval" in known:
            low, high = known["interval"]
            rows[name] += f"  [{low:.4f}, {high:.4f}]"
    width = max(map(len, rows))
    return "\n".join(f"{name:<{width}}  {text}" for name, text in rows.items())


def write_scores(folder, scores):
    """Writes ``scores.csv``."""
    from unispeech_sb.dataio.trials import write_trials

    path = folder / SCORES
    write_trials(path, scores.trials, form="csv", scores=scores.values)


def write_results(folder, scores, summary, title):
    """Writes ``results.json``, ``scores.csv``, ``det.png``, ``scores.png``."""
    from unispeech_sb.metrics.det import write_det, write_histogram

    write_scores(folder, scores)
    sides = scores.sides
    write_det(folder / "det.png", {title: sides}, summary["p_target"])
    thresholds = {
        title: summary[name]["threshold"]
        for name, title in (("eer", "EER"), ("min_dcf", "minDCF"))
    }
    write_histogram(folder / "scores.png", *sides, thresholds)
    write_json(folder / "results.json", summary, indent=1)


def _interval(metric, scores, draws):
    """Interval of a metric by resampling speakers."""
    from unispeech_sb.dataio.trials import speakers_of
    from unispeech_sb.metrics.verification import bootstrap

    trials = scores.trials
    speakers = speakers_of(trials)
    return bootstrap(
        metric,
        scores.values,
        trials.targets,
        (speakers[trials.left], speakers[trials.right]),
        num_draws=draws,
    )


def _calibrated(scores, calibration, p_target):
    """What a model's own calibration is worth."""
    from unispeech_sb.inference.speaker_verification import pair_quality
    from unispeech_sb.metrics.calibration import Calibration, cllr, min_cllr
    from unispeech_sb.metrics.verification import actual_dcf

    trials, embeddings = scores.trials, scores.embeddings
    norms = embeddings.vectors.norm(dim=1).numpy()
    seconds = embeddings.durations_s.numpy()
    pairs = trials.left, trials.right
    quality = pair_quality(
        calibration,
        [seconds[side] for side in pairs],
        [norms[side] for side in pairs],
    )
    llrs = calibration.llr(scores.values, quality)
    sides = llrs[trials.targets], llrs[~trials.targets]
    least = Calibration().threshold(p_target)
    return {
        "cllr": cllr(*sides),
        "min_cllr": min_cllr(*scores.sides),
        "actual_dcf": actual_dcf(*sides, least, p_target),
    }
