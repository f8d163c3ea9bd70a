"""Simulated mixtures are what their options say, and the same again."""

import math

import numpy as np
import pytest
import soundfile
import torch

from unispeech_sb.atomic import OneWriter
from unispeech_sb.dataio.corpora.conversations import kaldi_folders
from unispeech_sb.dataio.diarization import frame_labels
from unispeech_sb.dataio.noises import prepare_noises
from unispeech_sb.dataio.rttm import read_rttm
from unispeech_sb.dataio.simulation import (
    Mixture,
    MixtureOptions,
    MixtureSimulator,
    Turn,
    arrange_turns,
    overlap_ratio,
    reverberate,
    room_response,
    speech_stretches,
    turn_segments,
    uniform,
    write_mixtures,
)

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
    """Samples in which somebody, or one speaker, is surely active."""
    samples = torch.zeros(len(mixture.wav), dtype=torch.bool)
    for start, end, name in mixture.segments:
        if speaker in (None, name):
            first, last = start + shrink_s, end - shrink_s
            samples[round(first * RATE) : max(0, round(last * RATE))] = True
    return samples


def test_a_number_is_the_same_mixture_whenever_it_is_made(records):
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
        ({"turn_s": (1.0, math.inf)}, "expected turn_s as two numbers from"),
        ({"rt60_s": (0.1, 1e9)}, "expected rt60_s as two numbers .*to 30"),
        ({"snr_db": (math.nan, 1.0)}, "expected snr_db as two numbers"),
        ({"pause_s": "ab"}, "expected pause_s as two numbers"),
        ({"pause_s": 1.0}, "expected pause_s as two numbers"),
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


def speech(speaker, duration):
    """A turn without pauses."""
    return Turn(speaker, duration, [(0.0, duration)])


def generator(seed=0):
    """A generator with a seed."""
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("segments", "ratio"),
    [
        ([], 0.0),
        ([(0.0, 2.0, "a"), (3.0, 5.0, "a")], 0.0),
        ([(0.0, 2.0, "a"), (2.0, 5.0, "b")], 0.0),
        ([(0.0, 4.0, "a"), (3.0, 5.0, "b")], 0.2),
        ([(0.0, 4.0, "a"), (1.0, 2.0, "b"), (1.5, 3.0, "c")], 0.5),
        ([(0.0, 4.0, "a"), (0.0, 4.0, "b")], 1.0),
    ],
)
def test_overlap_is_counted_once_however_many_speak(segments, ratio):
    assert overlap_ratio(segments) == pytest.approx(ratio)


@pytest.mark.parametrize("wanted", [0.0, 0.1, 0.25, 0.4])
@pytest.mark.parametrize("seed", range(5))
def test_the_overlap_is_what_is_wanted_and_never_of_three(wanted, seed):
    turns = [speech("abc"[n % 3], 2.0 + n % 4 / 2) for n in range(12)]
    starts = arrange_turns(turns, 20.0, wanted, (0.1, 0.8), generator(seed))
    segments = turn_segments(turns, starts, 20.0)
    assert overlap_ratio(segments) == pytest.approx(wanted, abs=0.02)
    for time in torch.arange(0.0, 20.0, 0.05).tolist():
        assert sum(s.start < time < s.end for s in segments) <= 2


def test_without_overlap_pauses_are_in_their_limits():
    turns = [speech("ab"[n % 2], 1.0) for n in range(20)]
    starts = arrange_turns(turns, 60.0, 0.0, (0.2, 0.6), generator())
    ends = [0.0, *(start + 1.0 for start in starts)]
    pauses = [start - end for start, end in zip(starts, ends)]
    assert 0.2 <= min(pauses) < 0.3 and 0.5 < max(pauses) <= 0.6


def test_a_speaker_who_goes_on_never_overlaps_with_itself():
    turns = [speech("a", 1.0) for _ in range(6)]
    starts = arrange_turns(turns, 9.0, 0.4, (0.2, 0.2), generator())
    assert starts == pytest.approx([0.2 + 1.2 * n for n in range(6)])


def test_where_overlap_is_wanted_there_are_pauses_too():
    turns = [speech("ab"[n % 2], 2.0) for n in range(30)]
    starts = arrange_turns(turns, 60.0, 0.15, (0.5, 1.0), generator())
    gaps = [after - 2.0 - before for before, after in zip(starts, starts[1:])]
    assert min(gaps) < -0.2 and max(gaps) > 0.5


def test_pauses_inside_a_turn_are_no_speech_and_the_end_is_cut():
    turn = Turn("a", 3.0, [(0.0, 1.0), (2.0, 3.0)])
    segments = turn_segments([turn, turn], [1.0, 4.5], 5.0)
    assert segments == [(1.0, 2.0, "a"), (3.0, 4.0, "a"), (4.5, 5.0, "a")]


def test_numbers_are_drawn_from_the_whole_range():
    draws = [uniform((2.0, 3.0), generator(seed)) for seed in range(50)]
    assert 2.0 <= min(draws) < 2.2 and 2.8 < max(draws) <= 3.0


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


def test_a_reverberated_signal_is_in_step_and_at_its_level():
    wav = torch.zeros(4000)
    wav[1000] = 0.5
    late = torch.zeros(300)
    late[100], late[150] = -0.2, 0.1  # a file that begins before the sound
    received = reverberate(wav, late)
    wanted = torch.zeros(4000)
    wanted[1000], wanted[1050] = 0.5, -0.25
    torch.testing.assert_close(received, wanted, atol=1e-6, rtol=0)


def test_a_room_of_one_sample_changes_nothing():
    wav = torch.randn(1000)
    received = reverberate(wav, room_response(1e-5, torch.Generator()))
    torch.testing.assert_close(received, wav, atol=1e-6, rtol=0)


MADE = [
    Mixture(0.1 * torch.randn(8000), [(0.1, 0.4, "anna"), (0.3, 0.5, "ben")]),
    Mixture(0.1 * torch.randn(16000), [(0.25, 1.0, "ben")]),
]


def test_a_written_set_is_a_corpus(tmp_path):
    folder = tmp_path / "train"
    write_mixtures(MADE, 2, folder, prefix="talk")
    records = list(kaldi_folders(folder))
    assert [record["ID"] for record in records] == ["talk_00000", "talk_00001"]
    assert [record["duration"] for record in records] == [0.5, 1.0]
    assert {record["split"] for record in records} == {"train"}
    annotations = read_rttm(records[0]["rttm"])
    assert list(annotations.values()) == [made.segments for made in MADE]
    wav, rate = soundfile.read(records[1]["wav"], dtype="float32")
    torch.testing.assert_close(
        torch.from_numpy(wav), MADE[1].wav, atol=1e-4, rtol=0
    )
    assert rate == 16000
    durations = (folder / "reco2dur").read_text().split()
    assert durations == ["talk_00000", "0.500000", "talk_00001", "1.000000"]


def test_a_set_is_not_written_over(tmp_path):
    write_mixtures(MADE, 1, tmp_path)
    with pytest.raises(ValueError, match="it has a wav.scp"):
        write_mixtures(MADE, 1, tmp_path)


def test_one_process_writes_a_set(tmp_path):
    with OneWriter(tmp_path / "wav.scp"), pytest.raises(BlockingIOError):
        write_mixtures(MADE, 1, tmp_path)
    assert not list(tmp_path.glob("*.flac"))
