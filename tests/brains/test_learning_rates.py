"""A search over learning rates: the best is kept, a killed one goes on."""

import json

import pytest
import torch
import toy

from unispeech_sb import experiment
from unispeech_sb.brains import SSLBrain
from unispeech_sb.brains.learning_rates import search_learning_rate

RATES = "[1.0e-6, 0.03, 0.01]"


@pytest.fixture(scope="module")
def yaml_file(tmp_path_factory):
    """The toy's yaml with a search."""
    path = tmp_path_factory.mktemp("yaml") / "toy.yaml"
    text = toy.YAML.read_text().replace("freeze_backbone_updates: 2", "")
    path.write_text(text + "learning_rate_search: null\n")
    return str(path)


def frozen(hparams):
    """Datasets of the toy; its backbone is frozen, and without dropout."""
    hparams["backbone"].requires_grad_(False)
    for name in ("backbone", "head"):
        hparams[name].dropout.p = 0.0
    return toy.dataio_prep(hparams)


class Counted(toy.ToyBrain):
    """Notes the rates of all updates; may be interrupted."""

    rates: list[float] = []
    stop_at = None

    def on_fit_batch_end(self, batch, outputs, loss, should_step):
        self.rates.append(self.hparams.lr)
        if len(self.rates) == self.stop_at:
            raise KeyboardInterrupt


class ByLoss(Counted):
    """The lowest loss is the best."""

    def importance(self, checkpoint):
        return SSLBrain.importance(self, checkpoint)


@pytest.fixture
def run(yaml_file, tmp_path):
    """One run; its scores, and the rates of the updates that it made."""

    def start(*options, brain_class=Counted, folder="out", stop_at=None):
        Counted.rates, Counted.stop_at = [], stop_at
        argv = [yaml_file, f"--output_folder={tmp_path / folder}"]
        argv += ["--device=cpu", "--noprogressbar", *options]
        found = experiment.run(brain_class, frozen, argv=argv)
        return found, Counted.rates

    return start


def heads_of(folder):
    """Weights of the heads of the checkpoints that are there."""
    found = sorted(folder.glob("CKPT*/head.ckpt"))
    return [torch.load(path, weights_only=True) for path in found]


def test_the_best_rate_on_the_validation_set_is_kept(run, tmp_path):
    scores, rates = run(f"--learning_rate_search={RATES}", brain_class=ByLoss)
    assert rates == [1e-6] * 24 + [0.03] * 24 + [0.01] * 24
    assert scores == json.loads((tmp_path / "out" / "scores.json").read_text())
    rows = scores["learning_rate_search"]
    assert [row["learning_rate"] for row in rows] == [1e-6, 0.03, 0.01]
    alone = {}
    for row in rows:
        rate = row["learning_rate"]
        alone[rate], _ = run(
            f"--lr={rate}", folder=str(rate), brain_class=ByLoss
        )
        assert row["accuracy"] == alone[rate]["accuracy"]
        assert row["loss"] == pytest.approx(alone[rate]["loss"])
        ours = heads_of(tmp_path / "out/save/learning_rates" / str(rate))
        own = heads_of(tmp_path / str(rate) / "save")
        assert ours
        for one, other in zip(ours, own, strict=True):
            for name, weights in one.items():
                assert torch.equal(weights, other[name])
    assert scores["learning_rate"] == 0.03  # neither the first nor the last
    assert min(row["loss"] for row in rows) == rows[1]["loss"]
    assert scores["loss"] == alone[0.03]["loss"] < alone[0.01]["loss"]


def test_the_scores_of_a_search_are_printed_without_the_list(run, capsys):
    run("--learning_rate_search=[0.03]", "--number_of_epochs=1")
    printed = capsys.readouterr().out
    assert "learning rate 0.03" in printed and "[{" not in printed
    _, rates = run("--learning_rate_search=[0.03]", "--number_of_epochs=1")
    assert rates == [] and "Already finished" in capsys.readouterr().out


class Equal(Counted):
    """All rates are equally good by the first score, not by the loss."""

    def stage_scores(self, stage):
        return {"accuracy": 0.5}


def test_of_equal_rates_the_first_is_kept(run):
    options = ("--learning_rate_search=[1.0e-6, 0.03]", "--number_of_epochs=1")
    scores, _ = run(*options, brain_class=Equal)
    assert scores["learning_rate"] == 1e-6
    losses = [row["loss"] for row in scores["learning_rate_search"]]
    assert losses[1] < losses[0]


@pytest.mark.parametrize("stop_at", [30, 60])
def test_a_stopped_search_goes_on(run, tmp_path, stop_at):
    whole, rates = run(f"--learning_rate_search={RATES}", folder="whole")
    with pytest.raises(KeyboardInterrupt):
        run(f"--learning_rate_search={RATES}", stop_at=stop_at)
    again, left = run(f"--learning_rate_search={RATES}")
    assert again == whole
    assert left == rates[stop_at // 8 * 8 :]  # from the last epoch on


def test_more_epochs_train_with_every_rate(run):
    options = f"--learning_rate_search={RATES}", "--number_of_epochs=3"
    whole, _ = run(*options, folder="whole")
    run(*options[:1], "--number_of_epochs=2")
    again, rates = run(*options)
    assert rates == [1e-6] * 8 + [0.03] * 8 + [0.01] * 8
    assert again == whole


def test_a_rate_that_diverges_does_not_end_the_search(run):
    scores, _ = run("--learning_rate_search=[1.0e+38, 0.03]", "--lr=1")
    assert scores["learning_rate"] == 0.03
    assert scores["learning_rate_search"][0] == {"learning_rate": 1e38}


@pytest.mark.parametrize(
    "given", [[], "0.1", 0.1, [0.1, "x"], [0.1, 0.0], [float("inf")]]
)
def test_other_lists_are_refused(given):
    with pytest.raises(ValueError, match="expected a list of rates above 0"):
        search_learning_rate(
            None, None, {"learning_rate_search": given, "save_folder": "x"}
        )


def test_a_backbone_that_trains_is_refused(tmp_path):
    hparams = {"learning_rate_search": ["1e-3"], "save_folder": tmp_path}
    hparams["backbone"] = toy.Backbone()
    with pytest.raises(ValueError, match="expected a frozen backbone"):
        search_learning_rate(None, None, hparams)


def test_another_list_is_another_experiment(run):
    run("--learning_rate_search=[0.03]", "--number_of_epochs=1")
    with pytest.raises(ValueError, match="holds another experiment"):
        run("--learning_rate_search=[0.3]", "--number_of_epochs=1")
    scores, rates = run(
        "--learning_rate_search=[0.3]", "--number_of_epochs=1", "--overwrite"
    )
    assert scores["learning_rate"] == 0.3 and rates == [0.3] * 8
