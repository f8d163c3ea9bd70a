"""What a run keeps: checkpoints that are complete or absent, with the random
numbers in them, and learning curves.
"""

import csv
import logging
import os
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from speechbrain.utils import checkpoints
from speechbrain.utils.distributed import (
    if_main_process,
    is_distributed_initialized,
    run_on_main,
)
from speechbrain.utils.logger import get_logger

from unispeech_sb.atomic import atomic, not_written
from unispeech_sb.brains.data_parallel import (
    in_place_of,
    load_whole,
    whole_state,
)
from unispeech_sb.metrics.scores import format_score

logger = get_logger(__name__)

_DRAWN_EVERY_S = 30.0
"""Seconds in which the learning curves are drawn once at most."""


class StateWriter:
    """Writes states of modules and optimizers, the main process those of all.

    It stands before SpeechBrain's savers and the lobes' where weights are
    sharded, and with ``async_checkpoints``: then it copies a state, and a
    thread writes the copies, one checkpoint after another, while the training
    goes on.
    """

    def __init__(self, hparams: Any = None, is_sharded: bool = False) -> None:
        self.in_background = (
            getattr(hparams, "async_checkpoints", None) or False
        )
        self.keep = getattr(hparams, "keep_checkpoints", None) or 1
        self.is_sharded = is_sharded
        self._states: list[tuple[Any, ...]] = []
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None
        self._draws = ExitStack()

    def own_draws(self) -> ExitStack:
        """Until the block ends, or a checkpoint is saved, the generators give
        what they give each time; then they go on where they were."""
        seed = int(os.environ.get("SB_GLOBAL_SEED", 0))
        self._draws.enter_context(own_random_numbers(seed))
        return self._draws

    def attach(self, checkpointer: Any) -> None:
        """Becomes what saves and loads modules and optimizers, if need be."""
        if checkpointer is None or not self.is_sharded | self.in_background:
            return
        kinds = torch.nn.Module, torch.optim.Optimizer
        hook_of = checkpoints.get_default_hook
        for name, obj in checkpointer.recoverables.items():
            if not isinstance(obj, kinds):
                continue
            # What the main process does, without waiting for the others
            saver = hook_of(obj, checkpoints.DEFAULT_SAVE_HOOKS).__wrapped__
            loader = hook_of(obj, checkpoints.DEFAULT_LOAD_HOOKS)
            checkpointer.custom_save_hooks[name] = partial(self._take, saver)
            checkpointer.custom_load_hooks[name] = partial(load_whole, loader)

    def _take(self, saver, obj, path):
        """Saves an object's state, now or in ``write``."""
        is_main = if_main_process()
        state = whole_state(obj.state_dict(), is_main, self.in_background)
        if is_main:
            self._states.append((saver, obj, state, path))
        if not self.in_background:
            self._write()

    def write(self, publish: Callable[[], None]) -> None:
        """Writes what was taken, then calls a function, on the main process."""
        if not self.in_background:
            run_on_main(publish)
        elif if_main_process():
            self._thread = threading.Thread(target=self._work, args=(publish,))
            self._thread.start()

    def _work(self, publish):
        """What the thread does."""
        try:
            self._write()
            publish()
        except Exception as error:  # it is raised where the thread is awaited
            self._error = error

    def _write(self):
        """Writes states, each by its object's own saver."""
        states, self._states = self._states, []
        for saver, obj, state, path in states:
            try:
                with in_place_of(obj, "state_dict", partial(_same, state)):
                    saver(obj, path)
            except RuntimeError as error:  # of torch's writer, on a full disk
                raise not_written(path, error) from error

    def wait(self) -> None:
        """Until all is written; raises what went wrong."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error


def _same(state):
    """What was given."""
    return state


def save_checkpoint(
    checkpointer, meta, importance, end_of_epoch=True, writer=None
):
    """Save whole or not at all; then drop all but the best and the last.

    SpeechBrain writes a checkpoint's ``CKPT.yaml`` first, so that a process
    killed while saving leaves a folder that passes for a checkpoint, and one
    killed while deleting may too. Here both happen in the subfolder
    ``partial``, where nothing is looked for. ``importance`` maps a checkpoint
    of a finished epoch to a sort key, the highest is the best; the last of each
    kind stays until an epoch ends. ``writer`` may keep more of the last, and
    write in the background.
    """
    writer = writer or StateWriter()
    writer.wait()
    writer._draws.close()  # those of the training are saved
    folder = checkpointer.checkpoints_dir
    stamp = time.strftime("%Y-%m-%d+%H-%M-%S")
    checkpointer.checkpoints_dir = folder / "partial"
    try:
        saved = checkpointer.save_checkpoint(
            meta,
            end_of_epoch,
            name=f"{stamp}+{time.time_ns() % 10**9:09d}",
            verbosity=logging.DEBUG,
        )
    finally:
        checkpointer.checkpoints_dir = folder
    writer.write(
        partial(_publish, checkpointer, saved, importance, writer.keep)
    )


def _publish(checkpointer, saved, importance, keep):
    """Move a complete checkpoint in, and the ones that it replaces out."""
    folder = checkpointer.checkpoints_dir
    os.replace(saved.path, folder / saved.path.name)
    logger.debug("Saved a checkpoint in %s", folder / saved.path.name)
    found = checkpointer.list_checkpoints()
    found.sort(key=checkpoints.ckpt_recency)
    kept = {checkpoint.path for checkpoint in found[-keep:]}
    finished = [c for c in found if c.meta["end-of-epoch"]]
    if finished:
        kept.add(finished[-1].path)
        kept.add(best_checkpoint(checkpointer, importance).path)
    for checkpoint in found:
        if checkpoint.path not in kept:
            name = checkpoint.path.name
            os.replace(checkpoint.path, folder / "partial" / name)
    shutil.rmtree(folder / "partial")


def best_checkpoint(checkpointer, importance):
    """The most important checkpoint of a finished epoch; None without any.

    Of equal ones the earliest is taken, so that a run that was interrupted
    chooses as one that was not.
    """
    return checkpointer.find_checkpoint(
        importance_key=lambda c: (importance(c), -checkpoints.ckpt_recency(c)),
        ckpt_predicate=lambda c: c.meta["end-of-epoch"],
    )


@contextmanager
def own_random_numbers(seed: int | None = None) -> Iterator[None]:
    """Puts the random generators back when the block ends; with a seed, torch's
    on the CPU starts from it."""
    own, states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            if seed is not None:
                torch.default_generator.manual_seed(seed)
            yield
    finally:
        random.setstate(own)
        np.random.set_state(states)


def random_states():
    """States of the global generators of every process, one dict each, in types
    that ``torch.load`` reads safely; every process calls this and gets all of
    them."""
    name, keys, *rest = np.random.get_state()
    cuda = torch.cuda.is_available()
    state = {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if cuda else [],
        "python": random.getstate(),
        "numpy": (name, keys.tolist(), *rest),
    }
    if not is_distributed_initialized():
        return [state]
    states = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(states, state)
    return states


def set_random_state(states):
    """Restore the generators of this process, from ``random_states``. A process
    that was not there then keeps its generators as they are, and says so."""
    distributed = is_distributed_initialized()
    rank = torch.distributed.get_rank() if distributed else 0
    if rank >= len(states):
        logger.warning(
            "The checkpoint was written by %d processes: process %d goes on "
            "with fresh random numbers",
            len(states),
            rank,
            main_process_only=False,
        )
        return
    state = states[rank]
    torch.set_rng_state(state["torch"])
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    for index in range(min(torch.cuda.device_count(), len(state["cuda"]))):
        torch.cuda.set_rng_state(state["cuda"][index], index)


class Curves:
    """What was measured in each epoch, in ``curves.csv`` and ``curves.png`` of
    the output folder; the yaml's ``curves`` is another name."""

    def __init__(self, hparams: Any) -> None:
        folder = getattr(hparams, "output_folder", None)
        name = getattr(hparams, "curves", "curves")
        self.table = None if folder is None else Path(folder, f"{name}.csv")
        self.drawn, self.is_new = 0.0, False

    def append(self, numbers: dict[str, Any], *scores: dict[str, Any]) -> None:
        """Adds an epoch, in the place of those from it on: its numbers, and
        scores of training and validation. The main process alone writes."""
        if self.table is None or not if_main_process():
            return
        row = dict(numbers)
        for split, own in zip(("train", "valid"), scores, strict=True):
            row |= {f"{split} {name}": value for name, value in own.items()}
        rows = [r for r in self._read() if r["epoch"] < row["epoch"]] + [row]
        names = dict.fromkeys(name for r in rows for name in r)
        with atomic(self.table) as file:
            writer = csv.DictWriter(file, [*names], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        self.is_new = True
        if time.monotonic() - self.drawn > _DRAWN_EVERY_S:
            self.draw()

    def draw(self) -> None:
        """Draws what is new."""
        if self.table is None or not self.is_new:
            return
        # Not above: matplotlib takes as long to import as a small epoch
        from unispeech_sb.plots import write_curves

        title = "/".join(self.table.absolute().parent.parts[-3:])
        write_curves(self.table.with_suffix(".png"), self._read(), title)
        self.drawn, self.is_new = time.monotonic(), False

    def _read(self):
        """The epochs so far."""
        assert self.table is not None
        if not self.table.is_file():
            return []
        with open(self.table, newline="", encoding="utf-8") as file:
            return [
                {
                    name: int(value) if name == "epoch" else float(value)
                    for name, value in row.items()
                    if value
                }
                for row in csv.DictReader(file)
            ]


def log_stats(
    text_logger: Any, tensorboard: Any, meta: Any, **stats: Any
) -> None:
    """Writes one line to a run's loggers; to a file in few digits."""
    # Not above: this module warns when it is imported
    from speechbrain.utils.train_logger import FileTrainLogger

    for log in (text_logger, tensorboard):
        if isinstance(log, FileTrainLogger):
            short = {key: _in_short(own) for key, own in stats.items()}
            log.log_stats(_in_short(meta), **short)
        elif log is not None:
            log.log_stats(meta, **stats)


def _in_short(numbers):
    """Numbers as texts of few digits, with their unit."""
    return {
        name: format_score(name, value) if isinstance(value, float) else value
        for name, value in numbers.items()
    }
