"""Every lobe is found by SpeechBrain's name."""

import importlib
import inspect
import pydoc

import pytest
from hyperpyyaml import load_hyperpyyaml
from torch import nn

from unispeech_sb.checkpoints.files import public_path
from unispeech_sb.lobes import unispeech

NAME = "speechbrain.lobes.models.unispeech"


def test_no_public_lobe_is_forgotten():
    found = set()
    for part in ("backbone", "heads", "pretraining", "wav2vec2"):
        module = importlib.import_module(f"unispeech_sb.lobes.{part}")
        found |= {
            name
            for name, value in vars(module).items()
            if inspect.isclass(value)
            and issubclass(value, nn.Module)
            and value.__module__.startswith(module.__name__)
        }
    assert found | {"Wav2Vec2"} == set(unispeech.__all__)


@pytest.mark.parametrize("name", unispeech.__all__)
def test_speechbrains_name_is_the_same_class(name):
    assert pydoc.locate(f"{NAME}.{name}") is getattr(unispeech, name)


@pytest.mark.parametrize("name", unispeech.__all__)
def test_files_name_the_short_path_and_the_source_can_be_read(name):
    lobe = getattr(unispeech, name)
    assert inspect.getsource(lobe).startswith(
        (f"class {name}(", f"class {name}:")
    )
    if name == "Wav2Vec2":  # what it builds is a Backbone
        return
    path = public_path(lobe)
    assert pydoc.locate(path) is lobe
    assert path.count(".") == 3 and path.startswith("unispeech_sb.lobes.")


def test_a_yaml_builds_by_speechbrains_name():
    yaml = f"""
head: !new:{NAME}.UtteranceHead
    input_size: 4
    num_classes: 3
"""
    head = load_hyperpyyaml(yaml)["head"]
    assert type(head) is unispeech.UtteranceHead


@pytest.mark.parametrize("options", ["source", "hub"])
def test_the_lobes_that_swap_one_line_are_found_too(options, tmp_path):
    unispeech.Backbone.from_preset("tiny").save(tmp_path / "backbone.ckpt")
    name = {"source": "Wav2Vec2", "hub": "WeightedSSLModel"}[options]
    yaml = f"lobe: !new:{NAME}.{name}\n    {options}: {tmp_path}\n"
    lobe = load_hyperpyyaml(yaml)["lobe"]
    assert isinstance(lobe.model, unispeech.Backbone)


def test_other_names_are_left_alone():
    assert pydoc.locate("speechbrain.lobes.models.unispeech_sat") is None


def test_the_import_system_keeps_working():
    importlib.invalidate_caches()  # what pip, pytest and notebooks call
