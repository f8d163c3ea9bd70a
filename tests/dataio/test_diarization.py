"""Datasets of diarization: what of a corpus is trained and evaluated on."""

import logging

import numpy as np
import pytest
import soundfile
import torch
from speechbrain import Stage
from speechbrain.dataio.dataloader import make_dataloader

from unispeech_sb.dataio.corpora import read_corpus
from unispeech_sb.dataio.diarization import (
    diarization_datasets,
    mixture_recordings,
)
from unispeech_sb.dataio.manifest import check_records, write_manifests
from unispeech_sb.dataio.rttm import write_rttm, write_uem

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
