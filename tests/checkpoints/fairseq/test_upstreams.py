"""WavLM's files and s3prl's upstreams: options in one place, or two, and no
name of a model."""

import pytest
import torch
import transformers
from transformers import AutoModel

from tests.fuzz.files import as_fairseq
from unispeech_sb.checkpoints.source import read_checkpoint
from unispeech_sb.convert import convert_checkpoint, to_huggingface
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
    "wavlm": {"num_buckets": 12, "max_bucket_distance": 9},
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
        "relative_position_embedding": kind == "wavlm",
        "num_buckets": 12 if kind == "wavlm" else 320,
        "max_distance": 9 if kind == "wavlm" else 1280,
        "gru_rel_pos": kind == "wavlm",
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
    family = "wavlm" if kind == "wavlm" else "unispeech-sat"
    assert (found.origin, found.family) == ("s3prl", family)
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
    text = to_huggingface(tmp_path / "folder", tmp_path / "hf")
    name = {"wavlm": "WavLM", "unispeech-sat": "UniSpeechSat"}[family]
    assert f"transformers.{name}Model" in text
    model = AutoModel.from_pretrained(tmp_path / "hf").eval()
    torch.testing.assert_close(
        model(given).last_hidden_state, ours(wavs)[-1], rtol=1e-5, atol=1e-5
    )


CONVERTED = {
    "wav2vec2": ("wav2vec2", {"dictionaries_symbols": None}),
    "hubert": ("hubert", {"dictionaries_symbols": [["<s>", "<pad>"]]}),
}


@torch.no_grad()
@pytest.mark.parametrize("name", CONVERTED)
@pytest.mark.parametrize("by_s3prl", [False, True])
def test_wav2vec2_and_hubert_come_as_fairseq_and_s3prl_have_them(
    name, by_s3prl, tmp_path
):
    path = tmp_path / "model.pt"
    theirs = upstream(path)
    content = torch.load(path)
    model, cfg = content["model"], {"_name": name, **content["cfg"]}
    objective = {"final_proj.weight": torch.ones(8, 16)}
    objective["final_proj.bias"] = torch.ones(8)
    objective |= {
        "wav2vec2": {
            "quantizer.vars": torch.ones(1, 12, 4),
            "quantizer.weight_proj.weight": torch.ones(12, 8),
            "quantizer.weight_proj.bias": torch.ones(12),
            "project_q.weight": torch.ones(8, 8),
            "project_q.bias": torch.ones(8),
        },
        "hubert": {"label_embs_concat": torch.ones(9, 8)},
    }[name]
    task = {"normalize": cfg.pop("normalize"), "sample_rate": 16000}
    content = {"cfg": {"model": cfg, "task": task}, "model": model | objective}
    if by_s3prl:
        content = {
            "task_cfg": task, "model_cfg": cfg, "model_weight": content["model"]
        }  # fmt: skip
    torch.save(content, path)
    found = read_checkpoint(path)
    assert found.family == name
    assert found.origin == ("s3prl" if by_s3prl else "fairseq")
    assert found.config["mask_rule"] == ("hf" if by_s3prl else "fairseq")
    assert len(found.dropped) == (3 if name == "hubert" else 0)
    wavs = torch.randn(2, 4000)
    ours = Backbone.from_pretrained(path, output_all_hiddens=True).eval()
    torch.testing.assert_close(ours(wavs), theirs(wavs))
    convert_checkpoint(path, tmp_path / "folder")
    text = to_huggingface(tmp_path / "folder", tmp_path / "hf")
    task = "Wav2Vec2ForPreTraining" if name == "wav2vec2" else "HubertModel"
    assert f"transformers.{task}\n" in text
    _, info = getattr(transformers, task).from_pretrained(
        tmp_path / "hf", output_loading_info=True
    )
    assert not any(info.values()), info


@pytest.mark.parametrize(
    ("model", "ctc"), [("wav2vec2", "wav2vec_ctc"), ("hubert", "hubert_ctc")]
)
def test_a_ctc_model_is_of_the_family_that_was_fine_tuned(model, ctc, tmp_path):
    path = tmp_path / "model.pt"
    upstream(path)
    content = torch.load(path)
    prefix = "w2v_encoder.w2v_model."
    tensors = {prefix + n: tensor for n, tensor in content["model"].items()}
    tensors |= {
        "w2v_encoder.proj.weight": torch.ones(5, 16),
        "w2v_encoder.proj.bias": torch.ones(5),
    }
    begun = {"model": {**content["cfg"], "_name": model}}
    cfg = {
        "model": {"_name": ctc, "w2v_args": begun},
        "task": {"normalize": False},
    }
    torch.save({"cfg": cfg, "model": tensors}, path)
    found = read_checkpoint(path)
    assert (found.family, found.task) == (model, "ForCTC")


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
        ({"_name": "data2vec"}, "got 'data2vec'"),
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
        ("encoder.layers.0.self_attn.grep_a", "gru_rel_pos_const"),
        ("final_proj.weight", "unexpected final_proj.weight"),
        ("decoder.weight", "unexpected decoder.weight"),
    ],
)
def test_others_of_its_form_are_refused(tmp_path, name, message):
    path = tmp_path / "Other-Base.pt"
    upstream(path)
    content = torch.load(path)
    content["model"][name] = torch.ones(4, 16)
    torch.save(content, path)
    with pytest.raises(ValueError, match=message):
        Backbone.from_pretrained(path)
