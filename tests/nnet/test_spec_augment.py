"""SUPERB's SpecAugment."""

import pytest
import torch

from unispeech_sb.nnet.spec_augment import SpecAugment

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
