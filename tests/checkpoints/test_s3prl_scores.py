"""s3prl's heads: its own formulas, and transformers with the same weights."""

import pytest
import torch
from torch.nn import functional as F

from tests.checkpoints.s3prl_heads import (
    LAYERS,
    TDNN,
    UTTERANCE,
    D,
    frame_head,
    lstm_head,
    phone_head,
    recurrent_head,
    saved,
    speaker_head,
    utterance_head,
)
from tests.huggingface import tiny_config, tiny_model
from unispeech_sb.checkpoints.files import load_strict
from unispeech_sb.checkpoints.huggingface import split_heads
from unispeech_sb.checkpoints.s3prl import read_s3prl
from unispeech_sb.convert.lobes import kind_of
from unispeech_sb.lobes.heads import FrameHead, SpeakerHead, UtteranceHead

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
