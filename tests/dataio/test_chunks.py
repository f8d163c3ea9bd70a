"""Chunks are cut, labelled and drawn, the same in a resumed run."""

from functools import partial

import numpy as np
import pytest
import soundfile
import torch
from torch.utils.data import DataLoader

from unispeech_sb.dataio.chunks import (
    NOBODY,
    ChunkReader,
    TrainingChunks,
    chunk_rows,
)
from unispeech_sb.dataio.labels import LabelEncoder
from unispeech_sb.dataio.samplers import PassSampler
from unispeech_sb.dataio.simulation import Mixture

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
    return {"id": "talk", "wav": wav, "segments": list(segments), **times}


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


def test_conversations_are_made_anew_in_each_pass():
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
