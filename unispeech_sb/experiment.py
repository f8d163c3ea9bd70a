"""One experiment from the command line to the exported model.

Every recipe's ``main`` is ``run(...)``: SpeechBrain's usual script, in which
the recipe shows only its data pipeline and its Brain.
"""

import gc
import inspect
import logging
import os
import re
import shlex
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import speechbrain as sb
import torch
from hyperpyyaml import load_hyperpyyaml, resolve_references
from ruamel.yaml.error import YAMLError
from speechbrain.utils.distributed import (
    get_local_rank,
    get_rank,
    if_main_process,
    is_distributed_initialized,
    run_on_main,
)
from speechbrain.utils.logger import get_logger
from speechbrain.utils.run_opts import RunOptions
from speechbrain.utils.seed import seed_everything

from unispeech_sb.atomic import write_json
from unispeech_sb.brains.data_parallel import join_group, make_whole
from unispeech_sb.brains.learning_rates import search_learning_rate
from unispeech_sb.checkpoints.interfaces import (
    EXPORT,
    INTERFACES,
    folder_kind,
)
from unispeech_sb.errors import (
    check_device,
    explain,
    run_guarded,
    take_traceback,
)
from unispeech_sb.fingerprint import read_settings
from unispeech_sb.metrics.scores import format_scores
from unispeech_sb.output_folder import OutputFolder
from unispeech_sb.recipe_options import (
    OWN_OPTIONS,
    RUN_OPTIONS,
    SPEECHBRAIN_OPTIONS,
    answer_help,
    check_inputs,
    read_command_line,
)

logger = get_logger(__name__)

_TO_CONTINUE = "the same command goes on from the last checkpoint"

_SAY_LITTLE = {
    *("units", "export", "data", "corpus", "audio", "wav", "wavs", "clips"),
    *("speech", "train", "dev", "valid", "test", "recordings"),
}
"""Names of folders that do not say which data are in them."""

_LONGEST_NAME = 100  # of a folder

_SETS = {
    "test": "the test set",
    "valid": "the validation set, there being no test set",
}
"""Split -> what it was scored on."""

_FAULTS_OF_YAML = (
    *(TypeError, AttributeError, LookupError, ArithmeticError, SyntaxError),
    RecursionError,
)
"""What HyperPyYAML raises on values of the wrong type."""


def _is_of_use(record):
    """Whether to show a line of SpeechBrain's loggers, which miss a package
    that draws spectrograms, wherever they are imported."""
    return not record.getMessage().startswith("torchvision is not available")


logging.getLogger("speechbrain.utils.train_logger").addFilter(_is_of_use)


def parse_arguments(
    argv: Sequence[str] | None = None,
) -> tuple[str, RunOptions, str]:
    """Read a recipe's command line and check its keys against the yaml.

    Arguments
    ---------
    argv : list, optional
        ``[yaml file, --option, --key=value, ...]``; that of the process when
        omitted.

    Returns
    -------
    hparams_file : str
        The yaml file.
    run_opts : speechbrain.utils.run_opts.RunOptions
        SpeechBrain's own options.
    overrides : str
        What replaces values of the yaml file, as yaml.

    Raises
    ------
    ValueError
        For a key that is neither in the yaml file nor an option.

    Example
    -------
    >>> path = getfixture("tmpdir") / "hparams.yaml"
    >>> _ = path.write("seed: 1")
    >>> parse_arguments([str(path), "--device=cpu", "--seed", "2"])[2]
    'seed:  2'
    """
    line = read_command_line(argv)
    return line.yaml_file, _run_options(line), line.overrides


def _run_options(line):
    """SpeechBrain's options of a command line."""
    options = {name: line.run_options[name] for name in SPEECHBRAIN_OPTIONS}
    given = line.given & set(options)
    return RunOptions(
        **options, param_file=line.yaml_file, overridden_args=given
    )


def name_data(data: str | Path | Sequence[str | Path]) -> str:
    """Names the data of a run, for the folder of its results.

    Arguments
    ---------
    data : str, path-like, or list of these
        A folder, a file, or several. Where the last part of a path says
        little, as "units" or a number does, the part above it stands in the
        name too.

    Returns
    -------
    str
        One part of a path.

    Example
    -------
    >>> name_data("/corpora/my_speech/manifest.csv")
    'my_speech'
    >>> name_data("make_units/my_speech/7/units")
    'my_speech-7-units'
    >>> name_data(["cv/es", "cv/ky"])
    'es+ky'
    """
    several = data if isinstance(data, (list, tuple)) else [data]
    name = "+".join(_name_of(str(path)) for path in several)
    return re.sub(r"[^\w.+-]", "_", name)[:_LONGEST_NAME]


def _name_of(path):
    """What people call the data at a path."""
    parts = list(Path(os.path.abspath(path)).parts[1:])
    if path.lower().endswith(".csv"):
        parts[-1] = parts[-1][: -len(".csv")]
        if parts[-1] == "manifest" and parts[1:]:
            parts.pop()
    names = parts[-1:]
    while parts[1:] and (names[0] in _SAY_LITTLE or names[0].isdigit()):
        parts.pop()
        names.insert(0, parts[-1])
    return "-".join(names)


def run(
    brain_class: type[sb.Brain],
    dataio_prep: Callable[[dict[str, Any]], Mapping[str, Any]],
    prepare: Callable[[dict[str, Any]], object] | None = None,
    argv: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Prepare, train, evaluate and export, or go on where that was stopped.

    The yaml file has the keys ``output_folder``, ``modules``, ``opt_class``,
    ``checkpointer`` and ``epoch_counter``, and may have ``seed``,
    ``train_dataloader_opts``, ``valid_dataloader_opts`` and
    ``test_dataloader_opts`` (that of ``valid`` when omitted). With
    ``learning_rate_search``, a list of learning rates, each is trained with,
    and the best on ``valid`` is kept; the scores name all of them.

    The output folder knows whose work it holds: the same command goes on, or
    finds all done; another experiment is refused. ``--overwrite`` starts
    afresh. A ``--debug`` run has a folder ``debug`` inside it to itself.

    Arguments
    ---------
    brain_class : type
        Brain of the task. Its ``export(folder, scores, split)``, where it has
        one, is called last.
    dataio_prep : callable
        hparams -> dict of the datasets ``train``, ``valid`` and ``test``.
        Without ``valid``, the last checkpoint is evaluated; without ``test``,
        ``valid`` is evaluated on.
    prepare : callable, optional
        hparams -> None; prepares the corpus, on the main process only, in the
        ``manifest_folder`` and ``save_folder`` of what it is given.
    argv : list, optional
        The command line after the program's name.

    Returns
    -------
    dict
        Scores of the best checkpoint on ``test``, or on ``valid`` where there
        is no test set.

    Raises
    ------
    ValueError
        When the output folder holds another experiment.

    Example
    -------
    >>> run(None, None, argv=["missing.yaml"])
    Traceback (most recent call last):
    ...
    FileNotFoundError: missing.yaml: there is no such yaml file
    """
    command = read_command(argv)
    with process_group(command):
        hparams = command.load()
        output = open_output(command, hparams, dataio_prep, prepare)
        with alone_in(output):
            finished = enter(command, output, prepare)
            if finished is None:
                options = command.run_opts
                scores = _train(brain_class, dataio_prep, output, options)
            else:
                scores = run_on_main(output.read_scores)
            print_end(output, scores, finished)
    return scores


@contextmanager
def process_group(command: "Command") -> Iterator[None]:
    """Lets torchrun's processes work together, in one run or in several.

    A process can join their group once: around several runs, this has to be
    around all of them. One that waits for another for longer than
    ``distributed_timeout`` ends with an error.
    """
    is_first = not is_distributed_initialized()
    if is_first:
        minutes = command.own["distributed_timeout"]
        join_group(command.run_opts["distributed_backend"], minutes)
    yield
    if is_first and is_distributed_initialized():
        # Not before what lives on it is gone
        gc.collect()
        torch.distributed.destroy_process_group()


def works_alone() -> bool:
    """Whether this is the process of torchrun that does what one process does,
    or the only process; the others have nothing to do, and say so."""
    rank = get_rank() if get_local_rank() is not None else None
    if rank:
        logger.info(
            "Process %d has nothing to do: one process computes", rank,
            main_process_only=False,
        )  # fmt: skip
    return not rank


class Command(NamedTuple):
    """A recipe's command line, read."""

    hparams_file: str
    run_opts: RunOptions
    overrides: str
    settings: dict[str, Any]
    own: dict[str, Any]
    """This package's options of a run: name -> value."""

    def load(self) -> dict[str, Any]:
        """Builds what the yaml names.

        Returns
        -------
        dict
            The recipe's ``hparams``, with this package's options of a run.
        """
        with (
            open(self.hparams_file, encoding="utf-8") as file,
            _naming(self.hparams_file),
        ):
            hparams = load_hyperpyyaml(file, self.overrides)
        return {**hparams, **self.own}


def read_command(argv: Sequence[str] | None = None) -> Command:
    """Reads a recipe's command line, and what all of its settings are.

    Arguments
    ---------
    argv : list, optional
        As for ``parse_arguments``. A trial by ``--debug`` gets a folder
        ``debug`` in the output folder, to start afresh in.

    Returns
    -------
    Command
        The command line.

    Raises
    ------
    ValueError, ImportError
        As ``parse_arguments``; or when a file or folder to read is not there,
        or a package that will be needed.

    Example
    -------
    >>> path = getfixture("tmpdir") / "hparams.yaml"
    >>> _ = path.write("output_folder: out\\nlr: !ref <rate>\\nrate: 1")
    >>> command = read_command([str(path), "--rate=2", "--debug"])
    >>> command.settings["lr"], command.settings["output_folder"]
    (2, 'out/debug')
    """
    command = _read(argv)
    options, settings = command.run_opts, command.settings
    if not options.debug or options.debug_persistently:
        return command
    trial = f"{settings['output_folder']}/debug"
    places = {"output_folder": trial, "save_folder": f"{trial}/save"}
    places["manifest_folder"] = f"{trial}/manifests"
    if settings.get("skip_prep"):
        places["manifest_folder"] = settings["manifest_folder"]
    argv = list(sys.argv[1:] if argv is None else argv)
    argv += [f"--{k}={v}" for k, v in places.items() if k in settings]
    command = _read(argv)
    return command._replace(own={**command.own, "overwrite": True})


@contextmanager
def _naming(yaml_file, *others):
    """Faults that HyperPyYAML finds, and does not say in which file."""
    try:
        yield
    except (YAMLError, *_FAULTS_OF_YAML, *others) as error:
        text = explain(error) if isinstance(error, YAMLError) else str(error)
        raise ValueError(
            f"{yaml_file}: expected keys and values that fit together, here "
            f"and on the command line; got: {text}"
        ) from error


def _read(argv):
    """The command line as it is written."""
    line = read_command_line(argv)
    check_inputs(line)
    check_device(line.run_options["device"])
    with (
        open(line.yaml_file, encoding="utf-8") as file,
        _naming(line.yaml_file, ValueError),
    ):
        resolved = resolve_references(file, line.overrides).getvalue()
    given = {name: line.run_options[name] for name in sorted(line.given)}
    defaults = {name: default for name, (default, _) in RUN_OPTIONS.items()}
    settings = read_settings(resolved, given, defaults)
    if settings.get("tensorboard") is True and not find_spec("tensorboard"):
        raise ImportError(
            "tensorboard: True needs a package: run `pip install tensorboard`"
        )
    return Command(
        line.yaml_file,
        _run_options(line),
        line.overrides,
        settings,
        {
            name: line.run_options[name]
            if name in line.given or settings.get(name) is None
            else settings[name]
            for name in OWN_OPTIONS
        },
    )


def open_output(command, hparams, dataio_prep, prepare=None):
    """Makes the output folder of a recipe known, and changes nothing in it.

    Arguments
    ---------
    command : Command
        The command line.
    hparams : dict
        What it builds.
    dataio_prep, prepare : callable
        As for ``run``. The recipe is named as the file of the last one.

    Returns
    -------
    OutputFolder
        To ``enter``.
    """
    functions = [function for function in (dataio_prep, prepare) if function]
    scripts = [inspect.getsourcefile(function) for function in functions]
    output = OutputFolder(
        hparams,
        Path(scripts[-1]).stem,
        command.settings,
        command.own["overwrite"],
    )
    output.scripts = [__file__, *scripts]
    return output


@contextmanager
def alone_in(output: OutputFolder) -> Iterator[None]:
    """Keeps other processes out of an output folder; the main process does so
    for all of a run."""
    _on_main(output.lock)
    try:
        yield
    finally:
        output.unlock()


def enter(
    command: Command,
    output: OutputFolder,
    prepare: Callable[[dict[str, Any]], object] | None,
    trusting: bool = False,
) -> dict[str, Any] | None:
    """Prepares, and takes the output folder if it is this experiment's.

    Arguments
    ---------
    command : Command
        The command line.
    output : OutputFolder
        From ``open_output``.
    prepare : callable or None
        As for ``run``.
    trusting : bool
        Do not prepare again for an unfinished run whose data lie where they
        did.

    Returns
    -------
    dict or None
        The record of a finished run; None when there is something to do.

    Raises
    ------
    ValueError
        When the folder holds another experiment.
    """

    def take():
        trusted = trusting and output.is_prepared()
        return output.take(None if trusted else prepare)

    def start():
        try:
            sb.create_experiment_directory(
                output.folder, command.hparams_file, command.overrides
            )
        except OSError as error:
            if error.filename is not None:
                raise
            place = str(output.folder)  # of a disk that is full
            raise OSError(error.errno, error.strerror, place) from error

    known = _on_main(output.look)
    if not known:
        start()
    finished = _on_main(take)
    if known and finished is None:
        start()
    if finished is None:
        run_on_main(output.keep_scripts)
    return finished


def _on_main(function):
    """What the main process finds; its error is that of all processes."""
    if not is_distributed_initialized():
        return function()
    errors = []

    def attempt():
        try:
            return function(), None
        except Exception as error:  # all others wait for this process
            logger.debug("Traceback:", exc_info=True)
            errors.append(error)
            return None, explain(error)

    found, problem = run_on_main(attempt)
    if errors:
        raise errors[0]
    if problem is not None:
        raise ValueError(problem)
    return found


def _train(brain_class, dataio_prep, output, run_opts):
    """All that a run does once its data are prepared."""
    hparams = output.hparams
    datasets = dataio_prep(hparams)
    if not {"valid", "test"} & {*datasets}:
        raise ValueError(
            "expected a validation or a test set to score the model on; got "
            "training recordings alone"
        )
    if "seed" in hparams:
        # What was prepared before is skipped when a run goes on, and must not
        # change the random numbers of the training
        seed_everything(hparams["seed"])

    def make_brain(hparams):
        return brain_class(
            modules=hparams["modules"],
            opt_class=hparams["opt_class"],
            hparams=hparams,
            run_opts=run_opts,
            checkpointer=hparams["checkpointer"],
        )

    def fit(brain):
        brain.fit(
            hparams["epoch_counter"],
            datasets["train"],
            datasets.get("valid"),
            train_loader_kwargs=hparams.get("train_dataloader_opts", {}),
            valid_loader_kwargs=hparams.get("valid_dataloader_opts", {}),
        )

    if hparams.get("learning_rate_search") is None:
        brain, record = make_brain(hparams), {}
        fit(brain)
    elif "valid" in datasets:
        brain, record = search_learning_rate(make_brain, fit, hparams)
    else:
        raise ValueError(
            "learning_rate_search: expected a validation set, by which the "
            "best is chosen; there is none"
        )
    split = _evaluate_and_export(brain, datasets, output)
    if record:
        brain.scores |= record
        file = output.folder / "scores.json"
        run_on_main(write_json, [file, brain.scores])
    run_on_main(output.finish, [split])
    return brain.scores


def _evaluate_and_export(brain, datasets, output):
    """Scores the best checkpoint and exports it; the split it is scored on."""
    hparams = output.hparams
    loader_opts = hparams.get("valid_dataloader_opts", {})
    split = "test"
    if split in datasets:
        loader_opts = hparams.get("test_dataloader_opts", loader_opts)
    else:
        logger.info("There is no test set: evaluating on the validation set")
        split = "valid"
    brain.evaluate(datasets[split], test_loader_kwargs=loader_opts)
    make_whole(brain.modules)
    if hasattr(brain, "export"):
        place = output.folder / EXPORT
        run_on_main(brain.export, [place, brain.scores, split])
    return split


def print_end(output, scores, finished=None, units=None):
    """Print what a run has come to, where it is, and what to type next.

    Only the main process prints.

    Arguments
    ---------
    output : OutputFolder
        Where the run has ended.
    scores : dict
        Name -> value, or split -> such a dict.
    finished : dict, optional
        Its record, where it had ended before.
    units : str or path-like, optional
        A folder of units that was made.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> output = OutputFolder({"output_folder": folder}, "asr", {})
    >>> output.finish("test")
    >>> print_end(output, {"WER": 12.34})
    <BLANKLINE>
    Finished.
      scores    WER 12.3 %
      scored on the test set
    """
    if not if_main_process():
        return
    folder, made = output.folder, "made" if units else "trained"
    rows = []
    for name, found in scores.items():
        if isinstance(found, dict):
            rows.append((name, format_scores(found)))
    if not rows:
        where = _SETS[(finished or output.record)["split"]]
        rows += [("scores", format_scores(scores)), ("scored on", where)]
    export = Path(units or folder / EXPORT)
    if export.is_dir():
        rows.append(("units" if units else "export", export))
    pictures = ", ".join(map(str, sorted(folder.glob("*.png"))))
    logs = [folder / name for name in ("train_log.txt", "log.txt")]
    log = next((path for path in logs if path.is_file()), "")
    rows += [("pictures", pictures), ("log", log)]
    print(f"\nAlready finished, nothing {made}." if finished else "\nFinished.")
    for name, text in rows:
        if text:
            print(_row(name, str(text)))
    if export.is_dir():
        print(f"Next: {_next_command(export, units)}")


def _row(name, text):
    """A name and what belongs to it, under one another where it is long."""
    return textwrap.fill(
        text,
        80,
        initial_indent=f"  {name:<10}",
        subsequent_indent=" " * 12,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _next_command(export, units):
    """What takes the result of a run."""
    place = shlex.quote(str(export))
    if units:
        return (
            f"unispeech-sb recipe pretrain_unispeech_sat --units_folder={place}"
        )
    interface = INTERFACES.get(folder_kind(export))
    command = interface.command if interface else ""
    return (command or "unispeech-sb info FOLDER").replace("FOLDER", place)


def main(function: Callable[[], object]) -> None:
    """Call a recipe's ``main`` as a script: errors take one line.

    The traceback of such an error is in the ``log.txt`` of the experiment;
    ``--traceback`` shows it.

    Arguments
    ---------
    function : callable
        Called without arguments.

    Raises
    ------
    SystemExit
        Unless all went well.

    Example
    -------
    >>> main(lambda: None)
    """

    def answer():
        answer_help()
        try:
            function()
        except Exception:
            logger.debug("Traceback:", exc_info=True)
            raise

    sys.argv[1:], traceback = take_traceback(sys.argv[1:])
    program = f"{Path(sys.argv[0]).name}: error"
    code = run_guarded(answer, program, traceback, _TO_CONTINUE)
    if code:
        sys.exit(code)
