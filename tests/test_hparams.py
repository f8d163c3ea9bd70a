"""Every yaml builds, and every recipe has one."""

import pytest
from hyperpyyaml import load_hyperpyyaml

from tests.conftest import ROOT
from unispeech_sb.lobes.backbone import Backbone

YAMLS = sorted((ROOT / "hparams").glob("*.yaml"))
PLACEHOLDERS = {"data_folder": "data", "test_folder": "test"}


def test_there_are_as_many_as_expected():
    assert len(YAMLS) == 2


def test_every_recipe_has_the_yaml_of_its_name():
    recipes = {p.stem for p in (ROOT / "recipes").glob("[!_]*.py")}
    assert recipes == {"keyword_spotting"}
    assert recipes <= {path.stem for path in YAMLS}


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
def test_the_yaml_builds_its_modules(path, tmp_path):
    overrides = {
        **PLACEHOLDERS,
        "model": "tiny",
        "output_folder": str(tmp_path),
    }
    with open(path) as stream:
        hparams = load_hyperpyyaml(stream, overrides)
    assert isinstance(hparams["backbone"], Backbone)
    assert set(hparams["modules"]) == {"backbone", "head"}
    recovered = set(hparams["checkpointer"].recoverables)
    assert {"backbone", "head", "epoch_counter"} <= recovered


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
def test_the_yaml_names_the_command_that_runs_it(path):
    command = f"python recipes/keyword_spotting.py hparams/{path.name}"
    assert command in path.read_text()
