"""Checkpoints: which are kept, and the random numbers in them."""

import random
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from speechbrain.utils.checkpoints import Checkpointer
from speechbrain.utils.epoch_loop import EpochCounter

from unispeech_sb.brains import saving
from unispeech_sb.brains.core import SSLBrain
from unispeech_sb.brains.saving import (
    StateWriter,
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


def hparams(**options):
    """What a Brain has of a yaml."""
    return SimpleNamespace(**options)


def test_more_of_the_last_are_kept_where_asked(checkpointer):
    writer = StateWriter(hparams(keep_checkpoints=2))
    for accuracy in (0.9, 0.1, 0.5, 0.3):
        meta = {"accuracy": accuracy}
        save_checkpoint(checkpointer, meta, importance, writer=writer)
    assert [name for name, _ in kept(checkpointer)] == [0.3, 0.5, 0.9]


def test_a_thread_writes_what_the_weights_were(checkpointer, monkeypatch):
    head = checkpointer.recoverables["head"]
    checkpointer.add_recoverable(
        "head_optimizer", torch.optim.Adam(head.parameters())
    )
    writer = StateWriter(hparams(async_checkpoints=True))
    writer.attach(checkpointer)
    may_write, save = threading.Event(), torch.save

    def slow_save(*args):
        assert threading.current_thread() is not threading.main_thread()
        may_write.wait()
        save(*args)

    monkeypatch.setattr(torch, "save", slow_save)
    before = head.weight.detach().clone()
    save_checkpoint(checkpointer, {"accuracy": 1}, importance, writer=writer)
    head.weight.data.zero_()
    assert checkpointer.list_checkpoints() == []
    may_write.set()
    writer.wait()
    assert kept(checkpointer) == [(1, True)]
    checkpointer.recover_if_possible()
    assert torch.equal(head.weight, before)


def test_a_checkpoint_waits_for_the_last_one_and_for_its_error(
    checkpointer, monkeypatch
):
    writer = StateWriter(hparams(async_checkpoints=True))
    writer.attach(checkpointer)

    def full_disk(*args):
        raise OSError(28, "No space left on device", "head.ckpt")

    monkeypatch.setattr(torch, "save", full_disk)
    save_checkpoint(checkpointer, {"accuracy": 1}, importance, writer=writer)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(
            checkpointer, {"accuracy": 2}, importance, writer=writer
        )
    writer.wait()  # it was raised
    assert checkpointer.list_checkpoints() == []


def test_the_end_of_a_training_waits_for_the_thread(
    make_brain, fit, tmp_path, monkeypatch
):
    publish, published = saving._publish, []

    def slowly(*args):
        assert threading.current_thread() is not threading.main_thread()
        publish(*args)
        published.append(args)

    monkeypatch.setattr(saving, "_publish", slowly)
    counter = EpochCounter(2)
    brain = make_brain(
        checkpointer=Checkpointer(tmp_path),
        async_checkpoints=True,
        epoch_counter=counter,
    )
    fit(brain)
    assert len(published) == 2
    assert brain.writer._thread is None
