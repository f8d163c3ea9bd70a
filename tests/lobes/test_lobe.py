"""What a lobe keeps of its constructor, and builds itself from again."""

import inspect

import pytest
from torch import nn

from unispeech_sb.lobes import heads
from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.lobes.lobe import Lobe, constructor_arguments

SIZES = {
    "UtteranceHead": (16, 4),
    "FrameHead": (16, 4),
    "RecurrentHead": (16, 4),
    "ProjectedFrameHead": (16, 4),
    "DiarizationHead": (16,),
    "EENDVCHead": (16, 3),
    "UniSpeechHead": (16, 8, (2, 4, 6), 12),
    "UniSpeechSATHead": (16, 9, 12, (2, 4, 6)),
    "SpeakerHead": (16, (8, 8), (3, 1), (1, 1)),
    "ECAPAHead": (16, 3),
    "StatisticsHead": (16, 3),
    "AMSoftmax": (6, 3),
    "AAMSoftmax": (6, 3),
}


class Toy(Lobe):
    """With a sequence, and a module that is none of its arguments."""

    def __init__(self, size, kernels=(3, 1), name="a", act=None):
        super().__init__(constructor_arguments(locals(), "act"))
        later = size + 1
        self.layer = nn.Linear(size, later)


def test_arguments_are_kept_with_defaults_and_as_plain_data():
    expected = {"size": 2, "kernels": [3, 1], "name": "a"}
    assert Toy(2, act=nn.ReLU()).config == expected
    assert Toy(size=2, name=None).config == expected | {"name": None}


def test_every_lobe_is_listed():
    lobes = {
        name
        for name in heads.__all__
        if isinstance(getattr(heads, name), type)
        and issubclass(getattr(heads, name), Lobe)
    }
    assert lobes == set(SIZES)


@pytest.mark.parametrize("name", SIZES)
def test_heads_are_built_again_from_what_they_keep(name):
    cls = getattr(heads, name)
    head = cls(*SIZES[name])
    known = [*inspect.signature(cls).parameters]
    assert [*head.config] == [key for key in known if key != "spec_augment"]
    again = cls(**head.config)
    assert again.config == head.config
    shapes, others = (
        {key: tensor.shape for key, tensor in each.state_dict().items()}
        for each in (head, again)
    )
    assert shapes == others


def test_a_backbone_keeps_all_its_options():
    backbone = Backbone.from_preset("tiny", conv_dim=(8,) * 7)
    assert [*backbone.config] == [*inspect.signature(Backbone).parameters]
    assert backbone.config["conv_dim"] == [8] * 7
    assert Backbone(**backbone.config).config == backbone.config
