"""Rooms add a tail of the wanted length and leave the direct sound."""

import pytest
import torch

from unispeech_sb.dataio.rooms import heard_in_room, room_response


def decay_db(response, early_s, late_s, rate=16000):
    """By how many dB the energy falls between two moments."""
    width = rate // 50
    early, late = (
        response[int(t * rate) :][:width].square().mean()
        for t in (early_s, late_s)
    )
    return 10 * float(torch.log10(early / late))


@pytest.mark.parametrize("rt60_s", [0.3, 0.8])
def test_the_tail_decays_by_60_db_in_the_reverberation_time(rt60_s):
    response = room_response(rt60_s, torch.Generator().manual_seed(1))
    assert len(response) == rt60_s * 16000
    fall = decay_db(response, 0.1 * rt60_s, 0.6 * rt60_s)
    assert fall == pytest.approx(30.0, abs=3.0)


def test_the_direct_sound_has_up_to_10_db_more_than_the_rest():
    ratios = []
    for seed in range(30):
        response = room_response(0.3, torch.Generator().manual_seed(seed))
        assert response[0] == 1.0
        ratios.append(-10 * float(response[1:].square().sum().log10()))
    assert -0.1 < min(ratios) < 1.5 and 8.5 < max(ratios) < 10.1


def test_what_is_heard_is_in_step_and_at_its_level():
    wav = torch.zeros(4000)
    wav[1000] = 0.5
    late = torch.zeros(300)
    late[100], late[150] = -0.2, 0.1  # a file that begins before the sound
    heard = heard_in_room(wav, late)
    wanted = torch.zeros(4000)
    wanted[1000], wanted[1050] = 0.5, -0.25
    torch.testing.assert_close(heard, wanted, atol=1e-6, rtol=0)


def test_a_room_of_one_sample_changes_nothing():
    wav = torch.randn(1000)
    heard = heard_in_room(wav, room_response(1e-5, torch.Generator()))
    torch.testing.assert_close(heard, wav, atol=1e-6, rtol=0)
