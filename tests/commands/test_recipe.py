"""The commands that train: which recipe and yaml they run."""

import sys

import pytest

import unispeech_sb
from unispeech_sb.commands.recipe import demo, recipe

NAMES = ("recipes", "recipes.listen", "hparams")


@pytest.fixture
def package(monkeypatch, tmp_path):
    """A packaged recipe ``listen`` whose ``main`` records what it was given."""
    for kind in ("recipes", "hparams"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "__init__.py").touch()
    for name in ("listen", "listen_superb", "listening"):
        (tmp_path / "hparams" / f"{name}.yaml").write_text("seed: 1\n")
    (tmp_path / "recipes" / "listen.py").write_text(
        '"""Listens\nclosely.\n\nAnd more.\n"""\n\ncalls = []\n'
        "main = calls.append\n"
    )
    for name in NAMES:
        monkeypatch.delitem(sys.modules, f"unispeech_sb.{name}", raising=False)
    monkeypatch.setattr(unispeech_sb, "__path__", [str(tmp_path)])
    # An import sets these two, and the end of the test takes them back.
    monkeypatch.setattr(unispeech_sb, "recipes", None, raising=False)
    monkeypatch.setattr(unispeech_sb, "hparams", None, raising=False)
    yield tmp_path
    for name in NAMES:
        sys.modules.pop(f"unispeech_sb.{name}", None)


def calls():
    """What the recipe's ``main`` was called with."""
    return sys.modules["unispeech_sb.recipes.listen"].calls


def test_recipes_are_listed_with_their_tasks(package, capsys):
    assert recipe([]) is None
    assert capsys.readouterr().out == "listen  Listens closely.\n"
    assert "unispeech_sb.recipes.listen" not in sys.modules


def test_a_recipe_gets_its_own_yaml_and_every_argument(package):
    recipe(["listen", "--debug", "--seed=3", "--overwrite"])
    yaml = str(package / "hparams" / "listen.yaml")
    assert calls() == [[yaml, "--debug", "--seed=3", "--overwrite"]]


def test_a_yaml_after_the_name_is_taken_instead(package, monkeypatch):
    monkeypatch.chdir(package)
    (package / "mine.yaml").write_text("lr: 1\n")
    recipe(["listen", "mine.yaml", "--lr=3"])
    recipe(["listen", "listen_superb.yaml"])
    superb = str(package / "hparams" / "listen_superb.yaml")
    assert calls() == [["mine.yaml", "--lr=3"], [superb]]


def test_a_yaml_of_another_recipe_is_not_found_by_its_name(package):
    with pytest.raises(ValueError, match="'listening.yaml'; did you mean"):
        recipe(["listen", "listening.yaml"])


def test_an_unknown_recipe_is_one_sentence(package, capsys):
    with pytest.raises(SystemExit) as caught:
        recipe(["lisen"])
    assert caught.value.code == 2
    assert capsys.readouterr().err == (
        "unispeech-sb: no recipe is named 'lisen'; did you mean 'listen'? "
        "There are: listen\n"
    )


def test_mistakes_are_found_before_the_recipe_is_imported(package):
    with pytest.raises(ValueError, match="has no key 'sed'; .* 'seed'"):
        recipe(["listen", "--sed=3"])
    assert "unispeech_sb.recipes.listen" not in sys.modules


def test_help_calls_recipes_by_the_installed_command(capsys):
    recipe(["pretrain_unispeech", "--help"])
    text = capsys.readouterr().out
    assert text.startswith("usage: unispeech-sb recipe pretrain_unispeech [")
    assert "    unispeech-sb recipe pretrain_unispeech \\\n" in text
    assert "python recipes/" not in text and "hparams/" not in text
    assert "pretrain_unispeech_large.yaml" in text
    assert "pretrain_unispeech_sat" not in text  # yamls of another recipe
    recipe(["asr", "asr_superb.yaml", "--help"])
    superb = "unispeech-sb recipe asr asr_superb.yaml --data_folder=LibriSpeech"
    assert superb in capsys.readouterr().out


def test_the_demo_asks_for_its_extra_first(monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(
        ImportError, match=r"pip install 'unispeech_sb\[demo\]'"
    ):
        demo([])
