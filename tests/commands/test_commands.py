"""The command line: which function runs, what users see, what it imports."""

import io
import json
import os
import subprocess
import sys
from types import ModuleType

import pytest

import unispeech_sb
from tests.conftest import ROOT
from unispeech_sb.commands import _TO_CONTINUE, COMMANDS, main

RECIPES = [path.stem for path in sorted((ROOT / "recipes").glob("[!_]*.py"))]
ANSWERED = [
    ("", 0, "COMMAND --help shows the options of a command"),
    ("--help", 0, "COMMAND --help shows the options of a command"),
    ("--version", 0, unispeech_sb.__version__),
    *(
        (f"{name} --help", 0, f"usage: unispeech-sb {name}")
        for name in COMMANDS
    ),
    ("recipe", 0, "speaker_verification Speaker verification: is it"),
    *((f"recipe {name} --help", 0, f"{name} [YAML]") for name in RECIPES),
    ("recipe asr asr_superb.yaml --help", 0, "--batches_per_epoch=2000"),
    ("transcrib", 2, "'transcrib'; did you mean 'transcribe'? There are: demo"),
    ("recipe arc", 2, "'arc'; did you mean 'asr'? There are: asr, "),
    ("recipe asr no.yaml", 1, "no yaml file is named 'no.yaml'"),
    ("recipe asr --data_foldr=a", 1, "mean 'data_folder'? It has: seed, data"),
    ("recipe asr", 1, "needs a value of data_folder: give --data_folder=..."),
    (
        "recipe asr --data_folder=none",
        1,
        "none: expected LibriSpeech, a language",
    ),
    ("recipe asr --lr=fast", 1, "lr: expected a number"),
    ("recipe asr --precision=fp8", 2, "argument --precision: invalid choice"),
    ("transcribe model", 2, "required: FILE"),
    ("transcribe model a.wav --frmat=srt", 2, "arguments: --frmat=srt"),
    ("transcribe none a.wav", 1, "none: expected a folder with hyperparams"),
    ("transcribe model none.wav", 1, "none.wav: there is no such file"),
    ("transcribe model a.wav --lm none", 1, "none: there is no such language"),
    ("tune-lm model none.csv --lm a.wav", 1, "none.csv: there is no such tab"),
    ("tune-lm model . --lm none", 1, "none: there is no such language model"),
    ("diarize none a.wav", 1, "none: expected a folder with hyperparams.yaml"),
    ("diarize model none.wav", 1, "none.wav: there is no such file"),
    (
        "diarize model a.wav --plot --reference none",
        1,
        "none: there is no such",
    ),
    (
        "diarize model a.wav --plot --reference a.rttm",
        1,
        "no name in common: a against b",
    ),
    ("diarize model a.wav --speaker-model none", 1, "none: expected a folder"),
    (
        "classify model a.wav --precision x",
        2,
        "argument --precision: invalid choice",
    ),
    ("embed model none.wav -o b", 1, "none.wav: there is no such file"),
    ("verify model a.wav none.wav", 1, "none.wav: there is no such file"),
    ("verify model a.wav a.wav --calibration none", 1, "no such calibration"),
    ("score model --trials none --audio-root .", 1, "no such trial list"),
    ("score model --trials a.rttm --audio-root none", 1, "no such folder"),
    ("serve model --port 70000", 2, "expected 0 to 65535, got 70000"),
    ("serve model --queue 0", 2, "expected 1 or more, got 0"),
    ("serve model ./model", 1, "would both be model: give NAME=FOLDER"),
    ("convert none b", 1, "none: expected a folder, a checkpoint file, or the"),
    ("convert a.wav model", 1, "model: expected a new folder; it exists"),
    ("convert a.wav b --set mask_rule", 1, "--set: expected NAME=VALUE; got"),
    ("to-hf none b", 1, "there is no such folder or file"),
    ("info none", 1, "none: expected a folder, a checkpoint file, or the hub"),
]
"""Command line, exit code, what is printed: all without torch."""

PROGRAM = """
import contextlib, io, json, sys

HEAVY = {"torch", "torchaudio", "speechbrain", "numpy", "scipy", "matplotlib"}

from unispeech_sb.commands import main

for line in sys.stdin.read().splitlines():
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        try:
            code = main(line.split())
        except SystemExit as end:
            code = end.code
    print(json.dumps([code or 0, text.getvalue(), [*HEAVY & {*sys.modules}]]))
"""


@pytest.fixture(scope="module")
def answers(root, tmp_path_factory):
    """Command line -> exit code, what was printed, heavy modules so far."""
    folder = tmp_path_factory.mktemp("answers")
    (folder / "model").mkdir()
    for name in ("model/hyperparams.yaml", "a.wav"):
        (folder / name).touch()
    (folder / "a.rttm").write_text("SPEAKER b 1 0 1 <NA> <NA> x <NA> <NA>\n")
    lines = [line for line, *_ in ANSWERED]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input="\n".join(lines) + "\n",
        env={**os.environ, "PYTHONPATH": str(root), "COLUMNS": "80"},
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return dict(zip(lines, found, strict=True))


@pytest.mark.parametrize(("line", "code", "shown"), ANSWERED)
def test_help_and_mistakes_are_answered_without_torch(
    line, code, shown, answers
):
    found, text, imported = answers[line]
    assert imported == []
    assert found == code
    assert shown in " ".join(text.split())
    if code == 1:  # one line, but for a list of files
        assert text.count("\n") == 1 or "files failed:" in text


def test_help_fits_into_80_columns(answers):
    helps = [text for line, (_, text, _) in answers.items() if "--help" in line]
    assert len(helps) == len(COMMANDS) + len(RECIPES) + 2
    wide = [
        line for text in helps for line in text.splitlines() if len(line) > 80
    ]
    assert not wide


def test_help_names_every_command(answers):
    _, text, _ = answers["--help"]
    assert all(f"\n  {name}  " in text for name in COMMANDS)
    assert answers[""] == answers["--help"]


@pytest.fixture
def converter(monkeypatch):
    """Replaces the conversion by a function that a test chooses."""

    def replace(function):
        module = ModuleType("unispeech_sb.convert")
        module.convert_checkpoint = function
        monkeypatch.setitem(sys.modules, module.__name__, module)

    return replace


@pytest.fixture
def line(tmp_path):
    """A command line whose arguments are in order."""
    (tmp_path / "this").touch()
    return ["convert", str(tmp_path / "this"), str(tmp_path / "that")]


def test_convert_prints_the_report(converter, line, capsys):
    converter(lambda src, dst, *_, **given: f"a report of {given}")
    given = ["--set", "mask_rule=hf", "--set", "num_heads=4"]
    assert main([*line, *given]) == 0
    printed = "a report of {'mask_rule': 'hf', 'num_heads': 4}\n"
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize("kind", [ValueError, OSError, ImportError])
def test_errors_are_one_line_without_traceback(kind, converter, line, capsys):
    def fail(*_):
        raise kind("expected a folder,\n  got nothing")

    converter(fail)
    assert main(line) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "unispeech-sb: expected a folder, got nothing\n"
    with pytest.raises(kind):
        main(["--traceback", *line])


def test_text_of_a_file_cannot_steer_the_terminal(converter, line, capsys):
    converter(lambda *_: "a\x1b[31mred\u202eb\ud800\nnext é")
    assert main(line) == 0
    assert capsys.readouterr().out == "a\\x1b[31mred\\u202eb\\ud800\nnext é\n"


@pytest.mark.parametrize("place", [0, 1, 3])
def test_programming_errors_say_so_and_keep_their_traceback(
    place, converter, line, capsys
):
    converter(lambda *_: {}["missing"])
    assert main(line) == 1
    sentence = "unispeech-sb: internal error: KeyError: 'missing' (in unispeech"
    assert capsys.readouterr().err.startswith(sentence)
    line.insert(place, "--traceback")
    with pytest.raises(KeyError):
        main(line)


def test_names_after_a_double_dash_may_begin_with_a_dash(line, capsys):
    assert main(["convert", "--", "-help", line[2]]) == 1
    assert "-help: expected a folder, a ch" in capsys.readouterr().err


def test_ctrl_c_is_130_and_one_line(converter, line, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    converter(interrupt)
    assert main(line) == 130
    sentence = "unispeech-sb: interrupted; nothing is written\n"
    assert capsys.readouterr().err == sentence


def test_every_command_that_writes_over_time_says_how_to_go_on():
    assert set(_TO_CONTINUE) < set(COMMANDS)
    assert set(COMMANDS) - set(_TO_CONTINUE) == {
        *("convert", "to-hf", "export", "info", "tune-lm", "verify", "data"),
        "layers",
    }


def test_a_closed_pipe_ends_it_quietly(root):
    done = subprocess.run(
        f"{sys.executable} -m unispeech_sb recipe asr --help | head -n 1",
        shell=True,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.startswith("usage: unispeech-sb recipe asr")
    assert done.stderr == ""


def test_what_an_encoding_lacks_is_escaped(monkeypatch):
    stream = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(stream, "ascii"))
    monkeypatch.setitem(COMMANDS, "say", ("recipe:say", ""))
    monkeypatch.setattr(
        "unispeech_sb.commands.recipe.say",
        lambda argv: print("caf\xe9 \udce9"),
        raising=False,
    )
    assert main(["say"]) == 0
    assert stream.getvalue() == b"caf\\xe9 \\udce9\n"
