"""Optimizer updates."""

import pytest
import torch


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


@pytest.mark.parametrize("max_grad_norm", [None, 0.0, -1.0])
def test_no_positive_norm_means_no_clipping(make_brain, max_grad_norm):
    brain = make_brain({"max_grad_norm": max_grad_norm})
    size = sum(p.numel() for p in brain.modules.parameters())
    moved = step_with_gradients_of(3.0, brain)
    assert moved == pytest.approx(3.0 * size**0.5, rel=1e-4)


def test_last_short_group_of_an_epoch_is_a_mean_over_what_it_has(
    make_brain, fit
):
    # 3 batches in groups of 2: one full group, one of a single batch
    grouped = make_brain({"grad_accumulation_factor": 2, "max_grad_norm": 0.0})
    fit(grouped)
    assert grouped.optimizer_step == 2
    # The same as one batch of 4 with equal lengths would do, then one of 2
    single = make_brain({"max_grad_norm": 0.0})
    single.grad_accumulation_factor = 1
    fit(single, batch_size=4)
    assert single.optimizer_step == 2
    apart = distance(parameters(grouped), parameters(single))
    assert apart < 1e-5 < distance(parameters(make_brain()), parameters(single))


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
def test_backbone_is_held_for_the_first_updates_only(
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
