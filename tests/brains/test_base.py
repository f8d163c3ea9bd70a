"""Stages, scores, and what is evaluated."""

import random

import numpy as np
import pytest
import torch
from speechbrain.utils.checkpoints import Checkpointer
from speechbrain.utils.epoch_loop import EpochCounter
from toy import dataset, encoder

from unispeech_sb.brains import UtteranceBrain
from unispeech_sb.brains.checkpoints import random_states, set_random_state


class Losses(UtteranceBrain):
    """The loss of a batch is the number of its first utterance."""

    def compute_objectives(self, predictions, batch, stage):
        first = float(batch.id[0])
        return predictions.sum() * 0.0 + (first if first < 90 else np.nan)

    def stage_scores(self, stage):
        return {"accuracy": torch.tensor(0.5), "other": np.float64(1.0)}

    def on_stage_end(self, stage, stage_loss, epoch=None):
        self.means = {**getattr(self, "means", {}), stage.name: stage_loss}
        super().on_stage_end(stage, stage_loss, epoch)


@pytest.fixture
def saving(make_brain, tmp_path):
    """A brain with everything that is needed to save and evaluate."""

    def make(brain_class=Losses, **changes):
        changes.setdefault("checkpointer", Checkpointer(tmp_path / "save"))
        brain = make_brain(
            brain_class=brain_class,
            epoch_counter=EpochCounter(1),
            output_folder=str(tmp_path),
            **changes,
        )
        for name, module in brain.modules.items():
            brain.checkpointer.add_recoverable(name, module)
        return brain

    return make


def test_means_are_per_utterance(saving, fit):
    brain = saving()
    fit(brain, size=5, batch_size=4)  # losses 0 of four, 4 of one
    assert brain.means == pytest.approx({"TRAIN": 0.8, "VALID": 0.8})


def test_loss_that_is_not_finite_is_not_hidden_in_a_validation(saving):
    brain = saving()
    data = dataset(92, encoder()).filtered_sorted(sort_key="id")
    brain.fit([1], dataset(2, encoder()), data)
    assert np.isnan(brain.means["VALID"])


def test_scores_of_any_number_type_can_be_read_back(saving, fit):
    brain = saving()
    fit(brain)
    (checkpoint,) = brain.checkpointer.list_checkpoints()
    assert checkpoint.meta["accuracy"] == 0.5
    assert type(checkpoint.meta["other"]) is float


def test_evaluation_leaves_the_callers_options_alone(saving, fit):
    brain = saving()
    fit(brain)
    options = {"batch_size": 2}
    brain.evaluate(dataset(4, encoder()), test_loader_kwargs=options)
    assert options == {"batch_size": 2}
    assert brain.scores == {"loss": 1.0, "accuracy": 0.5, "other": 1.0}


def test_evaluation_without_a_checkpoint_is_refused(saving):
    with pytest.raises(ValueError, match="holds no checkpoint"):
        saving().evaluate(dataset(4, encoder()))


def test_tensorboard_is_built_on_request_only(make_brain):
    asked = []
    brain = make_brain(tensorboard_logger=lambda: asked.append(1))
    assert brain.tensorboard is None and not asked
    make_brain(tensorboard=True, tensorboard_logger=lambda: asked.append(1))
    assert asked


def test_all_generators_continue_where_they_were():
    def draw():
        return torch.rand(1).item(), random.random(), np.random.rand()

    states = random_states()
    first = draw()
    assert draw() != first
    set_random_state(states)
    assert draw() == first
