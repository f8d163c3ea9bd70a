"""Runs a recipe of pre-training to its end, and once more with a kill inside.

``python dying_pretraining.py RECIPE BATCHES YAML ...``: beside the output
folder FOLDER there are FOLDER/whole and FOLDER/killed; the second run gets
SIGKILL before its batch number BATCHES, and is started again. Each attempt is
a process of its own, forked so that imports are paid once.
"""

import os
import signal
import sys
from importlib import import_module

import torch
import torch._dynamo  # noqa: F401  else every attempt imports it
from speechbrain.utils import logger

from unispeech_sb.brains.pretraining import PretrainBrain
from unispeech_sb.experiment import run


def attempt(recipe, arguments, last=None):
    """One process, killed before a batch or run to its end; its status."""

    class MortalBrain(PretrainBrain):
        batches = 0

        def fit_batch(self, batch):
            type(self).batches += 1
            if self.batches == last:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().fit_batch(batch)

    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    run(MortalBrain, recipe.dataio_prep, recipe.prepare, arguments)
    os._exit(0)


def main(name, batches, *arguments):
    """Runs all attempts."""
    recipe = import_module(f"recipes.{name}")
    key = "--output_folder="
    folder = next(a for a in arguments if a.startswith(key))
    kept = [a for a in arguments if a != folder]
    whole, killed = ([*kept, f"{folder}/{n}"] for n in ("whole", "killed"))
    assert attempt(recipe, whole) == 0
    assert attempt(recipe, killed, int(batches)) == signal.SIGKILL
    assert attempt(recipe, killed) == 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    logger.get_environment_description = str  # pip's list is slow
    main(*sys.argv[1:])
