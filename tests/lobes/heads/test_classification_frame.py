"""The frame head against transformers' two classes that have it."""

import pytest
import torch
from torch.nn import functional as F

from tests.huggingface import FAMILIES, attention_mask, tiny_model
from unispeech_sb.lobes.heads import FrameHead
from unispeech_sb.nnet.permutation import argmax_loss


def tops(model):
    """What stands on the backbone, under this package's names."""
    names = {"lm_head": "classifier", "layer_weights": "layer_mix.weights"}
    found = {}
    for name, parameter in model.named_parameters():
        first, dot, rest = name.partition(".")
        if first != model.base_model_prefix:
            found[names.get(first, first) + dot + rest] = parameter
    return found


def assert_gradients_equal(head, theirs):
    ours = {name: p.grad for name, p in head.named_parameters()}
    assert sorted(ours) == sorted(theirs)
    for name, parameter in theirs.items():
        assert parameter.grad.abs().max() > 1e-4, name
        torch.testing.assert_close(
            ours[name], parameter.grad, rtol=1e-5, atol=1e-5
        )


def states_of(model, wavs, mask):
    """transformers' own hidden states: features of the head under test."""
    with torch.no_grad():
        return model.base_model(
            wavs, attention_mask=mask, output_hidden_states=True
        )


@pytest.mark.parametrize("family", FAMILIES)
def test_ctc_logits_and_gradients_equal_transformers(family):
    model = tiny_model(family, "ForCTC", vocab_size=7)
    head = FrameHead(16, 7).eval()
    head.load_state_dict(tops(model))
    lengths = torch.tensor([4000, 2500])
    mask = attention_mask(lengths)
    wavs = torch.randn(2, 4000) * mask
    logits = head(states_of(model, wavs, mask).last_hidden_state)
    theirs = model(wavs, attention_mask=mask).logits
    torch.testing.assert_close(logits, theirs, rtol=1e-5, atol=1e-5)
    labels = torch.randint(7, logits.shape[:2]).flatten()
    F.cross_entropy(logits.flatten(0, 1), labels).backward()
    F.cross_entropy(theirs.flatten(0, 1), labels).backward()
    assert_gradients_equal(head, tops(model))


@pytest.mark.parametrize("stable", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_frame_classes_equal_transformers(weighted, stable):
    model = tiny_model(
        "unispeech-sat", "ForAudioFrameClassification",
        use_weighted_layer_sum=weighted, do_stable_layer_norm=stable,
    )  # fmt: skip
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name == "layer_weights":
                parameter.copy_(torch.randn(4))
    head = FrameHead(16, 5, num_states=4 if weighted else None)
    head.load_state_dict(tops(model))
    lengths = torch.tensor([4000, 2500])
    mask = attention_mask(lengths)
    wavs = torch.randn(2, 4000) * mask
    states = states_of(model, wavs, mask)
    logits = head(
        torch.stack(states.hidden_states)
        if weighted
        else states.last_hidden_state
    )
    labels = torch.randint(5, logits.shape[:2])
    theirs = model(
        wavs, attention_mask=mask, labels=F.one_hot(labels, 5).float()
    )
    torch.testing.assert_close(logits, theirs.logits, rtol=1e-5, atol=1e-5)
    loss, _ = argmax_loss(logits, F.one_hot(labels, 5).float())
    torch.testing.assert_close(loss, theirs.loss, rtol=1e-5, atol=1e-5)
    loss.backward()
    theirs.loss.backward()
    assert_gradients_equal(head, tops(model))


def test_dropout_is_on_the_features_and_in_training_only():
    head, feats = FrameHead(16, 4, dropout=0.5), torch.randn(2, 10, 16)
    torch.manual_seed(3)
    scores = head(feats)
    torch.manual_seed(3)
    torch.testing.assert_close(scores, head.classifier(F.dropout(feats)))
    torch.testing.assert_close(head.eval()(feats), head.classifier(feats))


def test_padding_changes_no_frame_and_states_may_come_one_by_one():
    head, states = FrameHead(8, 4, num_states=3), torch.randn(3, 2, 10, 8)
    batched = head(iter(states), torch.tensor([1.0, 0.6]))
    alone = head(states[:, 1:, :6])
    torch.testing.assert_close(batched[1:, :6], alone, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="expected 3 hidden states; got 2"):
        head(states[:2])
