"""A recipe of pre-training on batches in a given order, with nothing drawn.

``python ordered_pretraining.py RECIPE YAML ...``. The environment variable
BATCH_SIZE says how many utterances a batch has; on two processes, each takes
every other batch. The gradients of each update go to the output folder.
"""

import os
import sys
from functools import partial
from importlib import import_module
from pathlib import Path
from unittest import mock

import torch
from speechbrain.dataio.batch import PaddedBatch

from unispeech_sb.brains.pretraining import PretrainBrain
from unispeech_sb.dataio.samplers import PassSampler
from unispeech_sb.experiment import main as script
from unispeech_sb.experiment import run
from unispeech_sb.nnet import quantizer

ORDER = [0, 1, 2, 3, 4, 0, 1, 2]


class KeepingSGD(torch.optim.SGD):
    """Plain descent: Adam would make much of the last bits."""

    kept = []

    def step(self, closure=None):
        parameters = self.param_groups[0]["params"]
        self.kept.append([p.grad.clone() for p in parameters])
        return super().step(closure)


def masks(counts, frames, generator=None):
    """Masks by place, so that they are the same in any batch."""
    places = torch.arange(frames)
    return (places % 7 < 3) & (places < counts[:, None])


def neighbours(mask, counts, generator=None, everywhere=False):
    """The next four frames of the same utterance."""
    rows, places = mask.nonzero(as_tuple=True)
    firsts = mask.sum(1).cumsum(0) - mask.sum(1)
    sizes, own = mask.sum(1), torch.arange(len(rows)) - firsts[rows]
    if everywhere:
        firsts, sizes = torch.arange(len(mask)) * mask.shape[1], counts
        own = places
    moved = (own[:, None] + torch.arange(1, 5)) % sizes[rows, None]
    return firsts[rows, None] + moved


def every_other(states, generator):
    """Replaces every other frame."""
    return (torch.arange(states.shape[1]) % 2 == 0).expand(states.shape[:2])


def ordered_datasets(recipe, hparams):
    """The recipe's datasets, and an objective that draws nothing."""
    datasets = recipe.dataio_prep(hparams)
    size = int(os.environ["BATCH_SIZE"])
    batches = [ORDER[i : i + size] for i in range(0, len(ORDER), size)]
    options = {"batch_sampler": PassSampler(batches)}
    hparams["train_dataloader_opts"] |= options | {"collate_fn": PaddedBatch}
    hparams["sorting"] = "ascending"  # else SpeechBrain shuffles the batches
    hparams["opt_class"] = partial(KeepingSGD, lr=0.01)
    hparams.pop("mixing", None)
    objective = hparams["objective"]
    objective.masks = masks
    everywhere = objective.sampler.everywhere
    objective.sampler = partial(neighbours, everywhere=everywhere)
    objective._draw_replaced = every_other
    return datasets


def no_noise(logits, generator):
    """In place of Gumbel's."""
    return torch.zeros_like(logits)


def main(name, *arguments):
    """Runs a recipe; the main process keeps the gradients."""
    recipe = import_module(f"recipes.{name}")
    KeepingSGD.kept.clear()

    def prep(hparams):
        return ordered_datasets(recipe, hparams)

    with mock.patch.object(quantizer, "gumbel_noise", no_noise):
        run(PretrainBrain, prep, recipe.prepare, arguments)
    output = next(a for a in arguments if a.startswith("--output_folder="))
    if os.environ.get("RANK", "0") == "0":
        torch.save(KeepingSGD.kept, Path(output.split("=")[1], "gradients.pt"))


if __name__ == "__main__":
    script(lambda: main(*sys.argv[1:]))
