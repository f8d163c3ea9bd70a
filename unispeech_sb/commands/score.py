"""Trial lists: ``unispeech-sb score``, and what scores come to: error rates,
calibration, files and pictures.
"""

import os
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from unispeech_sb.atomic import OneWriter, write_json
from unispeech_sb.commands.options import (
    add_batch_seconds,
    at_least,
    check_file,
    check_output,
    check_output_folder,
    new_parser,
    probability,
    take_folder,
)
from unispeech_sb.commands.speakers import (
    add_model,
    extract_with_progress,
    load_model,
    model_digest,
    open_extractor,
)
from unispeech_sb.text import absent

if TYPE_CHECKING:
    import numpy as np

    from unispeech_sb.dataio.trials import Trials

LEAST_DRAWS = 100
"""Bootstrap draws that a confidence interval needs."""

_RESULTS = "results.json"
_SCORES = "scores.csv"
EMBEDDINGS = "embeddings.safetensors"
"""Names of the figures, the table and the speaker embeddings in the folder of
results."""


def score(argv: Sequence[str]) -> None:
    """Scores a trial list.

    With ``-o``, what was embedded before an interruption is not embedded
    again. Exits with 1 when a recording could not be used, with 2 when the
    command line makes no sense.
    """
    arguments = _parse_score(argv)
    root, given = arguments.audio_root, arguments.output
    arguments.folder = take_folder(arguments.folder, "SpeakerRecognition")
    check_file(arguments.trials, "trial list")
    check_file(arguments.cohort, "file of embeddings")
    check_output_folder(given)
    inputs = arguments.trials, arguments.cohort
    check_output(arguments.calibrate, inputs)
    if not Path(root).is_dir():
        raise ValueError(f"{root}: {absent(root, 'folder')}")

    from unispeech_sb.dataio.trials import read_trials

    trials = read_trials(arguments.trials, root=root, labelled=False)
    _check_trials(trials, arguments)
    files = {name: os.path.join(root, name) for name in trials.names}
    model = model_digest(arguments)
    cohort = _cohort(arguments, model, files)
    with nullcontext(given) if given else tempfile.TemporaryDirectory() as path:
        Path(path).mkdir(parents=True, exist_ok=True)
        extractor = open_extractor(Path(path) / EMBEDDINGS, model)
        with OneWriter(Path(path) / _RESULTS), extractor:
            verification = load_model(arguments)
            if extract_with_progress(
                verification, files, extractor, arguments.batch_seconds, "score"
            ):
                raise SystemExit(1)
            store = extractor.finish(trials.names)
            scores = score_trials(store, trials, cohort, arguments.top_n)
            # Made for cosines: normalised scores are something else
            calibration = verification.calibration if cohort is None else None
            _report(scores, calibration, arguments)


def _report(scores, calibration, arguments):
    """Writes and prints scores, and what is measured by them."""
    given = arguments.output
    if scores.trials.targets is None:
        write_scores(Path(given), scores)
        print(
            f"Wrote {Path(given) / _SCORES}: {len(scores.values)} scores; the "
            "list does not say which are target trials, so there is no error"
        )
        return
    summary = summarize(
        scores, calibration, arguments.p_target, arguments.draws
    )
    if given:
        write_results(Path(given), scores, summary, arguments.folder)
    print(summary_table(summary))
    if arguments.calibrate:
        fit_calibration(scores).save(arguments.calibrate)


def _check_trials(trials, arguments):
    """Refuses trials that what is asked for cannot be made of."""
    if trials.targets is None:
        if arguments.calibrate or not arguments.output:
            raise ValueError(
                f"{arguments.trials}: expected which trials are target trials; "
                "without that there are scores only: give -o, no --calibrate"
            )
        return
    if not arguments.draws:
        return

    from unispeech_sb.dataio.trials import speakers_of
    from unispeech_sb.metrics.verification import check_speakers

    try:
        check_speakers(speakers_of(trials))
    except ValueError as error:
        raise ValueError(
            f"{arguments.trials}: {error}; --draws 0 leaves the confidence "
            "intervals out"
        ) from error


def _parse_score(argv):
    """Reads the command line."""
    parser = new_parser(
        "score",
        "Score a trial list: equal error rate, minimum detection cost, their "
        "confidence intervals, and what the model's calibration is worth.",
    )
    add_model(parser)
    parser.add_argument(
        "--trials",
        required=True,
        metavar="FILE",
        help='trial list: lines "1 a b", "a b 1", "a b target", or "a b" for '
        "scores only, or a CSV with the columns left, right and target",
    )
    parser.add_argument(
        "--audio-root",
        required=True,
        metavar="DIR",
        help="folder in which the names in the trial list are files",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="DIR",
        help="folder for results.json, scores.csv, det.png, scores.png and "
        f"{EMBEDDINGS}",
    )
    parser.add_argument(
        "--cohort",
        metavar="FILE",
        help="embeddings of other speakers, which unispeech-sb embed wrote, "
        "to normalize the scores by",
    )
    parser.add_argument(
        "--top-n",
        type=at_least(0),
        metavar="N",
        help="normalize by the N nearest of the cohort (AS-norm), by all of "
        "them when omitted (S-norm)",
    )
    parser.add_argument(
        "--calibrate",
        metavar="CAL",
        help="fit a calibration to these trials and write it, for "
        "unispeech-sb verify",
    )
    _add_measures(parser)
    add_batch_seconds(parser, 60.0)
    arguments = parser.parse_args(argv)
    if arguments.top_n and not arguments.cohort:
        parser.error("--top-n counts speakers of a cohort: give --cohort")
    if arguments.calibrate and arguments.cohort:
        parser.error("--calibrate is for cosines: give no --cohort")
    if 0 < arguments.draws < LEAST_DRAWS:
        parser.error(
            f"--draws: expected 0, or {LEAST_DRAWS} or more for intervals"
        )
    if arguments.top_n == 1:
        parser.error("--top-n: expected 2 or more speakers to normalize by")
    return arguments


def _add_measures(parser):
    """Adds what is measured."""
    parser.add_argument(
        "--p-target",
        type=probability,
        default=0.01,
        metavar="P",
        help="prior probability of a target trial in the detection cost "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--draws",
        type=at_least(0),
        default=1000,
        metavar="N",
        help="bootstrap draws of speakers for the confidence intervals, 0 for "
        "none (default: %(default)s)",
    )


def _cohort(arguments, model, files):
    """Embeddings of speakers that are in no trial; None without a file."""
    path, top_n = arguments.cohort, arguments.top_n
    if path is None:
        return None

    from unispeech_sb.inference.embedding_store import EmbeddingStore

    cohort = EmbeddingStore.load(path)
    if cohort.model != model:
        raise ValueError(
            f"{path}: expected embeddings of this model and --window-s "
            f"({model}); got {cohort.model}"
        )
    if top_n and top_n > len(cohort):
        raise ValueError(
            f"--top-n: expected {len(cohort)} at most, as many as {path} has; "
            f"got {top_n}"
        )
    names = {*files, *map(os.path.realpath, files.values())}
    both = [
        name
        for name in cohort.names
        if name in names or os.path.realpath(name) in names
    ]
    if both:
        raise ValueError(
            f"{path}: expected embeddings that are in no trial; got {both[0]}"
        )
    return cohort


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

    path = folder / _SCORES
    write_trials(path, scores.trials, form="csv", scores=scores.values)


def write_results(folder, scores, summary, system):
    """Writes ``results.json``, ``scores.csv``, ``det.png``, ``scores.png``; in
    the picture the system has the name of its folder."""
    from unispeech_sb.metrics.det import (
        system_name,
        write_det,
        write_histogram,
    )

    write_scores(folder, scores)
    sides, name = scores.sides, system_name(system)
    write_det(folder / "det.png", {name: sides}, summary["p_target"])
    thresholds = {
        title: summary[name]["threshold"]
        for name, title in (("eer", "EER"), ("min_dcf", "minDCF"))
    }
    write_histogram(folder / "scores.png", *sides, thresholds)
    write_json(folder / _RESULTS, summary, indent=1)


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
