"""The SUPERB benchmark: ``unispeech-sb superb run`` and ``superb report``."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from unispeech_sb.commands.options import check_output_folder, new_parser
from unispeech_sb.environment import require_torchaudio
from unispeech_sb.errors import check_device, print_escaped
from unispeech_sb.recipe_options import unknown
from unispeech_sb.superb.kinds import PRESETS, SUITS
from unispeech_sb.superb.report import (
    REPORT,
    model_name,
    summary_text,
    write_report,
)
from unispeech_sb.superb.results import merge_rows, read_results
from unispeech_sb.superb.run import Request, run_tasks
from unispeech_sb.superb.tasks import TASKS

_ROOT = "UNISPEECH_SB_DATA"
"""Environment variable that names the folder of corpora."""


def superb(argv: Sequence[str]) -> None:
    """Runs the tasks of SUPERB with a model, or reports on such runs.

    Arguments
    ---------
    argv : list of str
        ``run`` or ``report``, and its arguments.

    Raises
    ------
    SystemExit
        With 1 where a task has failed or has no corpus.

    Example
    -------
    >>> superb(["report", "nowhere"])
    Traceback (most recent call last):
    ...
    ValueError: nowhere: expected a folder of results, ...
    """
    commands = {"run": _run, "report": _report}
    name = argv[0] if argv else "--help"
    if name in commands:
        if commands[name](argv[1:]):
            sys.exit(1)
        return
    if name not in ("-h", "--help"):
        sentence = unknown("command of superb", name, commands)
        print_escaped(f"unispeech-sb: {sentence}", sys.stderr)
        sys.exit(2)
    print(
        "usage: unispeech-sb superb run --model FOLDER --data-root ROOT ...\n"
        "       unispeech-sb superb report FOLDER ...\n\n"
        "The SUPERB benchmark: run its ten tasks with a model, report on one "
        "or several\nsuch runs beside the published ones. --help after either "
        "shows its options."
    )


def _run(argv):
    """Runs tasks."""
    parser = _run_parser()
    given = parser.parse_args(argv)
    tasks = _names(parser, given.tasks, _tasks_of(given.preset))
    changed = _changes(parser, given.set or ())
    root = given.data_root or os.environ.get(_ROOT)
    if root is None:
        parser.error(f"expected --data-root, or {_ROOT} in the environment")
    check_output_folder(given.output)
    _check_model(given.model)
    require_torchaudio()  # rather than in each of ten processes
    name = model_name(given.model).replace("/", "-")
    output = given.output or Path("results", "superb", name)
    return run_tasks(
        Request(
            given.model,
            tasks,
            Path(root).absolute(),
            Path(output),
            given.preset,
            given.seed,
            given.cache,
            given.search,
            _options(given.device),
            changed,
        )
    )


def _options(device):
    """Run options of the recipes: the device, and on CPUs what processes talk
    by."""
    options = []
    if device:
        check_device(device)
        options.append(f"--device={device}")
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        from torch.cuda import is_available

        if device == "cpu" or not is_available():
            options.append("--distributed_backend=gloo")
    return tuple(options)


def _run_parser():
    """The command line of ``superb run``."""
    parser = new_parser(
        "superb run",
        "Run the tasks of SUPERB with a frozen model, one after the other: "
        "check the corpora, prepare, train, score. The same command goes on "
        "where it stopped. Under torchrun all processes work on each task.",
    )
    parser.add_argument(
        "--model",
        required=True,
        metavar="FOLDER",
        help="pretrained folder, Hugging Face folder, hub name, or preset",
    )
    parser.add_argument(
        "--tasks",
        default="all",
        metavar="T,T,...",
        help=f"all, or some of {', '.join(TASKS)} (default: all)",
    )
    parser.add_argument(
        "--data-root",
        metavar="ROOT",
        help="folder in which the corpora lie; that of the environment's "
        f"{_ROOT} when omitted",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder of the results (default: results/superb/MODEL)",
    )
    parser.add_argument(
        "--preset",
        default="superb",
        choices=PRESETS,
        help="; ".join(f"{name}: {does}" for name, does in PRESETS.items()),
    )
    _add_choices(parser)
    return parser


def _add_choices(parser):
    """Adds how the tasks are run."""
    parser.add_argument(
        "--seed",
        type=int,
        metavar="N",
        help="of all tasks (default: that of each task's yaml)",
    )
    for name, what in (
        ("cache", "keep features of the frozen model on disk, in DIR/cache"),
        (
            "search",
            "try learning rates and take the best on the validation set",
        ),
    ):
        parser.add_argument(
            f"--{name}",
            default=SUITS[0],
            choices=SUITS,
            help=f"{what}: for the tasks whose heads take means over time "
            "(KS, SID, ER, IC), where that takes minutes, for all, or for none "
            "(default: %(default)s)",
        )
    parser.add_argument(
        "--device",
        metavar="DEVICE",
        help="cpu, cuda, cuda:1, ...; a GPU where there is one",
    )
    parser.add_argument(
        "--set",
        action="append",
        metavar="TASK.KEY=VALUE",
        help="another value of a key of a task's yaml, as sid.lr=0.05; it "
        "stands in the results; may be given several times",
    )


def _tasks_of(preset):
    """Tasks that a preset has."""
    return tuple(
        name
        for name, task in TASKS.items()
        if any(preset in corpus.presets for corpus in task.corpora)
    )


def _names(parser, text, known):
    """Names of tasks, in the order of the table."""
    if text == "all":
        return known
    given = [name.strip() for name in text.split(",") if name.strip()]
    for name in given:
        if name not in known:
            parser.error(unknown("task of this preset", name, known))
    if not given:
        parser.error("--tasks: expected names of tasks; got none")
    return tuple(name for name in known if name in given)


def _changes(parser, texts):
    """Task -> key -> value, of ``--set``."""
    changed = {}
    for text in texts:
        place, _, value = text.partition("=")
        task, _, key = place.partition(".")
        if task not in TASKS or not key or "=" not in text:
            parser.error(f"--set: expected TASK.KEY=VALUE; got {text!r}")
        try:
            changed.setdefault(task, {})[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            parser.error(f"--set: expected a value of yaml; got {value!r}")
    return changed


def _check_model(model):
    """Refuses a path that does not exist, before any corpus is looked at."""
    is_path = model[:1] in "./~" or model.count("/") > 1
    if is_path and not Path(model).exists():
        raise ValueError(f"{model}: there is no such model")


def _report(argv):
    """Merges the results of runs in a report."""
    parser = new_parser(
        "superb report",
        "Report on one or several runs, of one or several models, beside the "
        "published ones.",
    )
    parser.add_argument(
        "folders",
        nargs="+",
        metavar="FOLDER",
        help="folder of results of superb run",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path(),
        metavar="DIR",
        help=f"folder to write {REPORT} to (default: the current one)",
    )
    given = parser.parse_args(argv)
    check_output_folder(given.output)
    rows = merge_rows(read_results(Path(folder)) for folder in given.folders)
    given.output.mkdir(parents=True, exist_ok=True)
    write_report(given.output, rows)
    for row in rows:
        print_escaped(summary_text(row) + "\n")
    print_escaped(f"report      {given.output / REPORT}")
    return 0
