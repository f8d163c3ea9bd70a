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
    for part in ("backbone", "heads", "pretraining"):
        module = importlib.import_module(f"unispeech_sb.lobes.{part}")
        found |= {
            name
            for name, value in vars(module).items()
            if inspect.isclass(value)
            and issubclass(value, nn.Module)
            and value.__module__.startswith(module.__name__)
        }
    assert found == set(unispeech.__all__)


@pytest.mark.parametrize("name", unispeech.__all__)
def test_speechbrains_name_is_the_same_class(name):
    assert pydoc.locate(f"{NAME}.{name}") is getattr(unispeech, name)


@pytest.mark.parametrize("name", unispeech.__all__)
def test_files_name_the_short_path_and_the_source_can_be_read(name):
    lobe = getattr(unispeech, name)
    path = public_path(lobe)
    assert pydoc.locate(path) is lobe
    assert path.count(".") == 3 and path.startswith("unispeech_sb.lobes.")
    assert inspect.getsource(lobe).startswith(f"class {name}(")


def test_a_yaml_builds_by_speechbrains_name():
    yaml = f"""
head: !new:{NAME}.UtteranceHead
    input_size: 4
    num_classes: 3
"""
    head = load_hyperpyyaml(yaml)["head"]
    assert type(head) is unispeech.UtteranceHead


def test_other_names_are_left_alone():
    assert pydoc.locate("speechbrain.lobes.models.unispeech_sat") is None


def test_the_import_system_keeps_working():
    importlib.invalidate_caches()  # what pip, pytest and notebooks call
