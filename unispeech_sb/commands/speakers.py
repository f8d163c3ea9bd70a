"""Speakers: ``unispeech-sb embed``, ``verify`` and ``score``."""

import os
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from unispeech_sb.checkpoints.interfaces import expect_folder
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
    check_output,
    check_output_folder,
    finite,
    load_folder,
    new_parser,
    positive,
    probability,
    progress_bar,
    report_failures,
)
from unispeech_sb.commands.trial_report import (
    SCORES,
    fit_calibration,
    score_trials,
    summarize,
    summary_table,
    write_results,
    write_scores,
)

_LEAST_DRAWS = 100
"""Bootstrap draws that a confidence interval needs."""

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
    expect_folder(arguments.folder, "SpeakerRecognition")
    check_output(arguments.output, files, makes_folder=True)
    check_files("embed", files)
    verification = _load_model(arguments)
    extractor = _open_extractor(arguments.output, _model_id(arguments))
    known = len(extractor.store)
    errors = _extract_with_progress(
        verification,
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
    add_batch_seconds(parser, 60.0)
    return parser.parse_args(argv)


def verify(argv: Sequence[str]) -> None:
    """Decides whether two recordings are of the same speaker."""
    arguments = _parse_verify(argv)
    expect_folder(arguments.folder, "SpeakerRecognition")
    for path in (arguments.left, arguments.right):
        check_file(path, "file")
    check_file(arguments.calibration, "calibration")
    calibration = None
    if arguments.calibration:
        from unispeech_sb.metrics.calibration import Calibration

        calibration = Calibration.read(arguments.calibration)
    verification = _load_model(arguments)
    if calibration is not None:
        verification.calibration = calibration
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
    check_output_folder(given)
    inputs = arguments.trials, arguments.cohort
    check_output(arguments.calibrate, inputs)
    if not Path(root).is_dir():
        raise ValueError(f"{root}: there is no such folder")

    from unispeech_sb.dataio.trials import read_trials

    trials = read_trials(arguments.trials, root=root, labelled=False)
    _check_trials(trials, arguments)
    files = {name: os.path.join(root, name) for name in trials.names}
    model = _model_id(arguments)
    cohort = _cohort(arguments, model, files)
    verification = _load_model(arguments)
    with nullcontext(given) if given else tempfile.TemporaryDirectory() as path:
        Path(path).mkdir(parents=True, exist_ok=True)
        extractor = _open_extractor(Path(path) / _EMBEDDINGS, model)
        if _extract_with_progress(
            verification, files, extractor, arguments.batch_seconds, "score"
        ):
            raise SystemExit(1)
        store = extractor.finish(trials.names)
    scores = score_trials(store, trials, cohort, arguments.top_n)
    if trials.targets is None:
        write_scores(Path(given), scores)
        print(
            f"Wrote {Path(given) / SCORES}: {len(scores.values)} scores; the "
            "list does not say which are target trials, so there is no error"
        )
        return
    # Made for cosines: normalised scores are something else
    calibration = verification.calibration if cohort is None else None
    summary = summarize(
        scores, calibration, arguments.p_target, arguments.draws
    )
    if given:
        title = Path(arguments.folder).name
        write_results(Path(given), scores, summary, title)
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
    _add_model(parser)
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
    if 0 < arguments.draws < _LEAST_DRAWS:
        parser.error(
            f"--draws: expected 0, or {_LEAST_DRAWS} or more for intervals"
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


def _load_model(arguments):
    """Loads the folder of a command line."""
    from unispeech_sb.inference import SpeakerVerification

    found = load_folder(
        SpeakerVerification, arguments, window_s=arguments.window_s
    )
    if "embedding_model" not in found.mods:
        raise ValueError(
            f"{arguments.folder}: expected a folder for SpeakerRecognition, "
            f"with the module embedding_model; got {', '.join(found.mods)}"
        )
    return found


def _model_id(arguments):
    """What embeddings depend on: the model, and its windows."""
    from unispeech_sb.inference.embedding_store import model_id

    return model_id(arguments.folder, arguments.window_s)


def _open_extractor(path, model):
    """The file of embeddings of a model, to add to."""
    from unispeech_sb.inference.embedding_store import ResumableExtractor

    return ResumableExtractor(path, model)


def _extract_with_progress(verification, files, extractor, seconds, title):
    """Embeds what is missing; returns name -> error, and reports them."""
    missing = [p for name, p in files.items() if name not in extractor.store]
    with progress_bar(missing, title) as bar:
        errors = extractor.extract(verification, files, seconds, advance(bar))
    report_failures(title, files, errors)
    return errors


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
