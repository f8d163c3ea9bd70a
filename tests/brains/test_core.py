"""Updates, stages, scores, and checkpoints that are whole."""

import io
import multiprocessing
import sys
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from speechbrain import Stage
from speechbrain.utils.checkpoints import Checkpointer
from speechbrain.utils.epoch_loop import EpochCounter
from toy import dataset, encoder

from unispeech_sb.brains import UtteranceBrain


def parameters(brain):
    return [p.detach().clone() for p in brain.modules.parameters()]


def distance(before, after):
    parts = zip(before, after, strict=True)
    return torch.cat([(a - b).flatten() for a, b in parts]).norm().item()


def step_with_gradients_of(value, brain):
    brain.init_optimizers()
    before = parameters(brain)
    for parameter in brain.modules.parameters():
        parameter.grad = torch.full_like(parameter, value)
    brain.optimizers_step()
    return distance(before, parameters(brain))


def test_clipping_is_by_the_norm_over_all_groups_of_all_optimizers(make_brain):
    run_opts = {"max_grad_norm": 0.5, "remove_vector_weight_decay": True}
    brain = make_brain(run_opts)
    assert step_with_gradients_of(3.0, brain) == pytest.approx(0.5, rel=1e-3)
    groups = [len(o.param_groups) for o in brain.optimizers_dict.values()]
    assert groups == [2, 2]


@pytest.mark.parametrize("is_terminal", [False, True])
def test_bars_are_for_terminals(is_terminal, make_brain, fit, monkeypatch):
    screen = io.StringIO()
    screen.isatty = lambda: is_terminal
    monkeypatch.setattr(sys, "stderr", screen)
    brain = make_brain({"noprogressbar": False})
    assert brain.noprogressbar is not is_terminal
    assert make_brain({"noprogressbar": True}).noprogressbar
    brain.fit(range(1, 2), dataset(4, encoder()), progressbar=None)
    assert ("\r" in screen.getvalue()) is is_terminal


@pytest.mark.parametrize("max_grad_norm", [None, 0.0, -1.0])
def test_no_positive_norm_means_no_clipping(make_brain, max_grad_norm):
    brain = make_brain({"max_grad_norm": max_grad_norm})
    size = sum(p.numel() for p in brain.modules.parameters())
    moved = step_with_gradients_of(3.0, brain)
    assert moved == pytest.approx(3.0 * size**0.5, rel=1e-4)


@pytest.mark.parametrize(("factor", "size"), [(2, 6), (3, 10)])
def test_last_short_group_of_an_epoch_is_a_mean_over_what_it_has(
    make_brain, fit, factor, size
):
    # Batches of 2: one full group, and one of a single batch, or of 2 of 3
    run_opts = {"grad_accumulation_factor": factor, "max_grad_norm": 0.0}
    grouped = make_brain(run_opts)
    fit(grouped, size=size)
    assert grouped.optimizer_step == 2
    # The same as one batch of each group would do
    single = make_brain({"max_grad_norm": 0.0})
    fit(single, size=size, batch_size=2 * factor)
    assert single.optimizer_step == 2
    apart = distance(parameters(grouped), parameters(single))
    assert apart < 1e-5 < distance(parameters(make_brain()), parameters(single))


def test_a_debug_run_ends_its_short_group_where_it_stops(make_brain, fit):
    options = {"debug": True, "debug_batches": 2, "debug_epochs": 1}
    brain = make_brain({**options, "grad_accumulation_factor": 3})
    fit(brain, size=12)
    assert brain.optimizer_step == 1 and brain.pending_batches == 0


def test_frozen_parameters_are_in_no_optimizer(make_brain):
    brain = make_brain()
    brain.modules.backbone.conv.bias.requires_grad_(False)
    brain.init_optimizers()
    groups = brain.optimizers_dict["backbone"].param_groups
    assert [len(g["params"]) for g in groups] == [1]
    brain.modules.backbone.requires_grad_(False)
    brain.init_optimizers()
    assert list(brain.optimizers_dict) == ["head"]


def test_one_optimizer_has_everything_without_a_class_for_the_backbone(
    make_brain,
):
    brain = make_brain(backbone_opt_class=None)
    brain.init_optimizers()
    assert list(brain.optimizers_dict) == ["head"]
    groups = brain.optimizers_dict["head"].param_groups
    assert len(groups[0]["params"]) == len(parameters(brain))


@pytest.mark.parametrize("optimizers", ["one", "two"])
def test_backbone_is_frozen_for_the_first_updates_only(
    make_brain, fit, optimizers
):
    changes = {"backbone_opt_class": None} if optimizers == "one" else {}
    brain = make_brain(freeze_backbone_updates=3, **changes)
    start = brain.modules.backbone.conv.weight.detach().clone()
    head = brain.modules.head.classifier.weight.detach().clone()
    fit(brain)  # three updates
    assert torch.equal(brain.modules.backbone.conv.weight, start)
    assert not torch.equal(brain.modules.head.classifier.weight, head)
    assert all(p.requires_grad for p in brain.modules.parameters())
    fit(brain)
    assert not torch.equal(brain.modules.backbone.conv.weight, start)


def test_learning_rate_changes_with_every_update(make_brain, fit):
    seen = []

    def schedule(update):
        seen.append(update)
        return 0.5**update

    brain = make_brain(lr_scheduler=schedule)
    fit(brain)
    rates = {
        g["lr"] for o in brain.optimizers_dict.values() for g in o.param_groups
    }
    assert sorted(set(seen)) == [0, 1, 2]
    assert rates == {0.25}


@pytest.mark.parametrize("kind", ["Adam", "AdamW", "SGD"])
def test_optimizers_are_fused_and_step_to_the_same_weights(
    kind, make_brain, fit
):
    found = []
    for options in ({}, {"fused": False}, {"foreach": True}):
        made = partial(getattr(torch.optim, kind), lr=0.01, **options)
        brain = make_brain(backbone_opt_class=made)
        brain.opt_class = made
        fit(brain, epochs=3)
        groups = [
            group
            for optimizer in brain.optimizers_dict.values()
            for group in optimizer.param_groups
        ]
        assert [g["fused"] for g in groups] == [not options or None] * 2 or (
            options == {"fused": False}
            and [g["fused"] for g in groups] == [False] * 2
        )
        found.append(parameters(brain))
    for other in found[1:]:
        assert distance(found[0], other) < 1e-5
    assert distance(found[0], parameters(make_brain())) > 1e-2


def test_optimizers_of_others_are_made_as_they_are(make_brain):
    class Own(torch.optim.SGD):
        def __init__(self, params):
            super().__init__(params, lr=1.0)

    brain = make_brain(backbone_opt_class=None)
    brain.opt_class = Own
    brain.init_optimizers()
    assert not brain.optimizers_dict["head"].param_groups[0]["fused"]


def test_the_log_has_the_share_of_padding(make_brain, fit):
    lines = []
    logger = SimpleNamespace(
        log_stats=lambda meta, **stats: lines.append(stats)
    )
    brain = make_brain(train_logger=logger)
    fit(brain, epochs=2)
    lengths = [100, 110, 120, 130, 140, 150]  # in batches of two
    share = 1 - sum(lengths) / sum(2 * n for n in lengths[1::2])
    for line in lines:
        assert line["train_stats"]["padding"] == pytest.approx(share)
        assert "padding" not in line["valid_stats"]


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


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere none is forked")
def test_workers_take_functions_that_a_pipeline_makes(make_brain):
    data = dataset(2, encoder())
    data.add_dynamic_item(lambda uid: 1.5, takes="id", provides="made")
    data.set_output_keys(["made"])
    usual = multiprocessing.get_start_method()
    multiprocessing.set_start_method("forkserver", force=True)  # Python 3.14's
    try:
        loader = make_brain().make_dataloader(data, Stage.VALID, num_workers=1)
        assert [batch.made.item() for batch in loader] == [1.5, 1.5]
    finally:
        multiprocessing.set_start_method(usual, force=True)


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
