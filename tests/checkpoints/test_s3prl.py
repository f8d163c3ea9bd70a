"""s3prl's heads: its own formulas, and transformers with the same weights."""

from argparse import Namespace

import pytest
import torch
from safetensors.torch import load_file
from speechbrain.inference.ASR import EncoderASR
from torch.nn import functional as F

from tests.huggingface import (
    FAMILIES,
    save_folder,
    tiny_config,
    tiny_model,
)
from unispeech_sb.checkpoints.files import load_strict
from unispeech_sb.checkpoints.huggingface import split_heads
from unispeech_sb.checkpoints.s3prl import is_s3prl, read_s3prl
from unispeech_sb.checkpoints.safety.pickles import read_objects
from unispeech_sb.convert import convert_checkpoint, to_huggingface
from unispeech_sb.convert.info import describe
from unispeech_sb.convert.lobes import kind_of
from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.lobes.heads import FrameHead, SpeakerHead, UtteranceHead

D, LAYERS = 16, 3
TDNN = "model.framelevel_feature_extractor.module"
UTTERANCE = "model.utterancelevel_feature_extractor"


def linear(name, inputs, outputs):
    """Weights of a linear layer."""
    return {
        f"{name}.weight": torch.randn(outputs, inputs) / inputs**0.5,
        f"{name}.bias": torch.randn(outputs),
    }


def utterance_head():
    """KS, SID, IC, ER: projector, mean, linear."""
    return {
        **linear("projector", D, 6),
        **linear("model.post_net.linear", 6, 4),
        "best_score": torch.zeros(1),
    }


def frame_head():
    """SD with rnn_layers 0."""
    return linear("model.linear", D, 2)


def speaker_head():
    """ASV: the x-vector with AM-softmax."""
    head = {"objective.W": torch.randn(5, 9), "best_score": torch.ones(1)}
    head |= linear("connector", D, 6)
    for layer, (kernel, size) in enumerate(
        ((5, 6), (3, 6), (3, 6), (1, 6), (1, 7))
    ):
        head |= linear(f"{TDNN}.{layer}.kernel", kernel * 6, size)
    head |= linear(f"{UTTERANCE}.linear1", 14, 5)
    return head | linear(f"{UTTERANCE}.linear2", 5, 5)


def recurrent_head(classes=32, layers=2, size=5):
    """ASR and SF: projector, LSTMs in both directions, linear."""
    head = linear("projector", D, 6)
    for layer in range(layers):
        inputs = 2 * size if layer else 6
        lstm = torch.nn.LSTM(inputs, size, bidirectional=True)
        head |= {
            f"model.rnns.{layer}.layer.{name}": tensor
            for name, tensor in lstm.state_dict().items()
        }
    head |= linear("model.linear", 2 * size, classes)
    return head | {"best_score": torch.ones(1)}


def phone_head(classes=74):
    """PR: two linear layers."""
    head = linear("projector", D, 6) | linear("model.linear", 6, classes)
    return head | {"best_score": torch.ones(1)}


def lstm_head(layers=1, size=7):
    """SD with rnn_layers 1, as SUPERB has it, or more."""
    lstm = torch.nn.LSTM(D, size, layers)
    head = {f"model.rnn.{k}": tensor for k, tensor in lstm.state_dict().items()}
    return head | linear("model.linear", size, 2)


HEADS = {
    "ForSequenceClassification": utterance_head,
    "ForAudioFrameClassification": frame_head,
    "ForXVector": speaker_head,
}


MAKERS = {
    "ForSequenceClassification": lambda config, classes: UtteranceHead(
        config["hidden_size"], classes, config["classifier_proj_size"],
        config["use_weighted_layer_sum"], config["num_hidden_layers"] + 1,
    ),
    "ForAudioFrameClassification": lambda config, classes: FrameHead(
        config["hidden_size"], classes,
        num_states=config["num_hidden_layers"] + 1,
    ),
    "ForXVector": lambda config, classes: SpeakerHead(
        config["hidden_size"], config["tdnn_dim"], config["tdnn_kernel"],
        config["tdnn_dilation"], config["xvector_output_dim"],
        config["num_hidden_layers"] + 1, config["tdnn_lengths"],
        config["relu"],
    ),
}  # fmt: skip
"""Task -> head of a checkpoint's options."""


def saved(head, path, args=None, **parts):
    """A file as s3prl's runner writes it, read again."""
    run = {"upstream": "unispeech_sat_base", "downstream": "voxceleb1"}
    weights = {"weights": torch.randn(LAYERS + 1)}
    torch.save(
        {
            "Optimizer": {"state": {}, "param_groups": [{"lr": 1e-3}]},
            "Step": 200000,
            "Epoch": 3,
            "Args": Namespace(**(run | (args or {}))),
            "Config": {"runner": {"total_steps": 200000}},
            "Downstream": head,
            "Featurizer": weights,
            **parts,
        },
        path,
    )
    return read_objects(path)


@pytest.fixture
def path(tmp_path):
    """Where a file may be written."""
    return tmp_path / "dev-best.ckpt"


def mixed(objects, states):
    """s3prl's weighted sum."""
    weights = objects["Featurizer"]["weights"].softmax(0)
    return (weights[:, None, None, None] * states).sum(0)


def lobe(found, head):
    """A head with the tensors of a checkpoint."""
    tensors, unknown = split_heads(found.top, found.task)
    assert not unknown
    load_strict(head, tensors["head"], "test")
    return head.eval()


def test_utterance_heads_score_as_in_s3prl(path):
    objects = saved(utterance_head(), path)
    found = read_s3prl(objects, path, {})
    head = lobe(found, MAKERS[found.task](found.config, 4))
    states, counts = torch.randn(LAYERS + 1, 2, 10, D), (10, 6)
    theirs = objects["Downstream"]
    projected = F.linear(
        mixed(objects, states), theirs["projector.weight"],
        theirs["projector.bias"],
    )  # fmt: skip
    pooled = torch.stack([p[:n].mean(0) for p, n in zip(projected, counts)])
    expected = F.linear(
        pooled, theirs["model.post_net.linear.weight"],
        theirs["model.post_net.linear.bias"],
    )  # fmt: skip
    logits = head(states, torch.tensor(counts) / 10)
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)


def test_frame_heads_score_as_in_s3prl(path):
    objects = saved(frame_head(), path)
    found = read_s3prl(objects, path, {})
    head = lobe(found, MAKERS[found.task](found.config, 2))
    states = torch.randn(LAYERS + 1, 2, 10, D)
    expected = F.linear(
        mixed(objects, states), objects["Downstream"]["model.linear.weight"],
        objects["Downstream"]["model.linear.bias"],
    )  # fmt: skip
    torch.testing.assert_close(head(states), expected, rtol=1e-5, atol=1e-5)


def own_lobe(found):
    """The head of a task that transformers lacks, with its tensors."""
    head = kind_of(found).build(found)["head"]
    load_strict(head, found.top, "test")
    return head.eval()


def apply_lstm(theirs, name, feats, size, reverse=False):
    """One of s3prl's LSTMs, its states from zero, step by step."""
    end = "_reverse" if reverse else ""
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    start, _, layer = name.rpartition("*")
    w_in, w_back, b_in, b_back = (
        theirs[f"{start}{kind}_l{layer}{end}"] for kind in names
    )
    hidden = cell = feats.new_zeros(feats.shape[0], size)
    found = []
    for frame in feats.flip(1).unbind(1) if reverse else feats.unbind(1):
        gates = F.linear(frame, w_in, b_in) + F.linear(hidden, w_back, b_back)
        admit, forget, new, show = gates.chunk(4, 1)
        cell = forget.sigmoid() * cell + admit.sigmoid() * new.tanh()
        hidden = show.sigmoid() * cell.tanh()
        found.append(hidden)
    return torch.stack(found[::-1] if reverse else found, 1)


@torch.no_grad()
@pytest.mark.parametrize("layers", [1, 2])
def test_lstms_of_diarization_score_as_in_s3prl(path, layers):
    objects = saved(lstm_head(layers), path, {"downstream": "diarization"})
    found = read_s3prl(objects, path, {})
    assert (found.task, len(found.labels)) == ("ForLSTMDiarization", 2)
    states = torch.randn(LAYERS + 1, 2, 10, D)
    theirs, hidden = objects["Downstream"], mixed(objects, states)
    for layer in range(layers):
        hidden = apply_lstm(theirs, f"model.rnn.*{layer}", hidden, 7)
    expected = F.linear(
        hidden, theirs["model.linear.weight"], theirs["model.linear.bias"]
    )
    torch.testing.assert_close(
        own_lobe(found)(states), expected, rtol=1e-5, atol=1e-5
    )


@torch.no_grad()
@pytest.mark.parametrize("layers", [1, 2])
def test_speech_recognition_scores_as_in_s3prl(path, layers):
    head = recurrent_head(layers=layers)
    objects = saved(head, path, {"downstream": "asr"})
    found = read_s3prl(objects, path, {})
    assert (found.task, found.blank_index) == ("ForRecurrentCTC", 0)
    states = torch.randn(LAYERS + 1, 2, 10, D)
    theirs = objects["Downstream"]
    hidden = F.linear(
        mixed(objects, states), theirs["projector.weight"],
        theirs["projector.bias"],
    )  # fmt: skip
    for layer in range(layers):
        name = f"model.rnns.{layer}.layer.*0"
        both = [
            apply_lstm(theirs, name, hidden, 5, way) for way in (False, True)
        ]
        hidden = torch.cat(both, 2)
    expected = F.linear(
        hidden, theirs["model.linear.weight"], theirs["model.linear.bias"]
    )
    torch.testing.assert_close(
        own_lobe(found)(states), expected, rtol=1e-5, atol=1e-5
    )


@torch.no_grad()
def test_phoneme_recognition_scores_as_in_s3prl(path):
    objects = saved(phone_head(), path, {"downstream": "ctc"})
    found = read_s3prl(objects, path, {})
    assert (found.task, found.blank_index) == ("ForProjectedCTC", 0)
    states = torch.randn(LAYERS + 1, 2, 10, D)
    feats = mixed(objects, states)
    for name in ("projector", "model.linear"):
        feats = F.linear(
            feats, *(objects["Downstream"][f"{name}.{leaf}"]
                     for leaf in ("weight", "bias")),
        )  # fmt: skip
    torch.testing.assert_close(
        own_lobe(found)(states), feats, rtol=1e-5, atol=1e-5
    )


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


@pytest.mark.parametrize("relu", [False, True])
def test_x_vectors_are_as_in_s3prl(path, relu):
    objects = saved(speaker_head(), path)
    found = read_s3prl(objects, path, {"relu": relu})
    head = lobe(found, MAKERS["ForXVector"](found.config, 9))
    states = torch.randn(LAYERS + 1, 2, 30, D)
    theirs = objects["Downstream"]

    def apply(name, feats):
        return F.linear(feats, theirs[name + ".weight"], theirs[name + ".bias"])

    feats = apply("connector", mixed(objects, states))
    shape = ((5, 1), (3, 2), (3, 3), (1, 1), (1, 1))
    for layer, (kernel, dilation) in enumerate(shape):
        windows = F.unfold(
            feats[:, None], (kernel, feats.shape[2]),
            dilation=(dilation, 1), stride=(1, feats.shape[2]),
        )  # fmt: skip
        feats = apply(f"{TDNN}.{layer}.kernel", windows.transpose(1, 2)).relu()
    pooled = torch.cat([feats.mean(1), feats.std(1)], 1)
    first = apply(f"{UTTERANCE}.linear1", pooled)
    first = first.relu() if relu else first
    second = apply(f"{UTTERANCE}.linear2", first)
    second = second.relu() if relu else second
    torch.testing.assert_close(head.embed(states), first, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(head(states), second, rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("task", HEADS)
def test_transformers_takes_every_tensor_and_scores_the_same(task, path):
    found = read_s3prl(saved(HEADS[task](), path), path, {})
    names = set(tiny_config("unispeech-sat").to_dict())
    options = {k: v for k, v in found.config.items() if k in names}
    model = tiny_model(
        "unispeech-sat", task, **options, num_labels=len(found.labels)
    )
    top = [n for n in model.state_dict() if not n.startswith("unispeech_sat.")]
    assert found.top.keys() == set(top)
    model.load_state_dict(found.top, strict=False)
    theirs = model(torch.randn(2, 9000), output_hidden_states=True)
    head = lobe(found, MAKERS[task](found.config, len(found.labels)))
    ours = head(torch.stack(theirs.hidden_states))
    torch.testing.assert_close(ours, theirs.logits, rtol=1e-5, atol=1e-5)


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
