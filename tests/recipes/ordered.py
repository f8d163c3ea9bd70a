"""``recipes/asr.py`` on batches in a given order, of a given size.

The environment variable BATCH_SIZE says how many utterances a batch has. On
two processes, each takes every other batch.
"""

import os
from functools import partial

import torch

from recipes import asr
from unispeech_sb.dataio.samplers import PassSampler
from unispeech_sb.experiment import main as script

ORDER = [0, 1, 2, 3, 4, 0, 1, 2]


def ordered_datasets(hparams):
    """The recipe's datasets, and plain gradient descent."""
    datasets = asr.dataio_prep(hparams)
    size = int(os.environ["BATCH_SIZE"])
    batches = [ORDER[i : i + size] for i in range(0, len(ORDER), size)]
    hparams["train_dataloader_opts"]["batch_sampler"] = PassSampler(batches)
    hparams["sorting"] = "ascending"  # else SpeechBrain shuffles the batches
    # Adam would make much of the last bits
    hparams["opt_class"] = partial(torch.optim.SGD, lr=0.1)
    hparams["backbone_opt_class"] = partial(torch.optim.SGD, lr=0.1)
    return datasets


if __name__ == "__main__":
    script(partial(asr.run, asr.CTCBrain, ordered_datasets, asr.prepare))
