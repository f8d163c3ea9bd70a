"""One experiment from the command line to the exported model.

Every recipe's ``main`` is ``run(...)``: SpeechBrain's usual script, in which
the recipe shows only its data pipeline and its Brain.
"""

import difflib
import gc
import inspect
import logging
import os
import re
import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from unispeech_sb.environment import require_torchaudio

require_torchaudio()

import speechbrain as sb  # noqa: E402
import torch  # noqa: E402
import yaml  # noqa: E402
from hyperpyyaml import load_hyperpyyaml, resolve_references  # noqa: E402
from speechbrain.utils.distributed import (  # noqa: E402
    ddp_init_group,
    is_distributed_initialized,
    run_on_main,
)
from speechbrain.utils.logger import get_logger  # noqa: E402
from speechbrain.utils.run_opts import RunOptions  # noqa: E402
from speechbrain.utils.seed import seed_everything  # noqa: E402
from torch.nn.parallel import DistributedDataParallel  # noqa: E402

from unispeech_sb.fingerprint import read_settings  # noqa: E402
from unispeech_sb.output_folder import OutputFolder  # noqa: E402

logger = get_logger(__name__)

_SAY_LITTLE = {
    *("units", "export", "data", "corpus", "audio", "wav", "wavs", "clips"),
    *("speech", "train", "dev", "valid", "test", "recordings"),
}
"""Names of folders that do not say which data are in them."""

_LONGEST_NAME = 100  # of a folder


@dataclass(frozen=True)
class _ExactRunOptions(RunOptions):
    """SpeechBrain's command line, taking every argument as it is written.

    SpeechBrain's own accepts abbreviations, so that ``--test x`` sets
    ``test_only`` and never reaches the yaml, and splits values at ``=``.
    """

    overwrite: bool = False

    @staticmethod
    def _create_parser():
        """SpeechBrain's parser without abbreviations."""
        parser = RunOptions._create_parser()
        parser.allow_abbrev = False
        parser.add_argument(
            "--overwrite",
            action="store_true",
            help="Start afresh in an output folder, and remove what the "
            "earlier run left there.",
        )
        return parser

    @staticmethod
    def _convert_to_yaml(overrides):
        """``--key value`` and ``--key=value`` to yaml; the last one counts."""
        values, key = {}, None
        for argument in overrides:
            if argument.startswith("--"):
                key, _, value = argument[2:].partition("=")
                values[key] = value
            elif key is not None:
                values[key] += f" {argument}"
            else:
                raise ValueError(
                    "expected --key=value after the yaml file, got "
                    f"'{argument}'"
                )
        return "\n".join(f"{key}: {value}" for key, value in values.items())


def parse_arguments(argv=None):
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
    hparams_file, run_opts, overrides = _ExactRunOptions.from_command_line_args(
        argv
    )
    try:
        with open(hparams_file, encoding="utf-8") as file:
            document = yaml.compose(file)
        given = yaml.safe_load(overrides) or {}
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
        raise ValueError(
            f"{hparams_file}: expected yaml, in it and on the command line "
            f"({problem})"
        ) from error
    if not isinstance(document, yaml.MappingNode):
        raise ValueError(f"{hparams_file} is not a mapping of yaml keys")
    keys = {key.value for key, _ in document.value}
    for key in given:
        if key not in keys:
            close = difflib.get_close_matches(
                str(key), keys | set(run_opts.keys()), n=1
            )
            hint = f"; did you mean '{close[0]}'?" if close else ""
            raise ValueError(f"{hparams_file} has no key '{key}'{hint}")
    for key, node in document.value:
        if key.value in given:
            _check_number(key.value, node, given[key.value])
    return hparams_file, run_opts, overrides


def _check_number(key, node, value):
    """Refuse a word where the yaml file has a number."""
    if node.tag.rpartition(":")[2] not in ("int", "float"):
        return
    if isinstance(value, str):  # PyYAML takes 1e-3 for a word
        try:
            float(value)
        except ValueError:
            raise ValueError(
                f"{key}: expected a number, as in the yaml file; got {value!r}"
            ) from None


def results_folder(task, data, seed):
    """Where a run leaves its results unless ``output_folder`` says otherwise.

    Arguments
    ---------
    task : str
        Name of the yaml.
    data : str, path-like, or list of these
        The data that it is run on: a folder, a file, or several. Where the
        last part of a path says little, as "units" or a number does, the part
        above it stands in the name too.
    seed : int
        Of the run.

    Returns
    -------
    str
        ``results/<task>/<name of the data>/<seed>``, from the current folder.

    Example
    -------
    >>> results_folder("asr", "/corpora/my_speech/manifest.csv", 1986)
    'results/asr/my_speech/1986'
    >>> results_folder("pretrain", "make_units/my_speech/7/units", 1)
    'results/pretrain/my_speech-7-units/1'
    >>> results_folder("asr", ["cv/es", "cv/ky"], 1)
    'results/asr/es+ky/1'
    """
    several = data if isinstance(data, (list, tuple)) else [data]
    name = "+".join(_name_of(str(path)) for path in several)
    name = re.sub(r"[^\w.+-]", "_", name)[:_LONGEST_NAME]
    return os.path.join("results", task, name, str(seed))


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


def run(brain_class, dataio_prep, prepare=None, argv=None):
    """Prepare, train, evaluate and export, or go on where that was stopped.

    The yaml file has the keys ``output_folder``, ``modules``, ``opt_class``,
    ``checkpointer`` and ``epoch_counter``, and may have ``seed``,
    ``train_dataloader_opts``, ``valid_dataloader_opts`` and
    ``test_dataloader_opts`` (that of ``valid`` when omitted).

    The output folder knows whose work it holds: the same command goes on, or
    finds all done; another experiment is refused. ``--overwrite`` starts
    afresh. A ``--debug`` run has a folder ``debug`` inside it to itself.

    Arguments
    ---------
    brain_class : type
        Brain of the task. Its ``export(folder, scores, split)``, where it has
        one, is called last.
    dataio_prep : callable
        hparams -> dict of the datasets ``train``, ``valid`` and, if there is
        one, ``test``.
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
    FileNotFoundError: [Errno 2] No such file or directory: 'missing.yaml'
    """
    command = read_command(argv)
    ddp_init_group(command.run_opts)
    hparams = command.load()
    output = open_output(command, hparams, dataio_prep, prepare)
    finished = enter(command, output, prepare)
    if finished is None:
        scores = _train(brain_class, dataio_prep, output, command.run_opts)
    else:
        logger.info(f"{output.folder}: already finished, nothing trained")
        scores = run_on_main(output.read_scores)
    if is_distributed_initialized():
        # Not before what lives on it is gone
        gc.collect()
        torch.distributed.destroy_process_group()
    return scores


class Command(NamedTuple):
    """A recipe's command line, read."""

    hparams_file: str
    run_opts: RunOptions
    overrides: str
    settings: dict

    def load(self):
        """Builds what the yaml names.

        Returns
        -------
        dict
            The recipe's ``hparams``.
        """
        with open(self.hparams_file, encoding="utf-8") as file:
            return load_hyperpyyaml(file, self.overrides)


def read_command(argv=None):
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
    ValueError
        As ``parse_arguments``.

    Example
    -------
    >>> path = getfixture("tmpdir") / "hparams.yaml"
    >>> _ = path.write("output_folder: out\\nlr: !ref <rate>\\nrate: 1")
    >>> command = read_command([str(path), "--rate=2", "--debug"])
    >>> command.settings["lr"], command.settings["output_folder"]
    (2, 'out/debug')
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    command = _read(argv)
    options, settings = command.run_opts, command.settings
    if not options.debug or options.debug_persistently:
        return command
    trial = f"{settings['output_folder']}/debug"
    places = {"output_folder": trial, "save_folder": f"{trial}/save"}
    places["manifest_folder"] = f"{trial}/manifests"
    if settings.get("skip_prep"):
        del places["manifest_folder"]
        argv.append(f"--manifest_folder={settings['manifest_folder']}")
    argv += [f"--{k}={v}" for k, v in places.items() if k in settings]
    command = _read(argv)
    return command._replace(run_opts=replace(command.run_opts, overwrite=True))


def _read(argv):
    """The command line as it is written."""
    hparams_file, run_opts, overrides = parse_arguments(argv)
    with open(hparams_file, encoding="utf-8") as file:
        resolved = resolve_references(file, overrides).getvalue()
    defaults = RunOptions().as_dict()
    given = run_opts.overridden_args & set(defaults)
    settings = read_settings(
        resolved, {name: run_opts[name] for name in sorted(given)}, defaults
    )
    return Command(hparams_file, run_opts, overrides, settings)


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
        command.run_opts.overwrite,
    )
    output.scripts = [__file__, *scripts]
    return output


def enter(command, output, prepare, trusting=False):
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

    start = partial(
        sb.create_experiment_directory,
        output.folder,
        command.hparams_file,
        command.overrides,
    )
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
    """What the main process finds; its error of the user is that of all."""
    if not is_distributed_initialized():
        return function()

    def attempt():
        try:
            return function(), None
        except (ValueError, OSError, ImportError) as error:
            logger.debug("Traceback:", exc_info=True)
            return None, str(error)

    found, problem = run_on_main(attempt)
    if problem is not None:
        raise ValueError(problem)
    return found


def _train(brain_class, dataio_prep, output, run_opts):
    """All that a run does once its data are prepared."""
    hparams = output.hparams
    datasets = dataio_prep(hparams)
    if "seed" in hparams:
        # What was prepared before is skipped when a run goes on, and must not
        # change the random numbers of the training
        seed_everything(hparams["seed"])
    brain = brain_class(
        modules=hparams["modules"],
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=run_opts,
        checkpointer=hparams["checkpointer"],
    )
    brain.fit(
        hparams["epoch_counter"],
        datasets["train"],
        datasets["valid"],
        train_loader_kwargs=hparams.get("train_dataloader_opts", {}),
        valid_loader_kwargs=hparams.get("valid_dataloader_opts", {}),
    )
    split = _evaluate_and_export(brain, datasets, output)
    run_on_main(output.finish, [split])
    if is_distributed_initialized():
        _unwrap(brain)
    return brain.scores


def _unwrap(brain):
    """Let go of the distributed wrappers.

    One that outlives its group aborts the process at its exit now and then,
    after all work is done (torch 2.11, gloo).
    """
    for name, module in brain.modules.items():
        if isinstance(module, DistributedDataParallel):
            brain.modules[name] = module.module


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
    if hasattr(brain, "export"):
        place = output.folder / "export"
        run_on_main(brain.export, [place, brain.scores, split])
    return split


def main(function):
    """Call a recipe's ``main`` as a script: user errors take one line.

    The traceback of such an error is in the ``log.txt`` of the experiment.

    Arguments
    ---------
    function : callable
        Called without arguments.

    Example
    -------
    >>> main(lambda: None)
    """
    try:
        function()
    except (ValueError, OSError, ImportError) as error:
        logging.getLogger(__name__).debug("Traceback:", exc_info=True)
        print(f"{Path(sys.argv[0]).name}: error: {error}", file=sys.stderr)
        sys.exit(1)
