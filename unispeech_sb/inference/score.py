"""The command that scores a trial list: ``unispeech-sb score``."""

import argparse
import os
import tempfile
from contextlib import nullcontext
from pathlib import Path

from unispeech_sb.dataio.trials import read_trials
from unispeech_sb.inference.collecting import VoiceStore, model_id
from unispeech_sb.inference.commands import at_least, probability
from unispeech_sb.inference.gallery import Gallery
from unispeech_sb.inference.loading import (
    add_batches,
    add_model,
    collect_visibly,
    load_model,
)
from unispeech_sb.inference.results import (
    fit_calibration,
    score_trials,
    summarize,
    summary_table,
    write_results,
)

VOICES = "embeddings.safetensors"
"""Name of the file of voices in the folder of results."""


def main(argv=None):
    """Scores trials: score FOLDER --trials T --audio-root R [-o DIR]

    With ``-o``, what was embedded before an interruption is not embedded
    again.

    Arguments
    ---------
    argv : list of str, optional
        Arguments of the command; those of the process when omitted.

    Raises
    ------
    SystemExit
        With 1 when a file could not be used, with 2 when the command line
        makes no sense.
    ValueError
        When the folder is none, the trial list names what is not there, or
        the cohort is none.

    Example
    -------
    >>> try:
    ...     main("no/such/folder --trials t --audio-root r".split())
    ... except ValueError as error:
    ...     print(error)
    no/such/folder: expected a folder with hyperparams.yaml
    """
    arguments = _parse(argv)
    verification = load_model(arguments)
    model = model_id(arguments.folder, arguments.window_s)
    root = arguments.audio_root
    trials = read_trials(arguments.trials, root=root)
    files = {name: os.path.join(root, name) for name in trials.names}
    cohort = _cohort(arguments.cohort, model, files)
    given = arguments.output
    with nullcontext(given) if given else tempfile.TemporaryDirectory() as path:
        Path(path).mkdir(parents=True, exist_ok=True)
        store = VoiceStore(Path(path) / VOICES, model)
        if collect_visibly(
            verification, files, store, arguments.batch_seconds, "score"
        ):
            raise SystemExit(1)
        gallery = store.finish(trials.names)
    scores = score_trials(gallery, trials, cohort, arguments.top_n)
    # Made for cosines: normalised scores are something else
    calibration = verification.calibration if cohort is None else None
    summary = summarize(
        scores, calibration, arguments.p_target, arguments.draws
    )
    if given:
        write_results(Path(given), scores, summary, Path(arguments.folder).name)
    print(summary_table(summary))
    if arguments.calibrate:
        fit_calibration(scores).save(arguments.calibrate)


def _parse(argv):
    """Reads the command line."""
    parser = argparse.ArgumentParser("unispeech-sb score")
    add_model(parser)
    parser.add_argument(
        "--trials",
        required=True,
        metavar="FILE",
        help='lines "1 a b", "a b target", or a CSV with left, right, target',
    )
    parser.add_argument(
        "--audio-root",
        required=True,
        metavar="DIR",
        help="where the names in the trial list are files",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="DIR",
        help=f"for results.json, scores.csv, det.png, scores.png and {VOICES}",
    )
    parser.add_argument(
        "--cohort",
        metavar="FILE",
        help="voices of other speakers, which unispeech-sb embed wrote: "
        "scores are normalised by them",
    )
    parser.add_argument(
        "--top-n",
        type=at_least(0),
        metavar="N",
        help="by the N of the cohort that are nearest (AS-norm); by all of "
        "them when omitted (S-norm)",
    )
    parser.add_argument(
        "--calibrate",
        metavar="FILE",
        help="write a calibration by these trials, for unispeech-sb verify",
    )
    _add_measures(parser)
    add_batches(parser)
    arguments = parser.parse_args(argv)
    if arguments.top_n and not arguments.cohort:
        parser.error("--top-n is a number of voices of a cohort: give --cohort")
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
        help="probability of targets of the detection cost",
    )
    parser.add_argument(
        "--draws",
        type=at_least(0),
        default=1000,
        metavar="N",
        help="draws of speakers for the confidence intervals, 0 for none",
    )


def _cohort(path, model, files):
    """Voices of speakers that are in no trial; None without a file."""
    if path is None:
        return None
    cohort = Gallery.load(path)
    if cohort.model != model:
        raise ValueError(
            f"{path}: expected voices of this model and --window-s ({model}); "
            f"got {cohort.model}"
        )
    names = {*files, *files.values()}
    both = [name for name in cohort.names if name in names]
    if both:
        raise ValueError(
            f"{path}: expected voices that are in no trial; got {both[0]}"
        )
    return cohort
