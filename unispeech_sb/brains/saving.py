"""What a run keeps: checkpoints that are complete or absent, with the random
numbers in them, and learning curves.
"""

import csv
import logging
import os
import random
import shutil
import time
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

from unispeech_sb.atomic import atomic

logger = get_logger(__name__)

_DRAWN_EVERY_S = 30.0
"""Seconds in which the learning curves are drawn once at most."""


def save_checkpoint(checkpointer, meta, importance, end_of_epoch=True):
    """Save whole or not at all; then drop all but the best and the last.

    SpeechBrain writes a checkpoint's ``CKPT.yaml`` first, so that a process
    killed while saving leaves a folder that passes for a checkpoint, and one
    killed while deleting may too. Here both happen in the subfolder
    ``partial``, where nothing is looked for. ``importance`` maps a checkpoint
    of a finished epoch to a sort key, the highest is the best; the last of each
    kind stays until an epoch ends.
    """
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
    run_on_main(_publish, [checkpointer, saved, importance])


def _publish(checkpointer, saved, importance):
    """Move a complete checkpoint in, and the ones that it replaces out."""
    folder = checkpointer.checkpoints_dir
    os.replace(saved.path, folder / saved.path.name)
    logger.debug("Saved a checkpoint in %s", folder / saved.path.name)
    found = checkpointer.list_checkpoints()
    keep = {max(found, key=checkpoints.ckpt_recency).path}
    finished = [c for c in found if c.meta["end-of-epoch"]]
    if finished:
        keep.add(max(finished, key=checkpoints.ckpt_recency).path)
        keep.add(best_checkpoint(checkpointer, importance).path)
    for checkpoint in found:
        if checkpoint.path not in keep:
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
