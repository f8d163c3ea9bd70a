"""Speakers: ``unispeech-sb embed`` and ``verify``."""

from collections.abc import Sequence
from functools import partial

from unispeech_sb.checkpoints.interfaces import folder_kind
from unispeech_sb.commands.bulk import add_bulk, run_bulk, take_ray
from unispeech_sb.commands.options import (
    add_batch_seconds,
    add_device,
    add_folder,
    advance,
    check_file,
    check_files,
    check_output,
    finite,
    load_folder,
    new_parser,
    positive,
    probability,
    progress_bar,
    report_failures,
    take_folder,
)
from unispeech_sb.commands.recordings import (
    RECORDING,
    add_files,
    check_once,
    find_recordings,
)

_OTHERS = (".npy", ".npz", ".csv", ".json", ".pt", ".pth", ".pkl", ".h5")
"""Endings of what is no safetensors file."""


def embed(argv: Sequence[str]) -> None:
    """Extracts speaker embeddings; recordings that fail are named at the end.

    What was embedded before an interruption, or is in the output already, is
    not embedded again. Exits with 1 when a recording could not be used, with 2
    when the command line makes no sense.
    """
    arguments = _parse_embed(argv)
    check_once(arguments.files)
    is_bulk = take_ray(arguments)
    other = "EncoderClassifier"
    folder = take_folder(arguments.folder, "SpeakerRecognition", other)
    if folder_kind(folder) == other and not arguments.any_model:
        raise ValueError(
            f"{arguments.folder}: expected a folder for SpeakerRecognition; it "
            f"is for {other}: embeddings that are not of speakers need "
            "--any-model"
        )
    arguments.folder = folder
    if is_bulk:
        return run_bulk("embed", arguments)
    recordings = find_recordings(arguments.files).values()
    files = {recording.name: recording.path for recording in recordings}
    check_output(arguments.output, files.values(), makes_folder=True)
    if arguments.output.lower().endswith(_OTHERS):
        raise ValueError(
            f"{arguments.output}: expected OUT.safetensors; another format is "
            "not written"
        )
    check_files("embed", [*files.values()])
    with open_extractor(arguments.output, model_digest(arguments)) as extractor:
        known = len(extractor.store)
        errors = extract_with_progress(
            load_model(arguments, any_model=arguments.any_model),
            files,
            extractor,
            arguments.batch_seconds,
            "embed",
        )
        found = extractor.finish(files)
    if len(found):
        print(
            f"Wrote {arguments.output}: {len(found)} "
            f"embedding{'s' * (len(found) != 1)}, {known} of them from before"
        )
    if errors:
        raise SystemExit(1)


def open_embedder(arguments):
    """Loads the model; gives what runs files."""
    verification = load_model(arguments, any_model=arguments.any_model)
    return partial(
        verification.embed_files, batch_seconds=arguments.batch_seconds
    )


def _parse_embed(argv):
    """Reads the command line."""
    parser = new_parser(
        "embed",
        "Extract speaker embeddings of recordings into one file.",
    )
    add_model(parser, ray=True)
    add_files(parser)
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="OUT",
        help="safetensors file to write; the embeddings that it has already, "
        "by the names of their recordings, are kept. With --engine ray a "
        "folder of Parquet files",
    )
    parser.add_argument(
        "--any-model",
        action="store_true",
        help="take a classifier of utterances (EncoderClassifier), such as a "
        "keyword spotter, too: its embeddings are not of speakers",
    )
    add_batch_seconds(parser, 60.0)
    add_bulk(parser)
    return parser.parse_args(argv)


def verify(argv: Sequence[str]) -> None:
    """Decides whether two recordings are of the same speaker."""
    arguments = _parse_verify(argv)
    arguments.folder = take_folder(arguments.folder, "SpeakerRecognition")
    for path in (arguments.left, arguments.right):
        check_file(path, "file")
    check_file(arguments.calibration, "calibration")
    calibration = None
    if arguments.calibration:
        from unispeech_sb.metrics.calibration import Calibration

        calibration = Calibration.read(arguments.calibration)
    verification = load_model(arguments)
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
    add_model(parser)
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


def add_model(parser, ray=False):
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
    add_device(parser, ray)


def load_model(arguments, **options):
    """Loads the folder of a command line."""
    from unispeech_sb.inference import SpeakerVerification

    options["window_s"] = arguments.window_s
    return load_folder(SpeakerVerification, arguments, **options)


def model_digest(arguments):
    """What embeddings depend on: the model, its windows and precision."""
    from unispeech_sb.inference.embedding_store import model_id
    from unispeech_sb.inference.loading import choose_precision

    precision = arguments.precision
    if precision is not None:
        precision = choose_precision(
            precision, (arguments.device or "cpu").partition(":")[0]
        )
    return model_id(arguments.folder, arguments.window_s, precision)


def open_extractor(path, model):
    """The file of embeddings of a model, to add to, for this process alone."""
    from unispeech_sb.inference.embedding_store import ResumableExtractor

    return ResumableExtractor(path, model)


def extract_with_progress(verification, files, extractor, seconds, title):
    """Embeds what is missing; returns name -> error, and reports them."""
    missing = [p for name, p in files.items() if name not in extractor.store]
    with progress_bar(missing, title) as bar:
        errors = extractor.extract(verification, files, seconds, advance(bar))
    report_failures(title, files, errors)
    return errors
