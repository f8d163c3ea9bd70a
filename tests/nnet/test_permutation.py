"""Losses of speakers in no order: against all assignments one by one, against
SpeechBrain's, and against s3prl's and transformers' formulas.
"""

from itertools import permutations

import pytest
import torch
from speechbrain.nnet.losses import PitWrapper
from torch.nn import functional as F

from unispeech_sb.nnet.permutation import argmax_loss, pit_loss

each_count = pytest.mark.parametrize("speakers", [1, 2, 3, 4])


def chunks(speakers, batch=4, frames=7):
    """Logits and labels."""
    logits = 2 * torch.randn(batch, frames, speakers)
    return logits, (torch.rand(batch, frames, speakers) < 0.4).float()


def one_by_one(logits, labels, count):
    """Least mean over speakers, summed over frames, and its assignment."""
    costs = {
        order: F.binary_cross_entropy_with_logits(
            logits[:count], labels[:count][:, list(order)], reduction="none"
        )
        .mean(1)
        .sum()
        for order in permutations(range(logits.shape[1]))
    }
    best = min(costs, key=costs.get)
    return costs[best], list(best)


@each_count
def test_the_loss_is_the_least_of_all_assignments(speakers):
    logits, labels = chunks(speakers)
    counts = [7, 5, 1, 6]
    wanted = [
        one_by_one(*row) for row in zip(logits, labels, counts, strict=True)
    ]
    sums = torch.stack([total for total, _ in wanted])
    for reduction, expected in (
        ("chunks", (sums / torch.tensor(counts)).mean()),
        ("frames", sums.sum() / sum(counts)),
    ):
        loss, order = pit_loss(logits, labels, torch.tensor(counts), reduction)
        torch.testing.assert_close(loss, expected)
        assert order.tolist() == [best for _, best in wanted]


@each_count
def test_chunks_of_one_length_cost_what_speechbrain_says(speakers):
    logits, labels = chunks(speakers)

    def base_loss(found, true):
        return F.binary_cross_entropy_with_logits(found, true, reduction="none")

    theirs, assigned = PitWrapper(base_loss)(logits, labels)
    loss, order = pit_loss(logits, labels)
    torch.testing.assert_close(loss, theirs.mean())
    # Theirs says which output each speaker of the labels was taken for
    turned = [[row.index(s) for s in range(speakers)] for row in order.tolist()]
    given = [list(map(int, row)) for row in assigned]
    assert given in (order.tolist(), turned)


def test_gradients_are_those_of_the_best_assignment_and_none_of_padding():
    logits, labels = chunks(3)
    logits.requires_grad_()
    counts = torch.tensor([7, 5, 1, 6])
    pit_loss(logits, labels, counts)[0].backward()
    found, logits.grad = logits.grad, None
    total = sum(
        one_by_one(row, labels[i], count)[0] / count
        for i, (row, count) in enumerate(
            zip(logits, counts.tolist(), strict=True)
        )
    )
    (total / len(logits)).backward()
    torch.testing.assert_close(found, logits.grad)
    for row, count in enumerate(counts):
        assert (found[row, count:] == 0).all()


@pytest.mark.parametrize("reduction", ["chunks", "frames"])
def test_padding_holds_anything(reduction):
    logits, labels = chunks(2)
    counts = torch.tensor([7, 3, 5, 4])
    clean = pit_loss(logits, labels, counts, reduction)
    for row, count in enumerate(counts):
        logits[row, count:], labels[row, count:] = 1e4, 1.0
    dirty = pit_loss(logits, labels, counts, reduction)
    assert clean[0] == dirty[0] and torch.equal(clean[1], dirty[1])


@pytest.mark.parametrize("autocast", [False, True])
def test_the_loss_is_of_full_precision(autocast):
    logits, labels = chunks(2)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss, _ = pit_loss(logits.bfloat16(), labels.bfloat16())
    assert loss.dtype == torch.float32
    wanted, _ = pit_loss(logits.bfloat16().float(), labels)
    assert loss == wanted


def test_other_shapes_and_reductions_are_refused():
    logits, labels = chunks(2)
    with pytest.raises(ValueError, match=r"shape \[4, 7, 2\]; got \[4, 6, 2\]"):
        pit_loss(logits, labels[:, :6])
    with pytest.raises(ValueError, match="chunks, frames; got 'mean'"):
        pit_loss(logits, labels, reduction="mean")


def test_argmax_takes_the_first_active_speaker_and_no_padding():
    logits = torch.randn(2, 3, 2)
    labels = torch.tensor(
        [
            [[0.0, 1.0], [1.0, 1.0], [0.0, 0.0]],
            [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]],
        ]
    )
    classes = torch.tensor([[1, 0, 0], [0, 1, 0]])
    loss, order = argmax_loss(logits, labels)
    wanted = F.cross_entropy(logits.flatten(0, 1), classes.flatten())
    torch.testing.assert_close(loss, wanted)
    assert order.tolist() == [[0, 1], [0, 1]]
    loss, _ = argmax_loss(logits, labels, torch.tensor([3, 1]))
    kept = torch.cat([logits[0], logits[1, :1]])
    wanted = F.cross_entropy(kept, torch.tensor([1, 0, 0, 0]))
    torch.testing.assert_close(loss, wanted)
