"""Artificial conversations are what their options say, and the same again."""

import math

import numpy as np
import pytest
import soundfile
import torch

from unispeech_sb.dataio.activity import frame_labels
from unispeech_sb.dataio.mixtures import (
    MixtureOptions,
    MixtureSimulator,
    speech_stretches,
)
from unispeech_sb.dataio.noises import prepare_noises
from unispeech_sb.dataio.turns import overlap_ratio

RATE = 16000
DRY = {"snr_db": None, "rt60_s": None}


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Two recordings each of three speakers: noise with silence in it."""
    folder = tmp_path_factory.mktemp("voices")
    random = np.random.default_rng(0)
    found = []
    for name in "abc":
        for number in range(2):
            wav = 0.05 * random.normal(size=6 * RATE)
            wav[: RATE // 2] *= 1e-4
            wav[3 * RATE : 4 * RATE] *= 1e-4
            path = folder / f"{name}{number}.flac"
            soundfile.write(path, wav, RATE)
            found.append({"ID": path.stem, "wav": str(path), "spk_id": name})
    return found


def level_db(wav):
    """Root mean square in dB of full scale."""
    return 20 * math.log10(float(wav.square().mean().sqrt()))


def active(mixture, speaker=None, shrink_s=0.03):
    """Samples in which somebody, or one speaker, is surely heard."""
    samples = torch.zeros(len(mixture.wav), dtype=torch.bool)
    for start, end, name in mixture.segments:
        if speaker in (None, name):
            first, last = start + shrink_s, end - shrink_s
            samples[round(first * RATE) : max(0, round(last * RATE))] = True
    return samples


def test_a_number_is_the_same_conversation_whenever_it_is_made(records):
    mixtures = MixtureSimulator(records, MixtureOptions(), 6.0, seed=3)
    first = [mixtures[number] for number in (5, 0)]
    anew = MixtureSimulator(list(records), {}, 6.0, seed=3)
    for number, mixture in zip((5, 0), first):
        assert torch.equal(anew[number].wav, mixture.wav)
        assert anew[number].segments == mixture.segments
    others = MixtureSimulator(records, {}, 6.0, seed=4)
    assert not torch.equal(others[5].wav, first[0].wav)
    assert not torch.equal(first[0].wav, first[1].wav)


def test_torchs_own_generator_is_left_alone(records):
    torch.manual_seed(1)
    expected = torch.rand(())
    torch.manual_seed(1)
    MixtureSimulator(records, {}, 4.0)[0]
    assert torch.rand(()) == expected


@pytest.mark.parametrize("wanted", [0.0, 0.15, 0.3])
def test_the_overlap_is_what_is_wanted(records, wanted):
    options = {**DRY, "overlap": (wanted, wanted), "turn_s": (2.0, 3.0)}
    mixtures = MixtureSimulator(records, options, 15.0)
    ratios = [overlap_ratio(mixtures[n].segments) for n in range(8)]
    assert np.mean(ratios) == pytest.approx(wanted, abs=0.03)
    assert np.median(ratios) == pytest.approx(wanted, abs=0.01)


def test_overlap_is_drawn_from_its_range(records):
    options = {**DRY, "overlap": (0.0, 0.3), "turn_s": (2.0, 3.0)}
    mixtures = MixtureSimulator(records, options, 12.0)
    ratios = sorted(overlap_ratio(mixtures[n].segments) for n in range(12))
    assert ratios[0] < 0.08 and 0.22 < ratios[-1] < 0.31


def test_there_are_as_many_speakers_as_wanted_and_turns_are_short(records):
    options = {**DRY, "num_speakers": (1, 3), "turn_s": (1.0, 2.0)}
    mixtures = MixtureSimulator(records, options, 15.0)
    counts, durations = set(), []
    for number in range(12):
        segments = mixtures[number].segments
        counts.add(len({segment.speaker for segment in segments}))
        durations += [segment.end - segment.start for segment in segments]
    assert counts == {1, 2, 3}
    assert max(durations) < 2.0 + 1e-6


def test_labels_follow_the_energy(records):
    options = {**DRY, "overlap": (0.1, 0.2), "level_db": (-30.0, -30.0)}
    mixture = MixtureSimulator(records, options, 30.0)[1]
    labels = frame_labels(mixture.segments, ["a", "b", "c"], 1500)
    frames = mixture.wav.unfold(0, 320, 320).square().mean(1).sqrt()
    loud = frames > 10 ** (-45 / 20)
    agreed = (labels.any(1) == loud).float().mean()
    assert agreed > 0.98  # a stretch ends up to 20 ms late
    assert 0.3 < loud.float().mean() < 0.95


def test_each_speaker_has_a_level_of_its_own_in_db(records):
    options = {**DRY, "overlap": (0.0, 0.0), "level_db": (-40.0, -20.0)}
    mixtures = MixtureSimulator(records, options, 20.0)
    levels = []
    for number in range(10):
        mixture = mixtures[number]
        for speaker in {segment.speaker for segment in mixture.segments}:
            levels.append(level_db(mixture.wav[active(mixture, speaker)]))
    assert -40.5 < min(levels) < -36 and -24 < max(levels) < -19.5
    fixed = {**options, "level_db": (-27.0, -27.0)}
    mixture = MixtureSimulator(records, fixed, 20.0)[0]
    assert level_db(mixture.wav[active(mixture)]) == pytest.approx(-27, abs=0.5)


def test_white_noise_is_at_its_snr_in_the_pauses_too(records):
    options = {"rt60_s": None, "snr_db": (15.0, 15.0)}
    options |= {"overlap": (0.0, 0.0), "level_db": (-25.0, -25.0)}
    mixture = MixtureSimulator(records, options, 20.0)[0]
    silent = ~active(mixture, shrink_s=-0.05)
    assert silent.sum() > RATE
    assert level_db(mixture.wav[silent]) == pytest.approx(-40.0, abs=0.5)


def test_noises_and_responses_are_taken_from_lists(records, tmp_path):
    for name, wav in (
        ("noise", np.sign(np.sin(np.arange(3 * RATE)))),
        ("rir", np.eye(1, RATE, 100)[0]),
    ):
        (tmp_path / name).mkdir()
        soundfile.write(tmp_path / name / "1.wav", 0.1 * wav, RATE)
    lists = {
        f"{name}_list": str(
            prepare_noises(tmp_path / name, tmp_path / f"{name}s")
        )
        for name in ("noise", "rir")
    }
    options = {"snr_db": (20.0, 20.0), "level_db": (-25.0, -25.0), **lists}
    mixture = MixtureSimulator(records, options, 10.0)[0]
    folders = {
        f"{name}_list": str(tmp_path / name) for name in ("noise", "rir")
    }
    same = MixtureSimulator(records, {**options, **folders}, 10.0)[0]
    assert torch.equal(same.wav, mixture.wav)
    dry = {**options, "rir_list": None, "rt60_s": None}
    # The response is a single sample: the room of the list changes nothing
    without = MixtureSimulator(records, dry, 10.0)[0]
    assert mixture.segments == without.segments
    silent = mixture.wav[~active(mixture, shrink_s=-0.05)]
    # A square wave has one absolute value, white noise has not
    assert silent.abs().std() < 0.05 * silent.abs().mean()


def test_a_room_adds_a_tail_and_keeps_the_labels(records):
    options = {"snr_db": None, "overlap": (0.0, 0.0)}
    dry, wet = (
        MixtureSimulator(records, {**options, "rt60_s": rt60_s}, 10.0)[2]
        for rt60_s in (None, (0.6, 0.6))
    )
    assert dry.segments == wet.segments
    end = round(dry.segments[0].end * RATE)
    tail = slice(end, end + RATE // 20)
    assert level_db(wet.wav[tail]) > level_db(dry.wav[tail]) + 10


def test_a_sum_that_is_too_loud_is_lowered_as_a_whole(records):
    options = {**DRY, "level_db": (-1.0, -1.0), "overlap": (0.2, 0.3)}
    mixture = MixtureSimulator(records, options, 10.0)[0]
    assert float(mixture.wav.abs().max()) == pytest.approx(0.99, abs=1e-4)


def test_start_and_stop_of_a_record_are_kept_to(tmp_path):
    path, rate = str(tmp_path / "tones.wav"), 8000
    tones = [
        0.5 * np.sin(2 * np.pi * hertz * np.arange(2 * rate) / rate)
        for hertz in (500, 1000, 1500)
    ]
    soundfile.write(path, np.concatenate(tones), rate)
    middle = {"start": 2 * rate, "stop": 4 * rate}
    record = {"ID": "tones", "wav": path, "spk_id": "a", **middle}
    options = {**DRY, "num_speakers": (1, 1), "turn_s": (1.9, 1.9)}
    mixture = MixtureSimulator([record], options, 4.0)[0]
    energies = torch.fft.rfft(mixture.wav).abs().square()
    near = energies[4 * 950 : 4 * 1050].sum()
    assert near > 0.98 * energies.sum()


def test_stretches_follow_the_level_of_the_recording():
    wav = torch.zeros(4 * RATE)
    wav[RATE : 2 * RATE] = 0.3 * torch.randn(RATE)
    wav[2 * RATE + 4800 : 3 * RATE] = 0.3 * torch.randn(RATE - 4800)
    wav += 1e-4 * torch.randn(4 * RATE)
    loud, quiet = (speech_stretches(gain * wav) for gain in (1.0, 0.01))
    assert loud == quiet  # one stretch: the pause is shorter than half a second
    assert len(loud) == 1
    assert loud[0] == pytest.approx((1.0, 3.0), abs=0.03)
    assert len(speech_stretches(wav, min_pause_s=0.2)) == 2
    assert speech_stretches(torch.zeros(100)) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"overlap": (0.3, 0.1)}, "expected overlap as two numbers"),
        ({"overlap": (0.0, 1.5)}, "expected overlap as two numbers from 0"),
        ({"num_speakers": (0, 2)}, "expected num_speakers as two numbers"),
        ({"level_db": (-10.0,)}, "expected level_db as two numbers"),
        ({"loudness": (1, 2)}, "got loudness too"),
        ({"num_speakers": (2, 4)}, "of 4 speakers or more, got 3"),
    ],
)
def test_options_that_cannot_be_met_are_named(records, options, message):
    with pytest.raises(ValueError, match=f"^mixtures: .*{message}"):
        MixtureSimulator(records, options, 5.0)


def test_a_recording_without_speech_is_named(tmp_path):
    path = tmp_path / "click.wav"
    wav = 1e-5 * np.ones(RATE)
    wav[100] = 0.9
    soundfile.write(path, wav, RATE)
    record = {"ID": "click", "wav": str(path), "spk_id": "a"}
    mixtures = MixtureSimulator([record], {"num_speakers": (1, 1)}, 3.0)
    with pytest.raises(ValueError, match=f"{path}: expected speech"):
        mixtures[0]
