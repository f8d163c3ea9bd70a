"""Makes the toy experiment importable, here and in child processes."""

import sys
from functools import partial
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

import toy  # noqa: E402

from unispeech_sb.brains import UtteranceBrain  # noqa: E402


@pytest.fixture
def make_brain():
    """Toy brain without a checkpointer; keywords replace its hparams."""

    def make(run_opts=None, brain_class=UtteranceBrain, **changes):
        torch.manual_seed(0)
        modules = {"backbone": toy.Backbone(), "head": toy.Head()}
        for module in modules.values():
            module.dropout.p = 0.0
        hparams = {
            "backbone": modules["backbone"],
            "backbone_opt_class": partial(torch.optim.SGD, lr=1.0),
            "compute_cost": torch.nn.functional.cross_entropy,
            "label_encoder": toy.encoder(),
            "train_logger": None,
            **changes,
        }
        return brain_class(
            modules,
            partial(torch.optim.SGD, lr=1.0),
            hparams,
            {"device": "cpu", "noprogressbar": True, **(run_opts or {})},
            hparams.get("checkpointer"),
        )

    return make


@pytest.fixture
def fit():
    """Train a brain on a few toy utterances, in order."""

    def train(brain, epochs=1, size=6, batch_size=2):
        data = toy.dataset(size, toy.encoder())
        kwargs = {"batch_size": batch_size}
        counter = brain.hparams.__dict__.get("epoch_counter")
        brain.fit(
            counter or range(1, epochs + 1),
            data,
            data,
            train_loader_kwargs=kwargs,
            valid_loader_kwargs=kwargs,
        )

    return train
