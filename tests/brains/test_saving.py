"""Checkpoints: which are kept, and the random numbers in them."""

import random

import numpy as np
import pytest
import torch
from speechbrain.utils.checkpoints import Checkpointer

from unispeech_sb.brains.core import SSLBrain
from unispeech_sb.brains.saving import (
    best_checkpoint,
    random_states,
    save_checkpoint,
    set_random_state,
)


def test_all_generators_continue_where_they_were():
    def draw():
        return torch.rand(1).item(), random.random(), np.random.rand()

    states = random_states()
    first = draw()
    assert draw() != first
    set_random_state(states)
    assert draw() == first


def importance(checkpoint):
    return checkpoint.meta["accuracy"]


@pytest.fixture
def checkpointer(tmp_path):
    return Checkpointer(tmp_path, {"head": torch.nn.Linear(1, 1)})


def kept(checkpointer):
    return sorted(
        (c.meta.get("name", c.meta.get("accuracy")), c.meta["end-of-epoch"])
        for c in checkpointer.list_checkpoints()
    )


def test_best_and_last_are_kept(checkpointer):
    for accuracy in (0.1, 0.9, 0.5, 0.3):
        save_checkpoint(checkpointer, {"accuracy": accuracy}, importance)
    assert kept(checkpointer) == [(0.3, True), (0.9, True)]


def test_checkpoint_inside_an_epoch_lasts_until_the_next(checkpointer):
    save_checkpoint(checkpointer, {"accuracy": 0.2}, importance)
    for step in (1, 2):
        save_checkpoint(
            checkpointer, {"name": step}, importance, end_of_epoch=False
        )
    assert kept(checkpointer) == [(0.2, True), (2, False)]
    save_checkpoint(checkpointer, {"accuracy": 0.1}, importance)
    assert kept(checkpointer) == [(0.1, True), (0.2, True)]


def test_of_equally_good_ones_the_earliest_is_the_best(checkpointer):
    for name in range(3):
        meta = {"accuracy": 0.5, "name": name}
        save_checkpoint(checkpointer, meta, importance)
    best = best_checkpoint(checkpointer, importance)
    assert best.meta["name"] == 0


@pytest.mark.parametrize(
    ("hparams", "best"), [({}, 2), ({"protocol": "superb"}, 1)]
)
def test_superb_breaks_no_tie_by_the_loss(hparams, best, checkpointer):
    class Accurate(SSLBrain):
        def importance(self, checkpoint):
            rate = checkpoint.meta["accuracy"]
            return (rate, *super().importance(checkpoint))

    brain = Accurate(hparams=hparams, run_opts={"device": "cpu"})
    for name, (rate, loss) in enumerate([(0.1, 1), (0.5, 0.4), (0.5, 0.3)]):
        meta = {"accuracy": rate, "loss": loss, "name": name}
        save_checkpoint(checkpointer, meta, brain.precedence)
    assert best_checkpoint(checkpointer, brain.precedence).meta["name"] == best


def test_of_a_run_without_validation_the_last_is_the_best(checkpointer):
    brain = SSLBrain(hparams={}, run_opts={"device": "cpu"})
    for name in range(3):
        save_checkpoint(checkpointer, {"name": name}, brain.precedence)
    assert best_checkpoint(checkpointer, brain.precedence).meta["name"] == 2
    assert [name for name, _ in kept(checkpointer)] == [2]


def test_failed_save_leaves_no_checkpoint(checkpointer, tmp_path):
    checkpointer.add_recoverable("unknown", object())
    with pytest.raises(RuntimeError, match="know how to save"):
        save_checkpoint(checkpointer, {"accuracy": 0.5}, importance)
    assert checkpointer.list_checkpoints() == []
    assert checkpointer.checkpoints_dir == tmp_path
