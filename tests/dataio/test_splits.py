"""Splits of data that have none: nobody is in two, whatever the seed."""

import json
import random
from collections import Counter, defaultdict

import pytest

from unispeech_sb.dataio.splits import SPLITS_FILE, with_splits


def records_of(num_speakers, per_speaker=4, labels=("yes", "no"), **more):
    """Recordings, a file each."""
    return [
        {
            "ID": f"{s}-{n}", "wav": f"/{s}-{n}.wav", "spk_id": f"s{s}",
            "label": labels[n % len(labels)], "split": "", **more,
        }
        for s in range(num_speakers) for n in range(per_speaker)
    ]  # fmt: skip


def shares(records):
    """Split -> how many."""
    return Counter(record["split"] for record in records)


def splits_by(records, key):
    """Value of a column -> its splits."""
    found = defaultdict(set)
    for record in records:
        found[record[key]].add(record["split"])
    return found


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("num_speakers", [3, 10, 57])
def test_no_speaker_is_in_two_splits(num_speakers, seed, tmp_path):
    draw = random.Random(seed)
    records = [
        record
        for speaker in range(num_speakers)
        for record in records_of(num_speakers, draw.randint(1, 30))
        if record["spk_id"] == f"s{speaker}"
    ]
    options = {"seed": seed, "manifest_folder": tmp_path}
    found = with_splits(records, "asr", options)
    assert [r["ID"] for r in found] == [r["ID"] for r in records]
    assert all(len(own) == 1 for own in splits_by(found, "spk_id").values())
    assert set(shares(found)) == {"train", "valid", "test"}
    if num_speakers > 50:
        for split in ("valid", "test"):
            assert abs(shares(found)[split] / len(found) - 0.1) < 0.05
    told = json.loads((tmp_path / SPLITS_FILE).read_text())
    assert told["kept together"] == "speaker" and told["seed"] == seed
    assert told["test"]["recordings"] == shares(found)["test"]
    assert set(told["test"]["values of speaker"]) == {
        r["spk_id"] for r in found if r["split"] == "test"
    }


def test_the_seed_alone_decides(caplog):
    records = records_of(20)
    found = with_splits(records, "asr", {"seed": 1})
    assert (
        "The data have no splits of their own: drawn by seed 1, each spea"
        in (caplog.text)
    )
    assert with_splits(records, "asr", {"seed": 1}) == found
    again = with_splits(records[::-1], "asr", {"seed": 1})
    assert sorted(again, key=str) == sorted(found, key=str)
    assert with_splits(records, "asr", {"seed": 2}) != found


def test_speakers_of_one_file_stay_together():
    records = records_of(30, 1)
    for number, record in enumerate(records):
        record["wav"] = f"/{number // 2}.wav"
    found = with_splits(records, "asr", {})
    assert all(len(own) == 1 for own in splits_by(found, "wav").values())
    assert len(shares(found)) == 3


@pytest.mark.parametrize("task", ["keyword_spotting", "emotion_recognition"])
def test_every_label_is_trained(task):
    labels = [f"w{n}" for n in range(9)]
    records = records_of(6, 9, labels)
    records.append({**records[0], "wav": "/x", "spk_id": "x", "label": "rare"})
    for seed in range(10):
        found = with_splits(records, task, {"seed": seed})
        known = {r["label"] for r in found if r["split"] == "train"}
        assert known == {*labels, "rare"}
        assert all(len(s) == 1 for s in splits_by(found, "spk_id").values())


def test_without_speakers_each_class_has_its_share():
    records = [{**r, "spk_id": ""} for r in records_of(1, 90, "abc")]
    found = with_splits(records, "keyword_spotting", {"seed": 3})
    counts = Counter((r["split"], r["label"]) for r in found)
    for label in "abc":
        assert counts["train", label] == 24
        assert counts["valid", label] == counts["test", label] == 3


def test_speakers_to_identify_are_in_every_split():
    found = with_splits(records_of(5, 10), "speaker_identification", {})
    assert all(len(own) == 3 for own in splits_by(found, "spk_id").values())
    assert shares(found) == {"train": 40, "valid": 5, "test": 5}


def test_trials_have_two_speakers_at_least():
    found = with_splits(records_of(6), "speaker_verification", {})
    own = splits_by(found, "spk_id")
    assert sorted(map(len, own.values())) == [1] * 6
    assert Counter(next(iter(s)) for s in own.values()) == {
        "train": 2, "valid": 2, "test": 2,
    }  # fmt: skip
    found = with_splits(records_of(5), "speaker_verification", {})
    assert set(shares(found)) == {"train", "valid"}
    with pytest.raises(ValueError, match="12 in 3 groups, of which none can"):
        with_splits(records_of(3), "speaker_verification", {})


@pytest.mark.parametrize("way", ["valid_share", "valid_speakers"])
def test_another_way_to_validate_leaves_all_to_training(way):
    found = with_splits(records_of(5), "speaker_verification", {way: 2})
    assert set(shares(found)) == {"train"}


def test_a_column_may_keep_together():
    records = records_of(8)
    for number, record in enumerate(records):
        record["session"] = f"day{number % 5}"
        record["group"] = record["spk_id"]
    found = with_splits(records, "asr", {"split_by": "session"})
    assert all(len(own) == 1 for own in splits_by(found, "session").values())
    found = with_splits(records, "asr", {})
    assert all(len(own) == 1 for own in splits_by(found, "group").values())
    with pytest.raises(
        ValueError, match="split_by: expected a column .*'room'"
    ):
        with_splits(records, "asr", {"split_by": "room"})


def test_one_speaker_is_split_by_file_and_two_have_no_test(caplog):
    found = with_splits(records_of(1, 20), "asr", {})
    assert shares(found) == {"train": 16, "valid": 2, "test": 2}
    assert "not those of an unseen speaker" in caplog.text
    found = with_splits(records_of(2, 20), "asr", {})
    assert shares(found) == {"train": 20, "valid": 20}
    with pytest.raises(ValueError, match="expected recordings to split; got 1"):
        with_splits(records_of(1, 1), "asr", {})


def test_splits_of_the_data_stay():
    records = [{**r, "split": "train"} for r in records_of(4)]
    assert with_splits(records, "asr", {}) == records
    records[0]["split"] = "test"
    found = with_splits(records, "asr", {}, may_lack_valid=True)
    assert shares(found)["test"] == 1 and shares(found)["valid"] in (3, 4)
    records[1]["split"] = ""
    with pytest.raises(ValueError, match="or of none; 1 of 16 have none"):
        with_splits(records, "asr", {})


@pytest.mark.parametrize("given", [[0.5, 0.5], [1, 0, 0], [0.8, 0.3, 0.1], "x"])
def test_shares_add_up_to_one(given):
    with pytest.raises(ValueError, match="split_shares: expected"):
        with_splits(records_of(4), "asr", {"split_shares": given})
    found = with_splits(
        records_of(10), "asr", {"split_shares": [0.5, 0.5, 0.0]}
    )
    assert shares(found) == {"train": 20, "valid": 20}
