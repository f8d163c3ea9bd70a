"""Whole utterances: labels, scores, files."""

import json
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from speechbrain import Stage
from speechbrain.dataio.batch import PaddedBatch
from toy import dataset, encoder

from unispeech_sb.brains import IntentBrain
from unispeech_sb.dataio.labels import LabelEncoder
from unispeech_sb.nnet.losses import intent_loss


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


def test_predictions_are_written_as_the_leaderboard_takes_them(
    make_brain, tmp_path
):
    brain = make_brain(predictions_file="test_fold1_predict.txt")
    brain.on_stage_start(Stage.TEST)
    logits = torch.tensor([[0.0, 0.0, 9.0], [9.0, 0.0, 0.0]])
    batch = SimpleNamespace(id=["Ses01F_F000", "Ses01F_M001"])
    brain.score(logits, torch.tensor([2, 2]), batch)
    brain.write_report(tmp_path)
    first, last = encoder().ind2lab[0], encoder().ind2lab[2]
    text = (tmp_path / "test_fold1_predict.txt").read_text()
    assert text == f"Ses01F_F000 {last}\nSes01F_M001 {first}\n"


SLOTS = {"action": ["stop", "go"], "object": ["lamp", "tv", "none"]}


@pytest.fixture
def intents(make_brain):
    """A brain for two slots, at the start of a test."""
    encoders = {k: LabelEncoder.from_labels(v) for k, v in SLOTS.items()}
    brain = make_brain(
        brain_class=IntentBrain,
        slot_encoders=encoders,
        compute_cost=partial(intent_loss, slot_sizes=[2, 3]),
        predictions_file="test_predict.csv",
        label_encoder=None,
    )
    brain.on_stage_start(Stage.TEST)
    return brain


def test_an_intent_is_right_where_all_slots_are(intents, tmp_path):
    batch = PaddedBatch(
        [
            {"id": f"u{n}", "sig": torch.ones(9), "label_encoded": target}
            for n, target in enumerate(torch.tensor([[1, 2], [1, 0], [0, 0]]))
        ]
    )
    logits = torch.tensor([[0.0, 9, 0, 0, 9]]).repeat(3, 1)  # go, none
    loss = intents.compute_objectives(logits, batch, Stage.TEST)
    scores = intents.stage_scores(Stage.TEST)
    assert scores == {"accuracy": pytest.approx(1 / 3)}
    # action wrong once, object wrong twice, by 9 nats each
    assert loss.item() == pytest.approx(9 / 3 + 18 / 3, abs=1e-3)
    intents.scores = scores
    intents.write_report(tmp_path)
    lines = (tmp_path / "test_predict.csv").read_text().splitlines()
    assert lines == [f"u{n},go,none" for n in range(3)]
    table = (tmp_path / "confusion.action.csv").read_text()
    assert table == "truth,stop,go\nstop,0,1\ngo,0,2\n"


def test_values_with_too_many_combinations_are_refused_before_training(
    make_brain,
):
    many = LabelEncoder.from_labels([str(n) for n in range(400)])
    with pytest.raises(ValueError, match="at most 100000 combinations"):
        make_brain(
            brain_class=IntentBrain, slot_encoders={"a": many, "b": many}
        )
