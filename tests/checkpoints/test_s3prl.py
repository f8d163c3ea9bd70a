"""s3prl's checkpoints: what is read, converted, assumed, and refused."""

import pytest
import torch
from safetensors.torch import load_file
from speechbrain.inference.ASR import EncoderASR

from tests.checkpoints.s3prl_heads import (
    LAYERS,
    TDNN,
    UTTERANCE,
    D,
    frame_head,
    linear,
    lstm_head,
    phone_head,
    recurrent_head,
    saved,
    speaker_head,
    utterance_head,
)
from tests.huggingface import FAMILIES, save_folder, tiny_model
from unispeech_sb.checkpoints.s3prl import is_s3prl, read_s3prl
from unispeech_sb.convert import convert_checkpoint, to_huggingface
from unispeech_sb.convert.info import describe
from unispeech_sb.lobes.backbone import Backbone


@pytest.fixture
def path(tmp_path):
    """Where a file may be written."""
    return tmp_path / "dev-best.ckpt"


@pytest.mark.parametrize(
    ("head", "downstream", "vocabulary"),
    [
        (recurrent_head(), "asr", "superb_letters"),
        (recurrent_head(109), "ctc", None),  # slots
        (recurrent_head(32), "ctc", None),  # characters of another language
        (recurrent_head(40), "asr", None),
        (phone_head(), "ctc", "superb_phones"),
        (phone_head(73), "ctc", None),
    ],
)
def test_a_vocabulary_is_superbs_or_not_known(
    path, head, downstream, vocabulary
):
    found = read_s3prl(saved(head, path, {"downstream": downstream}), path, {})
    assert found.vocabulary == vocabulary
    assert found.labels is None and found.tokens is None
    text = "in s3prl's order" if vocabulary else "not in the file"
    assert any(text in note for note in found.notes)
    config = {
        "datarc": {"dict_path": "./downstream/asr/char.dict"},
        "text": {"vocab_file": "downstream/ctc/vocab/phoneme.txt"},
    }
    for files, expected in (
        (config, vocabulary),
        ({"datarc": {"dict_path": "b"}, "text": {"vocab_file": "c"}}, None),
    ):
        given = {"downstream_expert": files}
        args = {"downstream": downstream}
        objects = saved(head, path, args, Config=given)
        assert read_s3prl(objects, path, {}).vocabulary == expected


def test_a_head_of_slots_says_where_their_names_are(path):
    text = {
        "mode": "character-slot",
        "vocab_file": "downstream/ctc/vocab/character.txt",
        "slots_file": "/path/to/SNIPS/slots.txt",
    }
    config = {"downstream_expert": {"text": text}}
    args = {"downstream": "ctc"}
    objects = saved(recurrent_head(109), path, args, Config=config)
    notes = read_s3prl(objects, path, {}).notes
    assert any("in the slots.txt of the corpus" in note for note in notes)


@pytest.mark.parametrize(
    ("head", "downstream", "interface"),
    [
        (recurrent_head(), "asr", "EncoderASR"),
        (recurrent_head(109), "ctc", "WaveformEncoder"),
        (phone_head(), "ctc", "EncoderASR"),
        (lstm_head(), "diarization", "SpeakerDiarization"),
    ],
)
def test_recognition_and_diarization_become_folders(
    path, head, downstream, interface, tmp_path
):
    saved(head, path, {"downstream": downstream})
    body = tiny_model("unispeech-sat", hidden_size=D, num_hidden_layers=LAYERS)
    hf = save_folder(body, tmp_path / "hf")
    report = convert_checkpoint(path, tmp_path / "sb", backbone=hf)
    assert report.interface == interface
    assert describe(path).facts["converts for"].value == interface
    loaded = describe(tmp_path / "sb")
    if interface == "EncoderASR":
        labels = loaded.facts["labels"].value
        # s3prl's char.dict, and its list of phonemes
        expected = {18: "C", 19: "W"} if downstream == "asr" else {73: "ZH"}
        assert {i: labels[i] for i in expected} == expected
        asr = EncoderASR.from_hparams(source=str(tmp_path / "sb"))
        words, _ = asr.transcribe_batch(torch.randn(1, 8000), torch.ones(1))
        assert len(words) == 1


@pytest.mark.parametrize(
    ("head", "config", "message"),
    [
        (
            recurrent_head(),
            {"modelrc": {"RNNs": {"sample_rate": [1, 2], "total_rate": -1}}},
            "every frame; this one leaves frames out",
        ),
        (
            recurrent_head(109),
            {"model": {"RNNs": {"sample_rate": [1, 1], "total_rate": 640}}},
            "total_rate 640",
        ),
        (
            lstm_head(),
            {"datarc": {"frame_shift": 160}},
            "repeated ones, for labels of 160 samples",
        ),
    ],
)
def test_what_no_tensor_shows_is_in_the_configuration(
    path, head, config, message
):
    objects = saved(head, path, Config={"downstream_expert": config})
    with pytest.raises(ValueError, match=message):
        read_s3prl(objects, path, {})
    usual = {
        "modelrc": {"RNNs": {"sample_rate": [1, 1], "total_rate": -1}},
        "datarc": {"frame_shift": 320},
    }
    objects = saved(head, path, Config={"downstream_expert": usual})
    read_s3prl(objects, path, {})


def test_other_recurrent_layers_are_refused(path):
    gru = {
        f"model.rnn.{name}": tensor
        for name, tensor in torch.nn.GRU(D, 7).state_dict().items()
    }
    for head, message in (
        (
            gru | linear("model.linear", 7, 2),
            "expected LSTMs, .* got 21, as of",
        ),
        (
            recurrent_head() | {"model.rnns.0.ln.weight": torch.ones(10)},
            "unexpected model.rnns.0.ln.weight|unexpected layers.0.ln.weight",
        ),
        (
            {k: t for k, t in recurrent_head().items() if "reverse" not in k},
            "missing layers.0.bias_hh_l0_reverse",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            read_s3prl(saved(head, path), path, {})
    with pytest.raises(ValueError, match="expected no blank"):
        read_s3prl(saved(recurrent_head(), path), path, {"blank": 1})


@pytest.mark.parametrize(
    ("upstream", "eps"),
    [("unispeech_sat_large", 1e-5), ("hf_wav2vec2_custom", 1e-7)],
)
def test_waveforms_are_normalised_as_in_the_heads_training(
    upstream, eps, tmp_path
):
    path = tmp_path / "head.ckpt"
    objects = saved(utterance_head(), path, {"upstream": upstream})
    assert read_s3prl(objects, path, {}).config["normalize_eps"] == eps
    # the backbone's own epsilon is transformers'
    hf = save_folder(tiny_model("unispeech-sat"), tmp_path / "hf")
    convert_checkpoint(path, tmp_path / "sb", backbone=hf)
    found = Backbone.from_pretrained(tmp_path / "sb")
    assert found.normalize_eps == eps
    assert Backbone.from_pretrained(hf).normalize_eps == 1e-7


@pytest.mark.parametrize(
    ("upstream", "family"),
    [("wavlm_base_plus", "wavlm"), ("hubert_large_ll60k", "hubert"),
     ("xlsr_53", "wav2vec2"), ("my_own", "hubert")],
)  # fmt: skip
def test_a_head_is_of_the_family_of_its_upstream(upstream, family, tmp_path):
    path = tmp_path / "head.ckpt"
    saved(utterance_head(), path, {"upstream": upstream})
    hf = save_folder(tiny_model(family), tmp_path / "hf")
    convert_checkpoint(path, tmp_path / "sb", backbone=hf)
    facts = describe(tmp_path / "sb").facts
    assert facts["family"].value == family
    assert ("num_buckets" in facts) == (family == "wavlm")
    text = to_huggingface(tmp_path / "sb", tmp_path / "back")
    name = f"transformers.{FAMILIES[family]}ForSequenceClassification"
    assert name in text


@torch.no_grad()
def test_a_trained_upstream_comes_along(path, authors_folder):
    tensors = load_file(authors_folder / "sv_ecapa.safetensors")
    start = "state/feature_extract."
    upstream = {k[len(start) :]: t for k, t in tensors.items() if start in k}
    head = linear("model.linear", 32, 2)
    objects = saved(head, path, Upstream=upstream)
    found = read_s3prl(objects, path, {})
    assert len(found.backbone) + 5 == len(upstream)
    assert found.config["num_attention_heads"] == 4
    assert found.config["normalize_wav"] is True
    assert {"model.final_proj.bias", "Optimizer"} < found.dropped.keys()
    other_size = {"Downstream": frame_head()}
    other_depth = {"Featurizer": {"weights": torch.zeros(9)}}
    for wrong in (other_size, other_depth):
        with pytest.raises(ValueError, match="for a backbone of"):
            read_s3prl(objects | wrong, path, {})
    upstream["model.grep"] = torch.ones(1)
    with pytest.raises(ValueError, match="unexpected model.grep in Upstream"):
        read_s3prl(objects | {"Upstream": upstream}, path, {})


def test_facts_and_notes_say_what_was_assumed(path):
    found = read_s3prl(saved(speaker_head(), path), path, {})
    assert found.facts["upstream"].value == "unispeech_sat_base"
    assert found.facts["tdnn_lengths"].value == "exact"
    assert found.facts["num_hidden_layers"].value == LAYERS
    assert found.labels == [f"LABEL_{index}" for index in range(9)]
    assert found.dropped.keys() == {"best_score", "Optimizer"}
    assert any("relu: assumed false" in note for note in found.notes)
    given = read_s3prl(saved(speaker_head(), path), path, {"relu": True})
    assert not any("relu" in note for note in given.notes)
    intents = saved(utterance_head(), path, {"downstream": "fluent_commands"})
    notes = read_s3prl(intents, path, {}).notes
    assert any("three slots" in note for note in notes)


def test_without_weights_the_last_state_is_taken(path):
    found = read_s3prl(saved(frame_head(), path, Featurizer={}), path, {})
    assert found.config["use_weighted_layer_sum"] is False
    assert found.top.keys() == {"classifier.weight", "classifier.bias"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"model.rnn.weight_ih_l0": torch.ones(4, D)},
            "unexpected layers.0.weight_ih_l0",
        ),
        ({"model.linear.bias": None}, "missing classifier.bias"),
        ({"model.linear.gain": torch.ones(1)}, "unexpected classifier.gain"),
        ({"model.other.bias": torch.ones(1)}, "unexpected model.other.bias"),
        ({"model.linear.weight": torch.ones(3)}, "with 2 dimensions"),
        ({"model.linear.weight": 3}, "named tensors in Downstream"),
        (
            {"model.linear.weight": None, "model.linear.bias": None},
            "expected a head of keyword spotting",
        ),
    ],
)
def test_heads_that_do_not_convert_are_refused(change, message, path):
    head = {k: t for k, t in (frame_head() | change).items() if t is not None}
    with pytest.raises(ValueError, match=f"dev-best.ckpt: .*{message}"):
        read_s3prl(saved(head, path), path, {})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objective.W": None}, "expected a head of"),
        ({f"{TDNN}.4.kernel.bias": None}, "missing tdnn.4.kernel.bias"),
        ({f"{TDNN}.0.bn.weight": torch.ones(6)}, "unexpected tdnn.0.bn.weight"),
        ({f"{TDNN}.1.kernel.weight": torch.ones(6, 19)}, "whole frames of 6"),
        ({f"{TDNN}.1.kernel.weight": torch.ones(6, 30)}, "expected kernels"),
        ({f"{UTTERANCE}.linear1.weight": torch.ones(5, 7)}, "statistics of 14"),
    ],
)
def test_x_vectors_of_another_shape_are_refused(change, message, path):
    head = speaker_head() | change
    head = {name: t for name, t in head.items() if t is not None}
    with pytest.raises(ValueError, match=message):
        read_s3prl(saved(head, path), path, {})


@pytest.mark.parametrize(
    ("args", "parts", "message"),
    [
        ({"upstream_feature_normalize": True}, {}, "trained on normalised"),
        ({"upstream_layer_selection": 7}, {}, "trained on number 7"),
        ({}, {"Featurizer": {"gain": torch.ones(1)}}, "got gain"),
        ({}, {"Featurizer": {"weights": 1}}, "named tensors in Featurizer"),
        ({}, {"Upstream": [1]}, "named tensors in Upstream"),
    ],
)
def test_features_that_were_made_otherwise_are_refused(
    args, parts, message, path
):
    with pytest.raises(ValueError, match=message):
        read_s3prl(saved(frame_head(), path, args, **parts), path, {})


def test_only_files_with_a_downstream_are_s3prl_s():
    assert is_s3prl({"Downstream": {}})
    assert not is_s3prl({"model": {}}) and not is_s3prl(["Downstream"])
