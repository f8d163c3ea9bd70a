"""Every name has one counterpart, there and back."""

import pytest
import torch

from unispeech_sb.checkpoints.fairseq.names import (
    BACKBONE,
    TOP,
    rename,
    rename_backbone,
)
from unispeech_sb.lobes.backbone import Backbone


def backward(name, group_norm):
    """fairseq's name of a tensor of ``Backbone``, by the same table."""
    table = dict(BACKBONE)
    del table["feature_extractor.conv_layers.*.2" + ".1" * group_norm]
    return rename(name, {ours: theirs for theirs, ours in table.items()})


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_names_of_the_backbone_go_there_and_back(norm):
    backbone = Backbone.from_preset(
        "tiny", feat_extract_norm=norm, conv_bias=True
    )
    ours = backbone.state_dict()
    theirs = {"w." + backward(name, norm == "group"): name for name in ours}
    assert len(theirs) == len(ours)
    found, rest = rename_backbone({**theirs, "w.final_proj.bias": 0}, "w.")
    assert found == {name: name for name in ours}
    assert rest == {"w.final_proj.bias": 0}


def test_tables_can_be_inverted():
    assert len(set(TOP.values())) == len(TOP)
    twice = [name for name in BACKBONE if name.endswith((".*.2", ".*.2.1"))]
    assert len(set(BACKBONE.values())) == len(BACKBONE) - len(twice) + 1


def test_other_names_are_no_part_of_the_backbone():
    for name in (
        "encoder.layers.0.self_attn.grep_a",
        "encoder.layers.0.fc1.scale",
        "encoder.layers.x.fc1.weight",
        "encoder.layers.0.1.fc1.weight",
        "quantizer.vars",
        "",
    ):
        assert rename(name, BACKBONE) is None
        assert rename_backbone({name: torch.ones(1)})[1].keys() == {name}
