"""The command line: which function runs, and what users see of errors."""

import os
import subprocess
import sys
from types import ModuleType

import pytest

import unispeech_sb
from unispeech_sb import cli


@pytest.fixture
def recipe(monkeypatch, tmp_path):
    """A packaged recipe ``listen`` whose ``main`` records what it was given."""
    for kind in ("recipes", "hparams"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "__init__.py").touch()
    (tmp_path / "hparams" / "listen.yaml").touch()
    (tmp_path / "recipes" / "listen.py").write_text(
        '"""Listens.\n\nAnd more.\n"""\n\ncalls = []\nmain = calls.append\n'
    )
    for name in ("recipes", "recipes.listen", "hparams"):
        monkeypatch.delitem(sys.modules, f"unispeech_sb.{name}", raising=False)
    monkeypatch.setattr(unispeech_sb, "__path__", [str(tmp_path)])
    # An import sets these two, and the end of the test takes them back.
    monkeypatch.setattr(unispeech_sb, "recipes", None, raising=False)
    monkeypatch.setattr(unispeech_sb, "hparams", None, raising=False)
    yield tmp_path
    for name in ("recipes", "recipes.listen", "hparams"):
        sys.modules.pop(f"unispeech_sb.{name}", None)


@pytest.fixture
def converter(monkeypatch):
    """Replaces the conversion by a function that a test chooses."""

    def replace(function):
        module = ModuleType("unispeech_sb.convert")
        module.convert_checkpoint = function
        monkeypatch.setitem(sys.modules, module.__name__, module)

    return replace


def calls():
    """What the recipe's ``main`` was called with."""
    return sys.modules["unispeech_sb.recipes.listen"].calls


def test_recipes_are_listed_with_their_first_line(recipe, capsys):
    assert cli.main(["recipe"]) == 0
    assert capsys.readouterr().out == "listen  Listens.\n"
    assert "unispeech_sb.recipes.listen" not in sys.modules


def test_a_recipe_gets_its_own_yaml_and_every_argument(recipe):
    assert cli.main(["recipe", "listen", "--version", "--seed=3", "a b"]) == 0
    yaml = str(recipe / "hparams" / "listen.yaml")
    assert calls() == [[yaml, "--version", "--seed=3", "a b"]]


def test_a_yaml_after_the_name_is_taken_instead(recipe):
    assert cli.main(["recipe", "listen", "mine.yaml", "--seed=3"]) == 0
    assert calls() == [["mine.yaml", "--seed=3"]]


def test_an_unknown_recipe_is_one_sentence(recipe, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["recipe", "lisen"])
    assert caught.value.code == 2
    assert capsys.readouterr().err == (
        "unispeech-sb: no recipe is named 'lisen'; there are: listen\n"
    )


def test_convert_prints_the_report(converter, capsys):
    converter(lambda src, dst, *_, **given: f"{src} is now {dst} {given}")
    given = ["--set", "mask_rule=hf", "--set", "num_heads=4"]
    assert cli.main(["convert", "this", "that", *given]) == 0
    said = "this is now that {'mask_rule': 'hf', 'num_heads': 4}\n"
    assert capsys.readouterr().out == said


@pytest.mark.parametrize("kind", [ValueError, OSError, ImportError])
def test_errors_are_one_line_without_traceback(kind, converter, capsys):
    def fail(*_):
        raise kind("expected a folder,\n  got nothing")

    converter(fail)
    assert cli.main(["convert", "this", "that"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "unispeech-sb: expected a folder, got nothing\n"
    with pytest.raises(kind):
        cli.main(["--traceback", "convert", "this", "that"])


def test_what_a_file_says_cannot_steer_the_terminal(converter, capsys):
    converter(lambda *_: "a\x1b[31mred\u202eb\ud800\nnext é")
    assert cli.main(["convert", "this", "that"]) == 0
    said = capsys.readouterr().out
    assert said == "a\\x1b[31mred\\u202eb\\ud800\nnext é\n"


def test_programming_errors_keep_their_traceback(converter):
    converter(lambda *_: {}["missing"])
    with pytest.raises(KeyError):
        cli.main(["convert", "this", "that"])


def test_ctrl_c_is_130(converter):
    def interrupt(*_):
        raise KeyboardInterrupt

    converter(interrupt)
    assert cli.main(["convert", "this", "that"]) == 130


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["--help"])
    assert caught.value.code == 0
    told = capsys.readouterr().out
    assert all(f": {name}" in told for name in cli.COMMANDS)


@pytest.mark.parametrize("argv", [[], ["no_such_command"], ["convert", "one"]])
def test_a_wrong_command_line_is_2(argv):
    with pytest.raises(SystemExit) as caught:
        cli.main(argv)
    assert caught.value.code == 2


def test_it_runs_from_a_bare_clone(root, tmp_path):
    def run(*argv):
        return subprocess.run(
            [sys.executable, "-m", "unispeech_sb.cli", *argv],
            env={**os.environ, "PYTHONPATH": str(root)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    assert run("--version").strip() == unispeech_sb.__version__
    scripts = [file.stem for file in (root / "recipes").glob("[!_]*.py")]
    listed = [line.split()[0] for line in run("recipe").splitlines()]
    assert listed == sorted(scripts)
