"""The corpus is known by what its folder holds."""

import pytest

from unispeech_sb.dataio.corpora.transcribed import transcribed_speech


def read(folder, **options):
    """IDs of the corpus of a folder."""
    hparams = {"data_folder": folder, "synthetic": False, "subsets": None}
    return [r["ID"] for r in transcribed_speech({**hparams, **options})]


def test_a_librispeech_tree_is_read_even_beside_a_manifest(tmp_path):
    chapter = tmp_path / "train-mini" / "19" / "1"
    chapter.mkdir(parents=True)
    (chapter / "19-1-0000.flac").touch()
    (chapter / "19-1.trans.txt").write_text("19-1-0000 SO\n")
    (tmp_path / "manifest.csv").write_text("id,path,split\n")
    assert read(tmp_path) == ["19-1-0000"]
    assert read(tmp_path / "manifest.csv") == []
    with pytest.raises(ValueError, match="train-other"):
        read(tmp_path, subsets=["train-other"])


def test_a_language_of_common_voice_is_read(tmp_path):
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.mp3").touch()
    for subset in ("train", "dev", "test"):
        text = "client_id\tpath\tsentence\nann\ta.mp3\tSo.\n"
        (tmp_path / f"{subset}.tsv").write_text(text)
    assert read(tmp_path, subsets=["dev"]) == ["a"]


def test_a_table_is_read(tmp_path):
    (tmp_path / "a.wav").touch()
    text = "id,path,split,wrd\nu1,a.wav,train,so\n"
    (tmp_path / "manifest.csv").write_text(text)
    assert read(tmp_path) == ["u1"]


def test_sentences_are_spoken_into_the_folder(tmp_path):
    options = {"synthetic": True, "synthetic_sentences": (1, 0, 0)}
    options |= {"synthetic_voices": (1, 0, 0), "seed": 0}
    assert read(tmp_path, **options) == ["train_v000_0000"]


def test_a_folder_that_is_none_is_named():
    with pytest.raises(ValueError, match="nowhere: expected a LibriSpeech"):
        read("nowhere")
