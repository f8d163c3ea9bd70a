"""Crops of speech and what belongs to them."""

import numpy as np
import pytest
import soundfile
import torch

from unispeech_sb.dataio.manifest import read_manifest
from unispeech_sb.dataio.pretraining import (
    NUM_SPECIALS,
    SpeechCrops,
    add_batches,
    unit_targets,
    unlabelled_records,
    usable_rows,
)
from unispeech_sb.dataio.units import write_units

HOPS = {50: 320, 100: 160}


@pytest.fixture(params=HOPS, ids=lambda rate: f"{rate}Hz")
def spoken(request, tmp_path):
    """Recordings whose samples tell their units: rows, folder, rate."""
    rate, records, units = request.param, [], []
    for name, seconds in (("a", 1.0), ("b", 2.0), ("c", 3.0)):
        own = np.arange(int(seconds * rate) - 1)
        wav = np.repeat(np.arange(len(own) + 1), HOPS[rate]) / 1000
        path = tmp_path / f"{name}.wav"
        soundfile.write(path, wav, 16000, subtype="FLOAT")
        records.append({"ID": name, "wav": str(path), "duration": seconds,
                        "split": "train"})  # fmt: skip
        units.append(own)
    about = {"label_rate": rate, "num_units": 300}
    write_units(tmp_path / "units", records, units, about)
    return tmp_path / "units", rate


def crops_of(folder, rate, **options):
    """The training set with its units."""
    rows = read_manifest(folder / "train.csv")
    targets = unit_targets(folder, "train")
    return SpeechCrops(rows, targets, rate, **options)


def test_units_stay_in_step_with_the_samples(spoken):
    crops = crops_of(*spoken, crop_s=0.8)
    for number in range(30):
        item = crops[number]
        hop = HOPS[spoken[1]]
        heard = (item["sig"][::hop] * 1000).round().long()
        assert len(item["sig"]) == 12800
        count = len(item["targets"])
        assert count >= len(heard) - 1
        assert torch.equal(item["targets"] - NUM_SPECIALS, heard[:count])


def test_a_batch_is_cut_to_its_shortest_at_random_places(spoken):
    crops = crops_of(*spoken, equal_lengths=True)
    items = crops.__getitems__([2, 0, 1])
    assert [len(item["sig"]) for item in items] == [16000] * 3
    firsts = {crops.__getitems__([2 + 3 * k, 0])[0]["sig"][0].item()
              for k in range(20)}  # fmt: skip
    assert len(firsts) > 10
    assert crops.__getitems__([2])[0]["sig"].shape == (48000,)


def test_a_place_depends_on_seed_and_pass_alone(spoken):
    first, again, other = (
        crops_of(*spoken, crop_s=0.5, seed=seed) for seed in (1, 1, 2)
    )
    torch.manual_seed(5)
    numbers = range(2, 32, 3)
    places = [
        [crops[number]["sig"][0].item() for number in numbers]
        for crops in (first, again, other)
    ]
    assert places[0] == places[1] != places[2]
    assert len(set(places[0])) > 5


def test_labels_of_whole_utterances_are_not_cut():
    with pytest.raises(ValueError, match="expected no crop_s"):
        SpeechCrops([], targets=len, crop_s=1.0)


def test_datasets_leave_short_and_long_ones_out(spoken):
    folder = spoken[0]
    (folder / "valid.csv").write_text((folder / "train.csv").read_text())
    hparams = {
        "seed": 1, "min_duration_s": 1.5, "max_duration_s": 2.5,
        "max_batch_s": 9.0, "num_buckets": 2, "train_dataloader_opts": {},
    }  # fmt: skip
    rows = usable_rows(folder, hparams)
    assert [row["ID"] for row in rows["train"]] == ["b"]
    assert set(rows) == {"train", "valid"}
    add_batches(SpeechCrops(rows["train"]), "train", hparams)
    sampler = hparams["train_dataloader_opts"]["batch_sampler"]
    sampler.set_epoch(3)
    assert list(sampler) == [[3]]


def read(folder, **options):
    """The records of a folder, or of several."""
    hparams = {
        "data_folder": folder, "subsets": None, "synthetic": False,
        "valid_share": 0.2, "seed": 0,
    }  # fmt: skip
    return unlabelled_records({**hparams, **options})


def names(records, split):
    """The IDs of a split."""
    return [record["ID"] for record in records if record["split"] == split]


@pytest.fixture
def folder(tmp_path):
    """Ten recordings at two depths, and what is none."""
    folder = tmp_path / "own"
    (folder / "deep").mkdir(parents=True)
    for number in range(5):
        (folder / f"{number}.wav").touch()
        (folder / "deep" / f"{number}.flac").touch()
    (folder / "notes.txt").touch()
    (folder / ".hidden.wav").touch()
    return folder


@pytest.fixture
def tree(tmp_path):
    """A LibriSpeech tree with a recording for training and one to validate."""
    for subset in ("train-mini", "dev-mini"):
        chapter = tmp_path / "libri" / subset / "1" / "2"
        chapter.mkdir(parents=True)
        (chapter / f"{subset}.flac").touch()
        (chapter / "1-2.trans.txt").write_text(f"{subset} SO IT IS\n")
    return tmp_path / "libri"


def test_a_folder_of_recordings_is_parted_by_the_seed(folder):
    records = read(folder)
    assert len(names(records, "train")) == 8
    assert len(names(records, "valid")) == 2
    assert "deep_3" in names(records, "train") + names(records, "valid")
    assert records == read(folder)
    others = [names(read(folder, seed=seed), "valid") for seed in range(5)]
    assert len(set(map(tuple, others))) > 1


def test_several_folders_are_read_one_after_the_other(folder, tree):
    records = read([tree, folder])
    assert names(records, "valid") == ["dev-mini"]
    assert names(records, "train")[0] == "train-mini"
    assert len(names(records, "train")) == 11
    assert names(read(tree, subsets=["dev-mini"]), "valid") == ["dev-mini"]


def test_a_table_with_splits_is_read_and_one_without_passed_over(folder):
    table = folder / "manifest.csv"
    table.write_text("id,path,split\na,0.wav,train\nb,1.wav,val\n")
    records = read(folder)
    assert (names(records, "train"), names(records, "valid")) == (["a"], ["b"])
    assert read(table) == records
    table.write_text("id,path,speaker\na,0.wav,me\n")
    assert len(read(folder)) == 10


def test_a_share_of_0_holds_nothing_out(folder):
    assert len(names(read(folder, valid_share=0), "train")) == 10


def test_what_is_no_corpus_is_told(tmp_path, folder):
    with pytest.raises(
        ValueError, match="nowhere: expected data of one of these"
    ):
        read(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty: expected recordings"):
        read(tmp_path / "empty")
    with pytest.raises(ValueError, match="valid_share: expected a share"):
        read(folder, valid_share=1.0)


@pytest.mark.real_data
def test_both_corpora_of_real_speech_are_read(data_folder):
    folders = [data_folder / "LibriSpeech", data_folder / "libri248"]
    records = read(folders, subsets=["train-mini", "dev-mini"])
    assert len(names(records, "train")) == 332
    assert len(names(records, "valid")) == 27
    assert len({record["ID"] for record in records}) == 359
