"""CTC's loss against transformers and against every alignment there is."""

import math
from itertools import groupby, product

import pytest
import torch

from tests.huggingface import FAMILIES, attention_mask, tiny_model
from unispeech_sb.nnet.ctc import (
    blank_share,
    ctc_loss,
    frames_needed,
)

loss_ctc = pytest.importorskip(
    "transformers.loss.loss_ctc",
    reason="needs transformers 5.21, which needs Python 3.11",
)

TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}
TARGETS = torch.tensor([[5, 5, -100, 2, 3], [-100, 3, 4, 3, -100]])
"""With label 3 as blank: 5 5 2 and 4."""

HUGGING_FACE = ("mean", "sum", "none")

switches = pytest.mark.parametrize(
    ("reduction", "zero_infinity"), list(product(HUGGING_FACE, (False, True)))
)


def backward(model, loss):
    """Gradients of all parameters."""
    model.zero_grad()
    loss.sum().backward()
    found = {n: p.grad for n, p in model.named_parameters()}
    return {n: grad.clone() for n, grad in found.items() if grad is not None}


@switches
@pytest.mark.parametrize("blank", [0, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradients_equal_transformers(
    family, blank, reduction, zero_infinity
):
    model = tiny_model(
        family, "ForCTC", vocab_size=7, pad_token_id=blank,
        ctc_loss_reduction=reduction, ctc_zero_infinity=zero_infinity,
    ).train()  # fmt: skip
    # 12 and 2 frames: too few for the second row where 3 is no blank
    lengths = torch.tensor([4000, 900])
    targets = TARGETS.clone()
    if not zero_infinity:
        targets[1, 3] = -100
    mask = attention_mask(lengths)
    wavs = torch.randn(2, 4000) * mask
    theirs = model(wavs, attention_mask=mask, labels=targets)
    expected = backward(model, theirs.loss)
    logits = model(wavs, attention_mask=mask).logits
    frames = model._get_feat_extract_output_lengths(lengths)
    loss = ctc_loss(
        logits, targets, frames, None, blank, reduction, zero_infinity
    )
    torch.testing.assert_close(loss, theirs.loss, **TOLERANCE)
    found = backward(model, loss)
    assert found.keys() == expected.keys()
    assert expected["lm_head.weight"].abs().max() > 1e-3
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, **TOLERANCE)


def random_case():
    """Scores, labels that may be -100 or the blank, frames, and the blank."""
    batch, total, entries = (
        int(torch.randint(*bounds, ())) for bounds in ((1, 5), (1, 12), (2, 6))
    )
    targets = torch.randint(-1, entries, (batch, int(torch.randint(0, 7, ()))))
    return (
        (3 * torch.randn(batch, total, entries)).requires_grad_(),
        targets.masked_fill(targets == -1, -100),
        torch.randint(0, total + 1, (batch,)),
        int(torch.randint(entries, ())),
    )


@switches
def test_random_batches_lose_what_they_lose_in_transformers(
    reduction, zero_infinity
):
    compared = refused = 0
    for _ in range(100):
        logits, targets, frames, blank = random_case()
        rows = loss_ctc.ForCTCLoss(logits, targets, frames, blank, "none")
        expected = loss_ctc.ForCTCLoss(
            logits, targets, frames, blank, reduction, zero_infinity
        )
        options = (None, blank, reduction, zero_infinity)
        if rows.isinf().any() and not zero_infinity:
            refused += 1
            with pytest.raises(ValueError, match="frames enough"):
                ctc_loss(logits, targets, frames, *options)
            continue
        compared += 1
        loss = ctc_loss(logits, targets, frames, *options)
        torch.testing.assert_close(loss, expected, **TOLERANCE)
        gradients = [
            torch.autograd.grad(value.sum(), logits)[0]
            for value in (loss, expected)
        ]
        torch.testing.assert_close(*gradients, **TOLERANCE)
    assert compared >= 20
    assert zero_infinity or refused >= 20


def test_loss_by_hand_is_the_sum_over_all_alignments():
    log_probs = torch.randn(1, 5, 3).log_softmax(-1)
    total = 0.0
    for path in product(range(3), repeat=5):
        merged = [label for label, _ in groupby(path) if label != 1]
        if merged == [2, 2, 0]:
            steps = log_probs[0, range(5), path]
            total += steps.sum().exp().item()
    loss = ctc_loss(
        log_probs, torch.tensor([[2, 2, 0]]), torch.tensor([5]),
        blank=1, reduction="sum",
    )  # fmt: skip
    assert loss.item() == pytest.approx(-math.log(total), abs=1e-5)


def test_batchmean_is_the_mean_of_the_rows_sums():
    logits, frames = torch.randn(2, 9, 6), torch.tensor([9, 8])
    targets = torch.tensor([[5, 5, 2], [1, -100, -100]])
    of_rows, of_batch = (
        ctc_loss(logits, targets, frames, reduction=reduction)
        for reduction in ("none", "batchmean")
    )
    torch.testing.assert_close(of_batch, of_rows.mean())


@switches
def test_log_posteriors_lose_the_same_as_logits(reduction, zero_infinity):
    logits, frames = 5 * torch.randn(2, 12, 6), torch.tensor([12, 7])
    options = (TARGETS, frames, None, 3, reduction, zero_infinity)
    torch.testing.assert_close(
        ctc_loss(logits.log_softmax(-1), *options),
        ctc_loss(logits, *options),
        **TOLERANCE,
    )


def test_padding_changes_no_row():
    logits = torch.randn(3, 20, 6)
    frames, lengths = torch.tensor([20, 11, 5]), torch.tensor([6, 2, 3])
    # What stands beyond a row's labels is a label like others
    targets = torch.randint(1, 6, (3, 6))
    batched = ctc_loss(logits, targets, frames, lengths, reduction="none")
    for row, (count, length) in enumerate(zip(frames, lengths)):
        alone = ctc_loss(
            logits[row : row + 1, :count],
            targets[row : row + 1, :length],
            count[None],
        )
        torch.testing.assert_close(batched[row] / length, alone, **TOLERANCE)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_loss_is_computed_in_float32_under_autocast(dtype):
    logits, frames = torch.randn(2, 12, 6).to(dtype), torch.tensor([12, 9])
    logits.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = ctc_loss(logits, TARGETS, frames, blank=3)
    loss.backward()
    assert loss.dtype == torch.float32
    assert logits.grad.dtype == dtype
    expected = ctc_loss(logits.float(), TARGETS, frames, blank=3)
    torch.testing.assert_close(loss, expected, rtol=0, atol=0)


def test_rows_too_short_for_their_labels_are_named():
    targets = torch.tensor([[5, 5, 2], [1, 2, -100], [1, -100, 1]])
    logits, frames = torch.randn(3, 4, 6), torch.tensor([3, 2, 2])
    message = "row 0 has 3 and needs 4, row 2 has 2 and needs 3"
    with pytest.raises(ValueError, match=message):
        ctc_loss(logits, targets, frames)
    losses = ctc_loss(
        logits, targets, frames, reduction="none", zero_infinity=True
    )
    assert (losses == 0).tolist() == [True, False, True]
    assert ctc_loss(logits, targets, frames + 1, blank=0).isfinite()


def test_frames_needed_by_hand():
    found = frames_needed(TARGETS, torch.tensor([5, 4]), blank=3)
    assert found.tolist() == [4, 1]
    assert frames_needed(TARGETS, torch.tensor([1, 0])).tolist() == [1, 0]
    assert frames_needed(torch.zeros(2, 0, dtype=torch.long)).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"reduction": "max"}, "one of mean, sum, none, batchmean; got 'max'"),
        ({"blank": 6}, "blank: expected 0 to 5; got 6"),
        ({"blank": -1}, "blank: expected 0 to 5; got -1"),
        ({"targets": TARGETS + 1}, "labels: expected 0 to 5; got -99 to 6"),
        ({"frames": torch.tensor([13, 9])}, "frames: expected 0 to 12; got 9"),
    ],
)
def test_what_is_out_of_range_is_refused(changed, message):
    given = {
        "logits": torch.randn(2, 12, 6),
        "targets": TARGETS,
        "frames": torch.tensor([12, 9]),
    }
    with pytest.raises(ValueError, match=message):
        ctc_loss(**{**given, **changed})


def test_blank_share_counts_valid_frames_of_the_batch():
    best = torch.tensor([[2, 2, 0, 1], [1, 2, 2, 2]])
    scores = torch.nn.functional.one_hot(best, 3).float()
    share = blank_share(scores, torch.tensor([4, 1]), blank=2)
    assert share.item() == pytest.approx(2 / 5)
