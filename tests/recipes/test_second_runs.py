"""A second run in the folder of a first one: it goes on, is done, or is
refused; it never passes off the first one's work as its own."""

import json
import re
import shutil

import pytest
import soundfile

from recipes import (
    asr,
    keyword_spotting,
    pretrain_unispeech,
    pretrain_unispeech_sat,
)
from tests.recipes import pretraining, speech
from tests.recipes.conftest import TINY
from unispeech_sb.brains import CTCBrain, SSLBrain, UtteranceBrain
from unispeech_sb.cli import main as command_line

WEIGHTS = ("backbone.ckpt", "head.ckpt")


@pytest.fixture
def no_training(monkeypatch):
    """Nothing is trained or exported from here on."""

    def fail(*args, **kwargs):
        raise AssertionError("the run should have been refused, or be done")

    monkeypatch.setattr(SSLBrain, "fit", fail)
    monkeypatch.setattr(SSLBrain, "evaluate", fail)


def files(folder):
    """All that is in a folder, but the log, to which an earlier run of this
    process writes on."""
    found = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    return {p: content for p, content in found.items() if p.name != "log.txt"}


def state(output):
    """How far a run says that it has come."""
    return json.loads((output / "experiment.json").read_text())["state"]


def copied(folder, tmp_path):
    """A copy of an output folder, to spoil."""
    return shutil.copytree(folder, tmp_path / "copy")


def same_weights(first, second):
    """Whether two runs export the same bits."""
    for name in WEIGHTS:
        one, other = (run / "export" / name for run in (first, second))
        assert one.read_bytes() == other.read_bytes()


def keywords(root, corpus, output, *options):
    """The command line of a small run of keyword spotting."""
    yaml = str(root / "hparams/keyword_spotting.yaml")
    places = [f"--data_folder={corpus}", f"--output_folder={output}"]
    short = (
        [] if "--number_of_epochs=2" in options else ["--number_of_epochs=1"]
    )
    return [yaml, *places, *TINY, "--batch_size=4", *short, *options]


@pytest.fixture(scope="module")
def spotted(root, corpus, tmp_path_factory):
    """The folder of a finished run of keyword spotting, and its scores."""
    output = tmp_path_factory.mktemp("spotted")
    return output, keyword_spotting.main(keywords(root, corpus, output))


def test_the_same_command_is_already_finished(
    spotted, root, corpus, no_training, capsys
):
    output, scores = spotted
    assert state(output) == "finished"
    before = files(output)
    command = keywords(root, corpus, output, "--num_workers=1")
    assert command_line(["recipe", "keyword_spotting", *command]) == 0
    told = capsys.readouterr().out.splitlines()
    right = f"{scores['accuracy']:.1%}".replace("%", " %")
    assert told[-9:] == [
        "",
        "Already finished, nothing trained.",
        f"  scores    accuracy {right}, loss {scores['loss']:.4g}",
        "  scored on the validation set, there being no test set",
        f"  export    {output}/export",
        f"  pictures  {output}/confusion.png,",
        f"            {output}/curves.png",
        f"  log       {output}/train_log.txt",
        f"Next: unispeech-sb classify {output}/export FILES",
    ]
    assert keyword_spotting.main(command) == scores
    assert files(output) == before


def other_recordings(corpus, folder):
    """The same clips, words and lengths, spoken backwards."""
    shutil.copytree(corpus, folder)
    for path in folder.glob("*.wav"):
        samples, rate = soundfile.read(path)
        soundfile.write(path, samples[::-1], rate)


def other_labels(corpus, folder):
    """As many words, which are called otherwise."""
    shutil.copytree(corpus, folder)
    table = folder / "manifest.csv"
    rows = table.read_text().splitlines()
    table.write_text("\n".join(re.sub(",yes$", ",ja", row) for row in rows))


def fewer_clips(corpus, folder):
    """One clip less."""
    shutil.copytree(corpus, folder)
    table = folder / "manifest.csv"
    table.write_text("\n".join(table.read_text().splitlines()[:-1]))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (other_recordings, "train: other recordings"),
        (other_labels, "train: other values of label"),
        (fewer_clips, "train: 18 utterances before, 17 now"),
        ("--lr=0.02", "lr: 0.001 before, 0.02 now"),
        ("--seed=7", "seed: 1986 before, 7 now"),
        ("--precision=bf16", "precision: not given before, bf16 now"),
        ("--model=small", "model: tiny before, small now"),
    ],
)
def test_another_experiment_is_refused_and_nothing_changes(
    spotted, root, corpus, tmp_path, no_training, capsys, change, told
):
    output, options = spotted[0], [change]
    if callable(change):
        change(corpus, tmp_path / "other")
        options, corpus = [], tmp_path / "other"
    before = files(output)
    command = keywords(root, corpus, output, *options)
    assert command_line(["recipe", "keyword_spotting", *command]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"{output} holds another experiment: " in error
    assert told in error and "--overwrite" in error
    assert files(output) == before


def test_data_that_have_moved_are_the_same(
    spotted, root, corpus, tmp_path, no_training
):
    moved = shutil.copytree(corpus, tmp_path / "moved")
    output = copied(spotted[0], tmp_path)
    scores = keyword_spotting.main(keywords(root, moved, output))
    assert scores == spotted[1]


def test_more_epochs_train_on(spotted, root, corpus, tmp_path):
    output = copied(spotted[0], tmp_path)
    longer = keywords(root, corpus, output, "--number_of_epochs=2")
    keyword_spotting.main(longer)
    log = (output / "train_log.txt").read_text().splitlines()
    epochs = [line.split(",")[0] for line in log]
    assert [e for e in epochs if "loaded" not in e] == ["epoch: 1", "epoch: 2"]
    with pytest.raises(ValueError, match="number_of_epochs: 2 before, 1 now"):
        keyword_spotting.main(keywords(root, corpus, output))


def test_overwriting_leaves_nothing_of_the_first_run(
    spotted, root, corpus, tmp_path
):
    output = copied(spotted[0], tmp_path)
    (output / "notes.txt").write_text("mine")
    old = {p.relative_to(output) for p in files(output)}
    other_labels(corpus, tmp_path / "other")
    command = keywords(root, tmp_path / "other", output, "--overwrite")
    keyword_spotting.main(command)
    labels = (output / "export" / "label_encoder.ckpt").read_text()
    assert "'ja'" in labels and "'yes'" not in labels
    assert len((output / "train_log.txt").read_text().splitlines()) == 2
    left = old - {p.relative_to(spotted[0]) for p in files(spotted[0])}
    assert [str(path) for path in left] == ["notes.txt"]
    assert (output / "notes.txt").read_text() == "mine"


def test_a_run_stopped_while_it_exports_ends_as_a_whole_one(
    spotted, root, corpus, tmp_path, monkeypatch
):
    def stopped(self, folder, scores, split):
        folder.mkdir()
        (folder / "head.ckpt").write_bytes(b"half")
        raise KeyboardInterrupt

    command = keywords(root, corpus, tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(UtteranceBrain, "export", stopped)
        with pytest.raises(KeyboardInterrupt):
            keyword_spotting.main(command)
    assert state(tmp_path / "out") == "running"
    with pytest.raises(ValueError, match="lr: 0.001 before, 0.1 now"):
        keyword_spotting.main([*command, "--lr=0.1"])
    assert keyword_spotting.main(command) == spotted[1]
    assert state(tmp_path / "out") == "finished"
    same_weights(spotted[0], tmp_path / "out")


def test_a_run_stopped_while_it_prepares_binds_nobody(
    spotted, root, corpus, tmp_path, monkeypatch
):
    real = keyword_spotting.write_manifests

    def stopped(*args):
        real(*args)
        raise KeyboardInterrupt

    other_labels(corpus, tmp_path / "other")
    with monkeypatch.context() as patch:
        patch.setattr(keyword_spotting, "write_manifests", stopped)
        with pytest.raises(KeyboardInterrupt):
            keyword_spotting.main(
                keywords(root, tmp_path / "other", tmp_path / "out")
            )
    keyword_spotting.main(keywords(root, corpus, tmp_path / "out"))
    same_weights(spotted[0], tmp_path / "out")


def test_a_folder_of_an_older_version_goes_on_or_is_refused(
    spotted, root, corpus, tmp_path, monkeypatch, caplog
):
    output = copied(spotted[0], tmp_path)
    (output / "experiment.json").unlink()
    before = files(output)
    with pytest.raises(ValueError, match="lr: 0.001 before, 0.1 now"):
        keyword_spotting.main(keywords(root, corpus, output, "--lr=0.1"))
    fewer_clips(corpus, tmp_path / "fewer")
    with pytest.raises(ValueError, match="train: 18 utterances before, 17"):
        keyword_spotting.main(keywords(root, tmp_path / "fewer", output))
    assert files(output) == before
    monkeypatch.setattr(UtteranceBrain, "fit_batch", None)  # no update
    assert keyword_spotting.main(keywords(root, corpus, output)) == spotted[1]
    assert state(output) == "finished"
    same_weights(spotted[0], output)


def test_a_trial_leaves_a_trained_model_as_it_is(
    spotted, root, corpus, tmp_path
):
    output = copied(spotted[0], tmp_path)
    before = files(output)
    command = keywords(root, corpus, output, "--debug", "--lr=0.5")
    assert set(keyword_spotting.main(command)) == set(spotted[1])
    after = files(output)
    assert before.items() <= after.items()
    assert all(
        p.is_relative_to(output / "debug") for p in after.keys() - before
    )
    keyword_spotting.main([*command, "--seed=3"])  # afresh each time


@pytest.fixture(scope="module")
def sentences(tmp_path_factory):
    """A folder with manifest.csv; not to be changed."""
    return speech.write_speech(tmp_path_factory.mktemp("sentences"))


@pytest.fixture(scope="module")
def recognized(root, sentences, tmp_path_factory):
    """The folder of a finished run of speech recognition, and its scores."""
    output = tmp_path_factory.mktemp("recognized")
    command = speech.arguments(root, sentences, output, "--number_of_epochs=1")
    return output, asr.main(command)


def other_texts(sentences, folder):
    """The same recordings, of which other letters are said."""
    shutil.copytree(sentences, folder)
    table = folder / "manifest.csv"
    table.write_text(table.read_text().replace("yes", "jes"))


def test_speech_recognition_is_finished_or_refused(
    recognized, root, sentences, tmp_path, no_training, capsys
):
    output, scores = recognized
    before = files(output)

    def again(folder, *options):
        return asr.main(
            speech.arguments(
                root, folder, output, "--number_of_epochs=1", *options
            )
        )

    assert again(sentences) == scores
    *_, following = capsys.readouterr().out.splitlines()
    command = "unispeech-sb transcribe"
    assert following == f"Next: {command} {output}/export FILES"
    for option, told in (
        ("--lr=0.5", "lr: 2e-05 before, 0.5 now"),
        ("--seed=7", "seed: 1986 before, 7 now"),
        ("--text_case=upper", "text_case: null before, upper now"),
    ):
        with pytest.raises(ValueError, match=told):
            again(sentences, option)
    other_texts(sentences, tmp_path / "other")
    with pytest.raises(ValueError, match="train: other values of wrd"):
        again(tmp_path / "other")
    assert files(output) == before


def test_speech_recognition_is_tested_again_in_another_way(
    recognized, root, sentences, tmp_path, monkeypatch
):
    output = copied(recognized[0], tmp_path)
    monkeypatch.setattr(CTCBrain, "fit_batch", None)  # no update
    options = ["--number_of_epochs=1", "--beam_search=True", "--beam_size=3"]
    asr.main(speech.arguments(root, sentences, output, *options))
    same_weights(recognized[0], output)


@pytest.mark.parametrize("step", ["read", "prepared"])
def test_speech_recognition_stopped_while_it_prepares_binds_nobody(
    recognized, root, sentences, tmp_path, monkeypatch, step
):
    """Its tokens are not those of the run that comes next."""
    other_texts(sentences, tmp_path / "other")
    output, real = tmp_path / "out", asr.texts.prepare_texts

    def stopped(*args):
        if step == "prepared":
            real(*args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(asr.texts, "prepare_texts", stopped)
        with pytest.raises(KeyboardInterrupt):
            asr.main(speech.arguments(root, tmp_path / "other", output))
    command = speech.arguments(root, sentences, output, "--number_of_epochs=1")
    asr.main(command)
    same_weights(recognized[0], output)
    tokens = [f / "save" / "tokenizer.ckpt" for f in (recognized[0], output)]
    assert tokens[0].read_bytes() == tokens[1].read_bytes()


def test_overwritten_speech_recognition_has_its_own_tokens(
    recognized, root, sentences, tmp_path
):
    output = copied(recognized[0], tmp_path)
    other_texts(sentences, tmp_path / "other")
    options = ["--number_of_epochs=1", "--overwrite"]
    asr.main(speech.arguments(root, tmp_path / "other", output, *options))
    for place in ("save", "export"):
        tokens = (output / place / "tokenizer.ckpt").read_text()
        assert "'j' => " in tokens and "'y' => " not in tokens


def test_pretraining_is_finished_or_refused(root, sentences, tmp_path, capsys):
    first = tmp_path / "first"
    command = pretraining.phones_arguments(root, sentences, first)
    scores = pretrain_unispeech.main(command)
    told = capsys.readouterr().out
    assert "\nFinished.\n  scores    contrastive " in told
    assert f"recipe TASK --model={first}/export)\n" in told
    before = files(first)
    assert pretrain_unispeech.main(command) == scores
    with pytest.raises(ValueError, match="mask_prob: 0.35 before, 0.5 now"):
        pretrain_unispeech.main([*command, "--mask_prob=0.5"])
    assert files(first) == before
    export = shutil.copytree(first / "export", tmp_path / "model")
    second = pretraining.phones_arguments(
        root, sentences, tmp_path / "second", f"--model={export}",
        f"--head_from={export}",
    )  # fmt: skip
    second.remove("--model=tiny")
    pretrain_unispeech.main(second)
    (export / "head.ckpt").write_bytes(b"another one")
    with pytest.raises(ValueError, match="model has another content now"):
        pretrain_unispeech.main(second)


def test_pretraining_on_other_units_is_refused(root, tmp_path):
    units = pretraining.write_loudness_units(tmp_path)
    output = tmp_path / "out"
    command = pretraining.units_arguments(root, units, output)
    scores = pretrain_unispeech_sat.main(command)
    moved = shutil.copytree(units, tmp_path / "moved")
    command = pretraining.units_arguments(root, moved, output)
    assert pretrain_unispeech_sat.main(command) == scores
    numbers = (moved / "train.npy").read_bytes()
    (moved / "train.npy").write_bytes(numbers[:-2] + numbers[-4:-2])
    with pytest.raises(ValueError, match="units: other ones than before"):
        pretrain_unispeech_sat.main(command)
