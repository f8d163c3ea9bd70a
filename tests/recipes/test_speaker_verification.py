"""Speaker verification from recordings to a folder SpeechBrain loads."""

import json
import shutil
from itertools import combinations

import pytest
import soundfile
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.inference.classifiers import EncoderClassifier
from speechbrain.inference.speaker import SpeakerRecognition

from recipes import speaker_verification
from tests.recipes.voices import (
    QUICK,
    SMALL_HEAD,
    TEXTS,
    VOICES,
    read_rows,
    write_table,
    write_voices,
)
from unispeech_sb.checkpoints.files import read_tensors
from unispeech_sb.cli import main as command_line

YAML = "hparams/speaker_verification.yaml"
LARGE = "hparams/speaker_verification_large.yaml"
OVERFIT = [
    "--model=small",
    "--number_of_epochs=20",
    "--batch_size=8",
    "--warmup_updates=10",
    "--hold_updates=20",
    "--decay_updates=10",
    "--lr=0.003",
    "--lr_backbone=0.003",
    "--augmentation=null",
]
SMALL_ECAPA = [
    "--channels=16",
    "--pooled_channels=24",
    "--embedding_size=12",
    "--batch_size=4",
    "--grad_accumulation_factor=2",
]


def arguments(root, corpus, output, *options, yaml=YAML):
    """The command line of a small run."""
    return [
        str(root / yaml),
        f"--data_folder={corpus}",
        f"--output_folder={output}",
        *QUICK,
        *(SMALL_HEAD if yaml == YAML else []),
        *options,
    ]


def run(*args, **kwargs):
    """One run of the recipe in this process."""
    return speaker_verification.main(arguments(*args, **kwargs))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A folder with manifest.csv; not to be changed."""
    return write_voices(tmp_path_factory.mktemp("voices"))


@pytest.fixture(scope="module")
def trained(root, corpus, tmp_path_factory):
    """The folder of a finished run, and its scores."""
    output = tmp_path_factory.mktemp("trained")
    return output, run(root, corpus, output, *OVERFIT)


def table_of(corpus, path, *splits, **columns):
    """A table of parts of the corpus."""
    rows = read_rows(corpus / "manifest.csv")
    rows = [
        {**r, "path": corpus / r["path"], **columns}
        for r in rows
        if r["split"] in splits
    ]
    return write_table(path, [list(rows[0]), *(r.values() for r in rows)])


def trial_list(path, form):
    """All pairs of two voices' recordings, named as the form says."""
    names = [(who, n) for who in ("bob", "eve") for n in range(len(TEXTS))]
    path.write_text(
        "".join(
            f"{int(a[0] == b[0])} {form.format(*a)} {form.format(*b)}\n"
            for a, b in combinations(names, 2)
        )
    )
    return path


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
        "--augmentation=null", "--weight_decay=0",
    )  # fmt: skip
    assert scores["EER"] == 0.0
    for name in ("backbone", "head", "objective"):
        start, end = (
            read_tensors(folder / "export" / f"{name}.ckpt")
            for folder in (trained[0], tmp_path)
        )
        for key, tensor in start.items():
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
            f"--head_from={export}", "--valid_speakers=2",
        )  # fmt: skip


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


def test_superb_runs_on_voxceleb(root, corpus, tmp_path):
    trials = tmp_path / "veri_test.txt"
    ids = {"bob": "id10270", "eve": "id10309"}
    text = trial_list(trials, "{}/v{}/00001.wav").read_text()
    for name, speaker in ids.items():
        text = text.replace(f"{name}/", f"{speaker}/")
    trials.write_text(text)
    scores = run(
        root, build_voxceleb(corpus, tmp_path / "vox"), tmp_path / "out",
        f"--trials={trials}", "--valid_speakers=2", "--min_duration_s=0.2",
        "--number_of_epochs=1", "--draws_per_epoch=200",
        yaml="hparams/speaker_verification_superb.yaml",
    )  # fmt: skip
    assert 0.0 <= scores["EER"] <= 100.0
    out = tmp_path / "out"
    train, valid, test = (
        {row["spk_id"] for row in read_rows(out / "manifests" / f"{split}.csv")}
        for split in ("train", "valid", "test")
    )
    assert test == set(ids.values())
    assert len(train) == len(valid) == 2
    assert not train & valid
    assert len(read_rows(out / "trials.csv")) == 28
    assert "lr: 1.00e-04" in (out / "train_log.txt").read_text()
    readme = (out / "export" / "README.md").read_text()
    assert "| optimizer updates | 4 |" in readme  # 200 / (10 x 5)
    rows = read_rows(out / "manifests" / "train.csv")
    assert all(float(r["sound_s"]) < float(r["duration"]) for r in rows)


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
        options = arguments(root, corpus, output, *mistake.split())
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
