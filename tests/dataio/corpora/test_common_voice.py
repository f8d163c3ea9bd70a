"""A language of Common Voice to records."""

import pytest

from unispeech_sb.dataio.corpora import read_corpus
from unispeech_sb.dataio.corpora.common_voice import (
    common_voice,
    is_common_voice,
)
from unispeech_sb.text import plain_words

HEADER = "client_id\tpath\tsentence\tup_votes\tlocale\n"
SENTENCES = {"train": "«Sí», señor.", "dev": '"¿No?', "test": "L’âge-là"}


@pytest.fixture
def language(tmp_path):
    """One clip in each split."""
    (tmp_path / "clips").mkdir()
    for split, sentence in SENTENCES.items():
        name = f"common_voice_es_{split}.mp3"
        (tmp_path / "clips" / name).touch()
        row = f"ann\t{name}\t{sentence}\t2\tes\n"
        (tmp_path / f"{split}.tsv").write_text(HEADER + row, encoding="utf-8")
    return tmp_path


def test_rows_become_records(language):
    records = list(common_voice(language))
    assert records[0] == {
        "ID": "common_voice_es_train",
        "wav": str(language / "clips" / "common_voice_es_train.mp3"),
        "split": "train",
        "spk_id": "ann",
        "language": "es",
        "wrd": "sí señor",
    }
    said = [(record["split"], record["wrd"]) for record in records[1:]]
    assert said == [("valid", "no"), ("test", "l'âge là")]


def test_only_the_chosen_subsets_are_read(language):
    found = common_voice(language, ["dev"])
    assert [record["split"] for record in found] == ["valid"]


def test_early_editions_leave_suffixes_out(language):
    table = language / "dev.tsv"
    table.write_text(table.read_text().replace(".mp3", ""))
    found = next(common_voice(language, ["dev"]))
    assert found["wav"].endswith("/common_voice_es_dev.mp3")


def test_a_language_is_known_by_its_clips_and_table(language):
    assert is_common_voice(language)
    assert not is_common_voice(language / "clips")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("client_id\tpath\n", "dev.tsv, line 1: expected a column 'sentence'"),
        (f"{HEADER}ann\tb.mp3\tno\t2\tes\n", "dev.tsv, line 2: no such file"),
        (f"{HEADER}ann\n", "dev.tsv, line 2: expected one value per column"),
    ],
)
def test_a_bad_table_is_named(language, text, message):
    (language / "dev.tsv").write_text(text)
    with pytest.raises(ValueError, match=message):
        list(common_voice(language))


def test_a_missing_table_and_an_unknown_subset_are_named(language):
    with pytest.raises(ValueError, match="got 'valid'"):
        list(common_voice(language, ["valid"]))
    (language / "dev.tsv").unlink()
    with pytest.raises(FileNotFoundError, match="dev.tsv: there is no such"):
        list(common_voice(language))


@pytest.mark.parametrize(
    ("sentence", "words"),
    [
        ("Un — deux, «trois»!", "un deux trois"),
        ("'It's' o'clock, dogs'", "it's o'clock dogs"),
        ("naïve cafe\u0301", "naïve café"),
        ("Kyrgyz: үчөө; हिन्दी 3", "kyrgyz үчөө हिन्दी 3"),
        ("...", ""),
    ],
)
def test_what_is_not_spoken_is_left_out(sentence, words):
    assert plain_words(sentence) == words


TURKISH = "İstanbul'da IŞIK! DIŞARI\u00adda"


@pytest.mark.parametrize(
    ("name", "locale", "language", "expected"),
    [
        ("any", "tr", None, "istanbul'da ışık dışarıda"),
        ("tr", None, None, "istanbul'da ışık dışarıda"),
        ("any", "az", None, "istanbul'da ışık dışarıda"),
        ("any", "de", "tr", "istanbul'da ışık dışarıda"),
        ("any", "de", None, "istanbul'da işik dişarida"),
    ],
)
def test_letters_change_case_by_the_language(
    tmp_path, name, locale, language, expected
):
    folder = tmp_path / name
    (folder / "clips").mkdir(parents=True)
    (folder / "clips" / "a.mp3").touch()
    columns = ["client_id", "path", "sentence", *(["locale"] if locale else [])]
    row = ["ann", "a.mp3", TURKISH, *([locale] if locale else [])]
    text = "\n".join("\t".join(cells) for cells in (columns, row)) + "\n"
    for subset in ("train", "dev", "test"):
        (folder / f"{subset}.tsv").write_text(text, encoding="utf-8")
    hparams = {"data_folder": folder, "language": language}
    assert {r["wrd"] for r in read_corpus("asr", hparams)} == {expected}
    assert {r["wrd"] for r in read_corpus("phoneme", hparams)} == {expected}
