"""SpeakerBrain scores trials, and knows the speakers of its training."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from speechbrain import Stage
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.utils.checkpoints import Checkpointer

from unispeech_sb.brains import SpeakerBrain, core
from unispeech_sb.dataio.speakers import UNKNOWN
from unispeech_sb.dataio.trials import Trials
from unispeech_sb.lobes.heads import AMSoftmax
from unispeech_sb.metrics.calibration import Calibration


class Embedding(torch.nn.Module):
    """A head whose features are what it compares; it trains on twice that."""

    def embed(self, feats, lengths=None):
        return feats

    def project(self, embeddings):
        return 2 * embeddings

    def forward(self, feats, lengths=None):
        return self.project(self.embed(feats, lengths))


def trials_of(*rows):
    """Trials of (name, name, truth)."""
    names = sorted({name for row in rows for name in row[:2]})
    left, right = (
        np.array([names.index(row[side]) for row in rows], np.int32)
        for side in (0, 1)
    )
    return Trials(names, left, right, np.array([row[2] for row in rows]))


TRIALS = trials_of(
    ("a", "b", True), ("a", "c", False), ("c", "b", False), ("c", "d", True)
)
VECTORS = {"a": [4.0, 0.0], "b": [3.0, 1.0], "c": [0.0, 1.0], "d": [1.0, 2.0]}


def brain_for(trials=TRIALS, objective=None, checkpointer=None, **hparams):
    """A Brain at the start of a validation."""
    brain = SpeakerBrain(
        hparams={
            "head": Embedding(),
            "objective": objective,
            "trials": {Stage.VALID: trials, Stage.TEST: trials},
            "train_logger": None,
            **hparams,
        },
        run_opts={"device": "cpu"},
        checkpointer=checkpointer,
    )
    brain.on_stage_start(Stage.VALID, 1)
    return brain


def validate(brain, vectors, labels):
    """Passes vectors through a validation; the loss."""
    names = list(vectors)
    batch = PaddedBatch(
        [
            {"id": name, "label_encoded": torch.tensor([label])}
            for name, label in zip(names, labels, strict=True)
        ]
    )
    feats = torch.tensor([vectors[name] for name in names])
    return brain.compute_objectives(feats, batch, Stage.VALID)


def test_trials_are_scored_by_the_cosine_of_their_vectors():
    brain = brain_for()
    validate(brain, VECTORS, [UNKNOWN] * 4)
    rows = {name: torch.tensor(row) for name, row in VECTORS.items()}
    wanted = [
        torch.cosine_similarity(rows[a], rows[b], dim=0).item()
        for a, b in ("ab", "ac", "cb", "cd")
    ]
    assert brain.cosines(Stage.VALID).tolist() == pytest.approx(wanted)


def test_error_rates_are_those_of_the_trials():
    brain = brain_for()
    validate(brain, VECTORS, [UNKNOWN] * 4)
    assert brain.stage_scores(Stage.VALID) == {"EER": 0.0, "minDCF": 0.0}
    swapped = dict(VECTORS, a=VECTORS["c"], c=VECTORS["a"])
    validate(brain, swapped, [UNKNOWN] * 4)
    assert brain.stage_scores(Stage.VALID)["EER"] == 50.0


def test_known_speakers_give_loss_and_accuracy_and_others_do_not():
    objective = AMSoftmax(2, 2)
    with torch.no_grad():
        objective.weight.copy_(torch.eye(2))
    brain = brain_for(objective=objective)
    vectors = {n: VECTORS[n] for n in "abc"}
    loss = validate(brain, vectors, [0, 1, UNKNOWN])
    known = torch.tensor([VECTORS["a"], VECTORS["b"]])
    assert loss == objective(2 * known, torch.tensor([0, 1]))
    validate(brain, {"d": VECTORS["d"]}, [UNKNOWN])
    assert brain.stage_scores(Stage.VALID)["accuracy"] == 0.5


def test_without_known_speakers_the_loss_is_the_error_rate(monkeypatch):
    trials = trials_of(("a", "b", True), ("a", "c", False), ("b", "a", False))
    brain = brain_for(trials)
    brain.train_scores = {}
    brain.optimizers_dict = {}
    seen = []

    def log(*_, valid_stats, **others):
        seen.append(valid_stats)

    monkeypatch.setattr(core, "log_stats", log)
    loss = validate(brain, VECTORS, [UNKNOWN] * 4)
    assert loss == 0
    brain.on_stage_end(Stage.VALID, 0.0, 1)
    assert seen[0]["loss"] == seen[0]["EER"] / 100 > 0


def test_a_trial_of_an_utterance_that_is_not_there_is_named():
    brain = brain_for()
    validate(brain, {n: VECTORS[n] for n in "abc"}, [UNKNOWN] * 3)
    with pytest.raises(ValueError, match="utterances of the split valid.*'d'"):
        brain.cosines(Stage.VALID)


def test_the_lowest_error_rate_is_the_best():
    brain = brain_for()
    low, high = (
        SimpleNamespace(meta={"EER": rate, "loss": loss})
        for rate, loss in ((1.0, 9.0), (2.0, 0.1))
    )
    assert brain.importance(low) > brain.importance(high)


def test_the_calibration_comes_back_with_its_checkpoint(tmp_path):
    checkpointer = Checkpointer(tmp_path)
    brain = brain_for(checkpointer=checkpointer)
    brain.calibration = Calibration(3.0, -1.0)
    checkpointer.save_checkpoint()
    brain.calibration = Calibration()
    checkpointer.recover_if_possible()
    assert vars(brain.calibration) == vars(Calibration(3.0, -1.0))


def test_a_validation_calibrates_only_what_tells_speakers_apart():
    brain = brain_for()
    validate(brain, VECTORS, [UNKNOWN] * 4)
    assert brain._calibrated(Stage.VALID).num_trials == (2, 2)
    swapped = dict(VECTORS, a=VECTORS["c"], c=VECTORS["a"])
    validate(brain, swapped, [UNKNOWN] * 4)
    assert brain._calibrated(Stage.VALID).num_trials == (0, 0)


def test_margins_follow_their_schedule():
    objective = AMSoftmax(2, 2)
    brain = brain_for(
        objective=objective,
        margin_schedule=lambda epochs: epochs,
        epoch_counter=SimpleNamespace(current=3),
    )
    brain.train_loader, brain.step = range(4), 2
    brain.on_fit_batch_start(None, True)
    assert objective.margin_share == 2.25


SPEAKERS = trials_of(
    *(
        (f"{a}{i}", f"{b}{j}", a == b)
        for a, i, b, j in (
            (a, i, b, j)
            for a in "abcd"
            for b in "abcd"
            for i in (0, 1)
            for j in (0, 1)
            if (a, i) < (b, j)
        )
    )
)


def after_test(trials, output_folder=None, **hparams):
    """A Brain after a test of vectors that part speakers almost."""
    brain = brain_for(trials, output_folder=output_folder, **hparams)
    brain.on_stage_start(Stage.TEST)
    angles = torch.tensor([0.0, 0.6, 0.5, 1.1, 2.0, 2.2, 3.0, 3.1])
    vectors = torch.stack([angles.cos(), angles.sin()], 1).tolist()
    names = sorted(trials.names)
    validate(
        brain, dict(zip(names, vectors, strict=True)), [UNKNOWN] * len(names)
    )
    return brain


def owners_of(trials):
    """Speakers of both sides: the first letter of a name."""
    owners = np.array([ord(name[0]) for name in trials.names])
    return owners[trials.left], owners[trials.right]


def test_a_test_tells_how_sure_its_rates_are():
    owners = dict.fromkeys((Stage.VALID, Stage.TEST), owners_of(SPEAKERS))
    brain = after_test(SPEAKERS, trial_speakers=owners)
    scores = brain.stage_scores(Stage.TEST)
    assert 0 < scores["EER"] < 100
    for name in ("EER", "minDCF"):
        assert scores[f"{name} low"] <= scores[name] <= scores[f"{name} high"]
    assert scores["EER low"] < scores["EER high"]
    assert scores == brain.stage_scores(Stage.TEST)
    assert "EER low" not in brain.stage_scores(Stage.VALID)


def test_too_few_speakers_give_no_interval(caplog):
    two = trials_of(("a", "b", True), ("a", "c", False), ("b", "c", False))
    owners = np.array([0, 0, 0]), np.array([0, 1, 1])
    brain = brain_for(two, trial_speakers={Stage.TEST: owners})
    validate(brain, {n: VECTORS[n] for n in "abc"}, [UNKNOWN] * 3)
    assert set(brain.stage_scores(Stage.TEST)) == {"EER", "minDCF"}
    assert "No confidence interval of EER: expected at least 3" in caplog.text


def test_the_report_has_trials_and_pictures(tmp_path):
    brain = after_test(SPEAKERS)
    brain.scores = {"EER": 1.0}
    brain.calibration = Calibration(3.0, -1.0, num_trials=(2, 3))
    brain.write_report(tmp_path)
    lines = (tmp_path / "trials.csv").read_text().splitlines()
    assert len(lines) == 1 + len(SPEAKERS.targets)
    score = float(lines[1].rpartition(",")[2])
    assert score == pytest.approx(brain.cosines(Stage.TEST)[0])
    for name in ("det.png", "histogram.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "scores.json").is_file()
