"""UniSpeech-SAT's pre-training on a few sentences, whose units say how loud
they are."""

import shutil

import numpy as np
import pytest
import torch

from recipes import make_units, pretrain_unispeech_sat
from tests.recipes import ordered_pretraining
from tests.recipes.conftest import kept_by_overwrite
from tests.recipes.pretraining import (
    losses,
    units_arguments,
    write_loudness_units,
)
from tests.recipes.processes import assert_same, run_killed, run_on_two
from unispeech_sb.checkpoints.files import read_tensors
from unispeech_sb.cli import main as command_line
from unispeech_sb.convert.to_huggingface import to_huggingface
from unispeech_sb.dataio.units import check_units
from unispeech_sb.lobes.backbone import Backbone


@pytest.fixture(scope="module")
def units(tmp_path_factory):
    """A folder of units beside their recordings; not to be changed."""
    return write_loudness_units(tmp_path_factory.mktemp("speech"))


@pytest.fixture(scope="module")
def trained(root, units, tmp_path_factory):
    """The folder of a finished run, and its scores."""
    output = tmp_path_factory.mktemp("trained")
    options = ["--number_of_epochs=20", "--lr=0.01", "--mask_length=4"]
    return output, pretrain_unispeech_sat.main(
        units_arguments(root, units, output, *options)
    )


def test_overwrite_would_remove_all_that_the_run_left(trained):
    assert kept_by_overwrite(trained[0]) == {trained[0] / "experiment.json"}


def test_the_losses_fall(trained):
    output, scores = trained
    found = losses(output, "cluster")
    assert found[-1] < 0.85 * found[0]
    parts = {"cluster", "utterance_contrastive", "diversity", "feature_penalty"}
    told = {"cluster_accuracy", "utterance_contrastive_accuracy",
            "prob_perplexity", "code_perplexity", "temperature"}  # fmt: skip
    assert set(scores) == parts | told | {"loss"}
    weighed = scores["cluster"] + scores["utterance_contrastive"]
    weighed += 0.1 * (scores["diversity"] + scores["feature_penalty"])
    assert scores["loss"] == pytest.approx(weighed, rel=1e-4)


def test_there_is_a_row_for_each_unit_and_four_specials(trained):
    tensors = read_tensors(trained[0] / "export" / "head.ckpt")
    assert len(tensors["label_embeddings_concat"]) == 8 + 4


def test_the_export_is_a_model_of_transformers(trained, tmp_path):
    transformers = pytest.importorskip("transformers")
    to_huggingface(trained[0] / "export", tmp_path / "hf")
    model = transformers.UniSpeechSatForPreTraining.from_pretrained(
        tmp_path / "hf"
    )
    assert model.config.num_clusters == 12


def test_a_second_iteration_is_on_units_of_the_first_ones_states(
    trained, root, units, tmp_path
):
    make_units.main(
        [
            str(root / "hparams/make_units.yaml"),
            f"--data_folder={units.parent}", f"--output_folder={tmp_path}",
            f"--model={trained[0] / 'export'}", "--layer=1", "--num_units=5",
            "--device=cpu", "--kmeans={n_init: 1, batch_size: 2000}",
        ]
    )  # fmt: skip
    second = tmp_path / "second"
    options = units_arguments(root, tmp_path / "units", second)
    scores = pretrain_unispeech_sat.main([*options, "--num_units=5"])
    assert scores["cluster"] > 0
    assert Backbone.from_pretrained(second / "export").dim == 16


@pytest.mark.parametrize("workers", [0, 2])
def test_a_killed_run_ends_with_the_same_weights(
    root, units, tmp_path, workers
):
    options = units_arguments(
        root, units, tmp_path, "--number_of_epochs=3", "--dropout=0.1",
        "--layerdrop=0.2", "--lr=0.01", "--crop_s=0.7", "--max_batch_s=1.5",
        "--ckpt_interval_steps=1", f"--num_workers={workers}",
    )  # fmt: skip
    # before the third of the second epoch's batches
    whole, killed = run_killed("pretrain_unispeech_sat", options, 8)
    assert_same(
        (whole, killed), "export/backbone.ckpt", "export/head.ckpt",
        "scores.json", "train_log.txt",
    )  # fmt: skip
    temperatures = losses(whole, "temperature")
    assert temperatures == sorted(temperatures, reverse=True)
    assert len(set(temperatures)) == 3


def gradients_of(root, units, folder, processes, *options):
    """The gradients of two updates, of batches of four in all."""
    # A batch's perplexity and penalty are no sums over its frames; cut to
    # equal lengths, utterances would depend on their batch
    arguments = units_arguments(
        root, units, folder, "--distributed_backend=gloo",
        "--loss_weights={diversity: 0.0, feature_penalty: 0.0}",
        "--equal_lengths=False", "--max_grad_norm=0.0", "--warmup_updates=0",
        *options,
    )  # fmt: skip
    command = "pretrain_unispeech_sat", *arguments
    if processes == 2:
        run_on_two("ordered_pretraining.py", *command)
    else:
        ordered_pretraining.main(*command)
    return torch.load(folder / "gradients.pt")


def test_two_processes_are_one_with_the_double_batch(
    root, units, tmp_path, monkeypatch
):
    monkeypatch.setenv("BATCH_SIZE", "4")
    one, two = (gradients_of(root, units, tmp_path / str(n), n) for n in (1, 2))
    assert len(one) == len(two) == 2
    for first, second in zip(one, two, strict=True):
        most = max(gradient.abs().max() for gradient in first)
        torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-5 * most)


def test_layerdrop_does_not_keep_two_processes_waiting(root, units, tmp_path):
    found = gradients_of(root, units, tmp_path, 2, "--layerdrop=0.7")
    assert len(found) == 2


def no_array(folder):
    """Takes the units of the training set away."""
    (folder / "train.npy").unlink()


def wrong_unit(folder):
    """Writes a unit that there is not into the second recording."""
    array = np.load(folder / "train.npy")
    first = check_units(folder)["train"].read_text().splitlines()[1]
    array[int(first.split(",")[-1]) + 3] = 8
    np.save(folder / "train.npy", array)


def wrong_length(folder):
    """Gives the third recording half of its units."""
    path = folder / "train.csv"
    lines = path.read_text().splitlines()
    *others, start, stop = lines[3].split(",")
    half = str((int(start) + int(stop)) // 2)
    lines[3] = ",".join([*others, start, half])
    path.write_text("\n".join(lines) + "\n")


def nothing(folder):
    """Leaves all as it is."""


MISTAKES = {
    "missing": (no_array, "", "train.npy: there is no such file, expected"),
    "unit": (wrong_unit, "", "train.csv, line 3: expected units from 0 to 7"),
    "length": (wrong_length, "", "train.csv, line 4: expected units of "),
    "number": (nothing, "--num_units=9", "units.json: expected 9 units, as"),
    "layer": (nothing, "--contrastive_layer=9", "to be from 1 to 2; got 9"),
    "folder": (nothing, "--units_folder=nowhere", "nowhere: expected rec"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(root, units, tmp_path, capsys, mistake):
    spoil, option, message = MISTAKES[mistake]
    folder = tmp_path / "units"
    shutil.copytree(units, folder)
    spoil(folder)
    command = units_arguments(
        root, folder, tmp_path / "output", *option.split()
    )
    assert command_line(["recipe", "pretrain_unispeech_sat", *command]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("unispeech-sb: ")
    assert message in error
