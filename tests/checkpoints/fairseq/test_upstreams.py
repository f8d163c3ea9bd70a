"""s3prl's upstreams: the options in one place, and no name of a model."""

import pytest
import torch

from tests.fuzz.files import as_fairseq
from unispeech_sb.checkpoints.source import read_checkpoint
from unispeech_sb.convert import convert_checkpoint
from unispeech_sb.lobes.backbone import Backbone

SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "conv_dim": [8] * 7,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 4,
}
KINDS = {
    "base": {},
    "large": {"feat_extract_norm": "layer", "do_stable_layer_norm": True},
}


def upstream(path, kind="base", **changes):
    """A file as ``unispeech_sat_base.pt`` and others are; the backbone."""
    backbone = Backbone.from_preset(
        "tiny", **SIZES, **KINDS[kind], output_all_hiddens=True
    ).eval()
    large = kind == "large"
    cfg = {
        "extractor_mode": "layer_norm" if large else "default",
        "encoder_layers": 2,
        "encoder_embed_dim": 16,
        "encoder_ffn_embed_dim": 24,
        "encoder_attention_heads": 4,
        "activation_fn": "gelu",
        "layer_norm_first": large,
        "conv_feature_layers": "[(8,10,5)] + [(8,3,2)] * 4 + [(8,2,2)] * 2",
        "conv_bias": False,
        "feature_grad_mult": 0.1,
        "normalize": large,
        "dropout": 0.1,
        "attention_dropout": 0.1,
        "activation_dropout": 0.0,
        "encoder_layerdrop": 0.05,
        "dropout_input": 0.1,
        "dropout_features": 0.1,
        "mask_length": 10,
        "mask_prob": 0.8,
        "mask_selection": "static",
        "mask_other": 0.0,
        "no_mask_overlap": False,
        "mask_min_space": 1,
        "mask_channel_length": 10,
        "mask_channel_prob": 0.0,
        "conv_pos": 8,
        "conv_pos_groups": 4,
        "relative_position_embedding": False,
        "num_buckets": 320,
        "max_distance": 1280,
        "gru_rel_pos": False,
    }
    model = as_fairseq(backbone.state_dict())
    torch.save({"cfg": {**cfg, **changes}, "model": model}, path)
    return backbone


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_an_upstream_of_s3prl_is_a_backbone(kind, tmp_path):
    path = tmp_path / f"unispeech_sat_{kind}.pt"
    theirs = upstream(path, kind)
    found = read_checkpoint(path)
    assert (found.origin, found.family) == ("s3prl", "unispeech-sat")
    assert (found.task, found.top, found.dropped) == ("Model", {}, {})
    assert found.config["normalize_wav"] is (kind == "large")
    assert found.config["layerdrop"] == 0.05
    assert found.config["mask_rule"] == "hf"
    ours = Backbone.from_pretrained(path, output_all_hiddens=True).eval()
    wavs = torch.randn(2, 4000)
    given = wavs
    if kind == "large":
        given = torch.nn.functional.layer_norm(wavs, wavs.shape[1:])
    torch.testing.assert_close(ours(wavs), theirs(given))
    report = convert_checkpoint(path, tmp_path / "folder")
    assert report.interface == "WaveformEncoder"


@torch.no_grad()
def test_an_utterance_of_an_upstream_is_the_same_in_a_batch(tmp_path):
    path = tmp_path / "unispeech_sat_base.pt"
    upstream(path)
    model = Backbone.from_pretrained(path, output_all_hiddens=True).eval()
    wavs = torch.randn(2, 4000)
    wavs[1, 2000:] = 0
    found = model(wavs, torch.tensor([1.0, 0.5]))[:, 1]
    alone = model(wavs[1:, :2000])[:, 0]
    torch.testing.assert_close(
        found[:, : alone.shape[1]], alone, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder_embed_dim": 32}, "encoder_embed_dim"),
        ({"layer_norm_first": None, "extractor_mode": "x"}, "extractor_mode"),
        ({"normalize": None}, "expected normalize among its options"),
        ({"conv_feature_layers": "exit()"}, "lists and numbers only"),
        ({"_name": "wavlm"}, "got 'wavlm'"),
    ],
)
def test_what_is_no_upstream_is_refused(tmp_path, changes, message):
    path = tmp_path / "upstream.pt"
    upstream(path, **changes)
    with pytest.raises(ValueError, match=message):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("encoder.layers.0.self_attn.grep_a", "without relative positions"),
        ("final_proj.weight", "unexpected final_proj.weight"),
        ("decoder.weight", "unexpected decoder.weight"),
    ],
)
def test_wavlm_and_others_of_its_form_are_refused(tmp_path, name, message):
    path = tmp_path / "WavLM-Base.pt"
    upstream(path)
    content = torch.load(path)
    content["model"][name] = torch.ones(4, 16)
    torch.save(content, path)
    with pytest.raises(ValueError, match=message):
        read_checkpoint(path)
