"""Tests of ``unispeech_sb.dataio.manifest``."""

import logging
import os

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
        ("ID,wav,duration\na,/a,1\nb,/b,long\n", "line 3: expected seconds in"),
        ("ID,wav,duration\na,/a\n", "line 2: expected seconds"),
        (
            "ID,wav,duration,start\na,/a,1,0.5\n",
            "line 2: .* number of a sample",
        ),
        ("ID,wav,duration\na,/a,1\na,/b,1\n", "line 3: the ID a occurs twice"),
        (
            "ID,wav,duration\na,/a,nan\n",
            "line 2: expected seconds .* got 'nan'",
        ),
        ("ID,wav,duration\na,/a,1e300\n", "line 2: expected seconds .*at most"),
        ("ID,wav,duration\na,/a,-1\n", "line 2: expected seconds .* got '-1'"),
        ("ID,wav,duration,stop\na,/a,1,-3\n", "line 2: .*sample in 'stop'"),
        (f"ID,wav,duration,stop\na,/a,1,{'9' * 5000}\n", "line 2: .*'stop'"),
        ("ID,wav,duration\na,/a,1,2\n", "line 2: expected 3 values, got 4"),
        ("ID,wav,wav,duration\na,/a,/b,1\n", "each column once, got 'wav'"),
        ('ID,wav,duration\na,/a,1\n"b,/b,1\n', "line 3: unexpected end"),
    ],
)
def test_what_a_bad_csv_lacks_is_said(tmp_path, text, message):
    (tmp_path / "train.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_manifest(tmp_path / "train.csv")


def test_a_csv_in_another_encoding_is_named_with_its_line(tmp_path):
    path = tmp_path / "train.csv"
    path.write_bytes("ID,wav,duration\na,/a,1\nb,/ü,1\n".encode("latin-1"))
    with pytest.raises(ValueError, match="csv, line 3: .* UTF-8, got the byte"):
        read_manifest(path)
    path.write_bytes(b"\xef\xbb\xbfID,wav,duration\r\na,/a,1\r\n")
    assert read_manifest(path)[0]["wav"] == "/a"


def test_a_recording_in_two_splits_is_logged(tmp_path, write_noise, caplog):
    wav = write_noise(tmp_path / "a.wav")
    (tmp_path / "link.wav").symlink_to(wav)
    os.link(wav, tmp_path / "hard.wav")
    twice = [
        record("a", wav=wav),
        record("b", "valid", wav=str(tmp_path / "link.wav")),
        record("c", "test", wav=str(tmp_path / "hard.wav")),
        record("d", "valid", wav="/other.wav"),
        record("e", wav="/other.wav"),
    ]
    write_manifests(twice, tmp_path / "out")
    assert "2 recordings are in two splits" in caplog.text
    assert "link.wav (train, valid)" in caplog.text


def test_stretches_apart_and_silence_may_be_in_two_splits(tmp_path, caplog):
    records = [
        record("a", wav="/a.wav", start=0, stop=100),
        record("b", "valid", wav="/a.wav", start=100, stop=200),
        record("c", wav="/noise.wav", label="_silence_"),
        record("d", "valid", wav="/noise.wav", label="_silence_"),
    ]
    write_manifests(records, tmp_path)
    assert "two splits" not in caplog.text
    records[1]["start"] = 99
    write_manifests(records, tmp_path)
    assert "1 recordings are in two splits: /a.wav" in caplog.text


def test_durations_that_are_not_those_of_the_files_are_logged(
    tmp_path, write_noise, caplog
):
    wav = write_noise(tmp_path / "a.wav", 24000)
    found = check_records(
        [
            {"ID": "long", "wav": wav, "duration": 900.0},
            {"ID": "close", "wav": wav, "duration": 1.55},
            {"ID": "part", "wav": wav, "duration": 1.5, "stop": 8000},
        ]
    )
    assert [r["duration"] for r in found] == [1.5, 1.55, 0.5]
    assert "2 of 3 recordings do not last as many" in caplog.text
    assert f"{wav} (900 for 1.5)" in caplog.text


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
