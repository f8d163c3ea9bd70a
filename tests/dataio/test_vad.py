"""Silence is cut as SoX cuts it."""

import shutil
import subprocess

import numpy as np
import pytest
import soundfile
import torch

from unispeech_sb.dataio.audio import AudioError
from unispeech_sb.dataio.vad import cut_silence, sound_stretches, with_sound

RATE = 16000
SPAN = RATE // 10
WINDOW = RATE // 50


def parts(*stretches):
    """A waveform of stretches, each an amplitude and a number of samples."""
    return torch.cat([torch.full((n,), float(a)) for a, n in stretches])


def states_of_sox(wav):
    """Indices that SoX keeps, sample by sample as its manual describes it."""
    kept, held, window = [], [], []
    copying = False
    for index, sample in enumerate(wav.double().tolist()):
        window = [*window, sample * sample][-WINDOW:]
        loud = (sum(window) / WINDOW) ** 0.5 > 0.001
        if loud == copying:  # nothing changes
            kept += [*held, index] if copying else []
            held = []
            continue
        held.append(index)
        if len(held) == SPAN:
            kept += [] if copying else held
            window = [] if copying else window
            held, copying = [], not copying
    return kept + (held if copying else [])


def kept_samples(wav):
    """Indices that are kept."""
    return [
        i for start, stop in sound_stretches(wav) for i in range(start, stop)
    ]


def test_a_tone_between_silences_is_cut_out():
    # One sample of 0.1 is enough to make the window of 320 loud
    wav = parts((0, 5000), (0.1, 3000), (0, 5000))
    assert sound_stretches(wav) == [(5000, 8319)]
    torch.testing.assert_close(cut_silence(wav), wav[5000:8319])


def test_a_quiet_tone_is_loud_when_its_mean_square_is():
    # Mean square of n samples of 0.0021 in the window: n * 4.41e-6 / 320,
    # above 1e-6 with 73 of them, at the beginning as at the end.
    wav = parts((0, 4000), (0.0021, 3000), (0, 4000))
    assert sound_stretches(wav) == [(4000 + 72, 7000 + 320 - 73)]
    assert sound_stretches(parts((0.00099, 16000))) == []


@pytest.mark.parametrize(
    ("gap", "expected"),
    [
        (SPAN + 319 - 1, [(0, 6000 + SPAN + 318)]),
        (SPAN + 319, [(0, 3319), (3000 + SPAN + 319, 6000 + SPAN + 319)]),
    ],
)
def test_a_gap_is_cut_from_a_tenth_of_a_second_on(gap, expected):
    wav = parts((0.5, 3000), (0, gap), (0.5, 3000))
    assert sound_stretches(wav) == expected


@pytest.mark.parametrize(("tone", "loud"), [(SPAN - 320, 0), (SPAN - 319, 1)])
def test_a_click_is_no_beginning(tone, loud):
    wav = parts((0, 2000), (0.5, tone), (0, 3000))
    assert len(sound_stretches(wav)) == loud


def test_a_short_gap_at_the_end_stays_and_a_long_one_goes():
    for pause, end in ((SPAN - 1, 3319 + SPAN - 1), (SPAN, 3319)):
        wav = parts((0.5, 3000), (0, 319 + pause))
        assert sound_stretches(wav) == [(0, end)]


def test_what_was_before_a_gap_does_not_make_the_next_sample_loud():
    # 0.0009 is no sound, but half of it in a window and half of 0.00105 is.
    # The gap is over where the last tone begins. Alone that is loud once 291
    # samples are in the window: n * 0.00105**2 > 320 * 0.001**2.
    gap = SPAN + 319
    wav = parts((0.5, 3000), (0.0009, gap), (0.00105, 3000))
    assert sound_stretches(wav) == [(0, 3319), (3000 + gap + 290, 6000 + gap)]
    assert kept_samples(wav) == states_of_sox(wav)


@pytest.mark.slow
def test_any_signal_is_cut_as_by_soxs_states():
    draws = np.random.default_rng(0)
    for length in (0, 1, 300, 1599, 1600, *draws.integers(2000, 12000, 25)):
        places = np.linspace(0, length, 12)
        loudness = np.interp(
            np.arange(length), places, draws.uniform(-9, -5, 12)
        )
        wav = draws.normal(size=length) * np.exp(loudness)
        for start in draws.integers(0, max(length, 1), 3):
            wav[start : start + draws.integers(1, 3000)] = 0
        wav = torch.from_numpy(wav)
        assert kept_samples(wav) == states_of_sox(wav), length


@pytest.mark.skipif(not shutil.which("sox"), reason="SoX is not installed")
@pytest.mark.real_data
def test_real_speech_is_cut_as_by_sox(data_folder, tmp_path):
    effect = "gain -3.0 silence 1 0.1 0.1% -1 0.1 0.1%".split()
    files = sorted((data_folder / "digits").glob("*/*.flac"))[::90]
    assert len(files) > 10
    source, target = tmp_path / "in.wav", tmp_path / "out.wav"
    for file in files:
        samples, _ = soundfile.read(file, dtype="int16")
        soundfile.write(source, samples, RATE)
        command = ["sox", "-D", source, "-b", "32", target, *effect]
        subprocess.run(command, check=True)
        theirs = torch.from_numpy(soundfile.read(target)[0])
        ours = cut_silence(torch.from_numpy(samples) / 2**15 * 10**-0.15)
        torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=1e-7)


def test_nothing_but_silence_is_refused():
    with pytest.raises(ValueError, match=r"the 0\.5 s have none"):
        cut_silence(torch.zeros(8000))


@pytest.fixture
def records(tmp_path):
    """2.1 s of sound, 1.9 s in a longer file, a stretch, and silence."""
    draws = np.random.default_rng(0)

    def write(name, sound_s, pause_s, **stretch):
        sound = 0.1 * draws.normal(size=round(sound_s * RATE))
        wav = np.concatenate([sound, np.zeros(round(pause_s * RATE))])
        soundfile.write(tmp_path / f"{name}.wav", wav, RATE)
        return {"ID": name, "wav": str(tmp_path / f"{name}.wav"), **stretch}

    return [
        write("long", 2.1, 1.0),
        write("short", 1.9, 1.0),
        write("part", 4.0, 0.0, start=16000, stop=RATE * 3 + 1),
        write("none", 0.0, 3.0),
    ]


@pytest.mark.parametrize("num_workers", [1, 3])
def test_recordings_with_little_sound_are_left_out(records, num_workers):
    found = with_sound(records, min_s=2.0, num_workers=num_workers)
    # The window makes a sound 319 samples longer at most
    assert [r["ID"] for r in found] == ["long", "part"]
    assert 2.1 <= found[0]["sound_s"] <= 2.1 + 0.02
    assert found[1] == {**records[2], "sound_s": round(2 + 1 / RATE, 4)}


def test_the_gain_comes_before_the_threshold(tmp_path):
    path = str(tmp_path / "a.wav")
    soundfile.write(path, np.full(48000, 0.0012), RATE, subtype="FLOAT")
    record = {"ID": "a", "wav": path}
    assert with_sound([record], gain_db=0.0)
    with pytest.raises(ValueError, match=r"more than 2\.0 s .* of 1 is"):
        with_sound([record])


def test_a_recording_that_is_missing_is_named(records):
    with pytest.raises(AudioError, match="nowhere.wav: there is no such file"):
        with_sound([*records, {"ID": "x", "wav": "nowhere.wav"}])
