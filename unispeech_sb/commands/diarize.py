"""Speaker diarization: ``unispeech-sb diarize``, and who said what of
``transcribe``."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from unispeech_sb.commands.bulk import add_bulk, run_bulk, take_ray
from unispeech_sb.commands.options import (
    add_batch_seconds,
    add_device,
    add_folder,
    advance,
    at_least,
    check_file,
    check_names,
    check_no_input,
    check_output_folder,
    finite,
    load_folder,
    new_parser,
    print_results,
    progress_bar,
    take_folder,
)
from unispeech_sb.commands.recordings import (
    Outputs,
    add_files,
    add_outputs,
    chosen,
    find_recordings,
)
from unispeech_sb.inference.formats import DIARIZATION_FORMATS, recording_name


def diarize(argv: Sequence[str]) -> None:
    """Finds who speaks when; recordings that fail are named at the end.

    Exits with 1 when a recording could not be used, with 2 when the command
    line makes no sense.
    """
    arguments = _parse(argv)
    is_bulk = take_ray(arguments)
    arguments.folder = take_folder(arguments.folder, "SpeakerDiarization")
    if arguments.speaker_model is not None:
        arguments.speaker_model = take_folder(
            arguments.speaker_model, "SpeakerRecognition"
        )
    check_names(arguments.files, str)
    if is_bulk:
        return run_bulk("diarize", arguments)
    recordings = find_recordings(arguments.files)
    check_file(arguments.reference, "RTTM file")
    forms = chosen(DIARIZATION_FORMATS, arguments.format)
    outputs = Outputs(recordings, forms, arguments.output_dir)
    _check_outputs(outputs, arguments)
    names = {p: recording_name(r.name) for p, r in recordings.items()}
    reference = _reference(
        arguments.reference, {name: p for p, name in names.items()}
    )
    files = outputs.left("diarize", arguments.overwrite)
    if not files:
        return

    run = open_diarizer(arguments)
    target = arguments.rttm_dir or arguments.output_dir or Path()
    target.mkdir(parents=True, exist_ok=True)

    def write(path, found):
        found = replace(found, name=names[path])
        if arguments.rttm_dir:
            found.to_rttm(target / f"{found.name}.rttm")
        if arguments.plot:
            own = reference.get(found.name)
            found.plot(target / f"{found.name}.png", own)
        return outputs.write(path, found)

    with progress_bar(files, "diarize") as bar:
        results = run(files, on_progress=advance(bar))
        print_results("diarize", files, results, write, bar)


def open_diarizer(arguments):
    """Loads the models; gives what runs files."""
    diarization, _ = _load_diarization(arguments)
    return partial(
        diarization.diarize_files,
        num_speakers=arguments.num_speakers,
        min_speakers=arguments.min_speakers,
        max_speakers=arguments.max_speakers,
        exclusive=arguments.exclusive,
    )


def _check_outputs(outputs, arguments):
    """Refuses outputs that cannot be written, or that are the reference."""
    check_output_folder(arguments.rttm_dir)
    recordings = outputs.recordings.values()
    if arguments.rttm_dir or arguments.plot or arguments.output_dir is None:
        check_names(recordings, lambda r: recording_name(r.name))
    outputs.check([arguments.reference])
    if arguments.rttm_dir:
        for recording in recordings:
            path = arguments.rttm_dir / f"{recording_name(recording.name)}.rttm"
            check_no_input(path, [arguments.reference])
    elif arguments.plot and not arguments.output_dir:
        check_output_folder(Path())


def _parse(argv):
    """Reads the command line."""
    parser = new_parser(
        "diarize",
        "Find who speaks when in recordings of any length.",
    )
    add_folder(parser, "a diarization model (SpeakerDiarization)")
    add_files(parser)
    add_outputs(parser, DIARIZATION_FORMATS)
    parser.add_argument(
        "--rttm-dir",
        type=Path,
        metavar="DIR",
        help="write an RTTM file for each recording into DIR, too",
    )
    parser.add_argument(
        "--plot",
        action="store_true",
        help="draw the timeline of each recording as a PNG, in DIR or in the "
        "current folder",
    )
    parser.add_argument(
        "--reference",
        metavar="RTTM",
        help="reference segments, drawn above; recordings are named by their "
        "files without suffix",
    )
    add_batch_seconds(parser, 30.0)
    add_device(parser, ray=True)
    add_bulk(parser)
    group = parser.add_argument_group("speakers")
    group.add_argument(
        "--exclusive",
        action="store_true",
        help="no overlap: where several speak, only the most active one",
    )
    _add_speakers(group)
    arguments = parser.parse_args(argv)
    if arguments.reference and not arguments.plot:
        parser.error("--reference is drawn in the picture: give --plot")
    several = len(arguments.files) > 1 and arguments.output_dir is None
    (form, *_) = chosen(DIARIZATION_FORMATS, arguments.format)
    if form.one_recording and several:
        parser.error(
            f"--format {arguments.format}: labels of one recording; got "
            "several: give --output-dir"
        )
    _check_numbers(parser, arguments)
    return arguments


def _check_numbers(parser, arguments):
    """Refuses numbers of speakers that contradict each other."""
    number, most = arguments.num_speakers, arguments.max_speakers
    least = arguments.min_speakers
    if most is not None and (number or least) > most:
        parser.error(
            f"--max-speakers {most}: expected {number or least} at least"
        )
    if number is not None and number < least:
        parser.error(f"--min-speakers {least}: expected {number} at most")


def _add_speakers(group):
    """Adds how many speakers there are, and whose embeddings group them."""
    group.add_argument(
        "--num-speakers",
        type=at_least(1),
        metavar="N",
        help="speakers in each recording; estimated when omitted",
    )
    group.add_argument(
        "--min-speakers",
        type=at_least(1),
        default=1,
        metavar="N",
        help="fewest speakers to estimate (default: %(default)s)",
    )
    group.add_argument(
        "--max-speakers",
        type=at_least(1),
        metavar="N",
        help="most speakers to estimate",
    )
    group.add_argument(
        "--speaker-model",
        metavar="FOLDER",
        help="pretrained folder of a speaker model (SpeakerRecognition): "
        "cluster by its embeddings in place of the diarization model's own",
    )


def _load_diarization(arguments):
    """Loads the folder, and that of the speaker model; None without one."""
    from unispeech_sb.inference import SpeakerDiarization, SpeakerVerification

    speakers = arguments.speaker_model
    if speakers is not None:
        chosen = argparse.Namespace(**vars(arguments))
        chosen.folder = speakers
        speakers = load_folder(SpeakerVerification, chosen)
    found = load_folder(
        SpeakerDiarization,
        arguments,
        speaker_model=speakers,
        batch_seconds=arguments.batch_seconds,
    )
    return found, speakers


def _reference(path, names):
    """Recording -> its reference segments; empty without a file."""
    if path is None:
        return {}

    from unispeech_sb.dataio.rttm import match_names, read_rttm
    from unispeech_sb.text import report_missing

    found = read_rttm(path, merge=True)
    own = match_names(names, found)
    missing = [name for name in names if name not in own]
    report_missing(missing, names, found, "the recordings", path)
    return {name: found[theirs] for name, theirs in own.items()}


def add_attribution(parser):
    """Adds who the speakers are."""
    group = parser.add_argument_group(
        "speakers", "Who said what: speakers of words, subtitles and segments."
    )
    group.add_argument(
        "--speakers",
        metavar="FOLDER",
        help="pretrained folder of a diarization model (SpeakerDiarization)",
    )
    _add_speakers(group)
    group.add_argument(
        "--enrolled",
        metavar="STORE",
        help="call the speakers as their recordings are called in a file of "
        "unispeech-sb embed, whose model is the --speaker-model",
    )
    group.add_argument(
        "--threshold",
        type=finite,
        metavar="T",
        help="least cosine of a speaker and one in STORE; by the calibration "
        "of the speaker model when omitted",
    )


def check_attribution(parser, arguments):
    """Refuses options of speakers that lack what they are about."""
    _check_numbers(parser, arguments)
    needs = {
        "--num-speakers": (arguments.num_speakers, "--speakers"),
        "--max-speakers": (arguments.max_speakers, "--speakers"),
        "--speaker-model": (arguments.speaker_model, "--speakers"),
        "--enrolled": (arguments.enrolled, "--speaker-model"),
        "--threshold": (arguments.threshold, "--enrolled"),
    }
    for option, (value, needed) in needs.items():
        name = needed.removeprefix("--").replace("-", "_")
        if value is not None and getattr(arguments, name) is None:
            parser.error(f"{option} goes with {needed}: give that, too")


def take_attribution(arguments):
    """The folders of a diarization model and a speaker model."""
    arguments.speakers = take_folder(arguments.speakers, "SpeakerDiarization")
    if arguments.speaker_model is not None:
        arguments.speaker_model = take_folder(
            arguments.speaker_model, "SpeakerRecognition"
        )
    check_file(arguments.enrolled, "file of embeddings")


def load_attribution(arguments):
    """What adds speakers to transcripts; None where none are asked for."""
    if arguments.speakers is None:
        return None

    from unispeech_sb.inference.attribution import (
        EnrolledSpeakers,
        SpeakerTranscriber,
    )
    from unispeech_sb.inference.embedding_store import EmbeddingStore, model_id

    store = None
    if arguments.enrolled is not None:
        store = EmbeddingStore.load(arguments.enrolled)
        model = store.model.rpartition("-")[0]  # without the window's length
        if model and not model_id(arguments.speaker_model, 0).startswith(model):
            raise ValueError(
                f"{arguments.enrolled}: expected embeddings of the model "
                f"{arguments.speaker_model}; got those of another one"
            )
    chosen = argparse.Namespace(**vars(arguments))
    chosen.folder = arguments.speakers
    diarization, verification = _load_diarization(chosen)
    enrolled = None
    if store is not None:
        enrolled = EnrolledSpeakers(store, verification, arguments.threshold)
    return SpeakerTranscriber(
        diarization,
        enrolled,
        num_speakers=arguments.num_speakers,
        min_speakers=arguments.min_speakers,
        max_speakers=arguments.max_speakers,
    )
