"""Tests of ``unispeech_sb.dataio.manifest``."""

import logging

import numpy as np
import pytest
import soundfile
from speechbrain.dataio.dataset import DynamicItemDataset

from unispeech_sb.dataio.manifest import (
    check_records,
    filter_by_duration,
    read_manifest,
    write_manifests,
)


def record(name, split="train", **columns):
    """A record that can be written."""
    defaults = {"wav": f"/{name}.wav", "duration": 1.0, "split": split}
    return {"ID": name, **defaults, **columns}


def test_records_come_back_as_written(tmp_path):
    text = ' of "two", lines\nand a blank in front'
    records = [
        record("a", start=0, stop=160, spk_id="ann", label="yes", text=text),
        record("b", start=None, stop=None, spk_id="", label="no", text=""),
    ]
    paths = write_manifests(records, tmp_path, required_splits=["train"])
    assert read_manifest(paths["train"]) == records


def test_each_split_has_its_csv(tmp_path):
    records = [record("a"), record("b", "valid"), record("c", "test")]
    paths = write_manifests(records, tmp_path / "new" / "folder")
    assert list(paths) == ["train", "valid", "test"]
    for split, name in zip(paths, "abc", strict=True):
        assert [r["ID"] for r in read_manifest(paths[split])] == [name]


def test_speechbrain_reads_the_csv(tmp_path):
    records = [record("a", label=" yes"), record("b", duration=0.5, label="no")]
    paths = write_manifests(records, tmp_path, required_splits=["train"])
    with open(paths["train"], encoding="utf-8") as file:
        assert file.readline().startswith('"ID","duration","wav"')
    keys = ["id", "wav", "duration", "start", "label"]
    dataset = DynamicItemDataset.from_csv(paths["train"], output_keys=keys)
    assert dataset[0] == {
        "id": "a",
        "wav": "/a.wav",
        "duration": 1.0,
        "start": "",
        "label": " yes",
    }


@pytest.mark.parametrize("key", ["ID", "wav", "duration", "split"])
def test_a_missing_key_is_named(tmp_path, key):
    lacking = record("a")
    del lacking[key]
    with pytest.raises(ValueError, match=f"lacks '{key}'"):
        write_manifests([lacking], tmp_path)


def test_impossible_records_are_named(tmp_path):
    with pytest.raises(ValueError, match="the ID a occurs twice"):
        write_manifests([record("a"), record("a", "valid")], tmp_path)
    with pytest.raises(ValueError, match="record a: .*got 'dev'"):
        write_manifests([record("a", "dev")], tmp_path)
    with pytest.raises(ValueError, match="record a: expected an absolute path"):
        write_manifests([record("a", wav="a.wav")], tmp_path)
    with pytest.raises(ValueError, match="record a: 'wav' is .*SpeechBrain"):
        write_manifests([record("a", wav="/data/$root/a.wav")], tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_required_split_must_not_be_empty(tmp_path):
    with pytest.raises(ValueError, match="the split 'valid', got none"):
        write_manifests([record("a")], tmp_path)
    with pytest.raises(ValueError, match="the split 'train', got none"):
        write_manifests([], tmp_path)


def test_a_failed_write_leaves_the_old_csvs_alone(tmp_path):
    class Unprintable:
        def __str__(self):
            raise OSError("disk full")

    good = [record("a"), record("b", "valid")]
    paths = write_manifests(good, tmp_path)
    bad = [record("c"), record("d", "valid", label=Unprintable())]
    with pytest.raises(OSError, match="disk full"):
        write_manifests(bad, tmp_path)
    assert [r["ID"] for r in read_manifest(paths["train"])] == ["a"]
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "train.csv",
        "valid.csv",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ID,wav\na,/a\n", "train.csv, line 1: .* column 'duration'"),
        ("", "train.csv, line 0: expected a column 'ID'"),
        ("ID,wav,duration\na,/a,1\nb,/b,long\n", "line 3: expected numbers"),
        ("ID,wav,duration\na,/a\n", "line 2: expected numbers"),
        ("ID,wav,duration,start\na,/a,1,0.5\n", "line 2: expected numbers"),
        ("ID,wav,duration\na,/a,1\na,/b,1\n", "line 3: the ID a occurs twice"),
    ],
)
def test_what_a_bad_csv_lacks_is_said(tmp_path, text, message):
    (tmp_path / "train.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_manifest(tmp_path / "train.csv")


def test_duration_limits_are_included_and_the_rest_is_returned():
    records = [record(str(d), duration=d) for d in (0.5, 1.0, 2.0, 2.5)]
    kept, dropped = filter_by_duration(records, min_s=1.0, max_s=2.0)
    assert [r["duration"] for r in kept] == [1.0, 2.0]
    assert [r["duration"] for r in dropped] == [0.5, 2.5]


def test_missing_durations_are_filled_in(tmp_path, write_noise):
    wav = write_noise(tmp_path / "a.wav", 24000)
    unknown, stretch, stated = check_records(
        [
            {"ID": "unknown", "wav": wav},
            {"ID": "stretch", "wav": wav, "start": 0, "stop": 8000},
            {"ID": "stated", "wav": wav, "duration": 1.499},
        ]
    )
    assert unknown["duration"] == 1.5
    assert stretch["duration"] == 0.5
    assert stated["duration"] == 1.499


def test_every_bad_file_is_named_with_its_reason(tmp_path, write_noise):
    good = record("good", wav=write_noise(tmp_path / "good.wav"))
    short = record("short", wav=write_noise(tmp_path / "short.wav", 100))
    gone = record("gone", wav=str(tmp_path / "gone.wav"))
    with pytest.raises(ValueError) as caught:
        check_records([good, short, gone])
    message = str(caught.value)
    assert message.startswith("2 of 3 recordings cannot be used: ")
    assert "short.wav: too short" in message
    assert "gone.wav: there is no such file" in message
    assert "good.wav" not in message


def test_an_error_names_ten_files_and_counts_the_rest():
    with pytest.raises(ValueError) as caught:
        check_records([record(f"gone{i:02d}") for i in range(13)])
    message = str(caught.value)
    assert message.count(".wav") == 10
    assert message.endswith("; and 3 more")


def test_bad_files_are_skipped_by_name_on_request(
    tmp_path, write_noise, caplog
):
    good = record("good", wav=write_noise(tmp_path / "good.wav"))
    with caplog.at_level(logging.WARNING):
        kept = check_records([record("gone"), good], skip_bad_files=True)
    assert kept == [good]
    assert "gone.wav: there is no such file" in caplog.text


def test_skipping_does_not_empty_a_corpus():
    with pytest.raises(ValueError, match="1 of 1 recordings"):
        check_records([record("gone")], skip_bad_files=True)


def test_only_the_silence_class_may_be_silent(tmp_path):
    wav = str(tmp_path / "a.wav")
    soundfile.write(wav, np.zeros(16000), 16000)
    check_records([record("a", wav=wav, label="_silence_")])
    with pytest.raises(ValueError, match="all silent"):
        check_records([record("a", wav=wav, label="yes")])
