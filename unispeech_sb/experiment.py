"""One experiment from the command line to the exported model.

Every recipe's ``main`` is ``run(...)``: SpeechBrain's usual script, in which
the recipe shows only its data pipeline and its Brain.
"""

import difflib
import gc
import inspect
import logging
import shutil
import sys
from pathlib import Path

from unispeech_sb.environment import require_torchaudio

require_torchaudio()

import speechbrain as sb  # noqa: E402
import torch  # noqa: E402
import yaml  # noqa: E402
from hyperpyyaml import load_hyperpyyaml  # noqa: E402
from speechbrain.utils.distributed import (  # noqa: E402
    ddp_init_group,
    is_distributed_initialized,
    run_on_main,
)
from speechbrain.utils.logger import get_logger  # noqa: E402
from speechbrain.utils.run_opts import RunOptions  # noqa: E402
from speechbrain.utils.seed import seed_everything  # noqa: E402
from torch.nn.parallel import DistributedDataParallel  # noqa: E402

logger = get_logger(__name__)


class _ExactRunOptions(RunOptions):
    """SpeechBrain's command line, taking every argument as it is written.

    SpeechBrain's own accepts abbreviations, so that ``--test x`` sets
    ``test_only`` and never reaches the yaml, and splits values at ``=``.
    """

    @staticmethod
    def _create_parser():
        """SpeechBrain's parser without abbreviations."""
        parser = RunOptions._create_parser()
        parser.allow_abbrev = False
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


def run(brain_class, dataio_prep, prepare=None, argv=None):
    """Prepare, train, evaluate and export, or go on where that was stopped.

    The yaml file has the keys ``output_folder``, ``modules``, ``opt_class``,
    ``checkpointer`` and ``epoch_counter``, and may have ``seed``,
    ``train_dataloader_opts``, ``valid_dataloader_opts`` and
    ``test_dataloader_opts`` (that of ``valid`` when omitted).

    Arguments
    ---------
    brain_class : type
        Brain of the task. Its ``export(folder, scores, split)``, where it has
        one, is called last.
    dataio_prep : callable
        hparams -> dict of the datasets ``train``, ``valid`` and, if there is
        one, ``test``.
    prepare : callable, optional
        hparams -> None; prepares the corpus, on the main process only.
    argv : list, optional
        The command line after the program's name.

    Returns
    -------
    dict
        Scores of the best checkpoint on ``test``, or on ``valid`` where there
        is no test set.

    Example
    -------
    >>> run(None, None, argv=["missing.yaml"])
    Traceback (most recent call last):
    FileNotFoundError: [Errno 2] No such file or directory: 'missing.yaml'
    """
    hparams_file, run_opts, overrides = parse_arguments(argv)
    ddp_init_group(run_opts)
    with open(hparams_file, encoding="utf-8") as file:
        hparams = load_hyperpyyaml(file, overrides)
    folder = hparams["output_folder"]
    sb.create_experiment_directory(
        experiment_directory=folder,
        hyperparams_to_save=hparams_file,
        overrides=overrides,
    )
    # SpeechBrain has put a copy of its caller there: this file
    for function in filter(None, (dataio_prep, prepare)):
        run_on_main(shutil.copy, [inspect.getsourcefile(function), folder])
    if prepare is not None:
        run_on_main(prepare, [hparams])
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
    scores = _evaluate_and_export(brain, datasets, hparams)
    if is_distributed_initialized():
        _leave_process_group(brain)
    return scores


def _leave_process_group(brain):
    """Let go of the distributed wrappers, then of the group.

    A wrapper that outlives its group aborts the process at its exit now and
    then, after all work is done (torch 2.11, gloo).
    """
    for name, module in brain.modules.items():
        if isinstance(module, DistributedDataParallel):
            brain.modules[name] = module.module
    gc.collect()
    torch.distributed.destroy_process_group()


def _evaluate_and_export(brain, datasets, hparams):
    """Scores of the best checkpoint, which is also exported."""
    loader_opts = hparams.get("valid_dataloader_opts", {})
    split = "test"
    if split in datasets:
        loader_opts = hparams.get("test_dataloader_opts", loader_opts)
    else:
        logger.info("There is no test set: evaluating on the validation set")
        split = "valid"
    brain.evaluate(datasets[split], test_loader_kwargs=loader_opts)
    if hasattr(brain, "export"):
        folder = Path(hparams["output_folder"])
        if brain.debug and not brain.debug_persistently:
            # As its checkpoints: a trial must not replace a trained model
            folder = Path(brain.checkpointer.checkpoints_dir)
        run_on_main(brain.export, [folder / "export", brain.scores, split])
    return brain.scores


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
