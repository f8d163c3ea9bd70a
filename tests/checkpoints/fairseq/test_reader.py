"""The authors' checkpoints, as they are and as 2021 wrote them."""

import copy
import json

import pytest
import torch
import transformers
from safetensors.torch import load_file

from tests.checkpoints.fairseq.comparing import (
    CTC,
    SAT,
    STAGE1,
    backbone_of,
    restored,
    same_states,
)
from tests.huggingface import FAMILIES
from unispeech_sb.checkpoints.fairseq import (
    backbone_options,
    is_fairseq,
    read_fairseq,
    rename_backbone,
)
from unispeech_sb.checkpoints.fairseq.options import SPECIALS
from unispeech_sb.checkpoints.options import BACKBONE
from unispeech_sb.checkpoints.safety.pickles import read_objects
from unispeech_sb.checkpoints.safety.stubs import STUBS
from unispeech_sb.lobes.backbone import Backbone

HEADS = {"num_attention_heads": 4}


@pytest.mark.parametrize("name", [STAGE1, CTC, SAT])
def test_backbones_agree_with_transformers(name, authors_folder):
    path = authors_folder / name
    found = read_fairseq(read_objects(path), path)
    family = FAMILIES[found.family]
    config = getattr(transformers, family + "Config")(
        **{name: found.config[name] for name in BACKBONE}
    )
    model = getattr(transformers, family + "Model")(config).eval()
    model.load_state_dict(found.backbone, strict=True)
    wavs = torch.randn(2, 4000)
    given = wavs
    if found.config["normalize_wav"]:
        given = torch.nn.functional.layer_norm(wavs, wavs.shape[1:])
    with torch.no_grad():
        expected = model(given, output_hidden_states=True)
        output = backbone_of(found).encode(wavs, output_hidden_states=True)
    close = {"rtol": 1e-5, "atol": 1e-5}
    last = expected.last_hidden_state
    torch.testing.assert_close(output.last_hidden_state, last, **close)
    states = zip(output.hidden_states[:-1], expected.hidden_states[:-1])
    for state, reference in states:
        torch.testing.assert_close(state, reference, **close)


def test_renamed_weights_give_the_authors_hidden_states(authors_folder):
    recorded = load_file(authors_folder / "sv_ecapa.safetensors")
    state = {k.removeprefix("state/"): v for k, v in recorded.items()}
    backbone, _ = rename_backbone(state, "feature_extract.model.")
    config, _, _ = backbone_options(backbone, "sv_ecapa")
    own = Backbone.from_preset("tiny").config.keys()
    options = {k: v for k, v in config.items() if k in own}
    model = Backbone(**options, normalize_wav=True, output_all_hiddens=True)
    model.load_state_dict(backbone, strict=True)
    with torch.no_grad():
        states = model.eval()(recorded["in/wavs"])
    for index, found in enumerate(states):
        expected = recorded[f"out/hidden.{index}"]
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_first_stage(stage1, authors_folder):
    assert is_fairseq(stage1)
    found = read_fairseq(stage1, STAGE1)
    assert (found.origin, found.family) == ("fairseq", "unispeech")
    assert (found.task, found.dropped, found.notes) == (
        "ForPreTraining",
        {},
        [],
    )
    assert (len(found.tokens), found.blank_index) == (80, 76)
    assert found.tokens[:2] + found.tokens[-4:] == ["ʃ", "iː", *SPECIALS]
    expected = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "conv_bias": True,
        "conv_stride": [5, 2, 2, 2, 2, 2, 2],
        "do_stable_layer_norm": True,
        "normalize_wav": False,
        "normalize_eps": 1e-5,
        "last_state": "normed",
        "mask_rule": "fairseq",
        "mask_time_prob": 0.5,
        "layerdrop": 0.0,
        "replace_prob": 0.5,
        "final_dropout": 0.1,
        "num_ctc_classes": 80,
        "num_codevectors_per_group": 8,
        "num_codevector_groups": 2,
        "codevector_dim": 24,
        "proj_codevector_dim": 24,
    }
    assert {name: found.config[name] for name in expected} == expected
    assert found.config["gumbel_temperature"] == 2 * 0.999995**3
    heads = found.facts["num_attention_heads"]
    assert heads.source == "cfg.model.encoder_attention_heads"
    assert set(found.top) == {
        "quantizer.codevectors", "quantizer.weight_proj.weight",
        "quantizer.weight_proj.bias", "project_q.weight", "project_q.bias",
        "project_hid.weight", "project_hid.bias", "ctc_proj.weight",
        "ctc_proj.bias",
    }  # fmt: skip
    assert len(found.backbone) + len(found.top) == len(stage1["model"])


def test_fine_tuned_ctc_model(ctc):
    found = read_fairseq(ctc, CTC)
    assert (found.family, found.task) == ("unispeech", "ForCTC")
    assert (len(found.tokens), found.blank_index) == (45, 41)
    assert found.config["vocab_size"] == 45
    assert found.config["conv_bias"] is False  # lost by the second stage
    assert found.config["normalize_wav"] is True
    assert found.config["mask_time_prob"] == 0.75
    assert found.config["ctc_zero_infinity"] is True
    assert set(found.top) == {"lm_head.weight", "lm_head.bias"}
    source = found.facts["num_attention_heads"].source
    assert source == "assumed: groups of the positional convolution"
    assert "--set num_attention_heads=N" in found.notes[0]
    assert read_fairseq(ctc, CTC, HEADS).notes == []


def test_unispeech_sat(sat):
    found = read_fairseq(sat, SAT)
    assert (found.family, found.task) == ("unispeech-sat", "ForPreTraining")
    assert (found.tokens, found.blank_index) == (None, None)
    assert found.config["num_clusters"] == 24
    assert found.config["utterance_contrastive_layer"] == 1
    assert "cluster k is row k + 4" in found.notes[0]
    assert {"layer_norm_for_extract.weight", "speaker_proj.weight",
            "label_embeddings_concat"} <= set(found.top)  # fmt: skip
    assert len(found.backbone) + len(found.top) == len(sat["model"])


def second_stage(content):
    """The second stage, as the authors' options make it of the first."""
    prefix = "w2v_encoder.w2v_model."
    content["model"] = {
        name.removeprefix(prefix): tensor
        for name, tensor in content["model"].items()
        if name.startswith(prefix)
        and not (".conv_layers." in name and name.endswith(".0.bias"))
    }
    content["cfg"]["model"]["_name"] = "wav2vec2"
    content["cfg"]["task"]["normalize"] = True
    content["task_state"] = {}
    return content


def test_second_stage_loses_the_biases_of_the_first(stage1):
    found = read_fairseq(second_stage(stage1), "x.pt")
    assert found.task == "ForPreTraining"
    assert found.config["conv_bias"] is False
    assert found.notes == [
        "conv_bias: the options say true, but the file has no biases (the "
        "authors' second stage drops those of the first); followed the file"
    ]
    assert "ctc_proj.weight" not in found.top
    assert found.config["normalize_wav"] is True


def fine_tuned(stage1):
    """A CTC model of the first stage: what pre-trained it is still there."""
    stage1["cfg"]["model"] = {
        "_name": "wav2vec_ctc", "w2v_args": None, "layerdrop": 0.1,
    }  # fmt: skip
    return stage1


def test_ctc_model_of_the_first_stage_drops_what_pre_trained_it(stage1):
    found = read_fairseq(fine_tuned(stage1), "x.pt", HEADS)
    assert found.task == "ForCTC"
    assert set(found.top) == {"lm_head.weight", "lm_head.bias"}
    assert len(found.dropped) == 7
    assert all("left over" in reason for reason in found.dropped.values())


def test_options_of_the_fine_tuned_model_are_used_and_checked(stage1):
    before = copy.deepcopy(stage1["cfg"]["model"])
    content = fine_tuned(stage1)
    for args in ({"model": before}, {**before, "arch": before["_name"]}):
        content["cfg"]["model"]["w2v_args"] = args
        found = read_fairseq(content, "x.pt")
        assert found.facts["num_attention_heads"] == (
            4, "cfg.model.w2v_args.encoder_attention_heads",
        )  # fmt: skip
        assert found.config["layerdrop"] == 0.1  # fine-tuning's own
        assert found.notes == []
    before["encoder_layers"] = 3
    content["cfg"]["model"]["w2v_args"] = {"model": before}
    with pytest.raises(ValueError, match="num_hidden_layers 2 .*; got 3"):
        read_fairseq(content, "x.pt")
    before.update(encoder_layers=2, _name="data2vec")
    with pytest.raises(ValueError, match="from one of unispeech, .*; got one"):
        read_fairseq(content, "x.pt")


def test_ctc_model_of_unispeech_sat(sat):
    model = {f"w2v_encoder.w2v_model.{k}": v for k, v in sat["model"].items()}
    model["w2v_encoder.proj.weight"] = torch.randn(6, 32)
    model["w2v_encoder.proj.bias"] = torch.randn(6)
    letters = STUBS["fairseq.data.dictionary.Dictionary"]()
    letters.__setstate__({"symbols": [*SPECIALS, "|", "E"], "bos_index": 0})
    content = {
        **sat,
        "model": model,
        "cfg": {
            "model": {"_name": "hubert_ctc", "w2v_args": sat["cfg"]},
            "task": {"normalize": True, "sample_rate": 16000},
        },
        "task_state": {"dictionaries": [letters]},
    }
    found = read_fairseq(content, "x.pt")
    assert (found.family, found.task) == ("unispeech-sat", "ForCTC")
    assert (found.tokens, found.blank_index) == ([*SPECIALS, "|", "E"], 0)
    assert "specials first" in found.facts["blank_index"].source
    assert len(found.dropped) == 12
    assert same_states(found, read_fairseq(sat, SAT))


def test_post_norm_model_with_group_norm(authors_folder):
    base = "unispeech_sat_base"
    recorded = load_file(authors_folder / f"{base}.safetensors")
    cfg = json.loads((authors_folder / f"{base}.json").read_text())["cfg"]
    model = {
        name.removeprefix("state/"): tensor
        for name, tensor in recorded.items()
        if name.startswith("state/")
    }
    content = {
        "cfg": {"model": {**cfg, "_name": "unispeech_sat"},
                "task": {"normalize": False}},
        "model": model,
        "optimizer_history": [],
    }  # fmt: skip
    found = read_fairseq(content, base)
    assert found.config["feat_extract_norm"] == "group"
    assert found.config["do_stable_layer_norm"] is False
    assert "layer_norm_for_extract.weight" not in found.top
    backbone_of(found)


def test_files_without_a_dictionary_take_one(ctc, tmp_path):
    symbols = read_fairseq(ctc, CTC).tokens[:-4]
    restored(ctc)
    found = read_fairseq(ctc, "x.pt", HEADS)
    assert (found.tokens, found.blank_index) == (None, None)
    assert "--set dictionary=PATH" in found.notes[0]
    path = tmp_path / "vocab.json"
    path.write_text(json.dumps({s: i for i, s in enumerate(symbols)}))
    found = read_fairseq(ctc, "x.pt", {"dictionary": str(path)})
    assert (found.tokens, found.blank_index) == ([*symbols, *SPECIALS], 41)
    assert "dictionary" not in found.config
    path.write_text(json.dumps({"a": 0}))
    with pytest.raises(ValueError, match="expected 45 symbols in .*; got 5"):
        read_fairseq(ctc, "x.pt", {"dictionary": str(path)})


def test_no_projection_between_equal_sizes(stage1):
    model, wide = stage1["model"], {}
    prefix = "w2v_encoder.w2v_model."
    for name in (prefix + "post_extract_proj.weight",
                 prefix + "post_extract_proj.bias"):  # fmt: skip
        del model[name]
    for leaf in ("0.weight", "0.bias", "2.1.weight", "2.1.bias"):
        name = f"{prefix}feature_extractor.conv_layers.6.{leaf}"
        wide[name] = model[name].repeat(2, *[1] * (model[name].dim() - 1))
    for name in (prefix + "layer_norm.weight", prefix + "layer_norm.bias"):
        wide[name] = model[name].repeat(2)
    model.update(wide)
    layers = "[(16,10,5)] + [(16,3,2)] * 4 + [(16,2,2)] + [(32,2,2)]"
    stage1["cfg"]["model"]["conv_feature_layers"] = layers
    found = read_fairseq(stage1, "x.pt")
    assert "an identity was added" in found.notes[0]
    backbone = backbone_of(found)
    feats = torch.randn(1, 5, 32)
    projected, normed = backbone.feature_projection(feats)
    torch.testing.assert_close(projected, normed)


def test_what_has_no_class_is_left_out_or_refused(stage1, sat):
    stage1["model"]["w2v_encoder.w2v_model.q2h_proj.weight"] = torch.ones(2)
    found = read_fairseq(stage1, "x.pt")
    assert (found.task, found.top) == ("Model", {})
    assert "July 2021" in found.dropped["w2v_encoder.proj.weight"]
    sat["model"]["final_proj.weight"] = torch.ones(48, 32)
    found = read_fairseq(sat, "x.pt")
    assert (found.task, found.top) == ("Model", {})
    assert "several sets of labels" in found.dropped["label_embs_concat"]
    name = "encoder.layers.0.self_attn.relative_attention_bias.weight"
    sat["model"][name] = torch.ones(320, 4)
    assert read_fairseq(sat, "x.pt").config["num_buckets"] == 320
    sat["model"][name] = torch.ones(320)
    with pytest.raises(ValueError, match="rel_attn_embed.* with 2 dimensions"):
        read_fairseq(sat, "x.pt")


def test_other_files_are_no_fairseq_checkpoints():
    for objects in (None, [], {}, {"model": {}}, {"Args": 1, "Config": 2}):
        assert not is_fairseq(objects)
