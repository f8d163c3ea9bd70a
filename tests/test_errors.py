"""Every error is one line; so are Ctrl-C and SIGTERM."""

import json
import logging
import os
import pickle
import signal
import subprocess
import sys
import time
import zipfile

import pytest
import torch
import yaml
from ruamel.yaml import YAML
from safetensors import SafetensorError
from torch._utils import ExceptionWrapper
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from unispeech_sb import errors
from unispeech_sb.errors import check_device, explain, run_guarded


def raised(function):
    """What a function raises."""
    try:
        function()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def in_worker(error):
    """An error as a DataLoader raises what its worker raised."""

    def fail():
        raise error

    try:
        fail()
    except Exception:
        wrapped = ExceptionWrapper(where="in DataLoader worker process 0")
    return raised(wrapped.reraise)


def read_broken_yaml(tmp_path, load):
    """Reads a yaml file whose third line is wrong."""
    path = tmp_path / "a.yaml"
    path.write_text("a: 1\nb: 2\nc: [1, }\n")
    with open(path) as file:
        load(file)


def run_false():
    """Runs a program that fails."""
    command = [sys.executable, "-c", "raise SystemExit('no voice')"]
    subprocess.run(command, check=True, capture_output=True)


SENTENCES = [
    (ValueError("a.wav:\n  too short"), "a.wav: too short"),
    (FileNotFoundError(2, "No such file", "a"), "[Errno 2] No such file: 'a'"),
    (OSError(28, "No space left"), "[Errno 28] No space left"),
    (ImportError("needs kenlm"), "needs kenlm"),
    (KeyError("x"), "internal error: KeyError: 'x'; run again with --trac"),
    (RuntimeError("mat1 and mat2"), "internal error: RuntimeError: mat1 and"),
    (RecursionError("too deep"), "internal error: RecursionError: too deep"),
    (AssertionError(), "internal error: AssertionError: AssertionError; run"),
    (MemoryError(), "not enough memory (MemoryError): give less at a time"),
    (torch.OutOfMemoryError("1 GB"), "not enough memory (1 GB): give less"),
    (zipfile.BadZipFile("no end"), "a file is damaged, or is not what it was"),
    (SafetensorError("header"), "a file is damaged, or is not what it was"),
    (pickle.UnpicklingError("x"), "a file is damaged, or is not what it was"),
    (raised(lambda: b"\xff".decode()), "a text is not what was expected: 'utf"),
    (raised(lambda: json.loads("{")), "a text is not what was expected: Expec"),
    (raised(run_false), f"{sys.executable} failed with status 1: no voice"),
    (in_worker(ValueError("a.wav: no\n  audio")), "a.wav: no audio"),
    (in_worker(KeyError("x")), "internal error: KeyError: 'x'; run again"),
    (
        raised(lambda: torch.empty(2**60)),
        "not enough memory (",
    ),
    (
        torch.distributed.DistBackendError("store"),
        "another process of this run has ended, see its error (store)",
    ),
]
"""Error, how its sentence begins."""


@pytest.mark.parametrize(("error", "sentence"), SENTENCES)
def test_an_error_is_one_line(error, sentence, capsys):
    def fail():
        raise error

    assert run_guarded(fail, "program") == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    line = captured.err.removeprefix("program: ")
    assert line.count("\n") == 1 and line.endswith("\n")
    assert "Traceback" not in line
    assert line.startswith(sentence)
    with pytest.raises(type(error)):
        run_guarded(fail, "program", traceback=True)


@pytest.mark.parametrize(
    ("error", "late_s"),
    [
        (ValueError("no voice"), 0),
        (RuntimeError("Connection reset by peer"), 60),
    ],
)
def test_torchrun_reads_the_reason_of_the_first_process_that_failed(
    error, late_s, tmp_path, monkeypatch
):
    file = tmp_path / "error.json"
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(file))
    monkeypatch.setattr("time.time", lambda: 1000.5)
    monkeypatch.setattr(errors, "_LATER_S", 0.0)

    def fail():
        raise error

    assert run_guarded(fail, "program") == 1
    failure = ProcessFailure(0, 1, 1, str(file))
    assert failure.message["message"].startswith("program: ")
    assert "Traceback" not in failure.message["extraInfo"]["py_callstack"]
    assert failure.timestamp == 1000 + late_s


@pytest.mark.parametrize("load", [yaml.safe_load, YAML(typ="safe").load])
def test_broken_yaml_names_file_line_and_column(load, tmp_path):
    error = raised(lambda: read_broken_yaml(tmp_path, load))
    place = f"{tmp_path / 'a.yaml'}, line 3, column 8: expected yaml: "
    assert explain(error).startswith(place)


def test_an_internal_error_names_its_function_of_this_package():
    error = raised(lambda: errors._of_program(None))
    found = explain(error)
    assert "(in unispeech_sb.errors, _of_program)" in found
    assert found.startswith("internal error: AttributeError: 'NoneType' obj")


def test_a_long_message_is_cut_in_its_middle():
    found = explain(ValueError("a.wav: " + "x" * 10**6 + " end"))
    assert found.startswith("a.wav: x") and found.endswith("x end")
    assert len(found) < 1300


@pytest.mark.parametrize(
    ("number", "code", "line"),
    [
        (signal.SIGINT, 130, "program: interrupted; go on\n"),
        (signal.SIGTERM, 143, "program: terminated; go on\n"),
    ],
)
def test_a_signal_is_one_line_that_says_how_to_go_on(
    number, code, line, capsys
):
    before = signal.getsignal(signal.SIGTERM)
    # Ignored where the tests run in the background of a shell
    ignored = signal.signal(signal.SIGINT, signal.default_int_handler)

    def wait():
        try:
            os.kill(os.getpid(), number)
            time.sleep(9)
        finally:
            signal.signal(signal.SIGINT, ignored)

    assert run_guarded(wait, "program", to_continue="go on") == code
    assert capsys.readouterr().err == line
    assert signal.getsignal(signal.SIGTERM) is before


def test_forked_processes_end_by_sigterm_silently(capfd):
    def run():
        child = os.fork()
        if not child:
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(9)
            finally:
                os._exit(0)
        return os.waitpid(child, 0)[1]

    assert run_guarded(run, "program") == signal.SIGTERM
    assert capfd.readouterr().err == ""


PRINT = """
import sys
from unispeech_sb.errors import run_guarded
sys.exit(run_guarded(lambda: print({text}), "program"))
"""


@pytest.mark.parametrize(
    ("text", "redirect", "code", "shown"),
    [
        ("'a'", "> /dev/full", 1, "program: [Errno 28] No space "
         "left on device: 'standard output'\n"),
        ("'a'", ">&-", 0, ""),
        ("'a' * 100000", "| head -c 1", 1, "a"),
        ("'\\udcff'", "", 0, "\\udcff\n"),
    ],
)  # fmt: skip
def test_standard_output_may_be_full_closed_or_strict(
    text, redirect, code, shown, root
):
    program = PRINT.format(text=text)
    done = subprocess.run(
        ["bash", "-c", f'"$0" -c "$1" {redirect}; exit ${{PIPESTATUS[0]}}',
         sys.executable, program],
        env={**os.environ, "PYTHONPATH": str(root), "PYTHONUNBUFFERED": ""},
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert done.stdout + done.stderr == shown


@pytest.mark.parametrize("name", ["cuda:99", "meta", "gpu", "cpu 1", ""])
def test_a_device_that_is_not_there_is_refused(name):
    with pytest.raises(ValueError, match=f"expected one .*; got {name}"):
        check_device(name)
    check_device("cpu")


def test_traceback_may_stand_anywhere_before_the_double_dash():
    line = ["a", "--traceback", "--", "--traceback"]
    found = errors.take_traceback(line)
    assert found == (["a", "--", "--traceback"], True)
    assert errors.take_traceback(line[2:]) == (line[2:], False)


def test_a_log_that_cannot_be_written_is_no_traceback(capsys):
    handler = logging.FileHandler("/dev/full")
    logger = logging.getLogger("test_errors")
    logger.addHandler(handler)
    try:
        assert run_guarded(lambda: logger.error("full"), "program") == 0
    finally:
        logger.removeHandler(handler)
        logging.raiseExceptions = True
    assert capsys.readouterr().err == ""
