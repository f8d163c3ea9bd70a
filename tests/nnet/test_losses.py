"""Losses against hand-worked cases and transformers."""

import math

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from unispeech_sb.nnet.losses import (
    PROBLEM_TYPES,
    aam_softmax_loss,
    am_softmax_loss,
    check_combinations,
    classification_loss,
    intent_loss,
)


def test_single_label_loss_by_hand():
    logits = torch.tensor([[0.0, math.log(3.0)]])
    loss = classification_loss(logits, torch.tensor([0]))
    assert loss.item() == pytest.approx(math.log(4.0))


def test_the_loss_of_an_intent_is_a_sum_over_slots():
    logits = torch.tensor([[0.0, math.log(3.0), 0, 0], [0, 0, 0, math.log(7)]])
    loss = intent_loss(logits, torch.tensor([[0, 0], [1, 1]]), [2, 2])
    action = (math.log(4) + math.log(2)) / 2  # a mean over the batch
    place = (math.log(2) + math.log(8 / 7)) / 2
    assert loss.item() == pytest.approx(action + place)


def test_combinations_of_slots_are_bounded():
    check_combinations([6, 14, 4])
    with pytest.raises(ValueError, match="at most 100000 comb.*got 1000000"):
        check_combinations([100, 100, 100])


def test_multi_label_loss_by_hand():
    logits = torch.tensor([[0.0, math.log(3.0)]])
    targets = torch.tensor([[1, 0]])
    loss = classification_loss(logits, targets, PROBLEM_TYPES[1])
    assert loss.item() == pytest.approx((math.log(2) + math.log(4)) / 2)


def test_regression_loss_by_hand():
    loss = classification_loss(
        torch.tensor([[1.0], [5.0]]), torch.tensor([2, 2]), "regression"
    )
    assert loss.item() == pytest.approx((1 + 9) / 2)


@pytest.mark.parametrize("problem_type", PROBLEM_TYPES)
def test_losses_equal_transformers(problem_type):
    config = BertConfig(
        vocab_size=9, hidden_size=8, num_hidden_layers=1, num_labels=4,
        num_attention_heads=2, intermediate_size=8, problem_type=problem_type,
    )  # fmt: skip
    model = BertForSequenceClassification(config).eval()
    labels = {
        "single_label_classification": torch.tensor([3, 0]),
        "multi_label_classification": torch.randint(2, (2, 4)).float(),
        "regression": torch.randn(2, 4),
    }[problem_type]
    out = model(torch.tensor([[1, 2], [3, 4]]), labels=labels)
    found = classification_loss(out.logits, labels, problem_type)
    torch.testing.assert_close(found, out.loss)


def test_wrong_targets_and_types_are_refused():
    with pytest.raises(ValueError, match=r"shape \[2\]; got \[2, 1\]"):
        classification_loss(torch.zeros(2, 4), torch.zeros(2, 1))
    with pytest.raises(ValueError, match=r"shape \[2, 4\]; got \[2, 1\]"):
        classification_loss(torch.zeros(2, 4), torch.zeros(2), PROBLEM_TYPES[1])
    with pytest.raises(ValueError, match="regression; got 'ranking'"):
        classification_loss(torch.zeros(2, 4), torch.zeros(2), "ranking")


def test_am_softmax_loss_by_hand():
    cosines = torch.tensor([[0.9, 0.5], [0.2, 0.2]]).bfloat16()
    loss = am_softmax_loss(
        cosines, torch.tensor([0, 1]), scale=10.0, margin=0.4
    )
    first, second = cosines.tolist()
    rows = [
        math.log(1 + math.exp(10 * (first[1] - first[0] + 0.4))),
        math.log(1 + math.exp(10 * (second[0] - second[1] + 0.4))),
    ]
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(sum(rows) / 2)


def test_aam_softmax_loss_by_hand():
    cosines = torch.tensor([60.0, 45, 120, 20]).deg2rad().cos()[None]
    loss = aam_softmax_loss(
        cosines, torch.tensor([0]), scale=2.0, margin=math.radians(30),
        top_k=1, top_k_margin=math.radians(10),
    )  # fmt: skip
    angles = [60 + 30, 45, 120, 20 - 10]
    terms = [math.exp(2 * math.cos(math.radians(angle))) for angle in angles]
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(math.log(sum(terms) / terms[0]))


def test_aam_softmax_loss_goes_on_straight_beyond_half_a_turn():
    cosines = torch.tensor([170.0, 90]).deg2rad().cos()[None]
    margin = math.radians(20)
    loss = aam_softmax_loss(cosines, torch.tensor([0]), 1.0, margin)
    right = cosines[0, 0].item() - margin * math.sin(margin)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-right)))
