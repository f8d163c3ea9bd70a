"""fairseq's names and sizes of a backbone's tensors."""

import pytest
import torch

from unispeech_sb.checkpoints.checkpoint import Fact
from unispeech_sb.checkpoints.fairseq import backbone_options, complete_backbone
from unispeech_sb.checkpoints.fairseq.tensors import (
    BACKBONE,
    CONSTANTS,
    TOP,
    rename,
    rename_backbone,
)
from unispeech_sb.lobes.backbone import PRESETS, Backbone


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
        "encoder.layers.0.self_attn.bias_k",
        "encoder.layers.0.fc1.scale",
        "encoder.layers.x.fc1.weight",
        "encoder.layers.0.1.fc1.weight",
        "quantizer.vars",
        "",
    ):
        assert rename(name, BACKBONE) is None
        assert rename_backbone({name: torch.ones(1)})[1].keys() == {name}


PUBLISHED = [name for name in PRESETS if name.startswith("unispeech")]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes_are_read_off_the_tensors(name):
    with torch.device("meta"):
        backbone = Backbone.from_preset(name)
    config, facts, notes = backbone_options(backbone.state_dict(), "x.pt")
    assert notes == []
    assert config == {key: fact.value for key, fact in facts.items()}
    same = {k: v for k, v in backbone.config.items() if k not in CONSTANTS}
    for key, value in config.items():
        if key not in CONSTANTS:
            plain = list(value) if isinstance(value, (list, tuple)) else value
            assert plain == (
                list(same[key]) if isinstance(same[key], tuple) else same[key]
            )
    assert {key: config[key] for key in CONSTANTS} == CONSTANTS


@pytest.fixture
def tensors():
    """A backbone of 16 channels, too few for the rule on heads."""
    return Backbone.from_preset("tiny").state_dict()


def test_what_is_assumed_is_said_and_can_be_set(tensors):
    config, facts, notes = backbone_options(tensors, "x.pt")
    assert "assumed" in facts["num_attention_heads"].source
    assert any("num_attention_heads: assumed" in note for note in notes)
    given = {"num_attention_heads": 8, "last_state": "raw"}
    config, facts, notes = backbone_options(tensors, "x.pt", given)
    assert config["num_attention_heads"] == 8
    assert facts["last_state"] == Fact("raw", "given")
    assert not any("num_attention_heads" in note for note in notes)
    known = {"num_attention_heads": Fact(2, "cfg")}
    assert backbone_options(tensors, "x", {}, known)[0] == {
        **config, "num_attention_heads": 2, "last_state": "normed",
    }  # fmt: skip
    assert backbone_options(tensors, "x", given, known)[0] == config


def test_what_contradicts_the_tensors_is_refused(tensors):
    with pytest.raises(ValueError, match="expected hidden_size 16 .*; got 17"):
        backbone_options(tensors, "x.pt", {"hidden_size": 17})
    known = {"num_hidden_layers": Fact(24, "cfg.model.encoder_layers")}
    with pytest.raises(ValueError, match="got 24 .cfg.model.encoder_layers"):
        backbone_options(tensors, "x.pt", {}, known)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("encoder.layers.0.attention.q_proj.weight"), "no enc"),
        (
            lambda t: [t.pop(k) for k in list(t) if "encoder.layers.0." in k],
            "hidden_layers numbered 0 to 0; the last is 1",
        ),
        (
            lambda t: t.update(
                {"feature_extractor.conv_layers.1.conv.bias": torch.ones(8)}
            ),
            "a bias in every convolution or in none",
        ),
        (
            lambda t: t.update(
                {"encoder.layers.0.attention.q_proj.weight": torch.ones(16)}
            ),
            r"with 2 dimensions; got \[16\]",
        ),
        (
            lambda t: t.update(
                {
                    "encoder.pos_conv_embed.conv.parametrizations.weight."
                    "original1": torch.ones(16, 5, 4)
                }
            ),
            r"got \[16, 5, 4\]",
        ),
    ],
)
def test_missing_or_misshapen_tensors_are_named(tensors, change, message):
    change(tensors)
    with pytest.raises(ValueError, match=f"x.pt: expected .*{message}"):
        backbone_options(tensors, "x.pt")


def test_a_projection_between_equal_sizes_is_the_identity(tensors):
    assert complete_backbone(dict(tensors)) == []
    weight = "feature_projection.projection.weight"
    norm = "feature_projection.layer_norm.weight"
    del tensors[weight], tensors["feature_projection.projection.bias"]
    tensors[norm] = torch.ones(16).half()
    assert "identity was added" in complete_backbone(tensors)[0]
    assert torch.equal(tensors[weight], torch.eye(16).half())
