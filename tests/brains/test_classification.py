"""Whole utterances: labels, scores, files."""

import json

import pytest
import torch
from speechbrain import Stage
from speechbrain.dataio.batch import PaddedBatch
from toy import dataset, encoder


def batch_of(*labels):
    return PaddedBatch(
        [{"sig": torch.randn(100), "label_encoded": y} for y in labels]
    )


@pytest.mark.parametrize(
    "labels", [(2, 0), (torch.tensor([2]), torch.tensor([0]))]
)
def test_single_label_may_have_an_axis_of_its_own(make_brain, labels):
    brain = make_brain()
    brain.on_stage_start(Stage.VALID, 1)
    logits = torch.tensor([[0.0, 0.0, 9.0], [0.0, 9.0, 0.0]])
    brain.compute_objectives(logits, batch_of(*labels), Stage.VALID)
    assert brain.stage_scores(Stage.VALID) == {"accuracy": 0.5}


def test_regression_has_no_accuracy_and_the_lowest_loss_is_best(make_brain):
    brain = make_brain(
        label_encoder=None, compute_cost=torch.nn.functional.mse_loss
    )
    brain.on_stage_start(Stage.VALID, 1)
    batch = batch_of(torch.tensor([1.0, 2.0, 3.0]))
    loss = brain.compute_objectives(torch.zeros(1, 3), batch, Stage.VALID)
    assert loss.item() == pytest.approx(14 / 3)
    assert brain.stage_scores(Stage.VALID) == {}


class Doubling(torch.nn.Module):
    """An augmentation that keeps the original batch beside its own."""

    def forward(self, wavs, wav_lens):
        return torch.cat([wavs, -wavs]), torch.cat([wav_lens, wav_lens])

    def replicate_labels(self, labels):
        return torch.cat([labels, labels])


def test_augmentation_reaches_waveforms_and_labels_in_training_only(
    make_brain,
):
    brain = make_brain(augmentation=Doubling())
    brain.on_stage_start(Stage.VALID, 1)
    batch = batch_of(0, 1)
    for stage, size in ((Stage.TRAIN, 4), (Stage.VALID, 2)):
        logits = brain.compute_forward(batch, stage)
        assert logits.shape == (size, 3)
        brain.compute_objectives(logits, batch, stage)


def test_report_has_scores_and_confusions(make_brain, tmp_path, capsys):
    brain = make_brain()
    brain.on_stage_start(Stage.TEST)
    brain.confusion.append(torch.tensor([0, 1]), torch.tensor([0, 2]))
    brain.scores = {"accuracy": 0.5}
    brain.write_report(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "confusion.csv",
        "confusion.png",
        "confusion.txt",
        "scores.json",
    ]
    assert json.loads((tmp_path / "scores.json").read_text()) == brain.scores
    assert "middle" in capsys.readouterr().out


@pytest.mark.slow
def test_training_learns_the_toy_task(make_brain):
    brain = make_brain()
    data = dataset(21, encoder())
    brain.fit(range(20), data, data, train_loader_kwargs={"batch_size": 3})
    assert brain.confusion.accuracy > 0.9
