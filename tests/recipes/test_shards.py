"""Recipes train on shards: killed, on two processes, and damaged."""

import shutil

import pytest

from recipes import asr, phoneme_recognition, pretrain_unispeech
from recipes import pretrain_unispeech_sat as pretrain_sat
from tests.recipes.pretraining import (
    losses,
    phones_arguments,
    units_arguments,
    write_loudness_units,
)
from tests.recipes.processes import assert_same, run_killed, run_on_two
from tests.recipes.speech import arguments, write_speech
from unispeech_sb.commands import main as command_line
from unispeech_sb.dataio.shards import DamagedShardError

pytest.importorskip("webdataset")

SHARD_H = "--hours-per-shard=0.0005"  # two sentences


def make(data, output):
    """Shards of a folder."""
    line = ["shards", "make", str(data), "-o", str(output), SHARD_H]
    assert command_line(line) == 0
    return output


@pytest.fixture(scope="module")
def units(tmp_path_factory):
    """A folder of units beside their recordings; not to be changed."""
    return write_loudness_units(tmp_path_factory.mktemp("units"))


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    """Shards of sentences with words and phones; not to be changed."""
    folder = tmp_path_factory.mktemp("speech")
    return make(write_speech(folder), folder / "shards")


@pytest.fixture(scope="module")
def units_shards(units):
    """Shards with units; not to be changed."""
    return make(units, units.parent / "shards")


def test_a_killed_pretraining_on_units_in_shards_ends_the_same(
    root, units_shards, tmp_path
):
    options = units_arguments(
        root, units_shards, tmp_path, "--number_of_epochs=4",
        "--ckpt_interval_steps=1", "--num_workers=2", "--lr=0.01",
        "--max_batch_s=1.5", "--shuffle_buffer_s=2.0", "--crop_s=0.5",
    )  # fmt: skip
    folders = run_killed(root, "pretrain_unispeech_sat", options, 3, 6)
    assert_same(
        folders, "export/backbone.ckpt", "export/head.ckpt", "scores.json"
    )


def test_unlabelled_speech_in_shards_needs_no_manifests(root, speech, tmp_path):
    options = phones_arguments(
        root, speech, tmp_path, "--labelled=False",
        "--loss_weights={contrastive: 1.0, diversity: 0.1, "
        "feature_penalty: 0.0}", "--lr=0.01", "--number_of_epochs=2",
    )  # fmt: skip
    scores = pretrain_unispeech.main(options)
    assert "contrastive" in scores and len(losses(tmp_path)) == 2
    assert not list((tmp_path / "manifests").glob("*.csv"))


def test_phones_and_words_are_learnt_from_shards(root, speech, tmp_path):
    options = phones_arguments(root, speech, tmp_path / "pre", "--lr=0.01")
    assert "ctc" in pretrain_unispeech.main(options)
    options = arguments(
        root, speech, tmp_path / "asr", "--number_of_epochs=30", "--lr=0.01",
        "--warmup_updates=0", "--shuffle_buffer_s=3",
    )  # fmt: skip
    asr.main(options)
    found = losses(tmp_path / "asr")
    assert found[-1] < 0.7 * found[0]
    manifest = (tmp_path / "asr" / "manifests" / "train.csv").read_text()
    assert "shards/train-000000.tar" in manifest
    options[0] = str(root / "hparams/phoneme_recognition.yaml")
    options[2] = f"--output_folder={tmp_path / 'phones'}"
    options[4:] = [*options[4:], "--number_of_epochs=1"]
    phoneme_recognition.main([o for o in options if "spec_aug" not in o])


def test_two_processes_share_the_shards_and_another_number_goes_on(
    root, speech, tmp_path
):
    options = arguments(
        root, speech, tmp_path, "--number_of_epochs=2",
        "--distributed_backend=gloo", "--num_workers=1", "--max_batch_s=1.0",
        "--ckpt_interval_steps=1", "--dropout=0.1",
    )  # fmt: skip
    run_on_two(root, str(root / "recipes" / "asr.py"), *options)
    assert len(losses(tmp_path)) == 2


def test_a_damaged_shard_ends_the_training_unless_it_may_be_skipped(
    root, speech, tmp_path, caplog
):
    damaged = shutil.copytree(speech, tmp_path / "damaged")
    tar = damaged / "train-000001.tar"
    content = bytearray(tar.read_bytes())
    content[2000] ^= 8
    tar.write_bytes(content)
    options = arguments(root, damaged, tmp_path / "run", "--number_of_epochs=2")
    with pytest.raises(DamagedShardError, match="train-000001.tar: this shard"):
        asr.main(options)
    asr.main([*options, "--skip_damaged=True"])
    assert "Left out, 1 so far by this reader" in caplog.text
    assert "train-000001.tar" in caplog.text


def test_other_shards_in_the_same_folder_are_another_experiment(
    root, speech, units_shards, tmp_path
):
    options = units_arguments(root, units_shards, tmp_path)
    pretrain_sat.main(options)
    with pytest.raises(ValueError, match="expected a folder of units"):
        pretrain_sat.main(units_arguments(root, speech, tmp_path))
