"""The command line of a recipe, from yaml to export."""

import json
import math
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from tests.forks import run_script
from unispeech_sb.brains import UtteranceBrain
from unispeech_sb.experiment import (
    format_scores,
    main,
    name_data,
    parse_arguments,
    read_command,
    run,
)
from unispeech_sb.plots import write_curves

TOY = Path(__file__).parent / "brains" / "toy.py"


def test_own_options_are_keys_of_the_yaml_too(tmp_path):
    yaml_file = tmp_path / "a.yaml"
    yaml_file.write_text("output_folder: out\nkeep_checkpoints: 3\n")
    hparams = read_command([str(yaml_file), "--data_parallel=fsdp"]).load()
    assert hparams["keep_checkpoints"] == 3
    assert hparams["data_parallel"] == "fsdp"
    hparams = read_command([str(yaml_file), "--keep_checkpoints=2"]).load()
    assert hparams["keep_checkpoints"] == 2
    assert hparams["data_parallel"] == "ddp"
    assert hparams["async_checkpoints"] is False


@pytest.mark.parametrize(
    ("backend", "message"),
    [
        ("nccl", "expected gloo on CPUs, as nccl needs a GPU for each process"),
        ("mpi", "expected one that this PyTorch has; got mpi"),
    ],
)
def test_a_backend_that_is_not_here_is_refused(
    backend, message, tmp_path, monkeypatch
):
    group = {"RANK": 0, "LOCAL_RANK": 99, "WORLD_SIZE": 1, "MASTER_PORT": 0}
    for name, value in {**group, "MASTER_ADDR": "localhost"}.items():
        monkeypatch.setenv(name, str(value))
    (tmp_path / "a.yaml").write_text("output_folder: out\n")
    argv = [str(tmp_path / "a.yaml"), f"--distributed_backend={backend}"]
    with pytest.raises(ValueError, match=message):
        run(None, None, argv=argv)


@pytest.fixture
def yaml_file(tmp_path):
    path = tmp_path / "hparams.yaml"
    path.write_text("test: 1\nlearning_rate: !PLACEHOLDER\nfolder: x\n")
    return str(path)


def test_unknown_key_is_named_with_the_closest_known_one(yaml_file):
    with pytest.raises(ValueError, match="'learning_rat'.*'learning_rate'"):
        parse_arguments([yaml_file, "--learning_rat=1"])
    with pytest.raises(ValueError, match="'debug_batch'.*'debug_batches'"):
        parse_arguments([yaml_file, "--debug_batch=1"])


def test_key_that_begins_an_option_reaches_the_yaml(yaml_file):
    _, run_opts, overrides = parse_arguments([yaml_file, "--test=2"])
    assert overrides == "test: 2" and not run_opts.test_only


def test_value_may_have_an_equals_sign(yaml_file):
    assert parse_arguments([yaml_file, "--folder=/a=b"])[2] == "folder: /a=b"
    assert parse_arguments([yaml_file, "--folder", "a=b"])[2].split() == [
        "folder:",
        "a=b",
    ]


def test_value_without_a_key_is_refused(yaml_file):
    with pytest.raises(ValueError, match="got 'False'"):
        parse_arguments([yaml_file, "--jit", "False"])


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("speech_commands_v0.02", "speech_commands_v0.02"),
        ("cv-corpus-21.0-2025-03-14/ky/", "ky"),
        ("my_clips/manifest.csv", "my_clips"),
        ("my_clips/train.csv", "my_clips-train"),
        ("corpora/ted talks", "ted_talks"),
        ("my_speech/units", "my_speech-units"),
        (["a/first", "b/second.csv"], "first+second"),
        (["x" * 80, "y" * 80], f"{'x' * 80}+{'y' * 19}"),
        ("..", Path.cwd().parent.name),
    ],
)
def test_data_have_a_name_that_says_something(data, name):
    assert name_data(data) == name


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("accuracy", 0.9600000143051147, "96.0 %"),
        ("accuracy", 1.0, "100.0 %"),
        ("WER", 0.0, "0.0 %"),
        ("CER", 0.0421, "0.04 %"),
        ("DER", 123.456, "123.5 %"),
        ("minDCF", 0.0312345, "0.03123"),
        ("loss", 2.3456789e-07, "2.346e-07"),
        ("loss", math.inf, "inf"),
        ("DER", math.nan, "nan %"),
        ("used_units", 40, "40"),
    ],
)
def test_a_score_has_its_unit_and_few_digits(name, value, text):
    assert format_scores({name: value}) == f"{name.replace('_', ' ')} {text}"


def test_scores_stand_in_a_line_with_their_intervals():
    scores = {"loss": 12.5, "EER": 41.666, "minDCF": 1.0, "accuracy": 0.25}
    scores |= {"EER low": 33.3, "EER high": 62.5, "false alarm": 2.0}
    assert format_scores({"DER": None}) == "DER undefined"
    assert format_scores(scores) == (
        "EER 41.7 % (33.3 to 62.5 %), minDCF 1, accuracy 25.0 %, "
        "false alarm 2.0 %, loss 12.5"
    )
    assert format_scores({"loss": 1.0}) == "loss 1"


def test_user_error_takes_one_line(capsys):
    def fail():
        raise ValueError("expected 16000 Hz, got 8000")

    with pytest.raises(SystemExit) as stop:
        main(fail)
    assert stop.value.code == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_traceback_is_shown_when_it_is_asked_for(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["recipes/toy.py", "toy.yaml"])
    with pytest.raises(SystemExit) as stop:
        main(lambda: 1 / 0)
    assert stop.value.code == 1
    line = "toy.py: error: internal error: ZeroDivisionError: division by zero"
    assert capsys.readouterr().err.startswith(line)
    sys.argv.append("--traceback")
    with pytest.raises(ZeroDivisionError):
        main(lambda: 1 / 0)
    assert sys.argv == ["recipes/toy.py", "toy.yaml"]


def test_ctrl_c_says_how_to_go_on(capsys):
    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as stop:
        main(interrupt)
    assert stop.value.code == 130
    said = "error: interrupted; the same command goes on from the last chec"
    assert said in capsys.readouterr().err


def toy(folder, *options):
    """The command line of the toy experiment."""
    places = [str(TOY.with_suffix(".yaml")), f"--output_folder={folder}"]
    return [str(TOY), *places, "--device=cpu", *options]


def by_torchrun(*command):
    """Runs a script on two processes, as users do."""
    environment = {
        **os.environ,
        "PYTHONPATH": f"{TOY.parents[2]}{os.pathsep}{TOY.parent}",
        "OMP_NUM_THREADS": "1",
    }
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node=2"]
    return subprocess.run(
        [sys.executable, *launcher, "--standalone", *command],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.fixture
def run_toy(monkeypatch):
    """Runs the toy experiment in this process."""
    monkeypatch.syspath_prepend(TOY.parent)
    module = import_module("toy")

    def run(folder, *options, **brain):
        places = [str(module.YAML), f"--output_folder={folder}"]
        return module.main([*places, "--device=cpu", *options], **brain)

    return run


def test_second_run_evaluates_again_without_training(
    tmp_path, run_toy, capsys, monkeypatch
):
    monkeypatch.setattr("unispeech_sb.plots.write_curves", write_curves)
    scores = run_toy(tmp_path, "--number_of_epochs=1")
    printed = capsys.readouterr()
    assert "There is no test set" in printed.out
    bars = printed.err.replace("\r", "\n").split("\n")
    assert [line for line in bars if line and "it/s" not in line] == []
    assert "train loss: 1." in (tmp_path / "train_log.txt").read_text()
    assert "e-0" not in (tmp_path / "train_log.txt").read_text()
    header, row = (tmp_path / "curves.csv").read_text().splitlines()
    assert header.startswith("epoch,lr") and "valid accuracy" in header
    assert row.startswith("1,0.003")
    assert (tmp_path / "curves.png").read_bytes()[1:4] == b"PNG"
    assert re.search(r"valid accuracy: [\d.]+ %", printed.out)
    written = (tmp_path / "scores.json").read_text()
    (tmp_path / "scores.json").unlink()
    monkeypatch.setattr("toy.ToyBrain.fit_batch", None)
    assert run_toy(tmp_path, "--number_of_epochs=1") == scores
    assert (tmp_path / "scores.json").read_text() == written


@pytest.mark.slow
def test_user_error_of_a_script_has_no_traceback(tmp_path):
    result = run_script(*toy(tmp_path, "--nonsense=1"))
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1 and "'nonsense'" in result.stderr


@pytest.mark.slow
def test_two_processes_train_one_model(tmp_path):
    command = toy(
        tmp_path,
        "--number_of_epochs=2",
        "--distributed_backend=gloo",
        "--grad_accumulation_factor=3",
        "--ckpt_interval_steps=1",
    )
    result = by_torchrun(*command)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("\nFinished.\n") == 1
    assert set(json.loads((tmp_path / "scores.json").read_text())) == {
        "loss",
        "accuracy",
    }
    log = (tmp_path / "train_log.txt").read_text()
    assert len(log.splitlines()) == 3
    other = run_script(*command, "--lr=0.5", processes=2)
    assert other.returncode != 0
    assert "lr: 0.01 before, 0.5 now" in other.stderr
    again = run_script(*command, processes=2)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("Already finished") == 1
    assert (tmp_path / "train_log.txt").read_text() == log
    assert (tmp_path / "toy.py").exists()


def test_export_of_a_trial_does_not_replace_a_trained_model(tmp_path, run_toy):
    exported = []

    class Brain(UtteranceBrain):
        def export(self, folder, scores, split):
            folder.mkdir()
            exported.append(scores)

    for options, kept in ((["--debug"], False), ([], True)):
        out = tmp_path / f"out{len(options)}"
        run_toy(out, "--number_of_epochs=1", *options, brain_class=Brain)
        assert (out / "export").exists() == kept
    assert [len(scores) for scores in exported] == [2, 2]


def test_a_second_run_is_refused_while_the_first_is_there(tmp_path, run_toy):
    class Brain(UtteranceBrain):
        def fit(self, *args, **kwargs):
            with pytest.raises(BlockingIOError, match="being written by pro"):
                run_toy(tmp_path, "--number_of_epochs=1")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_toy(tmp_path, "--number_of_epochs=1", brain_class=Brain)
    assert not (tmp_path / ".lock").exists()
    run_toy(tmp_path, "--number_of_epochs=1")
    assert not list(tmp_path.glob(".*"))
