"""Keyword spotting from recordings to a folder that SpeechBrain loads."""

import json
import shutil

import pytest
import soundfile
import torch
from speechbrain.inference.classifiers import EncoderClassifier

from recipes import keyword_spotting
from tests.dataio.corpora.test_speech_commands import (
    COMMANDS,
    UNKNOWN,
    build_tree,
    write_clip,
)
from tests.forks import run_script
from tests.recipes.conftest import (
    TINY,
    WORDS,
    assert_refused_run_stays,
    kept_by_overwrite,
    write_corpus,
)
from tests.recipes.processes import assert_same, run_killed
from unispeech_sb.checkpoints.files import read_tensors
from unispeech_sb.cli import main as command_line

YAML = "hparams/keyword_spotting.yaml"
OVERFIT = [
    "--number_of_epochs=40",
    "--warmup_updates=10",
    "--hold_updates=80",
    "--decay_updates=30",
    "--lr=0.01",
    "--lr_backbone=0.01",
    "--batch_size=8",
    "--augmentation=null",
    "--tensorboard=True",
]


def run(root, corpus, output, *options):
    """One run of the recipe in this process."""
    return keyword_spotting.main(
        [
            str(root / YAML),
            f"--data_folder={corpus}",
            f"--output_folder={output}",
            *TINY,
            *options,
        ]
    )


@pytest.fixture(scope="module")
def trained(root, corpus, tmp_path_factory):
    """The folder of a finished run, and its scores."""
    output = tmp_path_factory.mktemp("trained")
    return output, run(root, corpus, output, *OVERFIT)


def test_overwrite_would_remove_all_that_the_run_left(trained):
    assert kept_by_overwrite(trained[0]) == {trained[0] / "experiment.json"}


def test_overwrite_with_a_wrong_number_removes_nothing(trained, root, corpus):
    wrong = ["--overwrite", "--num_classes=4"]
    assert_refused_run_stays(
        trained[0], lambda: run(root, corpus, trained[0], *wrong)
    )


def test_the_recipe_overfits_what_it_has_heard(trained):
    output, scores = trained
    assert scores["accuracy"] == 1.0
    assert json.loads((output / "scores.json").read_text()) == scores


def test_the_run_leaves_its_report(trained):
    output, _ = trained
    for name in ("confusion.csv", "confusion.txt", "train_log.txt"):
        assert (output / name).read_text()
    assert list((output / "tensorboard").rglob("events.out.tfevents.*"))
    assert (output / "confusion.png").read_bytes().startswith(b"\x89PNG")
    readme = (output / "export" / "README.md").read_text()
    for fact in ("| accuracy | 1 |", "| model | tiny |", *WORDS):
        assert fact in readme


def test_the_export_classifies_files_and_batches(trained, corpus):
    classifier = EncoderClassifier.from_hparams(
        source=str(trained[0] / "export")
    )
    waves = []
    for word in WORDS:
        path = str(corpus / f"{word}_0.wav")
        assert classifier.classify_file(path)[3] == [word]
        waves.append(torch.from_numpy(soundfile.read(path)[0]).float())
    batch = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True)
    wav_lens = torch.tensor([len(w) for w in waves]) / batch.shape[1]
    batched = classifier.classify_batch(batch, wav_lens)[0]
    for row, wave in zip(batched, waves, strict=True):
        alone = classifier.classify_batch(wave[None])[0][0]
        torch.testing.assert_close(row, alone, rtol=1e-5, atol=1e-5)


ELSEWHERE = """
import socket, sys
def refuse(*args, **kwargs):
    raise AssertionError("the network was used")
socket.socket.connect = socket.getaddrinfo = refuse
from speechbrain.inference.classifiers import EncoderClassifier
classifier = EncoderClassifier.from_hparams(source="moved")
posteriors = classifier.classify_file(sys.argv[1])[0]
print(posteriors[0].exp().tolist())
"""


def test_the_moved_export_gives_the_same_posteriors_offline(
    trained, corpus, tmp_path, monkeypatch
):
    shutil.copytree(trained[0] / "export", tmp_path / "moved")
    clip = str(corpus / "seven_4.wav")
    classifier = EncoderClassifier.from_hparams(
        source=str(trained[0] / "export")
    )
    here = classifier.classify_file(clip)[0][0]
    (tmp_path / "elsewhere.py").write_text(ELSEWHERE)
    monkeypatch.chdir(tmp_path)
    done = run_script("elsewhere.py", clip)
    assert done.returncode == 0, done.stderr
    there = torch.tensor(json.loads(done.stdout.strip().splitlines()[-1]))
    torch.testing.assert_close(there, here.exp(), rtol=0, atol=1e-6)


def test_a_model_starts_from_an_exported_one(trained, root, corpus, tmp_path):
    scores = run(
        root, corpus, tmp_path, "--number_of_epochs=1", "--lr=0", "--freeze=1",
        f"--model={trained[0] / 'export'}",
    )  # fmt: skip
    assert 0.0 <= scores["accuracy"] <= 1.0
    start, end = (
        read_tensors(folder / "export" / "backbone.ckpt")
        for folder in (trained[0], tmp_path)
    )
    for name, tensor in start.items():
        assert torch.equal(end[name], tensor)


def test_one_unreadable_file_is_named_and_skipped_on_request(
    root, tmp_path, capsys
):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    write_corpus(corpus)
    bad = corpus / "no_5.wav"
    bad.write_bytes(bad.read_bytes()[:5000])
    arguments = [
        str(root / YAML), f"--data_folder={corpus}", *TINY,
        "--number_of_epochs=1", f"--output_folder={tmp_path / 'out'}",
    ]  # fmt: skip
    assert command_line(["recipe", "keyword_spotting", *arguments]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("unispeech-sb: ")
    assert str(bad) in error
    assert not (tmp_path / "out" / "manifests").exists()
    keyword_spotting.main([*arguments, "--skip_bad_files=True"])
    train = (tmp_path / "out" / "manifests" / "train.csv").read_text()
    assert "no_4" in train
    assert "no_5" not in train


MISTAKES = {
    "--num_classes=4": "expected 4 classes; it has 3: --num_classes=3",
    "--model=bass": "expected a preset (unispeech_large, ",
    "--model=tests": "expected a checkpoint, with backbone.ckpt",
    "--learning_rate=1": "has no key 'learning_rate'",
    "--seed=[1": "expected yaml, in it and on the command line",
    "--data_folder=nowhere": "nowhere: expected a Speech Commands folder",
    "--lr=fast": "lr: expected a number, as in the yaml file; got 'fast'",
}


def test_a_mistake_on_the_command_line_is_one_line(
    root, corpus, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(root)
    rows = (corpus / "manifest.csv").read_text().splitlines()
    half = tmp_path / "half.csv"
    rows = [
        row.replace(",", f",{corpus}/", 1) for row in rows if "valid" not in row
    ]
    half.write_text("\n".join(rows).replace(f"{corpus}/path", "path"))
    mistakes = {
        **MISTAKES,
        f"--data_folder={half}": f"{corpus}: expected records of the split "
        "'valid', got none",
    }
    for mistake, message in mistakes.items():
        arguments = [
            str(root / YAML), f"--data_folder={corpus}", *TINY,
            f"--output_folder={tmp_path / 'out'}", mistake,
        ]  # fmt: skip
        assert command_line(["recipe", "keyword_spotting", *arguments]) == 1
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("unispeech-sb: ")
        assert message in error


def test_a_killed_run_ends_with_the_same_weights(root, corpus, tmp_path):
    arguments = [
        str(root / YAML), f"--data_folder={corpus}", *TINY,
        f"--output_folder={tmp_path}", "--number_of_epochs=4",
        "--batch_size=4", "--ckpt_interval_steps=2",
    ]  # fmt: skip
    folders = run_killed("keyword_spotting", arguments, 4, 11)
    assert_same(
        folders, "export/backbone.ckpt", "export/head.ckpt", "scores.json"
    )


def test_superb_runs_on_the_archives_layout(root, any_family, tmp_path):
    tree = build_tree(tmp_path / "v0.01", "v0.01")
    (tmp_path / "test").mkdir()
    for label in (*COMMANDS, UNKNOWN, "_silence_"):
        write_clip(tmp_path / "test" / label / "speaker1_nohash_0.wav")
    scores = keyword_spotting.main(
        [
            str(root / "hparams/keyword_spotting_superb.yaml"),
            f"--data_folder={tree}", f"--test_folder={tmp_path / 'test'}",
            f"--output_folder={tmp_path / 'out'}", "--num_workers=0",
            f"--model={any_family}", "--number_of_epochs=1",
            "--draws_per_epoch=64",
            "--noprogressbar", "--device=cpu",
        ]
    )  # fmt: skip
    assert 0.0 <= scores["accuracy"] <= 1.0
    yaml = (tmp_path / "out" / "export" / "hyperparams.yaml").read_text()
    assert "allow_silence: True" in yaml
    log = (tmp_path / "out" / "train_log.txt").read_text()
    assert "lr: 0.0001" in log


@pytest.mark.real_data
def test_real_digits_run_through_the_recipe(root, data_folder, tmp_path):
    scores = run(
        root, data_folder / "digits", tmp_path, "--num_classes=10",
        "--number_of_epochs=1", "--augmentation=null", "--batch_size=64",
        "--draws_per_epoch=256",
    )  # fmt: skip
    assert 0.0 <= scores["accuracy"] <= 1.0
    text = (tmp_path / "confusion.csv").read_text()
    counts = [row.split(",")[1:] for row in text.splitlines()[1:]]
    assert sum(int(count) for row in counts for count in row) == 200
