"""Phones of one language and of several: of the corpus, or spelt."""

import gzip
import json

import pytest

from unispeech_sb.dataio.corpora.phones import (
    espeak_phones,
    lexicon_phones,
    phone_records,
    phone_vocabulary,
    read_lexicons,
    table_phones,
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
    keys = ["lexicon", "phones_table", "espeak", "vocabulary", "languages"]
    return dict.fromkeys(keys) | {"data_folder": tmp_path, "labels": "id"}


@pytest.mark.parametrize("shared", [True, False])
def test_languages_are_read_each_in_its_way(hparams, tmp_path, shared):
    hparams["languages"] = {"en": None, "ky": {"wav_root": tmp_path / "ky"}}
    hparams["shared_phones"] = shared
    found = {r["ID"]: r["phones"] for r in phone_records(hparams)}
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
    assert [r["phones"] for r in phone_records(hparams)] == ["s oː"]


def test_phones_of_the_corpus_come_before_a_lexicon(hparams, tmp_path):
    hparams |= {"data_folder": tmp_path / "ky", "lexicon": "nowhere.txt"}
    hparams["wav_root"] = tmp_path / "ky"
    assert [r["phones"] for r in phone_records(hparams)] == ["ʃ oː"]
    hparams["data_folder"] = tmp_path / "en"
    with pytest.raises(FileNotFoundError, match="no such lexicon"):
        phone_records(hparams)


def test_spoken_sentences_have_the_phones_of_espeak(hparams):
    hparams |= {"synthetic": True, "seed": 0}
    hparams |= {"synthetic_sentences": (1, 0, 0), "synthetic_voices": (1, 0, 0)}
    (record,) = phone_records(hparams)
    assert record["phones"] == record["phn"]


def test_other_keys_of_a_language_are_refused(hparams):
    hparams["languages"] = {"en": {"labels": "sep"}}
    with pytest.raises(ValueError, match="of en; got labels"):
        phone_records(hparams)


@pytest.fixture
def files(tmp_path):
    """Two lexicons, the first with two pronunciations of a word."""
    first, second = tmp_path / "first.txt", tmp_path / "second.txt"
    first.write_text("A\tAH0\nA\tEY1\nSO  S OW1\n")
    second.write_text("SO\tZ\nIT\tIH1 T\n")
    return [first, second]


def test_the_first_pronunciation_of_the_first_file_counts(files):
    found = {"A": "AH0", "SO": "S OW1", "IT": "IH1 T"}
    assert read_lexicons(files) == found
    assert read_lexicons(str(files[1])) == {"SO": "Z", "IT": "IH1 T"}


@pytest.mark.parametrize("line", ["WORD", "WORD  "])
def test_a_line_without_phones_is_named(files, line):
    files[0].write_text(f"A AH0\n{line}\n")
    with pytest.raises(ValueError, match=f"{files[0]}, line 2: expected a wo"):
        read_lexicons(files)


def test_a_lexicon_may_have_comments_and_be_packed(tmp_path):
    path = tmp_path / "cmudict.gz"
    path.write_bytes(gzip.compress(b";;; # CMU\r\nSO  S OW1\r\n\r\n"))
    assert read_lexicons(path) == {"SO": "S OW1"}


def test_words_without_any_in_the_lexicon_are_refused_with_both_sides():
    records = [{"wav": "a.wav", "wrd": "so it"}]
    message = "no name in common: so, it against NO"
    for skip in (False, True):
        with pytest.raises(ValueError, match=message):
            lexicon_phones(records, {"NO": "N OW"}, skip)


def test_words_are_looked_up_in_the_case_of_the_lexicon(caplog):
    records = [{"wav": "a.wav", "wrd": "so it"}]
    (found,) = lexicon_phones(records, {"SO": "S OW", "IT": "IH T"})
    assert found["phones"] == "S OW IH T"
    assert "in upper case" in caplog.text


def test_a_lexicon_that_is_none_is_named(files, tmp_path):
    with pytest.raises(FileNotFoundError, match="absent.txt"):
        read_lexicons([*files, tmp_path / "absent.txt"])
    files[0].write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=f"{files[0]}, line 1: .* UTF-16"):
        read_lexicons(files)


def test_words_are_spelt_with_nothing_between_them(files):
    records = [{"ID": "a", "wrd": "SO  IT"}]
    assert lexicon_phones(records, read_lexicons(files)) == [
        {"ID": "a", "wrd": "SO  IT", "phones": "S OW1 IH1 T"}
    ]


def test_unknown_words_are_named_or_left_out(files):
    lexicon = read_lexicons(files)
    records = [{"ID": i, "wrd": w} for i, w in enumerate(("IT", "B IT C", "B"))]
    message = "2 words of 2 recordings are in no lexicon: B, C$"
    with pytest.raises(ValueError, match=message):
        lexicon_phones(records, lexicon)
    kept = lexicon_phones(records, lexicon, skip_unknown=True)
    assert [record["ID"] for record in kept] == [0]


@pytest.mark.parametrize("columns", [{}, {"wrd": " "}])
def test_records_without_words_are_named(columns):
    with pytest.raises(ValueError, match="'wrd' of a.wav, got none"):
        lexicon_phones([{"wav": "a.wav", **columns}], {})
    with pytest.raises(ValueError, match="'wrd' of a.wav, got none"):
        list(espeak_phones([{"wav": "a.wav", **columns}], "en"))


def test_espeak_speaks_other_languages():
    records = [{"wrd": "алардын үчөө"}]
    found = next(espeak_phones(records, "ky"))["phones"].split()
    assert found[:4] == ["ɑ", "l", "ɑ", "r"]


def test_a_table_gives_phones_where_no_word_lacks_them(tmp_path):
    path = tmp_path / "phones.csv"
    path.write_text("id,phones,oov\na,S OW,\nb,IH,IT\nc,,\n")
    records = [{"ID": name} for name in "abcd"]
    assert table_phones(records, path) == [{"ID": "a", "phones": "S OW"}]
    with pytest.raises(ValueError, match="no name in common: b against a"):
        table_phones(records[1:2], path)
    path.write_text("id,phonemes\na,S\n")
    with pytest.raises(ValueError, match="expected a column 'phones'"):
        table_phones(records, path)
