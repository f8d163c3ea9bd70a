"""Shards are read from front to back, and what is wrong in them is named."""

import json
import shutil

import numpy as np
import pytest
import torch

from unispeech_sb.dataio.audio import read_audio, read_header
from unispeech_sb.dataio.corpora import find_corpus, read_corpus
from unispeech_sb.dataio.manifest import read_manifest, write_manifests
from unispeech_sb.dataio.shard_batches import ShardBatches
from unispeech_sb.dataio.shards import (
    DamagedShardError,
    ShardItems,
    ShardRows,
    all_rows,
    is_shards,
    read_index,
    rows_in_shards,
)

LIMITS = {"min_duration_s": 0.0, "max_duration_s": None}


class Watched:
    """A file that notes where it is read, and where to it is sought."""

    def __init__(self, file, log):
        self.file, self.log, self.place = file, log, 0
        self.name = file.name.rpartition("/")[2]

    def read(self, size):
        content = self.file.read(size)
        self.log.append((self.name, self.place, len(content)))
        self.place += len(content)
        return content

    def seek(self, place):
        self.log.append((self.name, "seek", place))
        self.place = place
        self.file.seek(place)

    def close(self):
        self.file.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


@pytest.fixture
def log(monkeypatch):
    """What is done to shards, in order."""
    done, real = [], ShardRows._open

    def watched(self, shard):
        return Watched(real(self, shard), done)

    monkeypatch.setattr(ShardRows, "_open", watched)
    return done


@pytest.fixture
def copied(packed, tmp_path):
    """A folder of shards that may be damaged."""
    return shutil.copytree(packed, tmp_path / "copied")


def flip(path, place):
    """Changes a byte."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_an_epoch_reads_every_byte_once_and_never_seeks(packed, log):
    rows = ShardRows(packed, "train")
    sampler = ShardBatches(rows, (3.0, 3), buffer_s=1.5, seed=3)
    sampler.set_epoch(1)
    found = [row for batch in sampler for row in rows.take(batch)[1]]
    assert len(found) == 40 and len({row["ID"] for row in found}) == 40
    assert not [entry for entry in log if entry[1] == "seek"]
    shards = list(dict.fromkeys(name for name, *_ in log))
    sizes = {}
    for name, place, size in log:
        assert place == sizes.get(name, 0), "it follows what was read before"
        sizes[name] = place + size
    assert [name for name, *_ in log] == sorted(
        (name for name, *_ in log), key=shards.index
    ), "one shard after the other"
    assert len(sizes) == len(read_index(packed)["splits"]["train"]["shards"])
    total = int((rows.entries["size"]).sum())
    assert sum(sizes.values()) == total
    tars = sum(p.stat().st_size for p in packed.glob("train-*.tar"))
    assert tars - total <= 10240 * len(sizes)  # the ends of the tars
    assert rows.num_alone == 0 and not rows._held


def test_a_row_is_the_record_with_its_recording(packed, recorded):
    known = {record["ID"]: record for record in recorded}
    for row in ShardRows(packed, "valid"):
        record = known[row["ID"]]
        assert {**row, **record} == {**record, "start": None, "stop": None}
        wav = read_audio(row["wav"], allow_silence=True)
        assert torch.equal(wav, read_audio(record["wav"]))
        assert read_header(row["wav"]) == read_header(record["wav"])
        assert f"{row['ID']}" in str(row["wav"])


def test_shards_are_a_corpus_whose_manifests_lead_back(packed, tmp_path):
    assert is_shards(packed) and not is_shards(tmp_path)
    assert find_corpus("asr", {"data_folder": packed}) == "shards"
    records = list(read_corpus("asr", {"data_folder": packed}))
    assert len(records) == 44 and all(r["wrd"] for r in records)
    paths = write_manifests(records, tmp_path)
    rows = read_manifest(paths["train"])
    found = rows_in_shards(rows[3:9])
    items = ShardItems(found)
    items.set_output_keys(["id", "wrd", "wav"])
    for row, item in zip(rows[3:9], items.__getitems__(range(6))):
        assert (item["id"], item["wrd"]) == (row["ID"], row["wrd"])
        assert str(item["wav"]).endswith(row["ID"])
    assert rows_in_shards([{"ID": "a", "wav": "/a.wav"}]) is None


def test_rows_of_all_lengths_asked_for(packed):
    found = all_rows(
        packed, "train", {"min_duration_s": 0.2, "max_duration_s": 0.4}
    )
    assert 0 < len(found) < 40
    assert 0.2 <= found.seconds.min() and found.seconds.max() <= 0.4
    assert [row["duration"] for row in found] == found.seconds.tolist()
    with pytest.raises(ValueError, match="expected utterances of 7.* of train"):
        all_rows(packed, "train", {"min_duration_s": 7, "max_duration_s": None})


def test_a_damaged_utterance_is_named(copied, caplog):
    tar = copied / "train-000001.tar"
    flip(tar, 1600)  # within the second utterance or before
    rows = ShardRows(copied, "train")
    with pytest.raises(DamagedShardError, match="train-000001.tar: this shard"):
        list(rows)
    rows.skip_damaged = True
    numbers, found = rows.take(range(40))
    assert len(found) == 39 == len(numbers) and rows.num_damaged == 1
    assert "train-000001.tar" in caplog.text and "1 so far" in caplog.text


def test_a_batch_of_damaged_utterances_gets_the_last_sound_one(copied):
    rows = ShardRows(copied, "train", skip_damaged=True)
    (copied / "train-000000.tar").unlink()
    count = read_index(copied)["splits"]["train"]["shards"][0]["count"]
    assert rows.take([0])[0] == [count]
    rows.take([count + 1])
    assert rows.take([0, 1])[0] == [count + 1]
    for tar in copied.glob("train-*.tar"):
        tar.unlink()
    with pytest.raises(DamagedShardError, match="missing"):
        ShardRows(copied, "train", skip_damaged=True).take([0])


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda p: p.unlink(), "train-000000.tar is missing"),
        (
            lambda p: p.write_bytes(p.read_bytes()[:99]),
            "train-000000.tar has 99 bytes instead of",
        ),
    ],
)
def test_shards_that_are_missing_or_cut_are_found_at_once(
    copied, damage, reason, caplog
):
    damage(copied / "train-000000.tar")
    for read in (
        lambda skip: list(read_corpus("asr", {"data_folder": copied, **skip})),
        lambda skip: all_rows(copied, "train", {**LIMITS, **skip}),
    ):
        with pytest.raises(DamagedShardError, match=reason):
            read({})
        count = read_index(copied)["splits"]["train"]["shards"][0]["count"]
        kept = read({"skip_damaged": True})
        assert len(kept) in (40 - count, 44 - count)
        assert f"left out {count} utterances of train: {reason}" in caplog.text


def test_damaged_parts_of_the_index_are_named(copied):
    flip(copied / "train-000002.jsonl", 900)
    with pytest.raises(
        DamagedShardError, match="train-000002.jsonl: this list"
    ):
        list(read_corpus("asr", {"data_folder": copied}))
    (copied / "valid.npy").write_bytes(b"no array")
    with pytest.raises(DamagedShardError, match="valid.npy: this part of the"):
        ShardRows(copied, "valid")
    flip(copied / "index.json", 300)
    with pytest.raises(ValueError, match="index.json: expected.* damaged one"):
        ShardRows(copied, "train")


def test_the_index_has_counts_seconds_and_bytes_of_each_shard(packed):
    about = read_index(packed)["splits"]["train"]
    entries = np.load(packed / "train.npy")
    assert sum(shard["count"] for shard in about["shards"]) == len(entries)
    for number, shard in enumerate(about["shards"]):
        own = entries[entries["shard"] == number]
        assert (
            shard["bytes"] == (packed / f"{shard['name']}.tar").stat().st_size
        )
        assert shard["seconds"] == pytest.approx(own["seconds"].sum())
        assert len(shard["sha256"]) == 64
    text = (packed / "index.json").read_text()
    assert json.loads(text)["form"] in text[:200]
