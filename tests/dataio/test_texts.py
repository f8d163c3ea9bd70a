"""Texts of recognizers: checked, in one case, with one way to write letters."""

from types import SimpleNamespace

import pytest

from unispeech_sb.dataio.manifest import read_manifest
from unispeech_sb.dataio.texts import prepare_texts
from unispeech_sb.dataio.tokenizers import CTCTokenizer


@pytest.fixture
def prepared(tmp_path, write_noise):
    """A function that prepares texts and gives those of the manifest."""
    wav = write_noise(tmp_path / "a.wav", 48000)

    def prepare(*texts, rows=None, **options):
        rows = rows or [{} for _ in texts]
        records = [
            {"ID": f"u{number}", "wav": wav, "wrd": text, "split": "train"}
            for number, text in enumerate(texts)
        ]
        records = [record | row for record, row in zip(records, rows)]
        records.append({**records[0], "ID": "v", "split": "valid"})
        hparams = {
            "data_folder": "speech",
            "manifest_folder": tmp_path / "manifests",
            "save_folder": tmp_path / "save",
            "text_column": "wrd",
            "skip_prep": False,
            "skip_bad_files": False,
            "max_duration_s": 60.0,
            "sample_rate": 16000,
            "checkpointer": SimpleNamespace(find_checkpoint=lambda: None),
            "make_tokenizer": CTCTokenizer.from_texts,
            "backbone": SimpleNamespace(output_lengths=lambda n: n // 320),
            **options,
        }
        prepare_texts(records, hparams)
        found = read_manifest(tmp_path / "manifests/train.csv")
        return [row["wrd"] for row in found]

    return prepare


def test_letters_are_composed_without_format_characters(prepared):
    assert prepared("e\u0301t\u00ade\u0301", "\ufeffété") == ["été", "été"]


def test_phones_are_left_as_they_are(prepared):
    phones = "o\u0303 s"
    assert prepared(phones, separator=" ") == [phones]


def test_case_follows_the_language(prepared):
    texts = ("ISPARTA İL", "ısı")
    lower = {"text_case": "lower"}
    assert prepared(*texts, **lower, language="tr") == ["ısparta il", "ısı"]
    assert prepared(*texts, **lower) == ["isparta il", "ısı"]
    rows = [{"language": "az"}, {"language": "de"}]
    found = prepared("ili", "ili", rows=rows, text_case="upper")
    assert found == ["İLİ", "ILI"]


@pytest.mark.parametrize("text", ["", "  ", "\u00ad", "\u200b \u200d"])
def test_a_text_without_letters_is_none(prepared, text):
    with pytest.raises(ValueError, match="expected a text in the column 'wrd'"):
        prepared("so", text)


def test_texts_without_a_symbol_of_the_tokenizer_are_refused(prepared):
    capitals = CTCTokenizer.from_texts(["SO IT"])
    make = {"make_tokenizer": lambda texts: capitals}
    message = "no symbol in common: i, o, s, t against I, O, S, T, |"
    with pytest.raises(ValueError, match=message.replace("|", ".")):
        prepared("so it", **make)
    assert prepared("so it", text_case="upper", **make) == ["SO IT"]
