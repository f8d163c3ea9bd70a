"""Words to phones."""

import pytest

from unispeech_sb.dataio.corpora.lexicon import (
    espeak_phones,
    lexicon_phones,
    read_lexicons,
    table_phones,
)


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


@pytest.mark.parametrize("line", ["WORD", ""])
def test_a_line_without_phones_is_named(files, line):
    files[0].write_text(f"A AH0\n{line}\n")
    with pytest.raises(ValueError, match=f"{files[0]}, line 2: expected a wo"):
        read_lexicons(files)


def test_a_lexicon_that_is_none_is_named(files, tmp_path):
    with pytest.raises(FileNotFoundError, match="absent.txt"):
        read_lexicons([*files, tmp_path / "absent.txt"])
    files[0].write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=f"{files[0]}: expected text in UTF-8"):
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
    with pytest.raises(ValueError, match="expected phones for 1 recordings"):
        table_phones(records[1:2], path)
    path.write_text("id,phonemes\na,S\n")
    with pytest.raises(ValueError, match="expected a column 'phones'"):
        table_phones(records, path)
