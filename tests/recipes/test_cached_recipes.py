"""Recipes on kept features end as without them, whatever happens between."""

import json

import pytest

from recipes import (
    asr,
    keyword_spotting,
    phoneme_recognition,
    slot_filling,
    speaker_diarization,
    speaker_verification,
)
from tests.recipes.conftest import TINY
from tests.recipes.processes import assert_same, run_killed
from tests.recipes.speech import write_speech
from tests.recipes.talks import talk_run, write_talks
from tests.recipes.test_asr_superb import SMALL
from tests.recipes.test_phoneme_superb import superb_arguments
from tests.recipes.test_slot_filling import SUPERB, write_requests
from tests.recipes.voices import run_recipe, trial_list, write_voices
from unispeech_sb.checkpoints.files import read_tensors

WORDS = [
    *TINY,
    "--freeze=True",
    "--use_weighted_layer_sum=True",
    "--augmentation=null",
    "--batch_size=4",
    "--number_of_epochs=2",
]


def words(root, corpus, output, *options):
    """Arguments of keyword spotting on a frozen backbone."""
    yaml = str(root / "hparams/keyword_spotting.yaml")
    own = [f"--data_folder={corpus}", f"--output_folder={output}"]
    return [yaml, *own, *WORDS, *options]


def heads(*folders):
    """Weights of the exported heads."""
    return [read_tensors(f / "export/head.ckpt") for f in folders]


def assert_close(one, other, most):
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert (tensor - other[name]).abs().max() < most, name


def test_words_train_alike_and_a_search_shares_the_cache(
    root, corpus, tmp_path, capsys
):
    cache = f"--feature_cache={tmp_path / 'cache'}"
    scores = []
    for name, options in (
        ("live", ["--lr=0.01"]),
        ("cached", ["--lr=0.01", cache]),
        ("searched", ["--learning_rate_search=[1e-6, 0.01]", cache]),
    ):
        capsys.readouterr()
        scores.append(
            keyword_spotting.main(
                words(root, corpus, tmp_path / name, *options)
            )
        )
        computes = "Feature cache" in capsys.readouterr().out
        assert computes == (name == "cached")
    live, cached, searched = heads(
        *(tmp_path / name for name in ("live", "cached", "searched"))
    )
    assert_close(live, cached, 1e-5)
    assert scores[0]["accuracy"] == scores[1]["accuracy"]
    rates = [row["learning_rate"] for row in scores[2]["learning_rate_search"]]
    assert rates == [1e-6, 0.01]
    training = json.loads(
        (tmp_path / "searched/export/training.json").read_text()
    )
    assert str(scores[2]["learning_rate"]) in json.dumps(training)
    if scores[2]["learning_rate"] == 0.01:
        assert_close(cached, searched, 1e-6)


def test_a_run_goes_on_with_or_without_the_cache(root, corpus, tmp_path):
    output, cache = tmp_path / "out", f"--feature_cache={tmp_path / 'cache'}"
    keyword_spotting.main(words(root, corpus, output, cache))
    keyword_spotting.main(words(root, corpus, output, "--number_of_epochs=3"))
    whole = tmp_path / "whole"
    keyword_spotting.main(words(root, corpus, whole, "--number_of_epochs=3"))
    assert_close(*heads(output, whole), 1e-5)


@pytest.mark.parametrize(
    ("where", "counts"),
    [
        ("unispeech_sb.brains.core:SSLBrain.on_stage_end", (3, 6)),
        ("unispeech_sb.brains.learning_rates:_outcome", (2,)),
        ("unispeech_sb.experiment:write_json", (1,)),
    ],
)
def test_a_killed_search_on_a_cache_ends_with_the_same_bits(
    root, corpus, tmp_path, where, counts
):
    arguments = words(
        root, corpus, tmp_path, "--learning_rate_search=[0.01, 0.03]",
        f"--feature_cache={tmp_path / 'cache'}", "--cache_dtype=bfloat16",
    )  # fmt: skip
    folders = run_killed("keyword_spotting", arguments, *counts, where=where)
    assert_same(folders, "export/head.ckpt", "scores.json")


def test_frames_train_speech_recognition_alike(root, tmp_path):
    """With masks and dropout after the cache."""
    corpus = tmp_path / "speech"
    corpus.mkdir()
    write_speech(corpus)
    yaml = str(root / "hparams/asr_superb.yaml")
    folders = tmp_path / "live", tmp_path / "cached"
    for folder in folders:
        cache = "null" if folder.name == "live" else tmp_path / "cache"
        asr.main(
            [yaml, f"--data_folder={corpus}", f"--output_folder={folder}",
             *SMALL, "--model=tiny", "--lr=0.01", "--batches_per_epoch=10",
             f"--feature_cache={cache}"]
        )  # fmt: skip
    assert_close(*heads(*folders), 1e-4)


def test_frames_train_phoneme_recognition_alike(root, librispeech, tmp_path):
    """Ten updates of two batches each."""
    folders = tmp_path / "live", tmp_path / "cached"
    scores = []
    for folder in folders:
        cache = "null" if folder.name == "live" else tmp_path / "cache"
        arguments = superb_arguments(
            root, librispeech, folder, "--batches_per_epoch=10",
            "--number_of_epochs=2", f"--feature_cache={cache}",
        )  # fmt: skip
        scores.append(phoneme_recognition.main(arguments))
    assert_close(*heads(*folders), 1e-4)
    assert scores[0]["PER"] == pytest.approx(scores[1]["PER"], abs=0.5)


def test_frames_train_slot_filling_alike(root, tmp_path):
    """Ten updates, with masks and dropout after the cache."""
    corpus = write_requests(tmp_path / "SNIPS", longer=100)
    yaml = str(root / "hparams/slot_filling_superb.yaml")
    folders = tmp_path / "live", tmp_path / "cached"
    for folder in folders:
        cache = "null" if folder.name == "live" else tmp_path / "cache"
        slot_filling.main(
            [yaml, f"--data_folder={corpus}", f"--output_folder={folder}",
             *SUPERB, "--batch_size=4", "--batches_per_epoch=10", "--lr=0.01",
             f"--feature_cache={cache}"]
        )  # fmt: skip
    assert_close(*heads(*folders), 1e-4)


def test_frames_and_live_crops_train_speaker_verification_alike(root, tmp_path):
    corpus = tmp_path / "voices"
    corpus.mkdir()
    write_voices(corpus)
    trials = trial_list(tmp_path / "trials.txt", "{}{}.wav")
    folders = tmp_path / "live", tmp_path / "cached"
    for folder in folders:
        cache = "null" if folder.name == "live" else tmp_path / "cache"
        run_recipe(
            speaker_verification, root, corpus, folder, f"--trials={trials}",
            f"--audio_root={corpus}", "--valid_speakers=null",
            "--min_duration_s=0.2", "--crop_s=0.4",
            "--number_of_epochs=1", "--draws_per_epoch=100", "--lr=0.001",
            f"--feature_cache={cache}", "--num_workers=0",
            yaml="hparams/speaker_verification_superb.yaml",
        )  # fmt: skip
    assert_close(*heads(*folders), 1e-4)


def test_frames_train_diarization_alike(root, tmp_path):
    """Chunks that are longer than the conversations stay at their places."""
    corpus = write_talks(tmp_path / "talks")
    folders = tmp_path / "live", tmp_path / "cached"
    for folder in folders:
        cache = "null" if folder.name == "live" else tmp_path / "cache"
        speaker_diarization.main(
            talk_run(
                root, corpus, folder, "--hidden_size=8", "--lr=0.01",
                "--number_of_epochs=2", "--draws_per_epoch=16",
                "--batch_size=2", f"--feature_cache={cache}",
                yaml="hparams/speaker_diarization_superb.yaml",
            )
        )  # fmt: skip
    assert_close(*heads(*folders), 1e-4)
    scores = [json.loads((f / "scores.json").read_text()) for f in folders]
    assert scores[0]["DER"] == pytest.approx(scores[1]["DER"], abs=0.5)
