"""Speakers: ``unispeech-sb embed``, ``verify`` and ``score``."""

import json
import os
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from unispeech_sb.atomic import OneWriter, atomic
from unispeech_sb.checkpoints.interfaces import expect_folder, folder_kind
from unispeech_sb.commands.options import (
    RECORDING,
    add_batch_seconds,
    add_device,
    add_files,
    add_folder,
    advance,
    at_least,
    check_file,
    check_files,
    finite,
    load_folder,
    new_parser,
    positive,
    probability,
    progress_bar,
    report_failures,
)

if TYPE_CHECKING:
    import numpy as np

    from unispeech_sb.dataio.trials import Trials

_EMBEDDINGS = "embeddings.safetensors"
"""Name of the file of speaker embeddings in the folder of results."""


def embed(argv: Sequence[str]) -> None:
    """Extracts speaker embeddings; recordings that fail are named at the end.

    What was embedded before an interruption, or is in the output already, is
    not embedded again. Exits with 1 when a recording could not be used, with 2
    when the command line makes no sense.
    """
    arguments = _parse_embed(argv)
    files = arguments.files
    if len(set(files)) < len(files):
        raise ValueError("files: expected each of them once")
    other, folder = "EncoderClassifier", arguments.folder
    if folder_kind(folder) == other and not arguments.any_model:
        raise ValueError(
            f"{folder}: expected a folder for SpeakerRecognition; it is for "
            f"{other}: embeddings that are not of speakers need --any-model"
        )
    expect_folder(folder, "SpeakerRecognition", other)
    check_files("embed", files)
    with _open_extractor(arguments.output, arguments) as extractor:
        known = len(extractor.store)
        errors = _extract_with_progress(
            _load_model(arguments, any_model=arguments.any_model),
            {file: file for file in files},
            extractor,
            arguments.batch_seconds,
            "embed",
        )
        found = extractor.finish(files)
    if len(found):
        print(
            f"Wrote {arguments.output}: {len(found)} embeddings, "
            f"{known} of them from before"
        )
    if errors:
        raise SystemExit(1)


def _parse_embed(argv):
    """Reads the command line."""
    parser = new_parser(
        "embed",
        "Extract speaker embeddings of recordings into one file.",
    )
    _add_model(parser)
    add_files(parser)
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="OUT",
        help="safetensors file to write; the embeddings that it has already, "
        "by the names of their recordings, are kept",
    )
    parser.add_argument(
        "--any-model",
        action="store_true",
        help="take a classifier of utterances (EncoderClassifier), such as a "
        "keyword spotter, too: its embeddings are not of speakers",
    )
    add_batch_seconds(parser, 60.0)
    return parser.parse_args(argv)


def verify(argv: Sequence[str]) -> None:
    """Decides whether two recordings are of the same speaker."""
    arguments = _parse_verify(argv)
    expect_folder(arguments.folder, "SpeakerRecognition")
    for path in (arguments.left, arguments.right):
        check_file(path, "file")
    check_file(arguments.calibration, "calibration")
    verification = _load_model(arguments)
    if arguments.calibration:
        from unispeech_sb.metrics.calibration import Calibration

        verification.calibration = Calibration.read(arguments.calibration)
    if arguments.threshold is None and verification.calibration is None:
        raise ValueError(
            f"{arguments.folder}: expected calibration.ckpt, or --calibration "
            "from unispeech-sb score, or --threshold"
        )
    found = verification.verify(
        arguments.left,
        arguments.right,
        p_target=arguments.p_target,
        threshold=arguments.threshold,
    )
    print("same speaker" if found.same else "different speakers")
    print(f"cosine     {found.score:.4f}")
    print(f"threshold  {found.threshold:.4f}")
    if found.llr is not None:
        print(f"llr        {found.llr:.2f}")


def _parse_verify(argv):
    """Reads the command line."""
    parser = new_parser(
        "verify",
        "Decide whether two recordings are of the same speaker. Prints the "
        "decision, the cosine of the two embeddings, its threshold, and the "
        "log-likelihood ratio (llr) by the calibration.",
    )
    _add_model(parser)
    parser.add_argument("left", metavar="A", help=RECORDING)
    parser.add_argument("right", metavar="B", help="another one")
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument(
        "--p-target",
        type=probability,
        metavar="P",
        help="prior probability of the same speaker, which sets the threshold "
        "by the calibration; 0.5 when omitted",
    )
    choice.add_argument(
        "--threshold",
        type=finite,
        metavar="T",
        help="lowest cosine of the same speaker, in place of the calibration's",
    )
    parser.add_argument(
        "--calibration",
        metavar="CAL",
        help="file that unispeech-sb score --calibrate wrote, in place of the "
        "folder's own calibration",
    )
    return parser.parse_args(argv)


def score(argv: Sequence[str]) -> None:
    """Scores a trial list.

    With ``-o``, what was embedded before an interruption is not embedded
    again. Exits with 1 when a recording could not be used, with 2 when the
    command line makes no sense.
    """
    arguments = _parse_score(argv)
    root, given = arguments.audio_root, arguments.output
    expect_folder(arguments.folder, "SpeakerRecognition")
    check_file(arguments.trials, "trial list")
    check_file(arguments.cohort, "file of embeddings")
    if not Path(root).is_dir():
        raise ValueError(f"{root}: there is no such folder")

    from unispeech_sb.dataio.trials import read_trials

    trials = read_trials(arguments.trials, root=root)
    files = {name: os.path.join(root, name) for name in trials.names}
    cohort = _cohort(arguments.cohort, _model_id(arguments), files)
    with nullcontext(given) if given else tempfile.TemporaryDirectory() as path:
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        extractor = _open_extractor(folder / _EMBEDDINGS, arguments)
        with OneWriter(folder / "results.json"), extractor:
            verification = _load_model(arguments)
            if _extract_with_progress(
                verification, files, extractor, arguments.batch_seconds, "score"
            ):
                raise SystemExit(1)
            store = extractor.finish(trials.names)
            scores = score_trials(store, trials, cohort, arguments.top_n)
            # Made for cosines: normalised scores are something else
            calibration = verification.calibration if cohort is None else None
            summary = summarize(
                scores, calibration, arguments.p_target, arguments.draws
            )
            if given:
                title = Path(arguments.folder).name
                write_results(folder, scores, summary, title)
    print(summary_table(summary))
    if arguments.calibrate:
        fit_calibration(scores).save(arguments.calibrate)


def _parse_score(argv):
    """Reads the command line."""
    parser = new_parser(
        "score",
        "Score a trial list: equal error rate, minimum detection cost, their "
        "confidence intervals, and what the model's calibration is worth.",
    )
    _add_model(parser)
    parser.add_argument(
        "--trials",
        required=True,
        metavar="FILE",
        help='trial list: lines "1 a b" or "a b target", or a CSV with the '
        "columns left, right and target",
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
        f"{_EMBEDDINGS}",
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


def _add_model(parser):
    """Adds the folder and how recordings go through its model."""
    add_folder(parser, "a speaker model (SpeakerRecognition)")
    parser.add_argument(
        "--window-s",
        type=positive,
        default=30.0,
        metavar="S",
        help="longest window in seconds; a longer recording is embedded "
        "window by window (default: %(default)g)",
    )
    add_device(parser)


def _load_model(arguments, **options):
    """Loads the folder of a command line."""
    from unispeech_sb.inference import SpeakerVerification

    options["window_s"] = arguments.window_s
    return load_folder(SpeakerVerification, arguments, **options)


def _model_id(arguments):
    """What embeddings depend on: the model, and its windows."""
    from unispeech_sb.inference.embedding_store import model_id

    return model_id(arguments.folder, arguments.window_s)


def _open_extractor(path, arguments):
    """The file of embeddings of a model, to add to, for this process alone."""
    from unispeech_sb.inference.embedding_store import ResumableExtractor

    return ResumableExtractor(path, _model_id(arguments))


def _extract_with_progress(verification, files, extractor, seconds, title):
    """Embeds what is missing; returns name -> error, and reports them."""
    missing = [p for name, p in files.items() if name not in extractor.store]
    with progress_bar(missing, title) as bar:
        errors = extractor.extract(verification, files, seconds, advance(bar))
    report_failures(title, files, errors)
    return errors


def _cohort(path, model, files):
    """Embeddings of speakers that are in no trial; None without a file."""
    if path is None:
        return None

    from unispeech_sb.inference.embedding_store import EmbeddingStore

    cohort = EmbeddingStore.load(path)
    if cohort.model != model:
        raise ValueError(
            f"{path}: expected embeddings of this model and --window-s "
            f"({model}); got {cohort.model}"
        )
    names = {*files, *files.values()}
    both = [name for name in cohort.names if name in names]
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


def write_results(folder, scores, summary, title):
    """Writes ``results.json``, ``scores.csv``, ``det.png``, ``scores.png``."""
    from unispeech_sb.dataio.trials import write_trials
    from unispeech_sb.metrics.det import write_det, write_histogram

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
    with atomic(folder / "results.json") as file:
        file.write(json.dumps(summary, indent=1) + "\n")


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
