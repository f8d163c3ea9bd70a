"""The command that transcribes files: ``unispeech-sb transcribe``."""

import argparse
import os
import sys
from pathlib import Path

from unispeech_sb.dataio.audio import AudioError
from unispeech_sb.inference.asr import LongFormASR
from unispeech_sb.inference.commands import (
    add_device,
    at_least,
    load_folder,
    positive,
    progress_bar,
    tell_failures,
)
from unispeech_sb.inference.formats import FORMATS


def main(argv=None):
    """Transcribes files: transcribe FOLDER FILES... [--format srt] ...

    Files that cannot be used are passed over and named at the end.

    Arguments
    ---------
    argv : list of str, optional
        Arguments of the command; those of the process when omitted.

    Raises
    ------
    SystemExit
        With 1 when a file could not be transcribed, with 2 when the command
        line makes no sense.
    ValueError
        When the folder is none, or outputs would get in each other's way.

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
    targets = _targets(files, arguments.format, arguments.output_dir)
    asr = _recognizer(arguments)
    errors, ready = {}, _Ordered(files)
    with progress_bar(files, "transcribe") as bar:
        for path, result in asr.transcribe_files(
            files, arguments.batch_seconds, bar.update
        ):
            if isinstance(result, AudioError):
                errors[path] = result
                text = ""
            else:
                text = _written(result, path, arguments.format, targets)
            if text and len(files) > 1 and arguments.format == "text":
                text = f"{path}\t{text}"
            with bar.external_write_mode(sys.stdout):
                sys.stdout.write(ready.take(path, text))
    tell_failures("transcribe", files, errors)
    if errors:
        raise SystemExit(1)


def _parse(argv):
    """Reads the command line."""
    parser = argparse.ArgumentParser("unispeech-sb transcribe")
    parser.add_argument(
        "folder", help="what convert or a recipe wrote for EncoderASR"
    )
    parser.add_argument("files", nargs="+", help="what soundfile reads")
    parser.add_argument("--format", choices=FORMATS, default="text")
    parser.add_argument(
        "--output-dir",
        type=Path,
        metavar="D",
        help="write a file for each recording, not the standard output",
    )
    parser.add_argument(
        "--batch-seconds",
        type=positive,
        default=30.0,
        metavar="S",
        help="most seconds of audio that go through the model together",
    )
    add_device(parser)
    _add_decoding(parser)
    arguments = parser.parse_args(argv)
    weights = {"--alpha": arguments.alpha, "--beta": arguments.beta}
    for name, weight in weights.items():
        if weight is not None and arguments.lm is None:
            parser.error(f"{name} weighs a language model: give --lm")
    return arguments


def _add_decoding(parser):
    """Adds what the folder's decoding and language are changed by."""
    group = parser.add_argument_group(
        "decoding", "by beam search where one of these is given"
    )
    group.add_argument(
        "--lm", metavar="FILE", help="n-gram: an ARPA file or a KenLM binary"
    )
    group.add_argument(
        "--alpha", type=float, metavar="A", help="weight of the n-gram"
    )
    group.add_argument(
        "--beta", type=float, metavar="B", help="score of each word"
    )
    group.add_argument(
        "--hot-words",
        type=_words,
        metavar="A,B",
        help="words and phrases to prefer",
    )
    group.add_argument("--beam-size", type=at_least(1), metavar="N")
    parser.add_argument(
        "--language",
        metavar="L",
        help="one of the languages of a folder with adapters",
    )


def _recognizer(arguments):
    """Loads the folder, and decodes as the command line says."""
    asr = load_folder(LongFormASR, arguments)
    if arguments.language:
        if arguments.lm:
            asr.use_language_model(None)  # that of the language before
        asr.set_language(arguments.language)
    if arguments.beam_size:
        asr.use_beam_search(beam_size=arguments.beam_size)
    if arguments.hot_words:
        asr.use_hot_words(arguments.hot_words)
    if arguments.lm:
        weights = {"alpha": arguments.alpha, "beta": arguments.beta}
        given = {k: v for k, v in weights.items() if v is not None}
        asr.use_language_model(arguments.lm, **given)
    return asr


def _words(text):
    """Words and phrases between commas."""
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise argparse.ArgumentTypeError(
            f"expected words between commas, got {text!r}"
        )
    return words


def _targets(files, format_name, folder):
    """File -> where its transcript goes; empty for the standard output."""
    if len(set(files)) < len(files):
        raise ValueError("files: expected each of them once")
    several = len(files) > 1
    if several and folder is None and format_name in ("srt", "vtt"):
        raise ValueError(
            f"--format {format_name}: a stream holds one recording; "
            f"got {len(files)}, give --output-dir"
        )
    named = folder is not None or format_name == "ctm"
    if named and len({Path(file).stem for file in files}) < len(files):
        raise ValueError(
            "files: expected different names; transcripts of files that "
            "differ in folder or suffix only cannot be told apart"
        )
    if folder is None:
        return {}
    suffix, _ = FORMATS[format_name]
    folder.mkdir(parents=True, exist_ok=True)
    return {file: folder / f"{Path(file).stem}.{suffix}" for file in files}


def _written(transcript, path, format_name, targets):
    """Writes a transcript's file, or returns what to print."""
    _, write = FORMATS[format_name]
    text = write(transcript, path)
    if targets:
        part = targets[path].with_name(f".{targets[path].name}.part")
        part.write_text(text, encoding="utf-8", newline="\n")
        os.replace(part, targets[path])
        return ""
    return text


class _Ordered:
    """Gives results back in the order of the command line."""

    def __init__(self, files):
        self.waiting, self.texts = list(files), {}

    def take(self, path, text):
        """Takes one result; returns those that are next in line."""
        self.texts[path], ready = text, ""
        while self.waiting and self.waiting[0] in self.texts:
            ready += self.texts.pop(self.waiting.pop(0))
        return ready
