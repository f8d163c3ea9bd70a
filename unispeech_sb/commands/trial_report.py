"""What the scores of a trial list come to: numbers, pictures, a calibration."""

import json
import os
from functools import partial
from typing import NamedTuple

import numpy as np

from unispeech_sb.dataio.trials import Trials, speakers_of, write_trials
from unispeech_sb.inference.speaker_verification import pair_quality
from unispeech_sb.metrics.calibration import Calibration, cllr, min_cllr
from unispeech_sb.metrics.det import write_det, write_histogram
from unispeech_sb.metrics.verification import (
    actual_dcf,
    bootstrap,
    cohort_statistics,
    cosine_scores,
    eer,
    min_dcf,
    s_norm,
)


class TrialScores(NamedTuple):
    """Trials and what a model says of them.

    Arguments
    ---------
    trials : Trials
        The list.
    values : numpy.ndarray
        A score for each, [N].
    normalization : str
        What was done to the cosines.
    voices : unispeech_sb.inference.embedding_store.EmbeddingStore
        Of the recordings, in the order of ``trials.names``.

    Example
    -------
    >>> trials = Trials(["a", "b"], [0], [1], np.array([True]))
    >>> TrialScores(trials, np.array([0.5]), "none", None).sides[0].tolist()
    [0.5]
    """

    trials: Trials
    values: np.ndarray
    normalization: str
    voices: object

    @property
    def sides(self):
        """Scores of target trials, [P], and of non-target trials."""
        targets = self.trials.targets
        return self.values[targets], self.values[~targets]


def score_trials(gallery, trials, cohort=None, top_n=None):
    """Scores trials by cosines, and normalises these by a cohort.

    Arguments
    ---------
    gallery : EmbeddingStore
        An embedding for each recording of the trials, by its name.
    trials : Trials
        The list.
    cohort : EmbeddingStore, optional
        Voices of speakers that are in no trial.
    top_n : int, optional
        Normalise by so many of the nearest (AS-norm), by all of them (S-norm)
        when omitted.

    Returns
    -------
    TrialScores
        In the order of the list.

    Raises
    ------
    ValueError
        When the cohort has less than ``top_n`` voices, or does not fit.

    Example
    -------
    >>> import torch
    >>> from unispeech_sb.inference.embedding_store import EmbeddingStore
    >>> from unispeech_sb.inference.speaker_verification import (
    ...     SpeakerEmbedding,
    ... )
    >>> gallery = EmbeddingStore()
    >>> gallery.add("a", SpeakerEmbedding(torch.tensor([1.0, 0.0]), 1.0))
    >>> gallery.add("b", SpeakerEmbedding(torch.tensor([3.0, 4.0]), 1.0))
    >>> trials = Trials(["a", "b"], np.array([0]), np.array([1]), [True])
    >>> score_trials(gallery, trials).values.round(6)
    array([0.6])
    """
    voices = gallery.select(trials.names)
    pairs = trials.left, trials.right
    values, done = cosine_scores(voices.vectors, *pairs), "none"
    if cohort is not None:
        statistics = cohort_statistics(voices.vectors, cohort.vectors, top_n)
        values = s_norm(values, *pairs, statistics)
        done = f"S-norm by {len(cohort)} voices"
        if top_n is not None:
            done = f"AS-norm by the nearest {top_n} of {len(cohort)} voices"
    return TrialScores(trials, values.numpy(), done, voices)


def fit_calibration(scores):
    """Fits a calibration to scores.

    Arguments
    ---------
    scores : TrialScores
        Cosines that were not normalised.

    Returns
    -------
    Calibration
        Best for one speaker being as probable as two.

    Example
    -------
    >>> trials = Trials(
    ...     [], [0, 0, 1], [1, 2, 2], np.array([True, False, False])
    ... )
    >>> scores = TrialScores(trials, np.array([0.7, 0.1, 0.2]), "none", None)
    >>> 0.2 < fit_calibration(scores).threshold(0.5) < 0.7
    True
    """
    return Calibration.fit(
        scores.values, scores.trials.targets, prior=0.5, smoothing=True
    )


def summarize(scores, calibration=None, p_target=0.01, draws=1000):
    """Measures how good scores are.

    Arguments
    ---------
    scores : TrialScores
        At least one trial of each kind.
    calibration : Calibration, optional
        Of the model, to measure too.
    p_target : float
        Probability of targets of the detection cost, in (0, 1).
    draws : int
        Draws of speakers for intervals of 95 %; 0 for none.

    Returns
    -------
    dict
        Numbers of trials; ``eer`` (a share) and ``min_dcf``, each with value,
        threshold and interval; with a calibration ``cllr``, ``min_cllr`` and
        ``actual_dcf``.

    Raises
    ------
    ValueError
        When there are intervals to compute and the trials contradict each
        other, or have too few speakers.

    Example
    -------
    >>> trials = Trials(
    ...     [], [0, 0, 1], [1, 2, 2], np.array([True, False, False])
    ... )
    >>> scores = TrialScores(trials, np.array([0.7, 0.1, 0.2]), "none", None)
    >>> summarize(scores, draws=0)["eer"]["value"]
    0.0
    """
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
    """Writes a summary as lines of text.

    Arguments
    ---------
    summary : dict
        As ``summarize`` gives it.

    Returns
    -------
    str
        A line for each entry; intervals behind the values.

    Example
    -------
    >>> print(summary_table({"eer": {"value": 0.1, "interval": [0.05, 0.2]}}))
    eer  0.1000  [0.0500, 0.2000]
    """
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


def write_results(folder, scores, summary, title):
    """Writes ``results.json``, ``scores.csv``, ``det.png``, ``scores.png``.

    Arguments
    ---------
    folder : pathlib.Path
        Where to.
    scores : TrialScores
        What was scored.
    summary : dict
        As ``summarize`` gives it.
    title : str
        What the pictures call the model.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> trials = Trials(
    ...     list("abc"),
    ...     *np.array([[0, 0], [1, 2]]),
    ...     targets=np.array([True, False]),
    ... )
    >>> scores = TrialScores(trials, np.array([0.7, 0.1]), "none", None)
    >>> write_results(folder, scores, summarize(scores, draws=0), "test")
    >>> sorted(path.name for path in folder.iterdir())
    ['det.png', 'results.json', 'scores.csv', 'scores.png']
    """
    write_trials(
        folder / "scores.csv", scores.trials, form="csv", scores=scores.values
    )
    sides = scores.sides
    write_det(folder / "det.png", {title: sides}, summary["p_target"])
    thresholds = {
        title: summary[name]["threshold"]
        for name, title in (("eer", "EER"), ("min_dcf", "minDCF"))
    }
    write_histogram(folder / "scores.png", *sides, thresholds)
    part = folder / ".results.json.part"
    part.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    os.replace(part, folder / "results.json")


def _interval(metric, scores, draws):
    """Interval of a metric by resampling speakers."""
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
    trials, voices = scores.trials, scores.voices
    norms = voices.vectors.norm(dim=1).numpy()
    seconds = voices.durations_s.numpy()
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
