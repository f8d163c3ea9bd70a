"""Every yaml builds, and every recipe has one."""

import re

import pytest
import yaml
from hyperpyyaml import load_hyperpyyaml, resolve_references

from tests.conftest import ROOT
from unispeech_sb.lobes.backbone import Backbone

YAMLS = sorted((ROOT / "hparams").glob("*.yaml"))
UNTRAINED = ("make_units", "query_by_example", "query_by_example_superb")
TRAINING = [path for path in YAMLS if path.stem not in UNTRAINED]
REQUIRED = ("data_folder", "test_folder", "lexicon", "trials", "units_folder")
PLACEHOLDERS = {name: name for name in REQUIRED}


def modules_of(path):
    """Modules that a yaml builds before the recipe knows the corpus."""
    if path.stem.startswith("pretrain_"):
        return set()  # the objective holds all of them
    if "\nhead: !name:" in path.read_text():
        return {"backbone"}  # the recipe builds the head
    return {"backbone", "head"}


def recipe_of(path):
    """Name of the recipe that a yaml is for."""
    return re.sub("_(superb|large|vc|base|continued)$", "", path.stem)


def test_there_are_as_many_as_expected():
    assert len(YAMLS) >= 23


def test_every_recipe_has_the_yaml_of_its_name():
    recipes = {p.stem for p in (ROOT / "recipes").glob("[!_]*.py")}
    assert len(recipes) >= 10
    assert recipes == {recipe_of(path) for path in YAMLS}
    assert recipes <= {path.stem for path in YAMLS}


@pytest.mark.parametrize("path", TRAINING, ids=lambda path: path.stem)
def test_the_yaml_builds_its_modules(path, tmp_path):
    text = path.read_text()
    overrides = {
        **{k: v for k, v in PLACEHOLDERS.items() if f"\n{k}:" in text},
        "model": "tiny",
        "output_folder": str(tmp_path),
    }
    hparams = load_hyperpyyaml(text, overrides)
    assert isinstance(hparams["backbone"], Backbone)
    assert set(hparams["modules"]) == modules_of(path)
    recovered = set(hparams["checkpointer"].recoverables)
    assert modules_of(path) | {"backbone", "epoch_counter"} <= recovered


@pytest.mark.parametrize("stem", UNTRAINED)
def test_a_yaml_without_training_builds_a_frozen_backbone(stem):
    text = (ROOT / "hparams" / f"{stem}.yaml").read_text()
    hparams = load_hyperpyyaml(text, {"data_folder": "x", "model": "tiny"})
    backbone = hparams["make_backbone"]()
    assert not any(p.requires_grad for p in backbone.parameters())


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
def test_results_of_other_data_go_elsewhere(path):
    """By default; as those of another seed and those of another yaml."""
    text = path.read_text()
    own = {k: v for k, v in PLACEHOLDERS.items() if f"\n{k}:" in text}
    key = "units_folder" if "units_folder" in own else "data_folder"
    if path.stem == "make_units":
        key = "data_folder"

    def folders(data, seed):
        given = {**own, key: data, "seed": seed}
        found = yaml.compose(resolve_references(text, given))
        values = {name.value: node.value for name, node in found.value}
        assert values["save_folder"] == f"{values['output_folder']}/save"
        return values["output_folder"]

    assert folders("/a/my_data", 5) == f"results/{path.stem}/my_data/5"
    assert folders(["cv/es", "ky.csv"], 6) == f"results/{path.stem}/es+ky/6"


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
def test_the_yaml_names_the_command_that_runs_it(path):
    command = f"python recipes/{recipe_of(path)}.py hparams/{path.name}"
    text = path.read_text().replace("\\\n#", " ")
    assert command in " ".join(text.split())
