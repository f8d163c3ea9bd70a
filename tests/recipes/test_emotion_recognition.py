"""Emotions from recordings to folders that SpeechBrain loads, fold by fold."""

import json

import pytest
import soundfile
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.inference.classifiers import EncoderClassifier

from recipes import emotion_recognition
from tests.dataio.corpora.test_iemocap import write_iemocap, write_lists
from tests.recipes.conftest import (
    WORDS,
    assert_refused_run_stays,
    kept_by_overwrite,
)
from tests.recipes.processes import run_on_two
from unispeech_sb.cli import main as command_line
from unispeech_sb.dataio.labels import LabelEncoder
from unispeech_sb.dataio.manifest import read_manifest

TINY = ["--model=tiny", "--num_workers=0", "--noprogressbar", "--device=cpu"]
QUICK = [*TINY, "--number_of_epochs=1", "--draws_per_epoch=32"]
EMOTIONS = ["neu", "hap", "ang", "sad"]


def arguments(root, yaml, corpus, output, *options):
    """The command line of a small run."""
    return [
        str(root / "hparams" / f"{yaml}.yaml"),
        f"--data_folder={corpus}",
        f"--output_folder={output}",
        *options,
    ]


def make_sound(wav):
    """A fifth of a second of noise."""
    soundfile.write(wav, torch.rand(3200).sub(0.5).numpy(), 16000)


@pytest.fixture(scope="module")
def iemocap(tmp_path_factory):
    """IEMOCAP with two dialogs of eight utterances in each session."""
    folder = tmp_path_factory.mktemp("full") / "IEMOCAP_full_release"
    return write_iemocap(folder, make_sound, dialogs=("impro01", "script02_1"))


@pytest.fixture(scope="module")
def trained(root, iemocap, tmp_path_factory):
    """The folder of five folds by SUPERB's rules, and the scores."""
    output = tmp_path_factory.mktemp("folds")
    yaml = "emotion_recognition_superb"
    line = arguments(root, yaml, iemocap, output, *QUICK)
    return output, emotion_recognition.main(line)


def test_all_folds_run_and_their_mean_is_the_result(trained):
    output, scores = trained
    own = [
        json.loads((output / f"fold{n}" / "scores.json").read_text())
        for n in range(1, 6)
    ]
    shares = [fold["accuracy"] for fold in own]
    assert scores["accuracy"] == pytest.approx(sum(shares) / 5)
    assert [scores[f"fold{n}"] for n in range(1, 6)] == shares
    assert json.loads((output / "scores.json").read_text()) == scores
    assert {p.name for p in output.iterdir()} == {
        *(f"fold{n}" for n in range(1, 6)), "scores.json",
    }  # fmt: skip


def test_overwrite_would_remove_all_that_a_fold_left(trained):
    fold = trained[0] / "fold2"
    assert kept_by_overwrite(fold) == {fold / "experiment.json"}


def test_overwrite_with_a_wrong_number_removes_nothing(trained, root, iemocap):
    yaml, wrong = "emotion_recognition_superb", ["--num_classes=5", "--fold=2"]
    line = arguments(root, yaml, iemocap, trained[0], *QUICK, *wrong)
    assert_refused_run_stays(
        trained[0], lambda: emotion_recognition.main([*line, "--overwrite"])
    )


def test_each_fold_tests_its_session_and_says_what_it_predicts(trained):
    for number in range(1, 6):
        fold = trained[0] / f"fold{number}"
        tested = read_manifest(fold / "manifests" / "test.csv")
        others = [
            row
            for split in ("train", "valid")
            for row in read_manifest(fold / "manifests" / f"{split}.csv")
        ]
        assert {row["session"] for row in tested} == {str(number)}
        assert len(tested) == 10 and len(others) == 40
        lines = (fold / f"test_fold{number}_predict.txt").read_text()
        rows = [line.split() for line in lines.splitlines()]
        assert [name for name, _ in rows] == [row["ID"] for row in tested]
        assert {label for _, label in rows} <= set(EMOTIONS)


def test_classes_are_in_superbs_order(trained):
    export = trained[0] / "fold1" / "export"
    file = export / "label_encoder.ckpt"
    assert LabelEncoder.read_labels(file) == EMOTIONS
    readme = (export / "README.md").read_text()
    assert "| fold | 1 |" in readme and "| protocol | superb |" in readme


def test_a_second_command_finds_all_folds_finished(
    root, iemocap, trained, capsys
):
    output, scores = trained
    yaml = "emotion_recognition_superb"
    line = arguments(root, yaml, iemocap, output, *QUICK)
    assert emotion_recognition.main(line) == scores
    assert capsys.readouterr().out.count("Already finished") == 5


def test_two_processes_run_all_folds(root, iemocap, tmp_path):
    line = arguments(
        root, "emotion_recognition_superb", iemocap, tmp_path, *QUICK,
        "--draws_per_epoch=8", "--distributed_backend=gloo",
    )  # fmt: skip
    run_on_two(root / "recipes/emotion_recognition.py", *line)
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert set(scores) == {"accuracy", *(f"fold{n}" for n in range(1, 6))}


def test_one_fold_by_lists_has_no_mean(root, iemocap, tmp_path):
    paths = [
        p.relative_to(iemocap).as_posix()
        for p in sorted(iemocap.rglob("*.wav"), reverse=True)
    ]
    rows = [(path, EMOTIONS[n % 4]) for n, path in enumerate(paths)]
    tested = [row for row in rows if row[0].startswith("Session3")]
    others = [row for row in rows if row not in tested]
    lists = write_lists(tmp_path / "meta_data", 3, others, tested)
    scores = emotion_recognition.main(
        arguments(
            root, "emotion_recognition_superb", iemocap, tmp_path / "out",
            *QUICK, "--fold=3", f"--fold_lists={lists}",
        )
    )  # fmt: skip
    assert set(scores) == {"loss", "accuracy"}
    fold = tmp_path / "out" / "fold3"
    found = [r["ID"] for r in read_manifest(fold / "manifests" / "test.csv")]
    assert found == [path.split("/")[-1][:-4] for path, _ in tested]
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["fold3"]


def test_a_fold_that_does_not_exist_is_one_line(
    root, iemocap, tmp_path, capsys
):
    line = arguments(
        root, "emotion_recognition", iemocap, tmp_path, *TINY, "--fold=6"
    )
    assert command_line(["recipe", "emotion_recognition", *line]) == 1
    error = capsys.readouterr().err
    assert error == "unispeech-sb: fold: expected 1 to 5; got 6\n"


def test_a_table_of_ones_own_has_no_folds(root, corpus, tmp_path):
    scores = emotion_recognition.main(
        arguments(
            root, "emotion_recognition", corpus, tmp_path, *TINY,
            "--num_classes=3", "--number_of_epochs=30", "--lr=0.01",
            "--lr_backbone=0.01", "--freeze_backbone_updates=0",
            "--warmup_updates=10", "--hold_updates=60", "--decay_updates=20",
        )
    )  # fmt: skip
    assert scores["accuracy"] == 1.0
    assert len((tmp_path / "test_predict.txt").read_text().splitlines()) == 9
    classifier = EncoderClassifier.from_hparams(source=str(tmp_path / "export"))
    for word in WORDS:
        path = str(corpus / f"{word}_0.wav")
        assert classifier.classify_file(path)[3] == [word]


def test_superb_as_it_stands_is_the_published_protocol(root, tmp_path):
    text = (root / "hparams/emotion_recognition_superb.yaml").read_text()
    given = {"data_folder": "x", "output_folder": str(tmp_path)}
    hparams = load_hyperpyyaml(text, {**given, "model": "tiny"})
    group = hparams["grad_accumulation_factor"]
    assert (hparams["batch_size"], group) == (4, 8)
    updates = hparams["draws_per_epoch"] / hparams["batch_size"] / group
    assert updates == 1000
    assert updates * hparams["number_of_epochs"] == 30_000
    assert (hparams["max_grad_norm"], hparams["seed"]) == (1.0, 0)
    head = hparams["head"]
    assert head.projector.out_features == 256
    assert head.classifier.out_features == 4
    assert hparams["opt_class"](head.parameters()).defaults["lr"] == 1e-4
    assert hparams["protocol"] == "superb" and hparams["fold"] is None
