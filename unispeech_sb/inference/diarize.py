"""The command that tells who speaks when: ``unispeech-sb diarize``."""

import argparse
import sys
from pathlib import Path

from unispeech_sb.dataio.audio import AudioError
from unispeech_sb.dataio.rttm import read_rttm
from unispeech_sb.inference.commands import (
    add_device,
    at_least,
    load_folder,
    progress_bar,
    tell_failures,
)
from unispeech_sb.inference.diarization import SpeakerDiarization
from unispeech_sb.inference.diarized import Diarization, recording_name
from unispeech_sb.inference.speakers import SpeakerVerification

FORMATS = {
    "text": Diarization.to_text,
    "rttm": Diarization.to_rttm,
    "json": Diarization.to_json,
    "audacity": Diarization.to_audacity,
}
"""Name -> function that gives what is printed."""


def main(argv=None):
    """Tells who speaks when: diarize FOLDER FILES... [--num-speakers N] ...

    Files that cannot be used are passed over and named at the end.

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
        When the folder is none, outputs would get in each other's way, the
        reference lacks a recording, or there may not be so many speakers.

    Example
    -------
    >>> try:
    ...     main(["no/such/folder", "a.wav"])
    ... except ValueError as error:
    ...     print(error)
    no/such/folder: expected a folder with hyperparams.yaml
    """
    arguments = _parse(argv)
    files = arguments.files
    _check_names(files)
    reference = _reference(arguments.reference, files)
    diarization = _load(arguments)
    target = arguments.rttm_dir or Path()
    target.mkdir(parents=True, exist_ok=True)
    errors = {}
    with progress_bar(files, "diarize") as bar:
        for path, found in diarization.diarize_files(
            files,
            arguments.num_speakers,
            arguments.min_speakers,
            arguments.max_speakers,
            # tqdm warns of what rounding puts over the total
            lambda seconds: bar.update(min(seconds, bar.total - bar.n)),
        ):
            if isinstance(found, AudioError):
                errors[path] = found
                continue
            if arguments.rttm_dir:
                found.to_rttm(target / f"{found.name}.rttm")
            if arguments.plot:
                own = reference.get(found.name)
                found.plot(target / f"{found.name}.png", own)
            with bar.external_write_mode(sys.stdout):
                sys.stdout.write(_said(found, path, arguments))
    tell_failures("diarize", files, errors)
    if errors:
        raise SystemExit(1)


def _parse(argv):
    """Reads the command line."""
    parser = argparse.ArgumentParser("unispeech-sb diarize")
    parser.add_argument(
        "folder", help="what convert or a recipe of diarization wrote"
    )
    parser.add_argument("files", nargs="+", help="what soundfile reads")
    _add_speakers(parser)
    parser.add_argument("--format", choices=FORMATS, default="text")
    parser.add_argument(
        "--rttm-dir",
        type=Path,
        metavar="D",
        help="write an RTTM file for each recording, too",
    )
    parser.add_argument(
        "--plot",
        action="store_true",
        help="write a picture of each recording's timeline, in D or here",
    )
    parser.add_argument(
        "--reference",
        metavar="RTTM",
        help="who really speaks when, by the names of the files without "
        "suffix: drawn above",
    )
    add_device(parser)
    arguments = parser.parse_args(argv)
    if arguments.reference and not arguments.plot:
        parser.error("--reference is drawn in the picture: give --plot")
    if arguments.format == "audacity" and len(arguments.files) > 1:
        parser.error("--format audacity: labels of one recording; got several")
    return arguments


def _add_speakers(parser):
    """Adds how many speakers there are, and how they are told apart."""
    group = parser.add_argument_group("speakers")
    group.add_argument(
        "--num-speakers",
        type=at_least(1),
        metavar="N",
        help="how many speak in each file; found when omitted",
    )
    group.add_argument(
        "--min-speakers", type=at_least(1), default=1, metavar="N"
    )
    group.add_argument("--max-speakers", type=at_least(1), metavar="N")
    group.add_argument(
        "--speaker-model",
        metavar="FOLDER",
        help="what convert or a recipe wrote for SpeakerRecognition: its "
        "voices tell speakers apart, in place of what the model itself gives",
    )


def _load(arguments):
    """Loads the folder, and that of the voices."""
    voices = arguments.speaker_model
    if voices is not None:
        chosen = argparse.Namespace(folder=voices, device=arguments.device)
        voices = load_folder(SpeakerVerification, chosen)
    return load_folder(SpeakerDiarization, arguments, speaker_model=voices)


def _check_names(files):
    """Refuses files that outputs could not tell apart."""
    names = [recording_name(file) for file in files]
    if len(set(names)) < len(names):
        raise ValueError(
            "files: expected different names; files that differ in folder or "
            "suffix only cannot be told apart"
        )


def _reference(path, files):
    """Recording -> who really speaks when; empty without a file."""
    if path is None:
        return {}
    found = read_rttm(path)
    for file in files:
        name = recording_name(file)
        if name not in found:
            raise ValueError(
                f"{path}: expected segments of {name}; it has those of "
                f"{', '.join(sorted(found)[:5]) or 'no recording'}"
            )
    return found


def _said(found, path, arguments):
    """What is printed of a recording."""
    text = FORMATS[arguments.format](found)
    if arguments.format == "text" and len(arguments.files) > 1:
        lines = text.splitlines(keepends=True)
        text = "".join(f"{path}\t{line}" for line in lines)
    return text
