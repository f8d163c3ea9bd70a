"""Tests unispeech_sb.dataio.corpora.noise."""

import pytest
import torch

from unispeech_sb.dataio.corpora.noise import (
    Noise,
    add_noise,
    draw_below,
    set_peak,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def tone(num_samples=16000):
    return torch.sin(torch.arange(num_samples) * 0.3)


@pytest.mark.parametrize("kind", ["white", "pink", "babble"])
@pytest.mark.parametrize("snr_db", [-5.0, 10.0])
def test_noise_has_the_ratio_asked_for(kind, snr_db):
    babble = torch.randn(3000, generator=generator(1))
    noise = Noise((kind,), (snr_db, snr_db))
    added = add_noise(tone(), noise, generator(), babble) - tone()
    ratio = tone().square().mean() / added.square().mean()
    assert 10 * ratio.log10().item() == pytest.approx(snr_db, abs=1e-3)


def test_ratios_stay_in_their_range_and_fill_it():
    draw, ratios = generator(), []
    for _ in range(200):
        added = add_noise(tone(), Noise(("white",), (3.0, 9.0)), draw) - tone()
        ratio = tone().square().mean() / added.square().mean()
        ratios.append(10 * ratio.log10().item())
    assert 2.99 < min(ratios) < 3.5
    assert 8.5 < max(ratios) < 9.01


@pytest.mark.parametrize(("kind", "slope"), [("white", 0), ("pink", -1)])
def test_the_spectrum_falls_as_its_colour_says(kind, slope):
    silence = torch.full((2**17,), 1e-6)
    clip = add_noise(silence, Noise((kind,), (-120.0, -120.0)), generator())
    power = torch.fft.rfft(clip)[1:].abs().square()
    low, high = power[2**8 : 2**9].mean(), power[2**14 : 2**15].mean()
    octaves = 6
    measured = (high / low).log2().item() / octaves
    assert measured == pytest.approx(slope, abs=0.05)


def test_every_kind_is_drawn_and_the_same_seed_gives_the_same_noise():
    babble = torch.ones(500)
    clips = []
    for seed in (0, 0, 1):
        draw = generator(seed)
        clips.append([add_noise(tone(), Noise(), draw, babble) for _ in "1234"])
    assert all(map(torch.equal, clips[0], clips[1]))
    assert not all(map(torch.equal, clips[0], clips[2]))


@pytest.mark.parametrize("kind", ["brown", "babble"])
def test_a_kind_that_cannot_be_made_is_an_error(kind):
    with pytest.raises(ValueError, match=f"got '{kind}'"):
        add_noise(tone(), Noise((kind,)), generator())


def test_the_peak_is_set():
    assert set_peak(tone(), 0.7).abs().max().item() == pytest.approx(0.7)


def test_draws_cover_the_numbers_below_a_bound():
    draw = generator()
    assert {draw_below(3, draw) for _ in range(50)} == {0, 1, 2}
