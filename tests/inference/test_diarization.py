"""Who speaks when is found in recordings and streams of any length."""

import numpy as np
import pytest
import torch

from tests.inference.diarization_models import (
    HEADS,
    babble,
    conversation,
    oracle,
    save_model,
    talk,
)
from tests.inference.speaker_models import write
from unispeech_sb.dataio.audio import AudioError
from unispeech_sb.dataio.rttm import normalized
from unispeech_sb.inference.diarization import (
    LocalSegmentation,
    SpeakerDiarization,
)
from unispeech_sb.nnet.binarize import BinarizeConfig

both = pytest.mark.parametrize("has_embeddings", [True, False])


@pytest.fixture(scope="module", params=HEADS)
def model(request, tmp_path_factory):
    """A tiny model of each kind, of windows of one second."""
    path = tmp_path_factory.mktemp("diarization") / request.param
    save_model(path, request.param)
    return SpeakerDiarization.from_hparams(str(path))


def matched(found, turns):
    """What was found, under the names of the speakers who share most."""
    names = {}
    for segment in found:
        shared = {
            who: sum(
                max(0, min(end, segment.end) - max(start, segment.start))
                for start, end, other in turns
                if other == who
            )
            for _, _, who in turns
        }
        names.setdefault(segment.speaker, max(shared, key=shared.get))
    assert len(set(names.values())) == len(names)
    return normalized((s.start, s.end, names[s.speaker]) for s in found)


def expect(found, turns):
    """Checks segments to a frame."""
    found, wanted = (
        sorted(segments, key=lambda s: (s.speaker, s.start))
        for segments in (matched(found, turns), normalized(turns))
    )
    for segment, turn in zip(found, wanted, strict=True):
        assert segment.speaker == turn.speaker
        assert segment.start == pytest.approx(turn.start, abs=0.021)
        assert segment.end == pytest.approx(turn.end, abs=0.021)


@both
@pytest.mark.parametrize("seconds", [7.0, 10.0, 64.3, 150.0])
def test_speakers_and_overlaps_are_found(seconds, has_embeddings):
    turns = conversation(4 if has_embeddings else 2, seconds, seed=3)
    model = oracle(has_embeddings, 4 if has_embeddings else 2)
    found = model.diarize_file(talk(turns, seconds))
    expect(found.segments, turns)
    assert found.duration_s == seconds
    assert found.speakers == [f"speaker{n + 1}" for n in range(
        len({who for _, _, who in turns}))]  # fmt: skip
    assert {s.confidence for s in found.segments} == {0.9}


def test_the_number_of_speakers_may_be_given_or_bounded():
    turns = conversation(4, 120.0)
    wav, model = talk(turns, 120.0), oracle(True)
    for numbers, wanted in (
        ({}, 4), ({"num_speakers": 2}, 2), ({"max_speakers": 3}, 3),
        ({"min_speakers": 5}, 5), ({"min_speakers": 2, "max_speakers": 9}, 4),
    ):  # fmt: skip
        found = model.diarize_file(wav, **numbers)
        assert len(found.speakers) == wanted, numbers


class Two:
    """The oracle, of a model that has outputs for two speakers."""

    def __init__(self, model, faint=None):
        self.model, self.faint = model, faint

    def __getattr__(self, name):
        return getattr(self.model, name)

    def segment(self, wavs, threshold=0.5):
        """The two who are active longest; a third one is never certain."""
        found = []
        for one in self.model.segment(wavs, threshold):
            shares = one.activities[:, one.active].mean(0)
            kept = np.sort(np.argsort(-shares, kind="stable")[:2])
            embeddings = one.embeddings[kept]
            activities = one.activities[:, one.active[kept]]
            if self.faint is not None:
                embeddings = np.concatenate([embeddings, self.faint[None]])
                faint = np.full((len(activities), 1), 0.3)
                activities = np.concatenate([activities, faint], axis=1)
            places = np.arange(activities.shape[1])
            found.append(LocalSegmentation(activities, places, embeddings))
        return found


def test_shorter_windows_find_more_speakers_than_a_window_has(caplog):
    turns = [(0.5, 3.0, 0), (3.5, 6.0, 1), (7.0, 9.0, 2)]
    wav, model = talk(turns, 10.0), oracle(True)
    model.model = Two(model.model)
    seen = []
    assert len(model.diarize_file(wav).speakers) == 2
    found = model.diarize_file(wav, 3, on_progress=seen.append)
    expect(found.segments, turns)
    assert sum(seen) == pytest.approx(10.0)
    assert not caplog.records


def test_who_is_never_certain_takes_no_place_among_those_asked_for():
    turns = conversation(3, 60.0, seed=1)
    model = oracle(True, 3)
    model.model = Two(model.model, faint=model.model.speakers[9])
    assert len(model.diarize_file(talk(turns, 60.0), 3).speakers) == 3


def test_fewer_speakers_than_asked_for_are_logged(tmp_path, caplog):
    path = write(tmp_path / "talk.wav", talk([(0.2, 0.8, 0)], 0.9))
    assert oracle(True).diarize_file(path, 3).speakers == ["speaker1"]
    message = f"{path}: found 1 of 3 speakers: its windows have 1 of"
    assert message in caplog.text
    caplog.clear()
    wav = talk([(0.5, 3.0, 0)], 4.0)
    oracle(False, 3).diarize_file(wav, min_speakers=2)
    assert "found 1 of 2 speakers: " in caplog.text
    assert len(caplog.records) == 1
    caplog.clear()
    oracle(True).diarize_file(wav)
    assert not caplog.records


def test_without_embeddings_those_who_say_least_are_left_out():
    turns = [  # where windows meet, both of those who stay are active
        (0.4, 3.0, 0), (2.0, 2.6, 1), (5.0, 8.0, 2), (8.4, 9.6, 0),
        (10.4, 11.2, 2), (12.0, 18.0, 0),
    ]  # fmt: skip
    wav, model = talk(turns, 20.0), oracle(False, 3)
    expect(model.diarize_file(wav, 2).segments,
           [turn for turn in turns if turn[2] != 1])  # fmt: skip
    expect(model.diarize_file(wav, max_speakers=1).segments,
           [turn for turn in turns if turn[2] == 0])  # fmt: skip
    with pytest.raises(ValueError, match="expected 3 at most"):
        model.diarize_file(wav, 4)


def test_numbers_of_speakers_that_make_no_sense_are_refused(model):
    for numbers in ((0,), (None, 0), (None, 3, 2), (None, 1, 0)):
        with pytest.raises(ValueError, match="speakers: expected"):
            model.diarize_file(torch.randn(16000), *numbers)
        with pytest.raises(ValueError, match="speakers: expected"):
            list(model.diarize_files(["no.wav"], *numbers))


@both
def test_a_stream_finds_who_speaks(has_embeddings):
    turns = conversation(3, 60.0, seed=1)
    model = oracle(has_embeddings, 3)
    expect(list(model.diarize_stream(talk(turns, 60.0), 4.0)), turns)


@pytest.mark.slow
@both
def test_what_a_stream_says_depends_on_the_delay_only(has_embeddings):
    turns = conversation(3, 60.0, seed=1)
    wav, model = talk(turns, 60.0), oracle(has_embeddings, 3)
    model.smoothing = BinarizeConfig(0.5, 5, 0.1, 0.1)
    check_delay(model, wav, (3.0, 8.0), (9.5, 41.37))


def test_the_delay_holds_for_real_models(model):
    check_delay(model, babble(5.0), (0.6,), (0.4, 2.77))


def check_delay(model, wav, delays, times):
    """Cuts a recording, and compares what is said of the time before."""
    for delay in delays:
        whole = list(model.diarize_stream(wav, delay))
        assert whole
        for time in times:
            part = wav[: round((time + delay) * 16000)]
            found = list(model.diarize_stream(part, delay))
            assert until(found, time) == until(whole, time)
            other = torch.cat([part, babble(4.0, seed=1)])
            found = list(model.diarize_stream(other, delay))
            assert until(found, time) == until(whole, time)


def until(segments, time):
    """Who speaks before a time; names as they come."""
    cut = [
        (s.start, min(s.end, time), s.speaker)
        for s in segments
        if s.start < time
    ]
    names = {}
    for start, _, speaker in sorted(cut):
        names.setdefault(speaker, f"{len(names)} from {start}")
    return normalized((a, b, names[who]) for a, b, who in cut)


@both
def test_a_stream_may_come_in_blocks_of_any_length(has_embeddings, tmp_path):
    turns = conversation(3, 30.0)
    wav, model = talk(turns, 30.0), oracle(has_embeddings, 3)
    whole = list(model.diarize_stream(wav, 5.0))
    path = write(tmp_path / "a.wav", wav)
    for source in (path, wav.split(777), iter(wav.split(48000))):
        assert list(model.diarize_stream(source, 5.0)) == whole
    ends = [segment.end for segment in whole]
    assert all(b > a - 1.0 for a, b in zip(ends, ends[1:]))


def test_a_stream_answers_before_it_ends():
    turns, read = conversation(2, 60.0), []

    def blocks():
        for number, block in enumerate(talk(turns, 60.0).split(1600)):
            read.append(number / 10)
            yield block

    for segment in oracle(True, 2).diarize_stream(blocks(), 2.0):
        if segment.end < 57:
            assert read[-1] - segment.end < 2.0 + 0.2


def test_a_delay_that_smoothing_takes_is_refused(model):
    with pytest.raises(ValueError, match="delay_s: expected at least"):
        list(model.diarize_stream(torch.randn(16000), 0.02))


def test_silence_is_nobody(model, tmp_path):
    for seconds in (0.05, 1.0, 3.7):
        path = write(tmp_path / "silent.wav", torch.zeros(int(seconds * 16000)))
        found = model.diarize_file(path)
        assert found.segments == ()
        assert (found.speakers, found.to_rttm()) == ([], "")
        assert list(model.diarize_stream(path, 2.0)) == []


@pytest.mark.parametrize("seconds", [0.025, 0.1, 1.0, 1.01])
def test_short_recordings_stay_within_their_length(seconds, model, tmp_path):
    path = write(tmp_path / "short.wav", babble(seconds))
    found = model.diarize_file(path)
    assert found.duration_s == pytest.approx(seconds)
    for segment in found.segments:
        assert 0 <= segment.start < segment.end <= seconds + 1e-9
        assert 0 <= segment.confidence <= 1


def test_bad_files_are_told_and_passed_over(model, tmp_path):
    bad = babble(3.0).clone()
    bad[-9] = float("nan")
    paths = [
        str(tmp_path / "no.wav"),
        write(tmp_path / "nan.wav", bad),
        write(tmp_path / "good.wav", babble(2.0)),
        write(tmp_path / "short.wav", babble(0.01)),
    ]
    found = dict(model.diarize_files(paths))
    assert list(found) == paths
    for path, message in (
        (paths[0], "there is no such file"),
        (paths[1], "some samples are NaN or infinite"),
        (paths[3], "too short, expected at least 400 samples, got 160"),
    ):
        assert isinstance(found[path], AudioError)
        assert str(found[path]) == f"{path}: {message}"
        with pytest.raises(AudioError):
            model.diarize_file(path)
    assert found[paths[2]] == model.diarize_file(paths[2])
    with pytest.raises(AudioError, match="waveform: some samples are NaN"):
        model.diarize_file(bad)
    with pytest.raises(AudioError, match="stream: some samples are NaN"):
        list(model.diarize_stream(bad.split(1000)))


def test_how_many_windows_go_together_does_not_matter(model):
    wav, seen = babble(7.3), []
    several = model.diarize_file(wav, on_progress=seen.append)
    assert sum(seen) == pytest.approx(7.3)
    model.batch_seconds = 1.0
    one = model.diarize_file(wav)
    model.batch_seconds = 30.0
    assert len(one.segments) > 3
    np.testing.assert_allclose(
        [s[:2] for s in one.segments], [s[:2] for s in several.segments]
    )


def test_a_batch_equals_its_waveforms(model):
    wavs = torch.nn.utils.rnn.pad_sequence(
        [babble(1.0), babble(0.71, 2), babble(0.5, 3)], batch_first=True
    )
    shares = torch.tensor([1.0, 0.71, 0.5])
    batch = model.diarize_batch(wavs, shares)
    for row, (wav, share) in enumerate(zip(wavs, shares)):
        alone = model.diarize_batch(wav[None, : round(16000 * float(share))])
        frames = alone.shape[1]
        torch.testing.assert_close(
            batch[row, :frames], alone[0], rtol=1e-4, atol=1e-4
        )
        assert not batch[row, frames:].any()
    assert torch.equal(model(wavs, shares), batch)
