"""Speaker identification from recordings to a folder SpeechBrain loads."""

import json
import shutil

import pytest
import soundfile
import torch
from speechbrain.inference.classifiers import EncoderClassifier

from recipes import speaker_identification
from tests.recipes.conftest import kept_by_overwrite
from tests.recipes.voices import (
    OVERFIT,
    VOICES,
    read_rows,
    run_recipe,
    small_run,
    table_of,
    table_with_test,
    write_table,
    write_voices,
)
from unispeech_sb.cli import main as command_line
from unispeech_sb.dataio.corpora import read_corpus
from unispeech_sb.dataio.corpora.espeak import SAMPLE_RATE

YAML = "hparams/speaker_identification.yaml"


def run(*args, yaml=YAML):
    """One run of the recipe in this process."""
    return run_recipe(speaker_identification, *args, yaml=yaml)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A folder with manifest.csv; not to be changed."""
    return write_voices(tmp_path_factory.mktemp("voices"))


@pytest.fixture(scope="module")
def trained(root, corpus, tmp_path_factory):
    """The folder of a finished run, and its scores."""
    output = tmp_path_factory.mktemp("trained")
    longer = ["--number_of_epochs=30", "--hold_updates=40"]
    return output, run(root, corpus, output, *OVERFIT, *longer)


def test_overwrite_would_remove_all_that_the_run_left(trained):
    assert kept_by_overwrite(trained[0]) == {trained[0] / "experiment.json"}


def test_the_recipe_knows_whom_it_has_heard(trained):
    output, scores = trained
    assert scores["accuracy"] > 0.8  # by chance a third
    assert json.loads((output / "scores.json").read_text()) == scores
    lines = (output / "speakers.txt").read_text().splitlines()
    assert [line.split()[0] for line in lines[1:-1]] == sorted(VOICES)


def test_the_export_names_speakers(trained, corpus):
    classifier = EncoderClassifier.from_hparams(
        source=str(trained[0] / "export")
    )
    for name in VOICES:
        path = str(corpus / f"{name}1.wav")
        assert classifier.classify_file(path)[3] == [name]


def test_a_run_that_was_stopped_ends_with_the_same_weights(
    root, corpus, tmp_path
):
    for name, epochs in (("whole", 4), ("parts", 2), ("parts", 4)):
        run(
            root, corpus, tmp_path / name, "--batch_size=4", "--crop_s=0.4",
            f"--number_of_epochs={epochs}",
        )  # fmt: skip
    for name in ("backbone.ckpt", "head.ckpt"):
        whole, parts = (
            tmp_path / run / "export" / name for run in ("whole", "parts")
        )
        assert whole.read_bytes() == parts.read_bytes()


def test_a_validation_set_is_cut_off_the_training_set(root, corpus, tmp_path):
    found = table_of(
        corpus, tmp_path / "train.csv", "train", start=0.1, stop=0.7
    )
    output = tmp_path / "out"
    run(root, found, output, "--valid_tail_s=0.1", "--number_of_epochs=1")
    train, valid = (
        read_rows(output / "manifests" / f"{split}.csv")
        for split in ("train", "valid")
    )
    assert len(train) == len(valid) == 16
    rate = SAMPLE_RATE
    assert (int(train[0]["start"]), int(train[0]["stop"])) == (
        round(0.1 * rate), round(0.7 * rate) - round(0.1 * rate)
    )  # fmt: skip
    assert valid[0]["start"] == train[0]["stop"]
    assert valid[0]["ID"] == f"{train[0]['ID']}_tail"


def test_a_validation_set_is_a_share_of_each_speaker(root, corpus, tmp_path):
    found = table_of(corpus, tmp_path / "train.csv", "train")
    output = tmp_path / "out"
    run(root, found, output, "--valid_share=0.25", "--number_of_epochs=1")
    valid = read_rows(output / "manifests" / "valid.csv")
    assert sorted(row["spk_id"] for row in valid) == sorted(VOICES)


@pytest.mark.parametrize("option", ["--valid_share=0", "--valid_tail_s=0"])
def test_without_a_validation_set_the_last_epoch_is_tested(
    root, corpus, tmp_path, option
):
    found = table_with_test(corpus, tmp_path / "train.csv")
    output = tmp_path / "out"
    scores = run(root, found, output, option, "--number_of_epochs=2")
    assert 0.0 <= scores["accuracy"] <= 1.0
    assert not (output / "manifests" / "valid.csv").exists()
    assert len(read_rows(output / "manifests" / "train.csv")) == 16
    log = (output / "train_log.txt").read_text()
    assert "epoch loaded: 2 - test loss" in log and "valid loss" not in log
    with_own = run(
        root, corpus, tmp_path / "own", option, "--number_of_epochs=1"
    )
    assert with_own.keys() == scores.keys()
    alone = table_of(corpus, tmp_path / "alone.csv", "train")
    with pytest.raises(ValueError, match="a validation or a test set to sc"):
        run(root, alone, tmp_path / "none", option, "--number_of_epochs=1")


def test_a_mistake_is_one_line(root, corpus, tmp_path, capsys):
    found = table_of(corpus, tmp_path / "train.csv", "train")
    unnamed = table_of(corpus, tmp_path / "unnamed.csv", "train", speaker="")
    rows = read_rows(corpus / "manifest.csv")
    stranger = write_table(
        tmp_path / "stranger.csv",
        [
            list(rows[0]),
            *([r["id"], corpus / r["path"], r["split"], r["speaker"]]
              for r in rows if (r["split"], r["speaker"]) != ("train", "eve")),
        ],
    )  # fmt: skip
    mistakes = {
        "--data_folder=nowhere": "nowhere: expected a VoxCeleb1 folder",
        f"--data_folder={found}": "expected a validation set: recordings of "
        "the split valid, or one way to make it (--valid_tail_s or "
        "--valid_share); got none",
        "--valid_share=0.5": "got the split valid and --valid_share",
        f"--data_folder={unnamed}": "expected a speaker in the column speaker "
        "or spk_id of",
        f"--data_folder={stranger}": "valid: expected only the labels of train,"
        " such as ",
        "--min_duration_s=60": "expected training recordings of 60 s or more",
    }
    for number, (mistake, message) in enumerate(mistakes.items()):
        output = tmp_path / str(number)
        options = small_run(root, corpus, output, mistake, yaml=YAML)
        assert command_line(["recipe", "speaker_identification", *options]) == 1
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("unispeech-sb: ")
        assert message in error


def build_voxceleb(corpus, folder):
    """VoxCeleb1's tree, and its identification split, of the voices."""
    lines = []
    for index, name in enumerate(sorted(VOICES)):
        for number in range(4):
            path = f"id{10001 + index}/video{number}/00001.wav"
            (folder / path).parent.mkdir(parents=True)
            shutil.copy(corpus / f"{name}{number}.wav", folder / path)
            lines.append(f"{max(number, 1)} {path}\n")
    (folder / "iden_split.txt").write_text("".join(lines))
    return folder


def test_superb_runs_on_voxceleb(root, corpus, any_family, tmp_path):
    scores = run(
        root, build_voxceleb(corpus, tmp_path / "vox"), tmp_path / "out",
        "--number_of_epochs=1", "--draws_per_epoch=96",
        f"--model={any_family}",
        yaml="hparams/speaker_identification_superb.yaml",
    )  # fmt: skip
    assert 0.0 <= scores["accuracy"] <= 1.0
    counts = [
        len(read_rows(tmp_path / "out" / "manifests" / f"{split}.csv"))
        for split in ("train", "valid", "test")
    ]
    assert counts == [8, 4, 4]
    log = (tmp_path / "out" / "train_log.txt").read_text()
    assert "lr: 0.0001" in log
    readme = (tmp_path / "out" / "export" / "README.md").read_text()
    assert "| optimizer updates | 3 |" in readme  # 96 / (8 x 4)


def test_the_embedded_corpus_is_parted_within_each_voice(root, tmp_path):
    hparams = {
        "data_folder": tmp_path, "synthetic": True, "seed": 1,
        "synthetic_sentences": [8, 3, 3],
    }  # fmt: skip
    records = read_corpus("speaker_identification", hparams)
    heard = {r["spk_id"] for r in records if r["split"] == "train"}
    assert {r["spk_id"] for r in records} == heard
    assert len(records) == 14


@pytest.mark.real_data
def test_libri248_runs_through_the_recipe(root, data_folder, tmp_path):
    scores = run(
        root, data_folder / "libri248" / "sid_segments.csv", tmp_path,
        "--valid_tail_s=0.7", "--number_of_epochs=1", "--crop_s=1.0",
        "--augmentation=null",
    )  # fmt: skip
    assert 0.0 <= scores["accuracy"] <= 1.0
    table = (tmp_path / "speakers.txt").read_text().splitlines()
    assert len(table) == 186 + 2
    wav = next(iter(read_rows(tmp_path / "manifests" / "test.csv")))["wav"]
    classifier = EncoderClassifier.from_hparams(source=str(tmp_path / "export"))
    samples = torch.from_numpy(soundfile.read(wav)[0]).float()
    assert classifier.classify_batch(samples[None])[0].shape == (1, 186)
