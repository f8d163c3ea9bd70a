"""Speakers: splits, checks and datasets of identification and verification."""

import math
from functools import partial

import numpy as np
import pytest
import soundfile
import torch

from unispeech_sb.dataio.labels import LabelEncoder
from unispeech_sb.dataio.manifest import write_manifests
from unispeech_sb.dataio.speakers import (
    UNKNOWN,
    build_for_speakers,
    check_speakers,
    long_enough,
    speaker_datasets,
    speech_pipeline,
    split_share,
    split_speakers,
    split_tails,
    split_valid,
)

HPARAMS = {
    "data_folder": "voices",
    "skip_bad_files": False,
    "sample_rate": 16000,
    "gain_db": 0.0,
    "vad": False,
    "min_duration_s": 0.5,
    "crop_s": 0.25,
    "max_eval_batch_s": 3.0,
    "seed": 1,
}


@pytest.fixture
def tone(tmp_path):
    """A second and a half of sound in the middle of four seconds."""
    wav = np.zeros(64000)
    wav[20000:44000] = 0.5 * np.sin(np.arange(24000))
    path = tmp_path / "tone.wav"
    soundfile.write(path, wav, 16000)
    return str(path)


def manifests(folder, wav, **splits):
    """Writes manifests of utterances whose first letter is the speaker."""
    records = [
        {"ID": f"{split}_{name}{number}", "wav": wav, "duration": 4.0,
         "split": split, "spk_id": name}
        for split, names in splits.items()
        for number, name in enumerate(names)
    ]  # fmt: skip
    write_manifests(records, folder, required_splits=())
    options = {f"{s}_dataloader_opts": {} for s in ("train", "valid", "test")}
    return {**HPARAMS, **options, "manifest_folder": str(folder)}


def test_a_recording_without_a_speaker_is_named(tone):
    record = {"ID": "a", "wav": tone, "split": "train", "spk_id": " "}
    with pytest.raises(ValueError, match=f"voices: .* column .* of {tone}"):
        check_speakers([record], HPARAMS)
    test = {**record, "split": "test"}
    with pytest.raises(ValueError, match="expected a speaker"):
        check_speakers([test], HPARAMS)
    outside = {**HPARAMS, "audio_root": "elsewhere"}
    assert check_speakers([test], outside)[0]["duration"] == 4.0


def test_only_training_recordings_have_to_be_long(tone):
    records = [
        {"ID": f"{split}{n}", "split": split, "duration": n / 4, "wav": tone}
        for split in ("test", "train")
        for n in (1, 2, 3)
    ]
    kept = long_enough(records, HPARAMS)
    assert [r["ID"] for r in kept] == [
        "train2", "train3", "test1", "test2", "test3"
    ]  # fmt: skip
    with pytest.raises(ValueError, match="of 9 s or more; none of 3 is"):
        long_enough(records, {**HPARAMS, "min_duration_s": 9})


def test_with_vad_only_sound_counts(tone, tmp_path):
    train = {"ID": "a", "split": "train", "duration": 4.0, "wav": tone}
    vad = {**HPARAMS, "vad": True, "min_duration_s": 1.4}
    assert long_enough([train], vad)[0]["sound_s"] == pytest.approx(1.52, 0.01)
    with pytest.raises(ValueError, match="more than 1.6 s of sound"):
        long_enough([train], {**vad, "min_duration_s": 1.6})
    silent = str(tmp_path / "silent.wav")
    soundfile.write(silent, 1e-4 * np.ones(64000), 16000)
    test = {"ID": "b", "split": "test", "duration": 4.0, "wav": silent}
    kept = {"ID": "c", "split": "test", "duration": 4.0, "wav": tone}
    with pytest.raises(ValueError, match=f"1 recordings have no .*{silent}"):
        long_enough([train, kept, test], vad)


def test_voices_lose_their_gaps_and_are_cropped(tone):
    read = speech_pipeline({**HPARAMS, "vad": True})
    sound = read(tone, "", "")
    assert 24000 <= len(sound) < 24800
    crop = speech_pipeline({**HPARAMS, "vad": True}, crop_s=0.5)
    crops = [crop(tone, "", "") for _ in range(4)]
    assert {len(wav) for wav in crops} == {8000}
    assert len({wav.sum().item() for wav in crops}) > 1
    whole = speech_pipeline({**HPARAMS, "vad": True}, crop_s=2.0)
    assert torch.equal(whole(tone, "", ""), sound)
    assert len(speech_pipeline(HPARAMS, crop_s=0.5)(tone, "", "")) == 8000
    assert len(speech_pipeline(HPARAMS)(tone, "", "")) == 64000


def test_a_recording_without_sound_is_named_when_it_is_read(tmp_path):
    path = str(tmp_path / "silent.wav")
    soundfile.write(path, 1e-4 * np.ones(64000), 16000)
    with pytest.raises(ValueError, match=f"{path}: expected 0.1 s of sound"):
        speech_pipeline({**HPARAMS, "vad": True})(path, "", "")


def test_gain_lowers_the_level(tone):
    plain, lower = (
        speech_pipeline({**HPARAMS, "gain_db": gain})(tone, "", "")
        for gain in (0.0, -6.0)
    )
    torch.testing.assert_close(lower, plain * 10 ** (-6 / 20))


def test_training_is_cropped_and_the_rest_is_whole(tone, tmp_path):
    hparams = manifests(
        tmp_path / "manifests", tone, train="abb", valid="ac", test="d"
    )
    datasets = speaker_datasets(hparams)
    assert hparams["label_encoder"].lab2ind == {"a": 0, "b": 1}
    train, valid, test = (datasets[s][0] for s in ("train", "valid", "test"))
    assert set(train) == {"id", "sig", "label_encoded"}
    assert [len(item["sig"]) for item in (train, valid, test)] == [
        4000, 64000, 64000
    ]  # fmt: skip
    labels = [int(item["label_encoded"]) for item in datasets["valid"]]
    assert labels == [0, UNKNOWN]
    assert int(test["label_encoded"]) == UNKNOWN


def test_a_closed_set_has_no_other_speakers(tone, tmp_path):
    hparams = manifests(tmp_path, tone, train="ab", valid="a", test="c")
    with pytest.raises(ValueError, match="test: expected only .* got c too"):
        speaker_datasets(hparams, closed_set=True)


def test_trained_speakers_keep_their_order_and_have_to_be_the_same(
    tone, tmp_path
):
    hparams = manifests(tmp_path, tone, train="ab", valid="a")
    encoder = LabelEncoder.from_labels(["b", "a"])
    speaker_datasets(hparams, encoder=encoder)
    assert hparams["label_encoder"].lab2ind == {"b": 0, "a": 1}
    for labels, message in (
        ("abc", "its 3 speakers; got 2, without c"),
        ("a", "its 1 speakers; got 2, also b"),
    ):
        others = LabelEncoder.from_labels(list(labels))
        with pytest.raises(ValueError, match=message):
            speaker_datasets(hparams, encoder=others)


def test_evaluations_are_batched_by_duration_on_request(tone, tmp_path):
    hparams = manifests(tmp_path, tone, train="ab", valid="aab")
    hparams["max_eval_batch_s"] = None
    speaker_datasets(hparams)
    assert "batch_sampler" not in hparams["valid_dataloader_opts"]
    hparams["max_eval_batch_s"] = 8.5
    speaker_datasets(hparams)
    batches = list(hparams["valid_dataloader_opts"]["batch_sampler"])
    assert sorted(map(len, batches)) == [1, 2]
    assert "batch_sampler" not in hparams["train_dataloader_opts"]


def test_draws_go_on_where_the_last_epoch_ended(tone, tmp_path):
    hparams = manifests(tmp_path, tone, train="abab", valid="a")
    hparams["draws_per_epoch"] = 6
    hparams["train_dataloader_opts"]["shuffle"] = True
    speaker_datasets(hparams)
    options = hparams["train_dataloader_opts"]
    assert "shuffle" not in options
    drawn = []
    for epoch in (0, 1):
        options["sampler"].set_epoch(epoch)
        drawn += list(options["sampler"])
    assert [sorted(drawn[n : n + 4]) for n in (0, 4, 8)] == 3 * [[0, 1, 2, 3]]


def test_less_than_one_batch_is_an_error_where_short_ones_are_dropped(
    tone, tmp_path
):
    hparams = manifests(tmp_path, tone, train="abb", valid="a")
    hparams["train_dataloader_opts"] = {"drop_last": True, "batch_size": 4}
    with pytest.raises(ValueError, match="got 3: --batch_size=3"):
        speaker_datasets(hparams)


def test_what_was_built_is_trained_and_saved():
    class Checkpointer(dict):
        add_recoverable = dict.__setitem__

    hparams = {
        "objective": lambda num_classes: torch.nn.Linear(2, num_classes),
        "label_encoder": LabelEncoder.from_labels(["a", "b", "c"]),
        "modules": {},
        "checkpointer": Checkpointer(),
    }
    build_for_speakers("objective", hparams)
    built = hparams["objective"]
    assert built.out_features == 3
    assert hparams["modules"]["objective"] is built
    assert hparams["checkpointer"]["objective"] is built


def record(name, split="train", **others):
    """A record; the speaker is the first letter of its ID."""
    return {"ID": name, "spk_id": name[0], "split": split, **others}


def covered(records):
    """Samples of files that records cover, in order."""
    return sorted((r["wav"], r["start"], r["stop"]) for r in records)


def test_tails_and_what_is_left_are_all_of_the_training_set(
    tmp_path, write_noise
):
    wav = write_noise(tmp_path / "a.wav", num_samples=8000, rate=8000)
    records = [
        record("a", wav=wav, duration=1.0, start=None, stop=None),
        record("b", wav=wav, duration=0.5, start=2000, stop=6000),
        record("c", "test", wav=wav, duration=1.0),
    ]
    found = split_tails(records, tail_s=0.2)
    assert found[-1] == records[-1]
    assert [(r["ID"], r["split"]) for r in found[:-1]] == [
        ("a", "train"), ("a_tail", "valid"), ("b", "train"), ("b_tail", "valid")
    ]  # fmt: skip
    assert covered(found[:-1]) == [
        (wav, 0, 6400), (wav, 2000, 4400), (wav, 4400, 6000), (wav, 6400, 8000)
    ]  # fmt: skip
    assert [r["duration"] for r in found[:-1]] == [0.8, 0.2, 0.3, 0.2]
    write_manifests(found, tmp_path / "manifests")


def test_a_recording_that_is_all_tail_is_named(tmp_path, write_noise):
    wav = write_noise(tmp_path / "a.wav", num_samples=8000)
    with pytest.raises(ValueError, match=f"{wav}: expected more than 0.5 s"):
        split_tails([record("a", wav=wav)], tail_s=0.5)


def test_each_speaker_gives_its_share_and_keeps_something():
    names = [f"a{n}" for n in range(10)] + ["b0", "b1", "c0"]
    records = [record(name) for name in names]
    records.append(record("d", "test"))
    found = split_share(records, share=0.2)
    assert [r["ID"] for r in found] == [r["ID"] for r in records]
    moved = [r["spk_id"] for r in found if r["split"] == "valid"]
    assert sorted(moved) == ["a", "a", "b"]
    assert found[-1]["split"] == "test"
    most = split_share(records, share=0.99)
    kept = {r["spk_id"] for r in most if r["split"] == "train"}
    assert kept == {"a", "b", "c"}


def test_shares_are_drawn_from_the_seed():
    records = [record(f"a{n}") for n in range(20)]
    draw = partial(split_share, records, 0.5)
    assert draw(seed=1) == draw(seed=1) != draw(seed=2)


@pytest.mark.parametrize("share", [0, 1, -0.1])
def test_a_share_has_to_be_one(share):
    with pytest.raises(ValueError, match="share of the recordings in .0, 1."):
        split_share([], share)


def test_held_out_speakers_are_cut_into_pieces_and_others_are_not(
    tmp_path, write_noise
):
    wav = write_noise(tmp_path / "a.wav", num_samples=8000, rate=8000)
    records = [record(name, wav=wav, duration=1.0) for name in "abcd"]
    found = split_speakers(records, num_speakers=2, piece_s=0.4)
    valid = [r for r in found if r["split"] == "valid"]
    train = [r for r in found if r["split"] == "train"]
    speakers = sorted({r["spk_id"] for r in valid})
    assert len(speakers) == 2
    assert sorted(r["ID"] for r in valid) == [
        f"{speaker}_{number}" for speaker in speakers for number in (0, 1)
    ]
    assert covered(valid) == sorted(2 * [(wav, 0, 3200), (wav, 3200, 6400)])
    assert train == [r for r in records if r["spk_id"] not in speakers]


def test_without_pieces_a_single_recording_cannot_be_held_out(tmp_path):
    with pytest.raises(ValueError, match="0 of them with two recordings"):
        split_speakers([record(name) for name in "abcd"], num_speakers=1)


def test_a_validation_set_comes_from_one_place_only():
    train, valid = record("a"), record("b", "valid")
    move = partial(split_share, share=0.5)
    assert split_valid([train, valid], {"x": None}) == [train, valid]
    made = split_valid([train, record("a2")], {"x": None, "y": move})
    assert {r["split"] for r in made} == {"train", "valid"}
    for records, ways, got in (
        ([train], {"x": None, "y": None}, "--x or --y.; got none"),
        ([train, valid], {"x": move}, "got the split valid and --x"),
        ([train], {"x": move, "y": move}, "got --x and --y"),
    ):
        with pytest.raises(ValueError, match=got):
            split_valid(records, ways)


def test_a_way_of_0_asks_for_no_validation_set():
    train, valid = record("a"), record("b", "valid")
    move = partial(split_share, share=0.5)
    for records in ([train], [train, valid]):
        for ways in ({"x": 0}, {"x": 0.0, "y": None}):
            assert split_valid(records, ways) == records
    made = split_valid([train, record("a2")], {"x": 0, "y": move})
    assert {r["split"] for r in made} == {"train", "valid"}
    with pytest.raises(ValueError, match="--x: expected recordings to valid"):
        split_valid([train], {"x": lambda records: records})


def spoken(counts, split="train"):
    """Records of speakers with so many recordings each."""
    return [
        {"spk_id": name, "split": split, "ID": f"{name}{number}"}
        for name, count in counts.items()
        for number in range(count)
    ]


def held_out(records):
    """Speakers of valid."""
    return {r["spk_id"] for r in records if r["split"] == "valid"}


def test_held_out_speakers_leave_train_with_all_they_say():
    records = spoken({"a": 2, "b": 3, "c": 2, "d": 2, "e": 1})
    records += spoken({"x": 2}, "test")
    found = split_speakers(records, 3)
    assert [r["ID"] for r in found] == [r["ID"] for r in records]
    valid = held_out(found)
    assert len(valid) == 3
    assert valid <= set("abcd")  # not e: it has no second recording
    train = {r["spk_id"] for r in found if r["split"] == "train"}
    assert train == set("abcde") - valid
    assert records[0]["split"] == "train"  # the input is as it was


def test_held_out_speakers_depend_on_the_seed_and_the_names_only():
    records = spoken(dict.fromkeys("abcdefgh", 2))
    valid = held_out(split_speakers(records, 3, seed=1))
    assert valid == held_out(split_speakers(records[::-1], 3, seed=1))
    others = [held_out(split_speakers(records, 3, seed=s)) for s in range(2, 6)]
    assert any(other != valid for other in others)


@pytest.mark.parametrize(
    "counts", [{"a": 2, "b": 2, "c": 2}, {"a": 2, "b": 1, "c": 1, "d": 1}]
)
def test_too_few_speakers_to_hold_out_are_refused(counts):
    with pytest.raises(ValueError, match="expected 2 speakers with two"):
        split_speakers(spoken(counts), 2)


@pytest.mark.parametrize("piece_s", [0.0, -1.0, 1e-9, math.nan])
def test_pieces_of_less_than_a_frame_are_refused(piece_s):
    with pytest.raises(ValueError, match="expected pieces of 0.025 s or more"):
        split_speakers([], num_speakers=1, piece_s=piece_s)
