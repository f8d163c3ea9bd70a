"""The command line: a table of commands, each a function of its arguments.

Help, wrong arguments and missing files are answered without importing torch:
a command imports what does its work when its arguments are checked.
"""

import argparse
import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from unispeech_sb import __version__
from unispeech_sb.commands.options import print_escaped
from unispeech_sb.recipe_options import unknown

COMMANDS = {
    "demo": (
        "recipe:demo",
        "train, score and export a small model on synthetic speech",
    ),
    "recipe": (
        "recipe:recipe",
        "list the training recipes; train a model with one",
    ),
    "convert": (
        "convert:convert",
        "checkpoint of Hugging Face, fairseq or s3prl -> pretrained folder",
    ),
    "to-hf": (
        "convert:to_hf",
        "pretrained folder -> Hugging Face folder, for transformers",
    ),
    "info": (
        "convert:info",
        "describe a checkpoint or a pretrained folder",
    ),
    "transcribe": (
        "transcribe:transcribe",
        "speech recognition: text, subtitles, times of words",
    ),
    "tune-lm": (
        "transcribe:tune_lm",
        "find the weights of a language model for a recognizer",
    ),
    "diarize": (
        "diarize:diarize",
        "speaker diarization: who speaks when",
    ),
    "embed": (
        "speakers:embed",
        "extract speaker embeddings",
    ),
    "verify": (
        "speakers:verify",
        "speaker verification: the same speaker in two recordings?",
    ),
    "score": (
        "score:score",
        "score a trial list: EER, minDCF, calibration",
    ),
}
"""Name -> module and function of the arguments after it; what it does."""

_INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 + SIGINT, as shells count."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Arguments
    ---------
    argv : list of str, optional
        Arguments after the program's name; those of the process when omitted.

    Returns
    -------
    int
        Exit code: 0, or 1 after an error that stderr reports in one line, or
        130 after Ctrl-C. A command line that makes no sense exits with 2.

    Example
    -------
    >>> main(["convert", "no/such/folder", "copy"])
    1
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A letter that the terminal's encoding lacks ends no batch
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            return _run(sys.argv[1:] if argv is None else argv)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # of `| head`, which has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _run(argv):
    """Runs one command; errors of users become one line."""
    parser = _parser()
    if not argv:
        parser.print_help()
        return 0
    arguments = parser.parse_args(argv)
    if arguments.command not in COMMANDS:
        print_escaped(
            f"unispeech-sb: {unknown('command', arguments.command, COMMANDS)}",
            sys.stderr,
        )
        sys.exit(2)
    place, _ = COMMANDS[arguments.command]
    module, _, function = place.partition(":")
    command = getattr(import_module(f"{__name__}.{module}"), function)
    try:
        command(arguments.arguments)
    except BrokenPipeError:
        raise
    except KeyboardInterrupt:
        return _INTERRUPTED
    except (ValueError, OSError, ImportError) as error:
        if arguments.traceback:
            raise
        message = " ".join(str(error).split()) or type(error).__name__
        print_escaped(f"unispeech-sb: {message}", sys.stderr)
        return 1
    return 0


def _parser():
    """The part of the command line before the command's own arguments."""
    width = max(map(len, COMMANDS))
    lines = [
        f"  {name:<{width}}  {does}" for name, (_, does) in COMMANDS.items()
    ]
    parser = argparse.ArgumentParser(
        "unispeech-sb",
        usage="%(prog)s [--traceback] COMMAND ...",
        description="UniSpeech and UniSpeech-SAT for SpeechBrain.\n\n"
        "commands:\n" + "\n".join(lines),
        epilog="unispeech-sb COMMAND --help shows the options of a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument(
        "--traceback",
        action="store_true",
        help="show where an error comes from; stands before the command",
    )
    parser.add_argument("command", metavar="COMMAND", help=argparse.SUPPRESS)
    parser.add_argument(
        "arguments",
        metavar="...",
        nargs=argparse.REMAINDER,
        help=argparse.SUPPRESS,
    )
    return parser
