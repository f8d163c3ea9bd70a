"""Recordings of which only the sound is used."""

import pytest

from unispeech_sb.dataio.corpora.unlabelled import unlabelled_speech


def read(folder, **options):
    """The records of a folder, or of several."""
    hparams = {
        "data_folder": folder, "subsets": None, "synthetic": False,
        "valid_share": 0.2, "seed": 0,
    }  # fmt: skip
    return unlabelled_speech({**hparams, **options})


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


def test_what_is_no_corpus_is_told(tmp_path, folder):
    with pytest.raises(ValueError, match="nowhere: expected a LibriSpeech"):
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
