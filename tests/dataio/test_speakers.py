"""Datasets of speakers: who is known, what is long enough, what is heard."""

import numpy as np
import pytest
import soundfile
import torch

from unispeech_sb.dataio.labels import LabelEncoder
from unispeech_sb.dataio.manifest import write_manifests
from unispeech_sb.dataio.speakers import (
    UNKNOWN,
    build_for_speakers,
    long_enough,
    speaker_datasets,
    usable_voices,
    voice_pipeline,
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
        usable_voices([record], HPARAMS)
    test = {**record, "split": "test"}
    with pytest.raises(ValueError, match="expected a speaker"):
        usable_voices([test], HPARAMS)
    outside = {**HPARAMS, "audio_root": "elsewhere"}
    assert usable_voices([test], outside)[0]["duration"] == 4.0


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
    read = voice_pipeline({**HPARAMS, "vad": True})
    sound = read(tone, "", "")
    assert 24000 <= len(sound) < 24800
    crop = voice_pipeline({**HPARAMS, "vad": True}, crop_s=0.5)
    crops = [crop(tone, "", "") for _ in range(4)]
    assert {len(wav) for wav in crops} == {8000}
    assert len({wav.sum().item() for wav in crops}) > 1
    whole = voice_pipeline({**HPARAMS, "vad": True}, crop_s=2.0)
    assert torch.equal(whole(tone, "", ""), sound)
    assert len(voice_pipeline(HPARAMS, crop_s=0.5)(tone, "", "")) == 8000
    assert len(voice_pipeline(HPARAMS)(tone, "", "")) == 64000


def test_a_recording_without_sound_is_named_when_it_is_read(tmp_path):
    path = str(tmp_path / "silent.wav")
    soundfile.write(path, 1e-4 * np.ones(64000), 16000)
    with pytest.raises(ValueError, match=f"{path}: expected 0.1 s of sound"):
        voice_pipeline({**HPARAMS, "vad": True})(path, "", "")


def test_gain_lowers_the_level(tone):
    plain, lower = (
        voice_pipeline({**HPARAMS, "gain_db": gain})(tone, "", "")
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
    with pytest.raises(ValueError, match="test: expected only .* got 'c' too"):
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
