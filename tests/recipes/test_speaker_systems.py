"""The authors' speaker verification, and SUPERB's, on a few voices."""

import shutil

import pytest
import soundfile
import torch
from hyperpyyaml import load_hyperpyyaml

from recipes import speaker_verification
from tests.recipes.voices import (
    TEXTS,
    read_rows,
    run_recipe,
    trial_list,
    write_voices,
)
from unispeech_sb.checkpoints.files import read_tensors

LARGE = "hparams/speaker_verification_large.yaml"
SUPERB = "hparams/speaker_verification_superb.yaml"
SMALL_ECAPA = [
    "--channels=16",
    "--pooled_channels=24",
    "--embedding_size=12",
    "--batch_size=4",
    "--grad_accumulation_factor=2",
]


def run(*args, **kwargs):
    """One run of the recipe in this process."""
    return run_recipe(speaker_verification, *args, **kwargs)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A folder with manifest.csv; not to be changed."""
    return write_voices(tmp_path_factory.mktemp("voices"))


def test_the_authors_system_trains_in_its_stages(root, corpus, tmp_path):
    noises = tmp_path / "noises"
    noises.mkdir()
    for number in range(3):
        noise = 0.1 * torch.randn(8000 * (number + 1)).clamp(-5, 5)
        soundfile.write(noises / f"{number}.wav", noise.numpy(), 16000)
    first = tmp_path / "first"
    options = [
        "--valid_speakers=null", *SMALL_ECAPA, "--num_workers=0",
        f"--noise_folder={noises}", f"--rir_folder={noises}",
        "--augment_prob=1.0", "--warmup_updates=1", "--decay_updates=8",
        "--lr=0.1",
    ]  # fmt: skip
    run(
        root, corpus, first, *options, "--number_of_epochs=3",
        "--margin_start_epochs=1", yaml=LARGE,
    )  # fmt: skip
    second = tmp_path / "second"
    run(
        root, corpus, second, *options, f"--model={first / 'export'}",
        f"--head_from={first / 'export'}", "--freeze=False", "--margin=0.4",
        "--number_of_epochs=1", "--margin_start_epochs=0", "--top_k=0",
        "--speed_changes=False", yaml=LARGE,
    )  # fmt: skip
    for name in ("backbone", "head", "objective"):
        start, end = (
            read_tensors(folder / "export" / f"{name}.ckpt")
            for folder in (first, second)
        )
        assert any(not torch.equal(start[k], end[k]) for k in start)
    assert (first / "manifests" / "noises" / "list.csv").is_file()


def test_the_learning_rate_of_the_authors_falls_to_its_end(root, tmp_path):
    text = (root / LARGE).read_text()
    overrides = {
        "data_folder": "x", "model": "tiny", "output_folder": str(tmp_path)
    }  # fmt: skip
    hparams = load_hyperpyyaml(text, overrides)
    schedule, lr = hparams["lr_scheduler"], hparams["lr"]
    assert lr * schedule(0) == 0.0
    # 0.64 at first, 0.0004 after 20 epochs of 1066 updates
    for epoch in (1, 5, 20):
        wanted = 0.64 * (0.0004 / 0.64) ** (epoch / 20)
        assert lr * schedule(1066 * epoch) == pytest.approx(wanted, rel=1e-3)
    shares = [hparams["margin_schedule"](epochs) for epochs in (0, 1.9, 2, 19)]
    assert shares == [0.0, 0.0, 1.0, 1.0]


def build_voxceleb(corpus, folder):
    """VoxCeleb1's tree of the voices, two of them of its test set."""
    speakers = {
        "id10001": "ann",
        "id10002": "max",
        "id10003": "ann",  # and two to hold out
        "id10004": "max",
        "id10270": "bob",
        "id10309": "eve",
    }
    for speaker, name in speakers.items():
        for number in range(len(TEXTS)):
            path = folder / "wav" / speaker / f"v{number}" / "00001.wav"
            path.parent.mkdir(parents=True)
            shutil.copy(corpus / f"{name}{number}.wav", path)
    return folder


TESTED = {"bob": "id10270", "eve": "id10309"}


def voxceleb_trials(path):
    """All pairs of the recordings of the two who are tested."""
    text = trial_list(path, "{}/v{}/00001.wav").read_text()
    for name, speaker in TESTED.items():
        text = text.replace(f"{name}/", f"{speaker}/")
    path.write_text(text)
    return path


def test_superb_may_train_on_all_speakers_and_test_each_checkpoint(
    root, corpus, tmp_path
):
    trials = voxceleb_trials(tmp_path / "veri_test.txt")
    voxceleb, out = build_voxceleb(corpus, tmp_path / "vox"), tmp_path / "out"
    for epochs in (1, 3):
        scores = run(
            root, voxceleb, out, f"--trials={trials}", "--validate_on=test",
            "--min_duration_s=0.2", f"--number_of_epochs={epochs}",
            "--draws_per_epoch=200", "--lr=0.01", yaml=SUPERB,
        )  # fmt: skip
    assert not (out / "manifests" / "valid.csv").exists()
    train = read_rows(out / "manifests" / "train.csv")
    assert len({row["spk_id"] for row in train}) == 4  # all of them
    rates = [scores[f"EER after epoch {number}"] for number in (1, 2, 3)]
    assert "EER after epoch 4" not in scores
    assert len(set(rates)) > 1
    # Clean: the last one, which the test set did not choose
    assert scores["EER"] == rates[-1]
    assert scores["EER chosen on test, as s3prl does"] == min(rates)
    readme = (out / "export" / "README.md").read_text()
    assert "| EER chosen on test, as s3prl does | " in readme
    assert "| best epoch | 3 |" in readme
    assert "48 % rms in Base" in readme
    assert not (out / "export" / "calibration.ckpt").exists()


def test_superb_runs_on_voxceleb(root, corpus, tmp_path):
    trials = voxceleb_trials(tmp_path / "veri_test.txt")
    scores = run(
        root, build_voxceleb(corpus, tmp_path / "vox"), tmp_path / "out",
        f"--trials={trials}", "--valid_speakers=2", "--min_duration_s=0.2",
        "--number_of_epochs=1", "--draws_per_epoch=200",
        yaml=SUPERB,
    )  # fmt: skip
    assert 0.0 <= scores["EER"] <= 100.0
    out = tmp_path / "out"
    train, valid, test = (
        {row["spk_id"] for row in read_rows(out / "manifests" / f"{split}.csv")}
        for split in ("train", "valid", "test")
    )
    assert test == set(TESTED.values())
    assert len(train) == len(valid) == 2
    assert not train & valid
    assert len(read_rows(out / "trials.csv")) == 28
    assert "lr: 0.0001" in (out / "train_log.txt").read_text()
    readme = (out / "export" / "README.md").read_text()
    assert "| optimizer updates | 4 |" in readme  # 200 / (10 x 5)
    rows = read_rows(out / "manifests" / "train.csv")
    assert all(float(r["sound_s"]) < float(r["duration"]) for r in rows)
