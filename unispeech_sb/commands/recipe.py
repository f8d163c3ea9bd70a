"""Training: ``unispeech-sb recipe`` and ``demo``."""

import ast
import re
import shutil
import sys
import textwrap
import time
from collections.abc import Iterable, Sequence
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any

from unispeech_sb.commands.options import new_parser
from unispeech_sb.environment import require_extra
from unispeech_sb.errors import print_escaped
from unispeech_sb.recipe_options import (
    check_inputs,
    describe_recipe,
    home_of,
    read_command_line,
    unknown,
)

_DEMO_FOLDER = Path("results", "demo")
_DEMO_KEYS = {
    "synthetic": True,
    "num_classes": 10,
    "number_of_epochs": 24,
    "warmup_updates": 60,
    "hold_updates": 140,
    "decay_updates": 260,
}
"""Keys of hparams/keyword_spotting.yaml that the demo changes."""

_DEMO_SUMMARY = """
What was done, in {minutes:.1f} minutes:
  1. espeak-ng spoke 10 words with 100 voices       {folder}/corpus
  2. a small model learned them from 60 voices      {folder}/train_log.txt
  3. {accuracy:<47}{folder}/confusion.png
  4. it was exported, and loaded by SpeechBrain     {folder}/export
  5. {answer:<47}{folder}/example.wav

Synthetic speech shows that all parts work; it is no benchmark. Now type:
  {command} recipe
  {command} recipe keyword_spotting --data_folder=speech_commands_v0.02
  make test
to see what can be trained, to train on real speech, to check all of it.
"""

_USAGE = "unispeech-sb recipe [NAME [YAML] [--key=value ...]]"


def recipe(argv: Sequence[str]) -> dict[str, Any] | None:
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
    >>> recipe(["make_units"])
    Traceback (most recent call last):
    ...
    ValueError: ...make_units.yaml needs a value of data_folder: give ...
    """
    known = recipe_docstrings()
    if not argv or argv[0] in ("-h", "--help"):
        _list_recipes(known, with_usage=bool(argv))
        return None
    name, *arguments = argv
    if name not in known:
        sentence = unknown("recipe", name, known)
        print_escaped(f"unispeech-sb: {sentence}", sys.stderr)
        sys.exit(2)
    program = f"unispeech-sb recipe {name}"
    yamls = yamls_of(name, known)
    if not arguments or arguments[0].startswith("-"):
        arguments.insert(0, f"{name}.yaml")
    if not Path(arguments[0]).is_file():
        if arguments[0] not in yamls:
            raise ValueError(unknown("yaml file", arguments[0], yamls))
        arguments[0] = str(files(home_of("hparams")) / arguments[0])
    if {"-h", "--help"} & {*arguments}:
        usage = f"{program} [YAML] [--key=value ...]"
        docstring = as_commands(known[name])
        text = describe_recipe(arguments[0], usage, docstring, yamls)
        print(as_commands(text))
        return None
    check_inputs(read_command_line(arguments, program))
    return import_module(f"{home_of('recipes')}.{name}").main(arguments)


def demo(argv: Sequence[str]) -> None:
    """Trains, scores and exports a small model on synthetic speech."""
    parser = new_parser(
        "demo",
        "Speak a small corpus with espeak-ng, train a keyword spotter on it, "
        "score and export it, and classify a recording by what was exported: "
        "a few minutes on a CPU.",
    )
    parser.usage = "%(prog)s [-h] [--key=value ...]"
    parser.epilog = (
        "Keys are those of `unispeech-sb recipe keyword_spotting --help`; "
        "results are in results/demo."
    )
    _, overrides = parser.parse_known_args(argv)
    require_extra("espeakng_loader", "demo", "synthetic speech")

    from speechbrain.inference.classifiers import EncoderClassifier

    from unispeech_sb.dataio.manifest import read_manifest

    start, folder = time.monotonic(), _DEMO_FOLDER
    keys = {**_DEMO_KEYS, "data_folder": folder / "corpus"}
    keys["output_folder"] = folder
    options = [f"--{key}={value}" for key, value in keys.items()]
    scores = recipe(["keyword_spotting", *options, *overrides])
    assert scores is not None  # those of a recipe that ran
    classifier = EncoderClassifier.from_hparams(source=str(folder / "export"))
    example = folder / "example.wav"
    shutil.copy(read_manifest(folder / "manifests/test.csv")[0]["wav"], example)
    _, score, _, label = classifier.classify_file(str(example))
    accuracy = f"{100 * scores['accuracy']:.1f} %"
    summary = _DEMO_SUMMARY.format(
        minutes=(time.monotonic() - start) / 60,
        folder=folder,
        accuracy=f"accuracy of {accuracy} on 20 unseen voices",
        answer=f'"{label[0]}", with probability {score.exp().item():.2f}, is',
        command=".venv/bin/unispeech-sb",
    )
    print(summary)


def _list_recipes(known, with_usage):
    """Prints name and task of each recipe."""
    if with_usage:
        print(f"usage: {_USAGE}\n\nTrain a model. The recipes:\n")
    indent = max(map(len, known), default=0) + 2
    columns = shutil.get_terminal_size((1000, 0)).columns  # no wrap in a pipe
    for name, docstring in known.items():
        task, *_ = docstring.split("\n\n")
        line = f"{name:<{indent}}{' '.join(task.split())}"
        print(textwrap.fill(line, columns, subsequent_indent=" " * indent))
    if with_usage:
        print("\nunispeech-sb recipe NAME --help lists the keys of a recipe.")


def recipe_docstrings() -> dict[str, str]:
    """Name of each recipe -> docstring, read without importing."""
    scripts = {
        file.name.removesuffix(".py"): file
        for file in files(home_of("recipes")).iterdir()
        if file.name.endswith(".py") and not file.name.startswith("_")
    }
    return {
        name: ast.get_docstring(ast.parse(scripts[name].read_text("utf-8")))
        or ""
        for name in sorted(scripts)
    }


def yamls_of(name: str, recipes: Iterable[str]) -> list[str]:
    """Installed yamls of a recipe: each is named by its recipe and a suffix."""

    def owner(stem):
        fitting = [r for r in recipes if f"{stem}_".startswith(f"{r}_")]
        return max(fitting, key=len, default=None)

    found = [file.name for file in files(home_of("hparams")).iterdir()]
    stems = [n.removesuffix(".yaml") for n in found if n.endswith(".yaml")]
    return sorted(f"{stem}.yaml" for stem in stems if owner(stem) == name)


def as_commands(text: str) -> str:
    """Calls of a clone's scripts as calls of the installed command."""

    def command(match):
        name, space, yaml = match.groups()
        yaml = "" if yaml == name else f"{yaml}.yaml "
        return f"unispeech-sb recipe {name}{space}{yaml}"

    script = r"python recipes/(\w+)\.py(\s+(?:\\\s+)?)hparams/(\w+)\.yaml ?"
    return re.sub(r"hparams/(\w+\.yaml)", r"\1", re.sub(script, command, text))
