"""Diarization: datasets, chunks, and frames labelled by centres or as s3prl."""

import logging
from functools import partial

import numpy as np
import pytest
import soundfile
import torch
from speechbrain import Stage
from speechbrain.dataio.dataloader import make_dataloader
from torch.utils.data import DataLoader

from unispeech_sb.dataio.corpora import read_corpus
from unispeech_sb.dataio.diarization import (
    NOBODY,
    ChunkReader,
    TrainingChunks,
    chunk_rows,
    clipped,
    count_frames,
    diarization_datasets,
    frame_labels,
    longest_speakers,
    mixture_recordings,
    superb_frames,
    superb_labels,
)
from unispeech_sb.dataio.labels import LabelEncoder
from unispeech_sb.dataio.manifest import check_records, write_manifests
from unispeech_sb.dataio.rttm import write_rttm, write_uem
from unispeech_sb.dataio.samplers import PassSampler
from unispeech_sb.dataio.simulation import Mixture
from unispeech_sb.nnet.lengths import conv_lengths

HPARAMS = {
    "data_folder": "talks",
    "skip_bad_files": False,
    "num_speakers": 2,
    "frame_s": 0.02,
    "chunk_s": 2.0,
    "eval_chunk_s": None,
    "superb_labels": False,
    "narrow_band": False,
    "simulated": 0,
    "mixture_options": {"snr_db": None, "rt60_s": None, "turn_s": (0.5, 1.0)},
    "max_eval_batch_s": None,
    "seed": 1,
}
TALKS = {
    "train": {"a": [(0.0, 1.0, "anna"), (0.5, 5.0, "ben")]},
    "valid": {
        "b": [(0.0, 1.0, "ben"), (1.0, 4.0, "cleo"), (3.0, 3.5, "dora")],
        "c": [],
    },
}


def conversations(folder):
    """The records of a folder."""
    return list(read_corpus("speaker_diarization", {}, folder))


def speak(path, seconds):
    """Writes noise in place of speech."""
    wav = np.random.default_rng(0).normal(size=round(16000 * seconds))
    soundfile.write(path, 0.05 * wav, 16000)
    return str(path)


@pytest.fixture
def hparams(tmp_path):
    """A corpus of three conversations, prepared; and voices of three."""
    for split, talks in TALKS.items():
        folder = tmp_path / "talks" / split
        folder.mkdir(parents=True)
        for name in talks:
            speak(folder / f"{name}.wav", 5.0)
        write_rttm(folder / "rttm", talks)
        lines = [f"{name} {name}.wav\n" for name in talks]
        (folder / "wav.scp").write_text("".join(lines))
    write_uem(tmp_path / "talks/valid/uem", {"b": [(0.5, 4.5)]})
    for name in ("ann", "bob", "cleo"):
        speak(tmp_path / f"{name}.wav", 3.0)
    lines = [f"{name}.wav,{name}\n" for name in ("ann", "bob", "cleo")]
    (tmp_path / "manifest.csv").write_text("path,speaker\n" + "".join(lines))
    options = {f"{s}_dataloader_opts": {} for s in ("train", "valid", "test")}
    folder = tmp_path / "manifests"
    hparams = {**HPARAMS, **options, "manifest_folder": folder}
    hparams["simulated_folder"] = tmp_path
    records = check_records(conversations(tmp_path / "talks"))
    write_manifests(records, folder)
    mixed = mixture_recordings(records, hparams)
    write_manifests(mixed, folder / "voices", required_splits=("train",))
    return hparams


def test_what_is_evaluated_is_whole_with_its_annotation(hparams):
    datasets = diarization_datasets(hparams)
    assert set(datasets) == {"train", "valid"}
    first, second = datasets["valid"]
    assert set(first) == {
        "id", "recording", "start_s", "sig", "activity", "speaker_labels"
    }  # fmt: skip
    assert (first["id"], first["recording"], first["start_s"]) == ("b", "b", 0)
    assert first["sig"].shape == (80000,)
    assert first["activity"].shape == (249, 2)
    # dora speaks least; cleo and dora are in no training recording
    assert first["activity"].sum(0).tolist() == [50, 150]
    assert first["speaker_labels"].tolist() == [1, -1]
    assert second["activity"].sum() == 0
    assert hparams["references"] == {Stage.VALID: TALKS["valid"]}
    assert hparams["uems"] == {Stage.VALID: {"b": [(0.5, 4.5)]}}


def test_other_names_of_rttm_and_uem_are_followed(hparams):
    folder = hparams["data_folder"] = hparams["simulated_folder"] / "talks"
    talks = {f"{name}.wav": found for name, found in TALKS["valid"].items()}
    write_rttm(folder / "valid/rttm", talks)
    write_uem(folder / "valid/uem", {"B": [(0.5, 4.5)]})
    records = check_records(conversations(folder))
    write_manifests(records, hparams["manifest_folder"])
    diarization_datasets(hparams)
    assert hparams["references"] == {Stage.VALID: TALKS["valid"]}
    assert hparams["uems"] == {Stage.VALID: {"b": [(0.5, 4.5)]}}
    unseen = mixture_recordings(records, hparams)
    assert {record["spk_id"] for record in unseen} == {"ann", "bob"}


def test_a_split_without_segments_is_refused(hparams):
    folder = hparams["simulated_folder"] / "talks/valid"
    (folder / "rttm").write_text("")
    with pytest.raises(
        ValueError, match="valid: expected segments .*its 2 rec"
    ):
        diarization_datasets(hparams)


def test_evaluation_may_be_in_chunks_and_batches(hparams):
    hparams |= {"eval_chunk_s": 2.0, "max_eval_batch_s": 8.5}
    valid = diarization_datasets(hparams)["valid"]
    places = [(item["recording"], item["start_s"]) for item in valid]
    assert places == [(name, start) for name in "bc" for start in (0, 2, 4)]
    assert [len(item["sig"]) for item in valid] == [32000, 32000, 16000] * 2
    batches = list(hparams["valid_dataloader_opts"]["batch_sampler"])
    assert sorted(index for batch in batches for index in batch) == [*range(6)]
    assert len(batches) < 6
    assert set(hparams["references"][Stage.VALID]) == {"b", "c"}


def test_training_is_on_chunks_at_random_places(hparams):
    train = diarization_datasets(hparams)["train"]
    assert len(train) == 3
    items = [train[number] for number in range(6)]
    assert {len(item["sig"]) for item in items} == {32000}
    assert {item["activity"].shape for item in items} == {(99, 2)}
    assert len({float(item["sig"].sum()) for item in items}) == 6
    assert hparams["label_encoder"].lab2ind == {"anna": 0, "ben": 1}
    assert hparams["num_known_speakers"] == 2


def test_superb_trains_on_chunks_that_stay_in_place(hparams):
    hparams["superb_labels"] = True
    train = diarization_datasets(hparams)["train"]
    lengths = [len(train[number]["activity"]) for number in range(3)]
    assert lengths == [100, 100, 50]
    assert torch.equal(train[1]["sig"], train[4]["sig"])
    # ben covers the second chunk without beginning or ending in it
    assert train[1]["activity"].sum() == 0


def test_recorded_conversations_and_mixtures_are_mixed(hparams):
    hparams["simulated"] = 4
    train = diarization_datasets(hparams)["train"]
    assert len(train) == 7
    assert list(hparams["label_encoder"].lab2ind) == [
        "ann", "anna", "ben", "bob"
    ]  # fmt: skip
    loader = make_dataloader(
        train, **hparams["train_dataloader_opts"], batch_size=3
    )
    seen = {}
    for epoch in (1, 2):
        loader.sampler.set_epoch(epoch)
        batches = list(loader)
        assert [len(batch.id) for batch in batches] == [3, 3, 1]
        assert batches[0].sig.data.shape == (3, 32000)
        assert batches[0].activity.data.shape == (3, 99, 2)
        assert batches[0].speaker_labels.data.shape == (3, 2)
        seen[epoch] = {name for batch in batches for name in batch.id}
    made = [{n for n in seen[e] if n.startswith("mixture")} for e in (1, 2)]
    assert [len(names) for names in made] == [4, 4] and not made[0] & made[1]
    assert {n for n in seen[1] if n.startswith("a")} == {
        f"a_{number:05}" for number in range(3)
    }


def test_mixtures_alone_can_be_trained_on(hparams):
    (hparams["manifest_folder"] / "train.csv").unlink()
    with pytest.raises(ValueError, match="expected conversations to train on"):
        diarization_datasets(hparams)
    hparams["simulated"] = 4
    train = diarization_datasets(hparams)["train"]
    assert [train[number]["id"] for number in (0, 5)] == [
        "mixture_0", "mixture_5"
    ]  # fmt: skip


def test_speakers_that_are_evaluated_on_are_in_no_mixture(hparams, tmp_path):
    records = conversations(tmp_path / "talks")
    kept = mixture_recordings(records, hparams)
    assert [record["spk_id"] for record in kept] == ["ann", "bob"]
    table = tmp_path / "manifest.csv"
    table.write_text("path,speaker\ncleo.wav,cleo\n")
    with pytest.raises(ValueError, match=f"{tmp_path}: .* none among 1"):
        mixture_recordings(records, hparams)


def test_crowds_are_counted(hparams, caplog):
    with caplog.at_level(logging.INFO):
        diarization_datasets(hparams)
    assert "valid: 1 of 2 chunks have more than 2 speakers" in caplog.text
    assert "train:" not in caplog.text


def test_less_than_a_batch_is_an_error_where_it_would_be_dropped(hparams):
    hparams["train_dataloader_opts"] = {"drop_last": True, "batch_size": 8}
    with pytest.raises(ValueError, match="got 3: --batch_size=3"):
        diarization_datasets(hparams)
    hparams["draws_per_epoch"] = 8
    diarization_datasets(hparams)
    assert len(hparams["train_dataloader_opts"]["sampler"]) == 8


@pytest.mark.real_data
def test_real_conversations_give_labels_that_follow_the_energy(
    hparams, data_folder
):
    records = conversations(data_folder / "diarization/mix2")
    write_manifests(list(records)[:24], hparams["manifest_folder"])
    agreed = []
    for item in diarization_datasets(hparams)["valid"]:
        frames = item["sig"].unfold(0, 400, 320).square().mean(1).sqrt()
        loud = frames > 0.03 * frames.quantile(0.95)
        active = item["activity"].any(1)
        agreed.append(float((loud == active).float().mean()))
    assert len(agreed) == 16 and np.mean(agreed) > 0.85


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


def test_superbs_labels_are_those_of_segments_and_its_scores_of_rttm(
    hparams, tmp_path
):
    folder = tmp_path / "kaldi"
    for split in ("train", "test"):
        own = folder / split
        own.mkdir(parents=True)
        speak(own / "a.wav", 4.02)
        (own / "wav.scp").write_text(f"{split} a.wav\n")
        # Two speakers under one id: of utt2spk the last line counts
        lines = [f"a_100_203 {split} 1.0 2.03\n"] * 2
        lines.append(f"a_300_402 {split} 3.0 4.02\n")
        (own / "segments").write_text("".join(lines))
        (own / "utt2spk").write_text(
            "a_100_203 anna\na_100_203 ben\na_300_402 anna\n"
        )
        (own / "reco2dur").write_text(f"{split} 4.02\n")
        write_rttm(own / "rttm", {split: [(1, 2.5, "anna"), (2, 3, "ben")]})
    records = check_records(conversations(folder))
    write_manifests(records, hparams["manifest_folder"], ("train",))
    datasets = diarization_datasets(hparams)
    assert datasets["test"][0]["activity"].sum(0).tolist() == [75, 50]
    hparams |= {"superb_labels": True, "chunk_s": 40.0, "eval_chunk_s": 40.0}
    datasets = diarization_datasets(hparams)
    for split in ("train", "test"):
        item = datasets[split][0]
        assert len(item["sig"]) == 64_000  # 200 frames of 201
        anna, ben = item["activity"].T
        assert len(anna) == 200
        assert anna.nonzero()[:, 0].tolist() == list(range(150, 200))
        assert ben.nonzero()[:, 0].tolist() == list(range(50, 101))
    references = hparams["references"][Stage.TEST]["test"]
    assert references == [(1.0, 2.5, "anna"), (2.0, 3.0, "ben")]


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
