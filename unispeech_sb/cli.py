"""The command line: a table of commands, each a function of its arguments."""

import argparse
import ast
import json
import sys
from importlib import import_module
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from unispeech_sb import __version__

SOURCES = (
    "Hugging Face folder or hub id; file of fairseq, of the authors' speaker "
    "verification or diarization, or of s3prl"
)
INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 + SIGINT, as shells count."""


def recipe(argv):
    """Lists the recipes, or runs one: recipe [NAME [YAML] [--key=value ...]]

    Arguments
    ---------
    argv : list of str
        Name of the recipe; its yaml, a file or the name of an installed one,
        that of the recipe's name when omitted; overrides.

    Returns
    -------
    dict or None
        The scores.

    Example
    -------
    >>> recipe([])
    asr                     Speech recognition by CTC: ...
    keyword_spotting        Keyword spotting: ...
    make_units              Units: ...
    phoneme_recognition     Phoneme recognition by CTC: ...
    pretrain_unispeech      UniSpeech's pre-training: ...
    pretrain_unispeech_sat  UniSpeech-SAT's pre-training: ...
    speaker_diarization     Speaker diarization: ...
    speaker_identification  Speaker identification: ...
    speaker_verification    Speaker verification: ...
    """
    known = _recipes()
    if not argv or argv[0] in ("-h", "--help"):
        width = max(map(len, known), default=0)
        for name, summary in known.items():
            print(f"{name:<{width}}  {summary}")
        return None
    name, *arguments = argv
    if name not in known:
        sys.stderr.write(
            f"unispeech-sb: no recipe is named {name!r}; "
            f"there are: {', '.join(known)}\n"
        )
        sys.exit(2)
    if not arguments or arguments[0].startswith("-"):
        arguments.insert(0, f"{name}.yaml")
    installed = files(_home("hparams")) / arguments[0]
    if not Path(arguments[0]).is_file() and installed.is_file():
        arguments[0] = str(installed)
    return import_module(f"{_home('recipes')}.{name}").main(arguments)


def _convert(argv):
    """Converts a checkpoint to a folder of this package: convert SRC DST"""
    parser = argparse.ArgumentParser("unispeech-sb convert")
    parser.add_argument("src", help=SOURCES)
    parser.add_argument("dst", help="folder to write")
    parser.add_argument(
        "--backbone",
        metavar="SOURCE",
        help="for files that hold a head only: what it was trained on",
    )
    _add_set(parser)
    arguments = parser.parse_args(argv)

    from unispeech_sb.convert import convert_checkpoint

    report = convert_checkpoint(
        arguments.src,
        arguments.dst,
        arguments.backbone,
        **_options(arguments.set),
    )
    _say(report)


def _to_hf(argv):
    """Converts a folder of this package for transformers: to-hf FOLDER DST"""
    parser = argparse.ArgumentParser("unispeech-sb to-hf")
    parser.add_argument("folder", help="what a recipe or convert wrote")
    parser.add_argument("dst", help="folder to write")
    parser.add_argument(
        "--family",
        choices=("unispeech", "unispeech-sat"),
        help="the folder's own when omitted, else unispeech-sat",
    )
    parser.add_argument(
        "--backbone-only", action="store_true", help="leave the head out"
    )
    arguments = parser.parse_args(argv)

    from unispeech_sb.convert import to_huggingface

    _say(to_huggingface(**vars(arguments)))


def _info(argv):
    """Tells what a checkpoint is and where each fact is from: info PATH"""
    parser = argparse.ArgumentParser("unispeech-sb info")
    parser.add_argument("path", help=f"{SOURCES}; or a folder of this package")
    _add_set(parser)
    arguments = parser.parse_args(argv)

    from unispeech_sb.convert import describe

    _say(describe(arguments.path, **_options(arguments.set)))


def _say(text, stream=None):
    """Prints what may quote a file: control characters are escaped."""
    shown = "".join(
        char
        if char.isprintable() or char == "\n"
        else char.encode("unicode_escape", "surrogatepass").decode()
        for char in str(text)
    )
    print(shown, file=stream or sys.stdout)


def _add_set(parser):
    """Adds the option that sets what a file does not say."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an option in place of the file's, like num_attention_heads=12 "
        "or mask_rule=hf; may be given several times",
    )


def _options(pairs):
    """NAME=VALUE texts as a dict; values are JSON, else plain text."""
    options = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise ValueError(f"--set: expected NAME=VALUE; got {pair!r}")
        try:
            options[name] = json.loads(text)
        except json.JSONDecodeError:
            options[name] = text
    return options


def _transcribe(argv):
    """Writes down what is said in files: transcribe FOLDER FILES..."""
    from unispeech_sb.inference.transcribe import main as run_transcribe

    run_transcribe(argv)


def _tune_lm(argv):
    """Fits the weights of a language model: tune-lm FOLDER CSV --lm FILE"""
    from unispeech_sb.inference.tune_lm import main as run_tune_lm

    run_tune_lm(argv)


def _embed(argv):
    """Writes the voices of files: embed FOLDER FILES... -o FILE"""
    from unispeech_sb.inference.embed import main as run_embed

    run_embed(argv)


def _verify(argv):
    """Tells whether two recordings are of one speaker: verify FOLDER A B"""
    from unispeech_sb.inference.verify import main as run_verify

    run_verify(argv)


def _score(argv):
    """Scores a trial list: score FOLDER --trials T --audio-root R"""
    from unispeech_sb.inference.score import main as run_score

    run_score(argv)


def _diarize(argv):
    """Tells who speaks when: diarize FOLDER FILES..."""
    from unispeech_sb.inference.diarize import main as run_diarize

    run_diarize(argv)


def _demo(argv):
    """Trains, scores and exports a small model on spoken test words: demo"""
    from unispeech_sb.demo import main as run_demo

    run_demo(argv)


COMMANDS = {
    "recipe": recipe,
    "convert": _convert,
    "to-hf": _to_hf,
    "info": _info,
    "transcribe": _transcribe,
    "tune-lm": _tune_lm,
    "embed": _embed,
    "verify": _verify,
    "score": _score,
    "diarize": _diarize,
    "demo": _demo,
}
"""Name on the command line -> function of the arguments after it."""


def main(argv=None):
    """Runs one command.

    Arguments
    ---------
    argv : list of str, optional
        Arguments after the program's name; those of the process when omitted.

    Returns
    -------
    int
        Exit code: 0, or 1 after an error that stderr tells in one line, or
        130 after Ctrl-C. A command line that makes no sense exits with 2.

    Example
    -------
    >>> main(["convert", "no/such/folder", "copy"])
    1
    """
    arguments = _parser().parse_args(argv)
    try:
        COMMANDS[arguments.command](arguments.arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
    except (ValueError, OSError, ImportError) as error:
        if arguments.traceback:
            raise
        message = " ".join(str(error).split()) or type(error).__name__
        _say(f"unispeech-sb: {message}", sys.stderr)
        return 1
    return 0


def _parser():
    """The part of the command line before the command's own arguments."""
    summaries = [f.__doc__.splitlines()[0] for f in COMMANDS.values()]
    parser = argparse.ArgumentParser(
        "unispeech-sb",
        description="commands:\n  " + "\n  ".join(summaries),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument(
        "--traceback",
        action="store_true",
        help="show where an error comes from; stands before the command",
    )
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument(
        "arguments", nargs=argparse.REMAINDER, help="the command's own"
    )
    return parser


def _home(kind):
    """Package of ``recipes`` or ``hparams``: installed, else the clone's."""
    installed = f"unispeech_sb.{kind}"
    return kind if find_spec(installed) is None else installed


def _recipes():
    """Name -> first line of the docstring, read without importing."""
    scripts = {
        file.name.removesuffix(".py"): file
        for file in files(_home("recipes")).iterdir()
        if file.name.endswith(".py") and not file.name.startswith("_")
    }
    return {
        name: ast.get_docstring(ast.parse(scripts[name].read_text())).partition(
            "\n"
        )[0]
        for name in sorted(scripts)
    }


if __name__ == "__main__":
    sys.exit(main())
