"""Masks: counts, lengths and places of spans; SUPERB's SpecAugment."""

import numpy as np
import pytest
import torch
from transformers.models.unispeech.modeling_unispeech import (
    _compute_mask_indices,
)

from unispeech_sb.nnet.masking import (
    SpanMasks,
    SpecAugment,
    equal_span_mask,
    span_mask,
)


def spans(row):
    """Lengths of the runs of True."""
    text = "".join("x" if value else " " for value in row.tolist())
    return [len(run) for run in text.split()]


def test_masks_stay_within_the_valid_frames_and_come_in_whole_spans():
    lengths = torch.tensor([100, 60, 11, 10, 9])
    for _ in range(50):
        mask = span_mask(lengths, 100, 0.3, span=10, min_spans=1)
        for row, length in zip(mask, lengths):
            assert not row[length:].any()
            assert all(run >= 10 for run in spans(row))
        assert mask[:4].any(1).all()
        assert not mask[4].any()  # shorter than one span


@pytest.mark.slow
@pytest.mark.parametrize("prob", [0.05, 0.3, 0.65])
def test_share_of_masked_frames_equals_transformers(prob):
    np.random.seed(0)
    shape, attention = (100, 200), torch.ones(100, 200, dtype=torch.long)
    attention[50:, 120:] = 0
    theirs = torch.stack(
        [
            torch.from_numpy(
                _compute_mask_indices(shape, prob, 10, attention, 2)
            )
            for _ in range(80)
        ]
    ).float()
    lengths = attention.sum(1)
    ours = torch.stack(
        [span_mask(lengths, 200, prob, 10, 2) for _ in range(80)]
    ).float()
    for rows in (slice(0, 50), slice(50, 100)):
        difference = ours[:, rows].mean() - theirs[:, rows].mean()
        assert abs(difference) < 0.01


def test_fewest_spans_are_kept_and_no_more_than_fit():
    mask = span_mask(torch.tensor([20, 100]), 100, 0.0, span=10, min_spans=4)
    assert mask[0].sum() <= 20
    assert mask[1].sum() >= 13  # four distinct starts


def test_a_generator_repeats_the_mask():
    lengths = torch.tensor([100, 50])
    masks = [
        span_mask(lengths, 100, 0.5, 5, generator=generator)
        for generator in (
            torch.Generator().manual_seed(1),
            torch.Generator().manual_seed(1),
            torch.Generator().manual_seed(2),
        )
    ]
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


@pytest.mark.parametrize(("prob", "span"), [(1.5, 5), (-0.1, 5), (0.5, 0)])
def test_senseless_options_are_refused(prob, span):
    for draw in (span_mask, equal_span_mask):
        with pytest.raises(ValueError, match="prob in .0, 1. and span"):
            draw(torch.tensor([10]), 10, prob, span)


def authors_mask(lengths, frames, prob, span, min_spans, random):
    """The authors' rule, row by row, as their code has it."""
    rows = []
    for length in lengths:
        count = max(int(prob * length / span + random.rand()), min_spans)
        least = span
        if length - least <= count:
            least = length - count - 1
        starts = random.choice(length - least, count, replace=False)
        places = (starts[:, None] + np.arange(span)).ravel()
        rows.append(np.unique(places[places < length]))
    fewest = min(map(len, rows))
    mask = np.zeros((len(rows), frames), dtype=bool)
    for row, places in zip(mask, rows):
        row[random.choice(places, fewest, replace=False)] = True
    return torch.from_numpy(mask)


def test_equal_masks_have_as_many_frames_in_every_row_all_of_them_valid():
    lengths = torch.tensor([100, 60, 40, 12])
    for _ in range(50):
        mask = equal_span_mask(lengths, 100, 0.65, span=10)
        counts = mask.sum(1)
        assert (counts == counts[0]).all() and counts[0] >= 10
        for row, length in zip(mask, lengths):
            assert not row[length:].any()


@pytest.mark.parametrize("prob", [0.5, 0.65, 0.8])
@pytest.mark.parametrize("lengths", [[200, 200, 200], [200, 150, 120]])
def test_equal_masks_are_those_of_the_authors_on_average(prob, lengths):
    random, times = np.random.RandomState(0), 150
    theirs = torch.stack(
        [authors_mask(lengths, 200, prob, 10, 2, random) for _ in range(times)]
    ).float()
    ours = torch.stack(
        [
            equal_span_mask(torch.tensor(lengths), 200, prob, 10)
            for _ in range(times)
        ]
    ).float()
    assert abs(ours.mean() - theirs.mean()) < 0.015
    runs = [(each[..., 1:] * each[..., :-1]).mean() for each in (ours, theirs)]
    assert abs(runs[0] - runs[1]) < 0.015  # as clustered
    # Frame by frame: fewer at both ends, none at the very last
    difference = ours.mean((0, 1)) - theirs.mean((0, 1))
    assert difference.abs().max() < 0.15
    assert not ours[:, 0, 199].any() and not theirs[:, 0, 199].any()


def test_span_counts_of_equal_masks_follow_the_rule():
    lengths = torch.full((2000,), 100)
    mask = equal_span_mask(lengths, 100, 0.25, span=1)  # a span is a frame
    # floor(25 + u): 25 in nearly every row, and so in all
    assert (mask.sum(1) == 25).all()
    single = [
        equal_span_mask(torch.tensor([100]), 100, 0.255, span=1).sum().item()
        for _ in range(400)
    ]
    assert set(single) == {25, 26}
    assert np.mean(single) == pytest.approx(25.5, abs=0.1)


def test_equal_masks_of_very_short_rows_exist():
    mask = equal_span_mask(torch.tensor([3, 1, 2]), 3, 0.65, span=10)
    assert torch.equal(mask.sum(1), torch.tensor([1, 1, 1]))


def test_a_set_of_options_draws_by_either_rule():
    lengths = torch.tensor([100, 40])
    for equal_counts, draw in ((True, equal_span_mask), (False, span_mask)):
        masks = SpanMasks(0.5, 5, 3, equal_counts)
        found = masks(lengths, 100, torch.Generator().manual_seed(1))
        generator = torch.Generator().manual_seed(1)
        expected = draw(lengths, 100, 0.5, 5, 3, generator)
        assert torch.equal(found, expected)


def test_rows_with_little_room_still_choose_where_their_spans_start():
    lengths = torch.tensor([12])  # two spans of 10 have three places to start
    first = [equal_span_mask(lengths, 12, 0.1, 10)[0, 0] for _ in range(300)]
    share = torch.stack(first).float().mean().item()
    assert share == pytest.approx(2 / 3, abs=0.1)


NO_MASKS = {"num_time_masks": 0, "num_channel_masks": 0}
NO_WARP = {"warp_window": 0}


def ramp(length, channels=3):
    """Frames that hold their own numbers, [1, T, D]."""
    return torch.arange(float(length))[None, :, None].expand(1, -1, channels)


def test_evaluation_changes_nothing():
    feats = torch.randn(2, 30, 8)
    assert SpecAugment().eval()(feats) is feats


def test_what_is_given_stays_as_it_is():
    feats = torch.randn(2, 60, 8)
    before = feats.clone()
    assert not torch.equal(SpecAugment()(feats), before)
    assert torch.equal(feats, before)


def test_rows_are_warped_apart_and_within_their_frames():
    augment = SpecAugment(**NO_MASKS)
    feats = ramp(40).repeat(4, 1, 1)
    frames = torch.tensor([40, 40, 25, 40])
    warped = augment(feats, frames)
    assert not warped[2, 25:].any()
    assert len({str(row[:25, 0].tolist()) for row in warped}) == 4
    # As a row of its own length
    torch.manual_seed(3)
    alone = augment(feats[2:3, :25])
    torch.manual_seed(3)
    padded = augment(feats[2:3], frames[2:3])
    assert torch.equal(padded[:, :25], alone)


def test_a_warp_moves_one_frame_no_farther_than_its_window():
    augment = SpecAugment(warp_window=5, **NO_MASKS)
    for _ in range(50):
        row = augment(ramp(60))[0, :, 0]
        assert (row[1:] - row[:-1] > -0.5).all()  # the order stays
        assert (row - torch.arange(60.0)).abs().max() < 6.5


def test_the_shortest_row_with_room_for_a_warp_is_warped():
    augment = SpecAugment(warp_window=5, **NO_MASKS)
    for _ in range(50):
        row = augment(ramp(11))
        if not torch.equal(row, ramp(11)):
            return
    pytest.fail("no row was warped")


def test_there_has_to_be_a_count_of_frames_for_each_row():
    with pytest.raises(ValueError, match="frames of 2 rows; got 1"):
        SpecAugment()(torch.randn(2, 50, 60), torch.tensor([50]))


@pytest.mark.parametrize("length", [1, 10])
def test_rows_too_short_for_a_warp_stay(length):
    feats = ramp(length)
    assert torch.equal(SpecAugment(**NO_MASKS)(feats), feats)


def test_masks_are_spans_below_their_widths_in_both_directions():
    augment = SpecAugment(
        num_time_masks=1,
        time_mask_width=6,
        num_channel_masks=1,
        channel_mask_width=4,
        **NO_WARP,
    )
    widths = {"frames": set(), "channels": set()}
    for _ in range(200):
        zero = augment(torch.ones(1, 30, 20))[0] == 0
        for name, mask in (
            ("frames", zero.all(1)),
            ("channels", zero.all(0)),
        ):
            places = mask.nonzero()[:, 0]
            widths[name].add(len(places))
            if len(places):
                assert len(places) == places[-1] - places[0] + 1
    assert widths == {"frames": set(range(6)), "channels": set(range(4))}


def test_each_row_has_masks_of_its_own_and_as_many_as_asked():
    augment = SpecAugment(**NO_WARP)
    zero = augment(torch.ones(8, 400, 768)) == 0
    masked = zero.all(2).sum(1)  # frames
    assert masked.max() <= 2 * 39 and masked.unique().numel() > 4
    assert zero.all(1).sum(1).max() <= 4 * 49


def test_gradients_reach_what_is_not_masked():
    feats = torch.randn(2, 50, 60, requires_grad=True)
    out = SpecAugment()(feats, torch.tensor([50, 30]))
    out.sum().backward()
    assert feats.grad[1, 30:].abs().sum() == 0
    assert feats.grad.abs().sum() > 0


def test_half_precision_stays():
    feats = torch.randn(1, 40, 60, dtype=torch.bfloat16)
    assert SpecAugment()(feats).dtype == torch.bfloat16
