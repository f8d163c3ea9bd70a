"""The command line: a table of commands, each a function of its arguments.

Help, wrong arguments and missing files are answered without importing torch:
a command imports what does its work when its arguments are checked.
"""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from unispeech_sb import __version__
from unispeech_sb.errors import print_escaped, run_guarded, take_traceback
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
    "data": (
        "data:data",
        "check data before training: what is there, and what is wrong",
    ),
    "shards": (
        "shards:shards",
        "make shards of training data, or check some",
    ),
    "superb": (
        "superb:superb",
        "the SUPERB benchmark: run its tasks, report on runs",
    ),
    "convert": (
        "convert:convert",
        "checkpoint of Hugging Face, fairseq or s3prl -> pretrained folder",
    ),
    "to-hf": (
        "convert:to_hf",
        "pretrained folder -> Hugging Face folder, for transformers",
    ),
    "export": (
        "convert:export",
        "model -> ONNX, OpenVINO; SpeechBrain checkpoint -> folder",
    ),
    "push-to-hub": (
        "convert:push_to_hub",
        "upload a pretrained folder and its model card",
    ),
    "info": (
        "convert:info",
        "describe a checkpoint or a pretrained folder",
    ),
    "transcribe": (
        "transcribe:transcribe",
        "speech recognition: text, subtitles, times of words",
    ),
    "align": (
        "align:align",
        "forced alignment: when the words of a known text are spoken",
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
    "classify": (
        "classify:classify",
        "classification of utterances: keyword, intent, language, ...",
    ),
    "features": (
        "features:features",
        "extract hidden states of a model's layers",
    ),
    "layers": (
        "layers:layers",
        "what each layer tells of phones and speakers",
    ),
    "verify": (
        "speakers:verify",
        "speaker verification: the same speaker in two recordings?",
    ),
    "serve": (
        "serve:serve",
        "models over HTTP, as OpenAI's clients ask; a page in the browser",
    ),
    "similarity": (
        "similarity:similarity",
        "speaker similarity of pairs: SIM of speech synthesis",
    ),
    "score": (
        "score:score",
        "score a trial list: EER, minDCF, calibration",
    ),
}
"""Name -> module and function of the arguments after it; what it does."""

_TO_CONTINUE = {
    "demo": "the same command goes on from the last checkpoint",
    "recipe": "the same command goes on from the last checkpoint",
    "superb": "the same command goes on where it stopped",
    "shards": "finished shards are kept, the same command goes on",
    "serve": "nothing of the uploads is left",
    "embed": "the embeddings so far are kept, the same command goes on",
    "push-to-hub": "files are uploaded all or none, the same command tries "
    "again",
    **dict.fromkeys(
        ("score", "similarity"),
        "with -o the embeddings so far are kept, the same command goes on",
    ),
    **dict.fromkeys(
        ("transcribe", "align", "diarize", "classify", "features"),
        "what is written is whole, with -o the same command goes on",
    ),
}
"""Command -> what Ctrl-C leaves of it; nothing of the others."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Arguments
    ---------
    argv : list of str, optional
        Arguments after the program's name; those of the process when omitted.

    Returns
    -------
    int
        Exit code: 0, or 1 after an error that stderr reports in one line, 130
        after Ctrl-C, 143 after SIGTERM. A command line that makes no sense
        exits with 2.

    Example
    -------
    >>> main(["convert", "no/such/folder", "copy"])
    1
    """
    line = sys.argv[1:] if argv is None else list(argv)
    line, traceback = take_traceback(line)
    words = [n for n, word in enumerate(line) if not word.startswith("-")]
    end = words[0] + 1 if words else len(line)  # of what is not the command's
    name = line[words[0]] if words else ""
    return run_guarded(
        lambda: _run(line[:end], line[end:]),
        "unispeech-sb",
        traceback,
        _TO_CONTINUE.get(name, "nothing is written"),
    )


def _run(argv, arguments):
    """Runs one command: its name, with what stands before it; the rest."""
    parser = _parser()
    if not argv:
        parser.print_help()
        return
    name = parser.parse_args(argv).command
    if name not in COMMANDS:
        sentence = unknown("command", name, COMMANDS)
        print_escaped(f"unispeech-sb: {sentence}", sys.stderr)
        sys.exit(2)
    place, _ = COMMANDS[name]
    module, _, function = place.partition(":")
    getattr(import_module(f"{__name__}.{module}"), function)(arguments)


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
        help="show where an error comes from",
    )
    parser.add_argument("command", metavar="COMMAND", help=argparse.SUPPRESS)
    return parser
