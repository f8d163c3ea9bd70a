"""Speaker verification from recordings to a folder SpeechBrain loads."""

import json

import pytest
import torch
from speechbrain.inference.classifiers import EncoderClassifier
from speechbrain.inference.speaker import SpeakerRecognition

from recipes import speaker_verification
from tests.recipes.conftest import kept_by_overwrite
from tests.recipes.voices import (
    OVERFIT,
    SMALL_HEAD,
    VOICES,
    read_rows,
    run_recipe,
    small_run,
    table_of,
    table_with_test,
    trial_list,
    write_table,
    write_voices,
)
from unispeech_sb.checkpoints.files import read_tensors
from unispeech_sb.cli import main as command_line

YAML = "hparams/speaker_verification.yaml"
HEAD = ["--proj_size=96", "--embedding_size=24"]
LONGER = [
    "--number_of_epochs=40",
    "--hold_updates=50",
    "--decay_updates=20",
    "--lr=0.001",
    "--lr_backbone=0.001",
]


def run(root, corpus, output, *options):
    """One run of the recipe in this process."""
    return run_recipe(
        speaker_verification, root, corpus, output, *SMALL_HEAD, *options,
        yaml=YAML,
    )  # fmt: skip


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A folder with manifest.csv; not to be changed."""
    return write_voices(tmp_path_factory.mktemp("voices"))


@pytest.fixture(scope="module")
def trained(root, corpus, tmp_path_factory):
    """The folder of a finished run, and its scores."""
    output = tmp_path_factory.mktemp("trained")
    return output, run(root, corpus, output, *OVERFIT, *HEAD, *LONGER)


def test_overwrite_would_remove_all_that_the_run_left(trained):
    assert kept_by_overwrite(trained[0]) == {trained[0] / "experiment.json"}


def test_the_recipe_tells_apart_whom_it_has_heard(trained):
    output, scores = trained
    assert scores["EER"] == scores["minDCF"] == 0.0
    assert scores["accuracy"] == 1.0
    assert scores["EER low"] == scores["EER high"] == 0.0
    assert json.loads((output / "scores.json").read_text()) == scores


def test_the_run_leaves_trials_and_pictures(trained):
    output, _ = trained
    rows = read_rows(output / "trials.csv")
    assert len(rows) == 16 * 15 // 2
    lowest = min(float(r["score"]) for r in rows if r["target"] == "1")
    assert lowest > max(float(r["score"]) for r in rows if r["target"] == "0")
    for name in ("det.png", "histogram.png"):
        assert (output / name).read_bytes().startswith(b"\x89PNG")
    readme = (output / "export" / "README.md").read_text()
    assert "| target trials scored | 24 |" in readme
    assert "| EER high | 0 |" in readme


def test_the_export_verifies_and_names_speakers(trained, corpus, tmp_path):
    source = str(trained[0] / "export")
    recognition = SpeakerRecognition.from_hparams(source=source)
    rows = read_rows(trained[0] / "trials.csv")
    for row in rows[::20]:
        wavs = [
            str(corpus / f"{row[side].partition('_')[2]}.wav")
            for side in ("left", "right")
        ]
        score, _ = recognition.verify_files(*wavs)
        assert float(score) == pytest.approx(float(row["score"]), abs=1e-5)
    classifier = EncoderClassifier.from_hparams(source=source)
    for name in VOICES:
        path = str(corpus / f"{name}2.wav")
        assert classifier.classify_file(path)[3] == [name]


def test_a_run_that_was_stopped_ends_with_the_same_weights(
    root, corpus, tmp_path
):
    for name, epochs in (("whole", 4), ("parts", 2), ("parts", 4)):
        run(
            root, corpus, tmp_path / name, "--batch_size=4", "--crop_s=0.5",
            f"--number_of_epochs={epochs}",
        )  # fmt: skip
    for name in ("backbone", "head", "objective", "calibration"):
        whole, parts = (
            tmp_path / run / "export" / f"{name}.ckpt"
            for run in ("whole", "parts")
        )
        assert whole.exists() == parts.exists()
        if whole.exists():
            assert whole.read_bytes() == parts.read_bytes()


def test_speakers_are_held_out_for_validation(root, corpus, tmp_path):
    found = table_of(corpus, tmp_path / "train.csv", "train")
    output = tmp_path / "out"
    scores = run(
        root, found, output, "--valid_speakers=2", "--number_of_epochs=1"
    )
    assert "accuracy" not in scores
    train, valid = (
        {row["spk_id"] for row in read_rows(output / "manifests" / name)}
        for name in ("train.csv", "valid.csv")
    )
    assert len(train) == len(valid) == 2
    assert train | valid == set(VOICES)


def test_no_speakers_are_held_out_on_request(root, corpus, tmp_path):
    found = table_with_test(corpus, tmp_path / "train.csv")
    output = tmp_path / "out"
    scores = run(
        root, found, output, "--valid_speakers=0", "--number_of_epochs=2"
    )
    train = read_rows(output / "manifests" / "train.csv")
    assert {row["spk_id"] for row in train} == set(VOICES)
    assert 0.0 <= scores["EER"] <= 100.0
    assert "EER chosen on test, as s3prl does" not in scores
    log = (output / "train_log.txt").read_text()
    assert "epoch loaded: 2 - test loss" in log and "valid loss" not in log


def test_held_out_speakers_with_one_recording_are_cut(root, corpus, tmp_path):
    rows = [
        r for r in read_rows(corpus / "manifest.csv")
        if r["split"] == "train" and r["path"].endswith("0.wav")
    ]  # fmt: skip
    found = write_table(
        tmp_path / "train.csv",
        [list(rows[0]),
         *((r["id"], corpus / r["path"], "train", r["speaker"])
           for r in rows)],
    )  # fmt: skip
    options = ["--valid_speakers=2", "--number_of_epochs=1"]
    with pytest.raises(ValueError, match="0 of them with two recordings"):
        run(root, found, tmp_path / "out", *options)
    run(root, found, tmp_path / "out", *options, "--valid_piece_s=0.5")
    valid = read_rows(tmp_path / "out" / "manifests" / "valid.csv")
    assert {row["duration"] for row in valid} == {"0.5"}


@pytest.mark.parametrize("by_path", [False, True])
def test_trials_are_of_speakers_that_were_never_heard(
    root, corpus, tmp_path, by_path
):
    form = "{}{}.wav" if by_path else "train_{}{}"
    options = [f"--audio_root={corpus}"] if by_path else []
    trials = trial_list(tmp_path / "trials.txt", form)
    output = tmp_path / "out"
    scores = run(
        root, corpus, output, f"--trials={trials}", "--number_of_epochs=1",
        *options,
    )  # fmt: skip
    assert 0.0 <= scores["EER"] <= 100.0
    assert "accuracy" not in scores
    for split in ("train", "valid"):
        rows = read_rows(output / "manifests" / f"{split}.csv")
        assert {row["spk_id"] for row in rows} == {"ann", "max"}
    rows = read_rows(output / "trials.csv")
    assert len(rows) == 28
    assert rows[0]["left"] == form.format("bob", 0)


def test_a_model_is_trained_on_with_its_head_and_objective(
    trained, root, corpus, tmp_path
):
    export = trained[0] / "export"
    scores = run(
        root, corpus, tmp_path, f"--model={export}", f"--head_from={export}",
        "--number_of_epochs=1", "--lr=0", "--lr_backbone=0", "--margin=0.3",
        "--augmentation=null", "--weight_decay=0", *HEAD,
    )  # fmt: skip
    assert scores["EER"] == 0.0
    for name in ("backbone", "head", "objective"):
        start, end = (
            read_tensors(folder / "export" / f"{name}.ckpt")
            for folder in (trained[0], tmp_path)
        )
        for key, tensor in start.items():
            if key.startswith(("norm.running", "norm.num")):
                continue  # followed in training, at any learning rate
            assert torch.equal(end[key], tensor)
    yaml = (tmp_path / "export" / "hyperparams.yaml").read_text()
    assert "margin: 0.3" in yaml


def test_other_speakers_than_those_of_the_head_are_named(
    trained, root, corpus, tmp_path
):
    found = table_of(corpus, tmp_path / "train.csv", "train")
    export = trained[0] / "export"
    with pytest.raises(ValueError, match="head_from: .* 4 speakers; got 2, wi"):
        run(
            root, found, tmp_path / "out", f"--model={export}",
            f"--head_from={export}", "--valid_speakers=2", *HEAD,
        )  # fmt: skip


def test_a_mistake_is_one_line(root, corpus, tmp_path, capsys):
    found = table_of(corpus, tmp_path / "train.csv", "train")
    rows = read_rows(found)
    rows = [r for r in rows if r["path"].endswith("0.wav")]
    alone = write_table(
        tmp_path / "alone.csv",
        [
            list(rows[0]),
            *([r["id"] + s, r["path"], s, r["speaker"]]
              for r in rows for s in ("train", "valid")),
        ],
    )  # fmt: skip
    unlisted = tmp_path / "unlisted.csv"
    unlisted.write_text(found.read_text().replace("speaker", "reader"))
    empty, wrong, outside = (tmp_path / f"{n}.txt" for n in "123")
    empty.write_text("")
    wrong.write_text("1 train_ann0 train_ann1\n0 train_ann0 nobody\n")
    outside.write_text("1 ann0.wav ann1.wav\n0 ann0.wav nobody.wav\n")
    mistakes = {
        "--data_folder=nowhere": "nowhere: expected a VoxCeleb folder",
        f"--data_folder={found}": "one way to make it (--valid_speakers); got "
        "none",
        f"--data_folder={alone}": "trials of the split valid: expected two "
        "speakers or more, one of them with two utterances",
        f"--data_folder={unlisted}": "expected a speaker in the column speaker",
        f"--trials={empty}": f"{empty}: expected target and non-target trials, "
        "got none",
        f"--trials={wrong}": f"{wrong}, line 2: no such utterance: nobody",
        f"--trials={outside} --audio_root={corpus}": f"{outside}, line 2: no "
        f"such file in {corpus}: nobody.wav",
        "--head_from=nowhere": "nowhere/label_encoder.ckpt: expected labels",
    }
    for number, (mistake, message) in enumerate(mistakes.items()):
        output = tmp_path / str(number)
        options = small_run(root, corpus, output, *mistake.split(), yaml=YAML)
        assert command_line(["recipe", "speaker_verification", *options]) == 1
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("unispeech-sb: ")
        assert message in error


def test_the_embedded_corpus_trains(root, tmp_path):
    scores = run(
        root, tmp_path / "spoken", tmp_path / "out", "--synthetic=True",
        "--synthetic_sentences=[20, 10, 10]", "--number_of_epochs=1",
    )  # fmt: skip
    assert "accuracy" not in scores
    rows = read_rows(tmp_path / "out" / "trials.csv")
    assert len(rows) == 10 * 9 // 2
    assert sum(int(row["target"]) for row in rows) == 5


@pytest.mark.real_data
def test_libri248_runs_through_the_recipe(root, data_folder, tmp_path):
    segments = data_folder / "libri248" / "sid_segments.csv"
    options = [
        "--valid_speakers=10", "--valid_piece_s=1.9", "--number_of_epochs=1",
        "--crop_s=1.0", "--augmentation=null",
    ]  # fmt: skip
    inside = data_folder / "sv" / "trials_libri248_segments.txt"
    run(
        root, segments, tmp_path / "in", *options, f"--trials={inside}",
    )  # fmt: skip
    assert len(read_rows(tmp_path / "in" / "trials.csv")) == 560
    readers = [
        {row["spk_id"] for row in read_rows(tmp_path / "in/manifests" / name)}
        for name in ("train.csv", "valid.csv", "test.csv")
    ]
    assert [len(names) for names in readers] == [116, 10, 60]
    assert len(set.union(*readers)) == 186
    outside = data_folder / "sv" / "trials_librispeech_test_other.txt"
    scores = run(
        root, segments, tmp_path / "out", *options, f"--trials={outside}",
        f"--audio_root={data_folder}",
    )  # fmt: skip
    assert len(read_rows(tmp_path / "out" / "trials.csv")) == 625
    assert scores["EER low"] <= scores["EER"] <= scores["EER high"]
