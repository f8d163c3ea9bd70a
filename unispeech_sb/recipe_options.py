"""The command line of a recipe: the keys of its yaml and SpeechBrain's options.

Both are read, checked and described without importing torch, so that help and
mistakes are answered at once.
"""

import argparse
import difflib
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from importlib.resources import files
from importlib.util import find_spec
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from unispeech_sb.environment import require_extra
from unispeech_sb.text import absent, read_text

OWN_OPTIONS = {
    "overwrite": (
        False, "start afresh in the output folder, and remove what an earlier "
        "run left there"),
    "traceback": (False, "show where an error comes from"),
    "data_parallel": (
        "ddp", "of runs by torchrun: ddp, or fsdp, which shards weights, "
        "gradients and optimizers"),
    "distributed_timeout": (120, "of runs by torchrun: minutes to wait"),
    "activation_checkpointing": (False, "recompute activations: less memory"),
    "async_checkpoints": (False, "write checkpoints while training goes on"),
    "keep_checkpoints": (1, "last checkpoints to keep, beside the best one"),
}  # fmt: skip
"""This package's options of a run: name -> default and what it is. A yaml may
have them as keys, too."""

SPEECHBRAIN_OPTIONS = {
    "device": (None, "cpu, cuda, cuda:1, ...; a GPU where there is one"),
    "precision": ("fp32", "of training: fp32, or mixed with fp16 or bf16"),
    "eval_precision": ("fp32", "of evaluation: fp32, fp16 or bf16"),
    "noprogressbar": (False, "no progress bars"),
    "tqdm_colored_bar": (False, "colored progress bars"),
    "test_only": (False, "evaluate the best checkpoint without training"),
    "debug": (False, "a trial run: a few batches of a few epochs"),
    "debug_batches": (2, "batches of an epoch of a trial run"),
    "debug_epochs": (2, "epochs of a trial run; 0: all"),
    "debug_persistently": (False, "keep what a trial run saves"),
    "grad_accumulation_factor": (1, "batches of one update"),
    "optimizer_step_limit": (None, "updates after which training ends"),
    "max_grad_norm": (5.0, "clip gradients to this norm; 0: no clipping"),
    "skip_nonfinite_grads": (False, "leave out gradients with inf or nan"),
    "nonfinite_patience": (
        3, "batches of an epoch whose loss may be inf or nan before training "
        "stops"),
    "remove_vector_weight_decay": (
        False, "no weight decay of biases and normalizations"),
    "ckpt_interval_minutes": (
        0, "minutes between checkpoints within an epoch; 0: none"),
    "ckpt_interval_steps": (
        0, "updates between checkpoints within an epoch; 0: none"),
    "distributed_backend": (
        "nccl", "of runs by torchrun: nccl on GPUs, gloo on CPUs, mpi"),
    "find_unused_parameters": (
        False, "of runs by torchrun: allow parameters without gradients"),
    "data_parallel_backend": (
        False, "several GPUs by DataParallel; torchrun is faster"),
    "jit": (False, "compile the modules by TorchScript"),
    "jit_module_keys": (None, "those to compile, of the yaml's modules"),
    "compile": (False, "compile the modules by torch.compile"),
    "compile_module_keys": (None, "those to compile, of the yaml's modules"),
    "compile_mode": (
        "default", "of torch.compile: default, reduce-overhead, max-autotune"),
    "compile_using_fullgraph": (
        False, "torch.compile fails where it cannot compile a whole module"),
    "compile_using_dynamic_shape_tracing": (
        False, "torch.compile expects inputs of any length"),
    "log_config": (None, "yaml file that configures the logging"),
    "profile_training": (False, "write a profile for TensorBoard"),
    "profile_warmup": (5, "updates before the profile"),
    "profile_steps": (5, "updates in the profile"),
    "auto_mix_prec": (False, "deprecated: --precision=fp16"),
    "bfloat16_mix_prec": (False, "deprecated: --precision=bf16"),
}  # fmt: skip
"""SpeechBrain's options of a run. A test compares them with SpeechBrain's own
parser, which cannot be imported without torch."""

RUN_OPTIONS = OWN_OPTIONS | SPEECHBRAIN_OPTIONS
"""All options of a run; a default of False makes a flag."""

_PRECISIONS = ("fp32", "fp16", "bf16")
DATA_PARALLEL = ("ddp", "fsdp")
_WORDS = {"true": True, "false": False}

_OF_LAUNCHERS = re.compile(r"--(distributed_launch|local[_-]rank)(=.*)?")
"""Options that say what the environment variables of torchrun say, of earlier
SpeechBrains and of torch.distributed.launch."""

_INPUTS = (
    *("data_folder", "test_folder", "units_folder", "simulated_folder"),
    *("noise_folder", "rir_folder", "audio_root", "wav_root"),
    *("trials", "lexicon", "phones_table", "fold_lists"),
)
"""Keys of the yamls that name files and folders to read."""

PLACEHOLDER = "!PLACEHOLDER"
_REFERENCE = "!ref"
_APPLIED = "!applyref:"
_COLUMN = 32
"""Where the explanations of keys and options begin in the help."""


class _CommandLine(NamedTuple):
    """What a recipe is called with; from ``read_command_line``."""

    yaml_file: str
    nodes: dict[str, Any]
    """Key of the yaml file -> its value, as PyYAML composes it."""
    run_options: dict[str, Any]
    """All of ``RUN_OPTIONS``: name -> value."""
    given: set[str]
    """Names of the run options that stand on the command line."""
    overrides: str
    """What replaces values of the yaml file, as yaml."""
    values: dict[str, Any]
    """The same as objects: key -> value."""


def read_command_line(
    argv: Sequence[str] | None, program: str | None = None
) -> _CommandLine:
    """Reads a recipe's command line and checks its keys against the yaml."""
    argv = _plain_flags(sys.argv[1:] if argv is None else map(str, argv))
    options, rest = _parser(program).parse_known_args(argv)
    options = vars(options)
    yaml_file = options.pop("param_file")
    overrides = _as_yaml(rest)
    _, entries = _read_yaml(yaml_file)
    nodes = {key.value: node for key, node in entries}
    try:
        values = yaml.safe_load(overrides) or {}
    except yaml.YAMLError as error:
        raise ValueError(
            f"{yaml_file}: expected yaml, in it and on the command line "
            f"({' '.join(str(error).split())})"
        ) from error
    for key, value in values.items():
        _check_value(yaml_file, nodes, key, value)
    named = {argument.partition("=")[0] for argument in argv}
    given = {name for name in RUN_OPTIONS if f"--{name}" in named}
    return _CommandLine(yaml_file, nodes, options, given, overrides, values)


def check_inputs(line: _CommandLine) -> None:
    """Refuses a run with open keys, or without its inputs or packages."""
    still_open = [
        key
        for key, node in line.nodes.items()
        if node.tag == PLACEHOLDER and key not in line.values
    ]
    if still_open:
        raise ValueError(
            f"{line.yaml_file} needs a value of {' and '.join(still_open)}: "
            f"give {' '.join(f'--{key}=...' for key in still_open)}"
        )
    is_synthetic = _value(line, "synthetic") is True
    if is_synthetic:
        require_extra("espeakng_loader", "demo", "synthetic speech")
    if _value(line, "espeak") is not None:
        require_extra("espeakng_loader", "demo", "espeak")
    if "kmeans" in line.nodes:
        require_extra("sklearn", "pretrain", "k-means")
    if is_synthetic or _value(line, "skip_prep") is True:
        return
    for key in _INPUTS:
        # A path that the yaml derives from others is written, not read
        if key in line.nodes and line.nodes[key].tag != _REFERENCE:
            _check_paths(key, _value(line, key), line)


def plain_values(line: _CommandLine) -> dict[str, Any]:
    """Key -> value of the yaml and the command line, of values without tags."""
    return {key: _value(line, key) for key in line.nodes}


class YamlKey(NamedTuple):
    """A key of a yaml file, as its help shows it."""

    name: str
    default: str
    """As it is written in the yaml; "..." where there is none to show."""
    about: str
    """The comment behind it; empty without one."""
    entries: tuple["YamlKey", ...] = ()
    """Those of a dict."""


class YamlKeys(NamedTuple):
    """What a yaml file says of itself; from ``read_keys``."""

    header: list[str]
    """Lines of the comment that the file begins with."""
    sections: dict[str, list[YamlKey]]
    """Title -> the keys that a command line may set."""
    built: list[str]
    """Names of those that are built from the others."""
    names: set[str]
    """Names of all keys."""


def read_keys(yaml_file: str | Path) -> YamlKeys:
    """Reads the keys of a yaml file, with its comments."""
    text, entries = _read_yaml(yaml_file)
    lines = text.splitlines()
    nodes = {key.value: node for key, node in entries}
    header = [line[2:] for line in takewhile(_is_comment, lines)]
    if entries and len(header) == entries[0][0].start_mark.line:
        header = []  # it is the title of the first section
    titles, built = _titles(lines, entries), []
    sections: dict[str, list[YamlKey]] = {}
    for key, node in entries:
        if key.value != "modules" and _is_plain(key.value, nodes):
            section = sections.setdefault(titles[key.value], [])
            section.append(_described(key, node, text, lines))
        elif not key.value.startswith("_"):
            built.append(key.value)
    return YamlKeys(header, sections, built, {*nodes})


def describe_recipe(
    yaml_file: str | Path, usage: str, docstring: str, yamls: Iterable[str] = ()
) -> str:
    """Writes the help of a recipe with one of its yamls, by its comments.

    Of the docstring, the first paragraph is the task, the last one what a run
    leaves; between them stand examples, which are left out.
    """
    found = read_keys(yaml_file)
    task, *more = docstring.strip().split("\n\n")
    about = [task, *more[-1:]]
    if yamls:
        about.append(f"YAML: {', '.join(yamls)}, or a file of your own")
    parts = [f"usage: {usage}"]
    parts += ["\n".join(_wrapped(paragraph)) for paragraph in about]
    if found.header:
        name = Path(yaml_file).name
        parts.append("\n".join([f"{name}:", *_indented(found.header)]))
    for title, keys in found.sections.items():
        rows = [row for key in keys for row in _key_rows(key)]
        parts.append("\n".join([*_wrapped(title), *rows]))
    notes = "<key> stands for the value of that key, null for none."
    if found.built:
        notes += f" The yaml builds from these: {', '.join(found.built)}."
    parts.append("\n".join(_wrapped(notes)))
    for title, options in (
        ("Options of a run", OWN_OPTIONS),
        ("SpeechBrain's options of a run", SPEECHBRAIN_OPTIONS),
    ):
        shown = [name for name in options if name not in found.names]
        rows = [row for name in shown for row in _option_rows(name)]
        parts.append("\n".join([title, *rows]))
    return "\n\n".join(parts)


def answer_help() -> None:
    """Prints the help of a recipe that runs as a script, if asked to; exits.

    The yaml is that of the command line, else that of the script's name.
    """
    script, *argv = sys.argv
    if not {"-h", "--help"} & {*argv}:
        return
    yaml_file = argv[0]
    if yaml_file.startswith("-"):
        folder = Path(script).resolve().parent.parent / "hparams"
        yaml_file = str(folder / f"{Path(script).stem}.yaml")
    usage = f"python {script} YAML [--key=value ...]"
    docstring = sys.modules["__main__"].__doc__ or ""
    print(describe_recipe(yaml_file, usage, docstring))
    sys.exit(0)


def home_of(kind: str) -> str:
    """Package of ``recipes`` or ``hparams``: installed, else the clone's."""
    installed = f"unispeech_sb.{kind}"
    return kind if find_spec(installed) is None else installed


def keys_of(yaml_name: str) -> list[str]:
    """Keys of an installed yaml, without reading what they build."""
    path = files(home_of("hparams")) / yaml_name
    return re.findall(r"^(\w+):", path.read_text("utf-8"), re.MULTILINE)


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """The sentence on a name that is none of those known, with the closest."""
    close = difflib.get_close_matches(name, known, n=1)
    guess = f"did you mean '{close[0]}'? There" if close else "there"
    return f"no {kind} is named '{name}'; {guess} are: {', '.join(known)}"


def _plain_flags(argv):
    """A command line with flags as they are now written: ``--debug`` in place
    of ``--debug=True``, nothing in place of ``--debug=False``, and without
    what launchers used to add."""
    plain = []
    for argument in argv:
        name, _, value = argument.partition("=")
        default, _ = RUN_OPTIONS.get(name[2:], (None, ""))
        given = _WORDS.get(value.lower()) if default is False else None
        if given is not False and not _OF_LAUNCHERS.fullmatch(argument):
            plain.append(name if given else argument)
    return plain


def _parser(program):
    """A parser of SpeechBrain's options, without abbreviations."""
    parser = argparse.ArgumentParser(
        program,
        usage="%(prog)s YAML [--key=value ...], or --help for the keys",
        allow_abbrev=False,
        add_help=False,
    )
    parser.add_argument("param_file", metavar="YAML")
    for name, (default, _) in RUN_OPTIONS.items():
        options = {"default": default}
        if default is False:
            options["action"] = "store_true"
        elif default is not None:
            options["type"] = type(default)
        if "precision" in name:
            options["choices"] = _PRECISIONS
        if name == "data_parallel":
            options["choices"] = DATA_PARALLEL
        if name.endswith("_module_keys"):
            options["nargs"] = "*"
        parser.add_argument(f"--{name}", **options)
    return parser


def _read_yaml(path):
    """Text of a yaml file, and the nodes of its keys and values."""
    if not Path(path).exists():
        raise FileNotFoundError(f"{path}: {absent(path, 'yaml file')}")
    text = read_text(path)
    try:
        document = yaml.compose(text)
    except yaml.YAMLError as error:
        raise ValueError(
            f"{path}: expected yaml, got: {' '.join(str(error).split())}"
        ) from error
    if not isinstance(document, yaml.MappingNode):
        raise ValueError(f"{path}: expected a mapping of yaml keys")
    return text, document.value


def _as_yaml(arguments):
    """``--key value`` and ``--key=value`` to yaml; the last one counts."""
    values, key = {}, None
    for argument in arguments:
        if argument.startswith("--"):
            key, equals, value = argument[2:].partition("=")
            values[key] = value if equals else None
        elif key is not None:
            values[key] = f"{values[key] or ''} {argument}"
        else:
            raise ValueError(
                f"expected --key=value after the yaml file, got '{argument}'"
            )
    for key, value in values.items():
        if value is None:
            raise ValueError(f"{key}: expected --{key}=VALUE; got no value")
    return "\n".join(f"{key}: {value}" for key, value in values.items())


_CALLED = {
    "number_of_epochs": "epoch epochs num_epochs max_epochs num_train_epochs",
    "lr": "learning_rate",
    "data_folder": "data data_dir dataset",
    "output_folder": "output output_dir",
}
"""Key -> what other tools call it."""


def _check_value(yaml_file, nodes, key, value):
    """Refuses an unknown key, and a word for a number or for True or False."""
    if key not in nodes:
        close = [k for k in _CALLED if k in nodes and key in _CALLED[k].split()]
        close += difflib.get_close_matches(str(key), [*nodes, *RUN_OPTIONS], 1)
        guess = f"did you mean '{close[0]}'? It" if close else "it"
        names = [name for name in nodes if _is_plain(name, nodes)]
        raise ValueError(
            f"{yaml_file} has no key '{key}'; {guess} has: {', '.join(names)}"
        )
    kind = nodes[key].tag.rpartition(":")[2]
    if kind in ("int", "float") and isinstance(value, str):
        try:
            float(value)  # PyYAML takes 1e-3 for a word
        except ValueError:
            raise ValueError(
                f"{key}: expected a number, as in the yaml file; got {value!r}"
            ) from None
    if kind == "bool" and isinstance(value, str):
        raise ValueError(f"{key}: expected True or False, got {value!r}")


def _value(line, key):
    """Value of a key where it is plain, else None."""
    if key in line.values or key not in line.nodes:
        return line.values.get(key)
    node = line.nodes[key]
    return yaml.safe_load(yaml.serialize(node)) if _is_literal(node) else None


def _check_paths(key, paths, line):
    """Refuses files and folders that are not there."""
    is_needed = line.nodes[key].tag == PLACEHOLDER
    if paths is None and not is_needed:
        return
    for path in paths if isinstance(paths, list) else [paths]:
        if path is None or not Path(str(path)).exists():
            text, entries = _read_yaml(line.yaml_file)
            title = _titles(text.splitlines(), entries)[key]
            _, _, kind = title.partition(": ")
            kind = kind if is_needed and kind else "a file or folder"
            raise ValueError(
                f"{path}: expected {kind}, as {key}; {absent(str(path))}"
            )


def _is_comment(line):
    """Whether a line of a yaml is a comment from its beginning."""
    return line.startswith("#")


def _titles(lines, entries):
    """Name of each key -> title of its section: the comment that begins it."""
    title, titles = "General", {}
    for key, _ in entries:
        title = _comment_above(lines, key) or title
        titles[key.value] = title
    return titles


def _comment_above(lines, key):
    """The comment right above a key, as one line; empty without one."""
    above = reversed(lines[: key.start_mark.line])
    block = [line[1:].strip() for line in takewhile(_is_comment, above)]
    return " ".join(reversed(block))


def _comment_beside(lines, key, node):
    """The comment behind a key and its value; empty without one."""
    below = node.start_mark.line > key.end_mark.line
    mark = key.end_mark if below else node.end_mark
    return lines[mark.line][mark.column :].partition("#")[2].strip()


def _is_plain(name, nodes):
    """Whether a key's value is text, a number, or a list or dict of these."""
    node = nodes.get(name)
    if node is None:
        return False
    if node.tag == _REFERENCE:
        names = re.findall("<(.*?)>", node.value)
        return all(_is_plain(other, nodes) for other in names)
    is_applied = node.tag.startswith(_APPLIED)
    return is_applied or node.tag == PLACEHOLDER or _is_literal(node)


def _is_literal(node):
    """Whether no tag is in a value."""
    inner = []
    if isinstance(node, yaml.SequenceNode):
        inner = node.value
    elif isinstance(node, yaml.MappingNode):
        inner = [value for _, value in node.value]
    return node.tag[0] != "!" and all(map(_is_literal, inner))


def _described(key, node, text, lines):
    """A key with its default and comment; a dict has its entries."""
    about = _comment_beside(lines, key, node)
    default, entries = _source(node, text), ()
    if node.tag == PLACEHOLDER:
        default = "..."
        about = f"required; {about}" if about else "required"
    elif node.tag == _REFERENCE:
        default = node.value
    elif node.tag.startswith(_APPLIED):
        given = ", ".join(item.value for item in node.value)
        default, about = "...", about or f"derived from {given}"
    elif isinstance(node, yaml.MappingNode) and not node.flow_style:
        default = "{...}"
        entries = tuple(_described(*pair, text, lines) for pair in node.value)
    return YamlKey(key.value, default, about, entries)


def _key_rows(key):
    """Lines of a key; a dict has one more for each of its entries."""
    rows = _row(f"  --{key.name}={key.default}", key.about)
    for entry in key.entries:
        rows += _row(f"    {entry.name}: {entry.default}", entry.about)
    return rows


def _source(node, text):
    """A value as it is written in the yaml, on one line."""
    written = text[node.start_mark.index : node.end_mark.index]
    return " ".join(line.strip() for line in written.split("\n"))


def _option_rows(name):
    """Lines of one of SpeechBrain's options."""
    default, explanation = RUN_OPTIONS[name]
    shown = (
        "" if default is False else f"={'...' if default is None else default}"
    )
    return _row(f"  --{name}{shown}", explanation)


def _row(left, right):
    """Lines of a table with two columns, wrapped in the second one."""
    rest = _wrapped(right, _COLUMN) if right else []
    if len(left) > _COLUMN - 2 or not rest:
        return [left, *rest]
    return [left.ljust(_COLUMN) + rest[0][_COLUMN:], *rest[1:]]


def _indented(lines):
    """Lines moved to the right; empty ones stay empty."""
    return [f"  {line}".rstrip() for line in lines]


def _wrapped(text, indent=0):
    """Lines of a text, not wider than the terminal."""
    width = max(shutil.get_terminal_size().columns, _COLUMN + 20)
    return textwrap.wrap(
        " ".join(text.split()),
        min(width, 100),
        initial_indent=" " * indent,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
