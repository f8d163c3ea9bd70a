"""Updates of a pre-training: what divides gradients, what is logged, what a
run that goes on remembers. The objectives here are made up."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from speechbrain import Stage
from speechbrain.utils.checkpoints import Checkpointer
from torch import nn

from unispeech_sb.brains.pretraining import (
    PretrainBrain,
    WeightedMeans,
    build_objective,
)
from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.lobes.pretraining import PretrainingOutput, weighted_loss


class Frames(nn.Module):
    """A loss whose gradient in ``weight`` is the sum of a batch's frames."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.seen, self.targets = [], []

    def forward(self, wavs, wav_lens, targets, target_lens, num_updates,
                generator):  # fmt: skip
        self.targets.append((targets, target_lens))
        drawn = torch.rand(1, generator=generator).item()
        self.seen.append((self.training, num_updates, drawn))
        losses = {"cluster": self.weight * wavs.sum(), "spare": wavs.sum()}
        return PretrainingOutput(losses, wavs.numel(), {"temperature": 2.0})


class Batch(SimpleNamespace):
    """Waveforms, in the place of a PaddedBatch."""

    def __len__(self):
        return len(self.sig[0])

    def to(self, device):
        return self


def batch_of(*frames):
    """A batch of one utterance."""
    return Batch(sig=(torch.tensor([frames]), torch.ones(1)))


BATCHES = [batch_of(1.0), batch_of(2.0, 3.0, 4.0), batch_of(5.0, 6.0)]


class Quiet:
    """Keeps what is logged."""

    def __init__(self):
        self.lines = []

    def log_stats(self, meta, **stats):
        self.lines.append({**meta, **stats})


def make_brain(checkpointer=None, **run_opts):
    """A Brain that descends plainly, at a rate of 1."""
    objective = Frames()
    weights = {"cluster": 2.0, "spare": 0.0}
    hparams = {
        "backbone": Backbone.from_preset("tiny"),
        "compute_cost": partial(weighted_loss, weights=weights),
        "train_logger": Quiet(),
        "seed": 3,
    }
    options = {"device": "cpu", "max_grad_norm": 0.0, **run_opts}
    return PretrainBrain(
        {"objective": objective}, partial(torch.optim.SGD, lr=1.0), hparams,
        options, checkpointer,
    )  # fmt: skip


def fit(brain, epochs=1, valid=None):
    """Train on the batches, one after the other."""
    loader = torch.utils.data.DataLoader(BATCHES, batch_size=None)
    brain.fit(range(1, epochs + 1), loader, valid, progressbar=False)
    return brain.modules.objective


def test_an_update_is_divided_by_its_masked_frames():
    objective = fit(make_brain(grad_accumulation_factor=3))
    assert objective.weight.item() == pytest.approx(-2.0 * 21 / 6)


def test_the_last_short_update_is_divided_by_its_own_frames():
    objective = fit(make_brain(grad_accumulation_factor=2))
    assert objective.weight.item() == pytest.approx(-2.0 * (10 / 4 + 11 / 2))


def test_clipping_comes_after_the_division():
    brain = make_brain(grad_accumulation_factor=3, max_grad_norm=5.0)
    assert fit(brain).weight.item() == pytest.approx(-5.0, rel=1e-5)


def test_the_temperature_follows_the_updates_not_the_batches():
    objective = fit(make_brain(grad_accumulation_factor=2), epochs=2)
    assert [u for _, u, _ in objective.seen] == [0, 0, 1, 2, 2, 3]


def test_validations_draw_the_same_masks_and_trainings_do_not():
    valid = torch.utils.data.DataLoader(BATCHES, batch_size=None)
    seen = fit(make_brain(), epochs=2, valid=valid).seen
    trained = [drawn for training, _, drawn in seen if training]
    checked = [drawn for training, _, drawn in seen if not training]
    assert checked[:3] == checked[3:]
    assert len(set(trained)) == 6


def test_the_log_has_every_part_per_masked_frame(caplog):
    caplog.set_level("INFO")
    valid = torch.utils.data.DataLoader(BATCHES, batch_size=None)
    brain = make_brain()
    fit(brain, valid=valid)
    (line,) = brain.hparams.train_logger.lines
    train, checked = line["train_stats"], line["valid_stats"]
    assert train["padding"] == 0.0 and "padding" not in checked
    assert "s of audio in a second; MFU " in caplog.text
    assert train["spare"] == checked["spare"] == pytest.approx(21 / 6)
    assert train["temperature"] == 2.0
    assert checked["loss"] == pytest.approx(2 * checked["cluster"])
    # weight is 0, then -2, then -2 - 6: the losses before each update
    assert train["cluster"] == pytest.approx((0 - 2 * 9 - 8 * 11) / 6)
    assert train["loss"] == pytest.approx(2 * train["cluster"])


def test_a_batch_that_is_not_finite_does_not_spoil_the_log():
    brain = make_brain()
    for frame in (3.0, torch.nan):
        output = brain.compute_forward(batch_of(frame), Stage.TRAIN)
        brain.compute_objectives(output, None, Stage.TRAIN)
    assert brain.means.summarize()["spare"] == 3.0


def test_means_are_of_one_process_unless_all_are_asked_for(monkeypatch):
    means = WeightedMeans()
    means.add({"loss": 3.0}, 1)

    def gather(parts, own):
        parts[:] = [own, ({"loss": 30.0}, 5.0)]

    name = "unispeech_sb.brains.pretraining.is_distributed_initialized"
    monkeypatch.setattr(name, lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    assert means.summarize() == {"loss": 3.0}
    assert means.summarize(over_processes=True) == {"loss": 5.5}


def test_speech_is_mixed_in_training_alone_and_may_have_no_targets():
    brain = make_brain()
    brain.hparams.mixing = lambda wavs, lens: wavs + 1
    sums = {
        stage: brain.compute_forward(batch_of(1.0, 2.0), stage).losses["spare"]
        for stage in (Stage.TRAIN, Stage.VALID)
    }
    assert sums == {Stage.TRAIN: 5.0, Stage.VALID: 3.0}
    assert brain.modules.objective.targets == [(None, None)] * 2


def test_means_survive_inside_an_epoch_and_start_anew_after_it(tmp_path):
    means = WeightedMeans()
    means.add({"loss": 1 / 3, "accuracy": 0.1}, 7)
    means.add({"loss": 5.0}, 3)
    expected = means.summarize()
    checkpointer = Checkpointer(tmp_path, {"means": means})
    inside = checkpointer.save_checkpoint(end_of_epoch=False)
    after = checkpointer.save_checkpoint()
    means.clear()
    checkpointer.load_checkpoint(inside)
    assert means.summarize() == expected
    checkpointer.load_checkpoint(after)
    assert means.summarize() == {}


def test_a_run_that_goes_on_does_not_take_the_old_head_again(tmp_path):
    taken = []
    hparams = {
        "head": nn.Identity, "modules": {}, "backbone": None,
        "objective": lambda backbone, head: head, "head_from": "first",
        "load_head": lambda head, source: taken.append(source),
        "checkpointer": Checkpointer(tmp_path),
    }  # fmt: skip
    build_objective(dict(hparams), {})
    assert taken == ["first"]
    hparams["checkpointer"].save_checkpoint()
    build_objective(dict(hparams), {})
    assert taken == ["first"]


@pytest.mark.parametrize("given", [{}, {"head_from": "first"}])
def test_an_export_says_what_it_was_trained_on(given, monkeypatch, tmp_path):
    exported = []
    monkeypatch.setattr(
        "unispeech_sb.brains.pretraining.export_pretraining",
        lambda *arguments: exported.append(arguments),
    )
    brain = make_brain()
    fit(brain)
    said = {"units_folder": "units", "languages": ["sv"], "head_from": None}
    vars(brain.hparams).update(said | given)
    brain.hparams.epoch_counter = SimpleNamespace(current=4)
    brain.export(tmp_path, {"loss": 2.0}, "valid")
    ((folder, hparams, scores, scored_on, facts),) = exported
    assert (folder, hparams) == (tmp_path, brain.hparams)
    assert (scores, scored_on) == ({"loss": 2.0}, "valid")
    assert facts == {
        "best epoch": 4,
        "optimizer updates": len(BATCHES),
        "units_folder": "units",
        "languages": ["sv"],
        **given,
    }
