"""Classification of utterances: ``unispeech-sb classify``."""

from collections.abc import Sequence
from functools import partial

from unispeech_sb.commands.bulk import add_bulk, run_bulk, take_ray
from unispeech_sb.commands.options import (
    add_batch_seconds,
    add_device,
    add_folder,
    advance,
    at_least,
    load_folder,
    new_parser,
    positive,
    print_results,
    progress_bar,
    take_folder,
)
from unispeech_sb.commands.recordings import (
    add_files,
    add_outputs,
    take_outputs,
)
from unispeech_sb.inference.formats import CLASSIFICATION_FORMATS


def classify(argv: Sequence[str]) -> None:
    """Classifies recordings; those that cannot be used are named at the end.

    Exits with 1 when a recording could not be classified, with 2 when the
    command line makes no sense.
    """
    arguments = _parse(argv)
    is_bulk = take_ray(arguments)
    arguments.folder = take_folder(arguments.folder, "EncoderClassifier")
    if is_bulk:
        return run_bulk("classify", arguments)
    outputs = take_outputs(arguments, CLASSIFICATION_FORMATS)
    files = outputs.left("classify", arguments.overwrite)
    if not files:
        return
    run = open_classifier(arguments)
    outputs.print_header()
    with progress_bar(files, "classify") as bar:
        results = run(files, on_progress=advance(bar))
        print_results("classify", files, results, outputs.write, bar)


def open_classifier(arguments):
    """Loads the model; gives what runs files."""
    from unispeech_sb.inference import UtteranceClassifier

    classifier = load_folder(
        UtteranceClassifier, arguments, max_s=arguments.max_s
    )
    return partial(
        classifier.classify_files,
        top_k=arguments.top_k,
        batch_seconds=arguments.batch_seconds,
    )


def _parse(argv):
    """Reads the command line."""
    parser = new_parser(
        "classify", "Say which of a model's classes recordings are of."
    )
    add_folder(parser, "a classifier of utterances (EncoderClassifier)")
    add_files(parser)
    add_outputs(parser, CLASSIFICATION_FORMATS)
    parser.add_argument(
        "--top-k",
        type=at_least(1),
        default=1,
        metavar="K",
        help="most probable classes that are given (default: %(default)s)",
    )
    parser.add_argument(
        "--max-s",
        type=positive,
        default=120.0,
        metavar="S",
        help="longest recording in seconds, as each goes through the model as "
        "a whole (default: %(default)g)",
    )
    add_batch_seconds(parser, 60.0)
    add_device(parser, ray=True)
    add_bulk(parser)
    return parser.parse_args(argv)
