"""Phones of one language and of several."""

import json

import pytest

from unispeech_sb.dataio.corpora.phonetic import (
    OWN_KEYS,
    phone_vocabulary,
    phonetic_speech,
)


@pytest.fixture
def hparams(tmp_path):
    """A folder with two languages: a table, and the authors' manifests."""
    for language in ("en", "ky"):
        (tmp_path / language).mkdir()
        (tmp_path / language / "a.wav").touch()
    table = "id,path,split,phones\na,a.wav,train,s oː\n"
    (tmp_path / "en" / "manifest.csv").write_text(table, encoding="utf-8")
    folder = tmp_path / "ky"
    (folder / "train_16k.tsv").write_text("WAV_PATH\na.wav\t9\n")
    (folder / "train_16k.id").write_text("1 0\n")
    (folder / "vocab.json").write_text(json.dumps({"oː": 0, "ʃ": 1}))
    keys = [*OWN_KEYS, "vocabulary", "synthetic", "languages"]
    return dict.fromkeys(keys) | {"data_folder": tmp_path, "labels": "id"}


@pytest.mark.parametrize("shared", [True, False])
def test_languages_are_read_each_in_its_way(hparams, tmp_path, shared):
    hparams["languages"] = {"en": None, "ky": {"wav_root": tmp_path / "ky"}}
    hparams["shared_phones"] = shared
    found = {r["ID"]: r["phones"] for r in phonetic_speech(hparams)}
    expected = {"en_a": "(en)s (en)oː", "ky_a": "(ky)ʃ (ky)oː"}
    if shared:
        expected = {"en_a": "s oː", "ky_a": "ʃ oː"}
    assert found == expected
    assert phone_vocabulary(hparams) is None


def test_one_language_has_its_own_vocabulary(hparams, tmp_path):
    hparams["data_folder"] = tmp_path / "ky"
    assert phone_vocabulary(hparams).name == "vocab.json"
    hparams["data_folder"] = tmp_path / "en"
    assert phone_vocabulary(hparams) is None
    assert [r["phones"] for r in phonetic_speech(hparams)] == ["s oː"]


def test_other_keys_of_a_language_are_refused(hparams):
    hparams["languages"] = {"en": {"labels": "sep"}}
    with pytest.raises(ValueError, match="of en; got labels"):
        phonetic_speech(hparams)
