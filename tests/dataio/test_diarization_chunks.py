"""Chunks of conversations; frames labelled by their centres or as in s3prl."""

from functools import partial

import numpy as np
import pytest
import soundfile
import torch
from torch.utils.data import DataLoader

from unispeech_sb.dataio.diarization import (
    NOBODY,
    ChunkReader,
    TrainingChunks,
    chunk_rows,
    clipped,
    count_frames,
    frame_labels,
    longest_speakers,
    superb_frames,
    superb_labels,
)
from unispeech_sb.dataio.labels import LabelEncoder
from unispeech_sb.dataio.samplers import PassSampler
from unispeech_sb.dataio.simulation import Mixture
from unispeech_sb.nnet.lengths import conv_lengths

KERNELS, STRIDES = [10, 3, 3, 3, 3, 2, 2], [5, 2, 2, 2, 2, 2, 2]


@pytest.mark.parametrize("num_samples", [400, 719, 720, 16000, 123457, 479999])
def test_frames_are_those_of_the_backbone(num_samples):
    frames = conv_lengths(num_samples, KERNELS, STRIDES)
    assert count_frames(num_samples) == frames
    assert count_frames(num_samples, 0.04) == (frames + 1) // 2
    with pytest.raises(ValueError, match=r"0\.02 or 0\.04, got 0\.01"):
        count_frames(num_samples, 0.01)


def test_whole_chunks_of_40_ms_have_one_frame_each():
    assert count_frames(30 * 16000, 0.04) == 750


@pytest.mark.parametrize("frame_s", [0.02, 0.04])
def test_a_frame_is_active_if_its_centre_is(frame_s):
    random = np.random.default_rng(0)
    times = np.sort(random.uniform(0, 2, (50, 2)), axis=1).round(3)
    num_frames = round(2 / frame_s)
    centres = (np.arange(num_frames) + 0.5) * frame_s
    for start, end in times:
        labels = frame_labels([(start, end, "a")], ["a"], num_frames, frame_s)
        inside = (start - 1e-9 <= centres) & (centres < end - 1e-9)
        np.testing.assert_array_equal(labels[:, 0].numpy(), inside)


def test_labels_end_with_the_chunk_and_unlisted_speakers_have_none():
    segments = [(-1.0, 0.03, "b"), (0.05, 9.0, "a"), (0.0, 9.0, "c")]
    labels = frame_labels(segments, ["a", "b"], 5)
    assert labels.tolist() == [[0, 1], [0, 0], [1, 0], [1, 0], [1, 0]]


def test_segments_are_cut_to_the_chunk():
    segments = [(0.0, 2.0, "a"), (1.5, 2.5, "b"), (2.5, 3.5, "c"), (4, 5, "d")]
    assert clipped(segments, 2.0, 3.0) == [(0.0, 0.5, "b"), (0.5, 1.0, "c")]
    assert clipped([(0.0, 9.0, "a")], 2.0, 3.0) == [(0.0, 1.0, "a")]


def test_those_who_speak_longest_are_kept_in_the_order_of_their_names():
    segments = [(0, 2, "d"), (0, 3, "b"), (2, 3, "a"), (5, 8, "a"), (0, 1, "c")]
    assert longest_speakers(segments, 2) == ["a", "b"]
    assert longest_speakers(segments, 9) == ["a", "b", "c", "d"]
    assert longest_speakers([], 2) == []


def s3prl_labels(segments, speakers, start, end):
    """What s3prl's ``_get_labeled_speech`` states, one time at a time."""
    labels = np.zeros((end - start, len(speakers)))
    for begin, finish, speaker in segments:
        first, last = (
            int(np.rint(float(time) * 16000 / 320)) for time in (begin, finish)
        )
        inside = slice(
            first - start if start <= first < end else None,
            last - start if start < last <= end else None,
        )
        if inside != slice(None, None):
            labels[inside, speakers.index(speaker)] = 1
    return labels


def test_superb_labels_are_those_of_s3prl():
    random = np.random.default_rng(1)
    for _ in range(50):
        times = np.sort(random.uniform(0, 12, (6, 2)).round(2), axis=1)
        segments = [
            (start, end, "ab"[n % 2]) for n, (start, end) in enumerate(times)
        ]
        for first in (0, 200, 400):
            labels = superb_labels(segments, ["a", "b"], first, 200)
            expected = s3prl_labels(segments, ["a", "b"], first, first + 200)
            np.testing.assert_array_equal(labels.numpy(), expected)


def test_a_segment_over_a_whole_chunk_of_superb_is_not_labelled():
    segments = [(0.5, 100.0, "a")]
    labels = [superb_labels(segments, ["a"], n, 2000) for n in (0, 2000, 4000)]
    assert [float(found.sum()) for found in labels] == [1975.0, 0.0, 1000.0]


def test_superb_rounds_halves_to_even_frames():
    labels = superb_labels([(0.05, 0.15, "a")], ["a"], 0, 10)
    assert labels[:, 0].nonzero()[:, 0].tolist() == [2, 3, 4, 5, 6, 7]
    assert labels.dtype == torch.float32


@pytest.mark.parametrize(
    ("boundary", "frame"),
    # 101.5, 200.5, ... in double precision, as s3prl's ``float`` reads them;
    # in single precision 2.03 and 4.09 would be a frame later
    [(2.03, 101), (4.01, 200), (4.05, 202), (4.09, 204), (8.07, 404)],
)
def test_superb_rounds_in_double_precision(boundary, frame):
    ends = superb_labels([(0.0, boundary, "a")], ["a"], 0, 500)
    begins = superb_labels([(boundary, 10.0, "a")], ["a"], 0, 500)
    assert ends.sum() == frame
    assert begins.sum() == 500 - frame


def test_superb_counts_the_frames_of_a_stated_duration():
    """By ``int(reco2dur * 16000 / 320)``: 4.02 s are 200.99999999999997."""
    stated = {4.0: 200, 4.02: 200, 4.06: 202, 8.04: 401, 8.06: 403, 12.5: 625}
    assert {s: superb_frames(s) for s in stated} == stated


ENCODER = LabelEncoder.from_labels(["anna", "ben", "cleo"])


@pytest.fixture
def ramp(tmp_path):
    """Five seconds at 8 kHz: the sample says where it is."""
    path = str(tmp_path / "ramp.wav")
    soundfile.write(path, np.arange(40000) / 80000, 8000, "FLOAT")
    return path


def row(wav, start_s, end_s, segments=()):
    """A chunk's row."""
    times = {"start_s": start_s, "end_s": end_s}
    times["whole_s"] = 5.0
    return {"id": "talk", "wav": wav, "labels": list(segments), **times}


def test_chunks_follow_one_another_and_no_frame_is_lost():
    recording = {"id": "talk", "duration": 5.0, "wav": "talk.wav"}
    chunks = chunk_rows([recording], 2.0)
    places = [(chunk["start_s"], chunk["end_s"]) for chunk in chunks]
    assert places == [(0.0, 2.0), (2.0, 4.0), (4.0, 5.0)]
    assert {chunk["recording"] for chunk in chunks} == {"talk"}
    assert {chunk["whole_s"] for chunk in chunks} == {5.0}
    assert len({chunk["id"] for chunk in chunks}) == 3
    for duration, count in ((4.0, 2), (4.02, 2), (4.03, 3), (1.0, 1)):
        recording["duration"] = duration
        assert len(chunk_rows([recording], 2.0)) == count
    (whole,) = chunk_rows([recording])
    assert (whole["id"], whole["start_s"], whole["end_s"]) == ("talk", 0.0, 1.0)


def test_only_the_samples_of_the_chunk_are_read(ramp):
    item = ChunkReader(ENCODER, 2).read(row(ramp, 2.0, 3.0))
    assert item["sig"].shape == (16000,)
    middle = item["sig"][100:-100]
    expected = (2.0 + torch.arange(16000) / 16000) / 10
    torch.testing.assert_close(middle, expected[100:-100], atol=2e-3, rtol=0)
    last = ChunkReader(ENCODER, 2).read(row(ramp, 4.0, 5.001))
    assert last["sig"].shape == (16000,)


def test_labels_are_in_step_with_the_chunk(ramp):
    segments = [(0.0, 2.5, "ben"), (2.25, 9.0, "anna")]
    item = ChunkReader(ENCODER, 3).read(row(ramp, 2.0, 3.0, segments))
    assert item["activity"].shape == (49, 3)
    anna, ben, empty = item["activity"].T
    assert ben.nonzero()[:, 0].tolist() == list(range(25))
    # The centre of frame 12 is at 0.25 s
    assert anna.nonzero()[:, 0].tolist() == list(range(12, 49))
    assert empty.sum() == 0
    assert item["speaker_labels"].tolist() == [0, 1, NOBODY]


def test_those_who_speak_least_have_no_column_and_strangers_no_index(ramp):
    segments = [(0.0, 0.9, "zoe"), (0.0, 0.1, "anna"), (0.0, 0.5, "ben")]
    item = ChunkReader(ENCODER, 2).read(row(ramp, 0.0, 1.0, segments))
    assert item["speaker_labels"].tolist() == [1, NOBODY]
    assert item["activity"].sum(0).tolist() == [25, 45]


def test_a_silent_chunk_has_labels_too(ramp):
    item = ChunkReader(ENCODER, 2).read(row(ramp, 0.0, 1.0))
    assert item["activity"].sum() == 0
    assert item["speaker_labels"].tolist() == [NOBODY, NOBODY]


def test_superb_cuts_to_whole_frames_and_labels_each_of_them(ramp):
    reader = ChunkReader(ENCODER, 2, superb=True)
    segments = [(0.0, 9.0, "ben"), (2.5, 9.0, "anna")]
    item = reader.read(row(ramp, 2.0, 3.01, segments))
    assert len(item["sig"]) == 16000 and item["activity"].shape == (50, 2)
    # ben covers the chunk without beginning or ending in it
    assert item["activity"].sum(0).tolist() == [25, 0]
    assert item["speaker_labels"].tolist() == [0, NOBODY]


def test_frames_may_be_twice_as_long(ramp):
    reader = ChunkReader(ENCODER, 2, frame_s=0.04)
    item = reader.read(row(ramp, 0.0, 2.0, [(0.0, 1.0, "ben")]))
    assert item["activity"].shape == (50, 2)
    assert item["activity"].sum(0).tolist() == [25, 0]


def test_narrow_band_has_nothing_above_4_khz(tmp_path):
    path = str(tmp_path / "noise.wav")
    wav = 0.1 * torch.randn(32000)
    soundfile.write(path, wav.numpy(), 16000, "FLOAT")
    reader = ChunkReader(ENCODER, 2, narrow_band=True)
    mixtures = {7: Mixture(wav, [])}
    for item in (
        reader.read(row(path, 0.0, 2.0)),
        reader.simulate(mixtures, 7),
    ):
        energies = torch.fft.rfft(item["sig"]).abs().square()
        half = len(energies) // 2
        assert len(item["sig"]) == 32000
        assert energies[half + half // 20 :].sum() < 0.01 * energies.sum()
    assert item["id"] == "mixture_7"


def draws(chunks, epochs, **loader):
    """What a loader gives in some epochs."""
    sampler = PassSampler(range(len(chunks)), seed=1, pass_size=len(chunks))
    found = []
    for epoch in epochs:
        sampler.set_epoch(epoch)
        for batch in DataLoader(chunks, 2, sampler=sampler, **loader):
            found += batch.tolist()
    return found


def test_random_places_are_inside_new_in_each_pass_and_drawn_again():
    rows = chunk_rows([{"id": "talk", "duration": 10.0}], 3.0)
    chunks = TrainingChunks(rows, lambda row: row["start_s"], 3.0, seed=5)
    starts = [chunks[number] for number in range(40)]
    assert len(set(starts)) == 40
    assert 0.0 <= min(starts) < 1.0 and 6.0 < max(starts) <= 7.0
    assert starts == [chunks[number] for number in range(40)]
    other = TrainingChunks(rows, lambda row: row["start_s"], 3.0, seed=6)
    assert other[0] != starts[0]


def test_a_recording_shorter_than_a_chunk_is_whole():
    rows = chunk_rows([{"id": "talk", "duration": 2.0}], 3.0)
    chunks = TrainingChunks(
        rows, lambda row: (row["start_s"], row["end_s"]), 3.0
    )
    assert chunks[0] == chunks[9] == (0.0, 2.0)


def test_mixtures_are_made_anew_in_each_pass():
    rows = chunk_rows([{"id": "talk", "duration": 2.0}])
    chunks = TrainingChunks(
        rows, lambda row: "talk", simulate=str, num_simulated=2
    )
    assert len(chunks) == 3
    assert [chunks[number] for number in range(6)] == [
        "talk", "0", "1", "talk", "2", "3"
    ]  # fmt: skip


def place(row):
    """Where a chunk begins."""
    return row["start_s"]


def test_workers_and_later_epochs_alone_give_the_same():
    rows = chunk_rows([{"id": "talk", "duration": 20.0}], 3.0)
    make = partial(TrainingChunks, rows, place, 3.0, float, 3)
    whole = draws(make(), (1, 2))
    assert draws(make(), (2,)) == whole[len(whole) // 2 :]
    assert draws(make(), (1, 2), num_workers=2) == whole
