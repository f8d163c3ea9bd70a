"""Shards of the making of units."""

import numpy as np
import pytest
import torch

from unispeech_sb.dataio.unit_clusters import map_frames, nearest_centres
from unispeech_sb.dataio.unit_features import MFCCs
from unispeech_sb.dataio.unit_shards import (
    draw_sample,
    dump_frames,
    dump_units,
    read_units,
    shard_of,
)


@pytest.fixture
def records(tmp_path, write_noise):
    """Recordings of 0.5 to 1.5 s."""
    sizes = [8000, 16000, 24000, 8000]
    return [
        {
            "ID": f"r{number}",
            "wav": write_noise(tmp_path / f"{number}.wav", size),
            "duration": size / 16000,
            "split": "train",
            "start": None,
            "stop": None,
        }
        for number, size in enumerate(sizes)
    ]


class Spy(MFCCs):
    """Keeps how long the recordings of each batch are."""

    def __init__(self):
        self.batches = []

    def __call__(self, wavs):
        self.batches.append([len(wav) for wav in wavs])
        return super().__call__(wavs)


@pytest.mark.parametrize("num_shards", [1, 2, 3, 7, 20])
def test_shards_are_all_items_in_order(num_shards):
    items = list(range(10))
    shards = [shard_of(items, n, num_shards) for n in range(num_shards)]
    assert sum(shards, []) == items
    sizes = [len(shard) for shard in shards]
    assert max(sizes) - min(sizes) <= 1


def test_the_sample_is_of_training_recordings_and_by_the_seed():
    records = [
        {"ID": f"{split}{n}", "split": split}
        for split in ("train", "valid")
        for n in range(100)
    ]
    names = draw_sample(records, 0.105, seed=0)
    assert len(names) == 11
    assert all(name.startswith("train") for name in names)
    assert names == draw_sample(records, 0.105, seed=0)
    assert names != draw_sample(records, 0.105, seed=1)
    assert len(draw_sample(records, 1, seed=0)) == 100
    for share in (0, 1.5):
        with pytest.raises(ValueError, match="share in"):
            draw_sample(records, share, seed=0)


def test_batches_are_in_order_and_no_longer_than_asked(records, tmp_path):
    features = Spy()
    dump_frames(records, features, tmp_path / "frames", max_batch_s=2.0)
    assert features.batches == [[8000, 16000], [24000], [8000]]
    frames = map_frames(tmp_path / "frames", 39)
    expected = np.concatenate(
        [
            features([torch.from_numpy(wav)])[0].numpy()
            for wav in map(read, records)
        ]
    )
    assert np.array_equal(frames, expected)


def read(record):
    """The samples of a recording, as soundfile reads them."""
    import soundfile

    return soundfile.read(record["wav"], dtype="float32")[0]


def test_a_stretch_has_the_frames_of_its_stretch(records, tmp_path):
    part = {**records[2], "start": 8000, "stop": 16000}
    dump_frames([part], MFCCs(), tmp_path / "frames", 9.0)
    wav = torch.from_numpy(read(records[2])[8000:16000])
    assert np.array_equal(
        map_frames(tmp_path / "frames", 39), MFCCs()([wav])[0].numpy()
    )


def test_units_come_back_as_they_were_found(records, tmp_path):
    centres = np.random.default_rng(0).normal(0, 9, (6, 39)).astype(np.float32)
    paths = [tmp_path / name for name in ("first", "none", "second")]
    for path, own in zip(paths, (records[:3], [], records[3:])):
        dump_units(own, MFCCs(), centres, path, 9.0)
    found = list(read_units(paths))
    assert len(found) == len(records)
    for record, units in zip(records, found):
        (frames,) = MFCCs()([torch.from_numpy(read(record))])
        expected = nearest_centres(frames, torch.from_numpy(centres))
        assert np.array_equal(units, expected.numpy())


@pytest.mark.parametrize("dump", ["frames", "units"])
def test_a_shard_that_was_not_finished_is_not_there(records, tmp_path, dump):
    def stop(wavs):
        if len(wavs[0]) == 24000:
            raise KeyboardInterrupt
        return MFCCs()(wavs)

    path = tmp_path / "shard"
    with pytest.raises(KeyboardInterrupt):
        if dump == "frames":
            dump_frames(records, stop, path, 2.0)
        else:
            dump_units(records, stop, np.zeros((2, 39), "f4"), path, 2.0)
    assert not path.exists()
