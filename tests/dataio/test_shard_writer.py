"""Shards are the same however they were made, and checked."""

import os
import resource
import shutil
import signal

import numpy as np
import pytest
import soundfile

from tests.shards import SHARD_H, contents
from unispeech_sb.dataio import shard_writer
from unispeech_sb.dataio.audio import read_audio
from unispeech_sb.dataio.shard_writer import (
    UNITS_FOLDER,
    check_shards,
    make_shards,
)
from unispeech_sb.dataio.shards import ShardRows, read_index, unpack
from unispeech_sb.dataio.units import check_units, write_units

pytest.importorskip("webdataset")


@pytest.fixture
def copied(packed, tmp_path):
    """A folder of shards that may be damaged."""
    return shutil.copytree(packed, tmp_path / "copied")


def inodes(folder):
    """Name of each shard -> the file itself."""
    return {path.name: path.stat().st_ino for path in folder.glob("[!.]*.tar")}


def test_any_number_of_threads_writes_the_same_bytes(
    packed, recorded, tmp_path
):
    index = make_shards(recorded, tmp_path / "other", SHARD_H, workers=3)
    assert contents(tmp_path / "other") == contents(packed)
    shards = index["splits"]["train"]["shards"]
    assert len(shards) > 3
    assert all(2.0 <= shard["seconds"] < 2.5 for shard in shards[:-1])


def test_a_killed_run_goes_on(packed, recorded, tmp_path):
    folder = tmp_path / "shards"
    pid = os.fork()
    if not pid:
        real, calls = shard_writer._facts, []

        def mortal(*arguments):
            calls.append(1)
            if len(calls) == 4:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments)

        shard_writer._facts = mortal
        try:
            make_shards(recorded, folder, SHARD_H)
        finally:  # else it would go on with the other tests
            os._exit(0)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    done = inodes(folder)
    assert len(done) == 3 and not (folder / "index.json").exists()
    assert len([*folder.glob(".*.tar")]) == 1, "a half shard"
    make_shards(recorded, folder, SHARD_H)
    assert contents(folder) == contents(packed)
    assert done.items() <= inodes(folder).items(), "not made again"


def test_shards_that_were_removed_are_made_again(copied, recorded, packed):
    before = inodes(copied)
    (copied / "train-000001.tar").unlink()
    (copied / "train-000002.tar").write_bytes(b"cut")
    (copied / "train-000003.jsonl").write_bytes(b"no list\n")
    make_shards(recorded, copied, SHARD_H)
    assert contents(copied) == contents(packed)
    changed = {k for k, v in inodes(copied).items() if before.get(k) != v}
    assert changed <= {f"train-00000{n}.tar" for n in (1, 2, 3)}


def test_other_data_is_refused_in_the_folder(copied, recorded, tmp_path):
    with pytest.raises(ValueError, match="other data or options .train-0000"):
        make_shards(recorded, copied, 2 * SHARD_H)
    make_shards(recorded, copied, 2 * SHARD_H, overwrite=True)
    assert not check_shards(copied)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(ValueError, match="an empty folder, or.* thesis.tex"):
        make_shards(recorded, tmp_path / "mine", overwrite=True)


def test_a_full_disk_is_one_sentence_and_leaves_no_index(recorded, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20000, limits[1]))
    try:
        with pytest.raises(OSError) as error:
            make_shards(recorded, tmp_path / "shards", SHARD_H, workers=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert error.value.filename.endswith("train-000000.tar")
    assert not (tmp_path / "shards").exists(), "no shard was whole"


def test_webdataset_reads_the_shards(packed, recorded):
    import webdataset

    known = {record["ID"]: record for record in recorded}
    url = str(packed / "train-000000.tar")
    samples = list(webdataset.WebDataset(url, shardshuffle=False).decode())
    count = read_index(packed)["splits"]["train"]["shards"][0]["count"]
    assert len(samples) == count
    for sample in samples:
        assert known[sample["json"]["ID"]] == sample["json"]


def test_recordings_are_converted_cut_or_kept(tmp_path, write_noise):
    wav = write_noise(tmp_path / "in/a.wav", 8000, 8000, 2)
    long = write_noise(tmp_path / "in/b.wav", 32000, 16000)
    flac = write_noise(tmp_path / "in/c.flac", 16000, 16000)
    records = [
        {"ID": "a", "wav": wav},
        {"ID": "b", "wav": long, "start": 800, "stop": 9000, "duration": 0.5},
        {"ID": "c", "wav": flac},
    ]
    records = [{**record, "split": "train"} for record in records]
    for audio, kept in (("flac", "c"), ("copy", "ac")):
        folder = tmp_path / audio
        index = make_shards(records, folder, audio=audio)
        assert index["kept"] == len(kept)
        for row in ShardRows(folder, "train"):
            record = next(r for r in records if r["ID"] == row["ID"])
            stretch = record.get("start"), record.get("stop")
            expected = read_audio(record["wav"], *stretch).numpy()
            found = read_audio(row["wav"]).numpy()
            assert len(found) == len(expected) == 16000 * row["duration"]
            exact = row["ID"] in (kept + "b")
            assert np.abs(found - expected).max() <= (0 if exact else 2**-15)
            with open(record["wav"], "rb") as file:
                same = file.read() == row["wav"].content
            assert same == (row["ID"] in kept)


def test_units_travel_in_the_shards(tmp_path, write_noise):
    path = write_noise(tmp_path / "a.wav", 16000)
    record = {"ID": "a", "wav": path, "duration": 1.0, "split": "train"}
    about = {"label_rate": 50, "num_units": 70000}
    units = np.arange(50) * 1400
    write_units(tmp_path / "units", [record], [units], about)
    with open(tmp_path / "units" / "train.csv") as file:
        assert "units_start" in file.readline()
    (row,) = check_units_rows(tmp_path / "units")
    folder = tmp_path / "shards"
    make_shards([{**row, UNITS_FOLDER: str(tmp_path / "units")}], folder)
    (found,) = ShardRows(folder, "train")
    assert found["units"].tolist() == units.tolist()
    assert not {"units_start", UNITS_FOLDER} & {*found}
    assert read_index(folder)["units"] == about and not check_shards(folder)
    assert check_units(folder) == {}
    with pytest.raises(ValueError, match="expected 9 units"):
        check_units(folder, 9)
    with pytest.raises(ValueError, match="units of all recordings, or of none"):
        make_shards([{**row, UNITS_FOLDER: str(tmp_path / "units")},
                     {**record, "ID": "b"}], tmp_path / "mixed")  # fmt: skip


def check_units_rows(folder):
    """Records of a folder of units."""
    from unispeech_sb.dataio.manifest import read_splits

    check_units(folder)
    return read_splits(folder)


def test_bad_recordings_are_named_or_left_out(recorded, tmp_path):
    bad, short = tmp_path / "bad.wav", tmp_path / "short.wav"
    bad.write_text("no audio")
    soundfile.write(short, np.ones(99), 16000)
    rows = [
        {"ID": path.stem, "wav": str(path), "duration": 1.0, "split": "train"}
        for path in (bad, short)
    ]
    with pytest.raises(ValueError, match="2 of 44 recordings cannot be used"):
        make_shards(recorded[:42] + rows, tmp_path / "a", SHARD_H)
    assert not (tmp_path / "a" / "index.json").exists()
    index = make_shards(
        recorded[:42] + rows, tmp_path / "a", SHARD_H, skip_bad_files=True
    )
    assert index["splits"]["train"]["count"] == 40
    assert sorted(fault.split(":")[0] for fault in index["left_out"]) == [
        str(bad), str(short),
    ]  # fmt: skip
    with pytest.raises(ValueError, match="got utt.3 twice"):
        make_shards([recorded[3], recorded[3]], tmp_path / "b")
    with pytest.raises(ValueError, match="expected a split of train"):
        make_shards([{**recorded[0], "split": "dev"}], tmp_path / "b")
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda f: (f / "train-000001.tar").unlink(), "000001.tar: missing"),
        (
            lambda f: (f / "valid.npy").write_bytes(b""),
            "valid.npy: damaged",
        ),
        (
            lambda f: (f / "train-000002.jsonl").write_text("{}"),
            "000002.jsonl: damaged",
        ),
        (lambda f: (f / "a.tar").touch(), "a.tar: no part of these shards"),
    ],
)
def test_a_check_names_each_fault(copied, damage, sentence):
    assert check_shards(copied) == []
    damage(copied)
    (found,) = check_shards(copied, workers=2)
    assert sentence in found


def test_a_check_counts_damaged_utterances(copied):
    tar = copied / "train-000001.tar"
    content = bytearray(tar.read_bytes())
    content[3000] ^= 4
    tar.write_bytes(content)
    count = read_index(copied)["splits"]["train"]["shards"][1]["count"]
    (found,) = check_shards(copied)
    assert found == f"train-000001.tar: damaged, 1 of {count} utterances"


def test_a_sample_is_unpacked_from_its_place_alone(packed):
    entry = np.load(packed / "valid.npy")[2]
    with open(packed / "valid-000000.tar", "rb") as file:
        file.seek(int(entry["offset"]))
        sample = unpack(file.read(int(entry["size"])))
    assert set(sample) == {"flac", "json"}
