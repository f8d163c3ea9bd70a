"""Vocabulary files of all kinds to tokenizers."""

import base64
import json

import pytest
from transformers import Wav2Vec2CTCTokenizer, Wav2Vec2PhonemeCTCTokenizer

from tests.huggingface import needs_5_21
from unispeech_sb.convert.tokenizers import make_tokenizer, read_tokenizer
from unispeech_sb.dataio.tokenizers import CTCTokenizer, sentencepiece

LETTERS = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ABÉ"]
PHONES = ["h", "aɪ", "<s>", "<pad>", "</s>", "<unk>"]


def write(path, tokens):
    """Writes a vocabulary by index."""
    path.write_text(json.dumps({t: i for i, t in enumerate(tokens)}))
    return path


def tokens_of(tokenizer):
    """The tokens by index."""
    return [tokenizer.ind2lab[index] for index in range(len(tokenizer))]


@pytest.mark.parametrize(
    "cls", ["letters", pytest.param("phones", marks=needs_5_21)]
)
@pytest.mark.parametrize("what", ["folder", "file"])
def test_a_hugging_face_tokenizer_is_the_one_conversion_makes(
    cls, what, tmp_path
):
    made, tokens = {
        "letters": (Wav2Vec2CTCTokenizer, LETTERS),
        "phones": (Wav2Vec2PhonemeCTCTokenizer, PHONES),
    }[cls]
    folder = tmp_path / "saved"
    made(str(write(tmp_path / "v.json", tokens))).save_pretrained(folder)
    found = read_tokenizer(
        folder if what == "folder" else folder / "vocab.json"
    )
    texts = {path.name: path.read_text() for path in folder.iterdir()}
    expected = CTCTokenizer.from_huggingface(
        texts, tokens, tokens.index("<pad>")
    )
    assert vars(found) == vars(expected)


def test_the_models_own_config_names_the_blank_and_the_size(tmp_path):
    write(tmp_path / "vocab.json", [*"abc", "_", "beyond"])
    (tmp_path / "config.json").write_text(
        '{"pad_token_id": 3, "vocab_size": 4}'
    )
    (tmp_path / "tokenizer_config.json").write_text('{"pad_token": "_"}')
    found = read_tokenizer(tmp_path)
    assert tokens_of(found) == [*"abc", "_"] and found.blank_index == 3


def test_a_vocabulary_without_a_blank_is_refused(tmp_path):
    write(tmp_path / "vocab.json", [*"abc", "_"])
    (tmp_path / "tokenizer_config.json").write_text("{}")
    with pytest.raises(ValueError, match="vocab.json: expected CTC's blank"):
        read_tokenizer(tmp_path)


def test_vocabularies_of_several_languages_are_refused(tmp_path):
    path = tmp_path / "vocab.json"
    path.write_text('{"eng": {"<pad>": 0}, "fra": {"<pad>": 0}}')
    (tmp_path / "tokenizer_config.json").write_text("{}")
    with pytest.raises(ValueError, match="one language; got .*eng, fra"):
        read_tokenizer(tmp_path)


def test_the_authors_json_gets_its_specials_last(tmp_path):
    path = write(tmp_path / "phonesMatches_reduced.json", ["h", "aɪ", ""])
    found = read_tokenizer(path, separator=" ")
    assert tokens_of(found)[3:] == ["<s>", "<pad>", "</s>", "<unk>"]
    assert found.blank_index == 3
    assert found.decode(found.encode("aɪ h")) == "aɪ h"


def test_fairseqs_text_gets_its_specials_first(tmp_path):
    path = tmp_path / "dict.ltr.txt"
    path.write_text("| 10\nE 9\nT 8\n")
    found = read_tokenizer(path)
    assert tokens_of(found) == ["<s>", "<pad>", "</s>", "<unk>", "|", "E", "T"]
    assert found.encode("TE E") == [6, 5, 4, 5]


def test_a_sentencepiece_file_is_the_model_itself(tmp_path):
    model = sentencepiece.train(["so it is", "so is it"], 8)
    path = tmp_path / "spm.model"
    path.write_bytes(base64.b64decode(model))
    found = read_tokenizer(path)
    assert vars(found) == vars(CTCTokenizer.from_pieces(model))


def test_a_pretrained_folder_has_its_tokenizer(tmp_path):
    tokenizer = CTCTokenizer.superb_letters()
    tokenizer.save(tmp_path / "tokenizer.ckpt")
    assert vars(read_tokenizer(tmp_path)) == vars(tokenizer)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent", None, "expected a vocabulary"),
        ("a.model", "no model", "a.model: expected a SentencePiece model"),
        ("a.json", "{", "a.json: expected JSON"),
        ("a.json", '{"a": 0, "b": 0}', "a.json: expected one token for each"),
        ("a.txt", "A B C\n", "a.txt: expected a symbol and its count"),
        ("tokenizer.ckpt", "", "tokenizer.ckpt: expected labels"),
    ],
)
def test_a_damaged_file_is_named(name, content, message, tmp_path):
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    source = tmp_path if name.startswith("tok") else path
    with pytest.raises(ValueError, match=message) as caught:
        read_tokenizer(source)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_recipe_asks_for_letters_phones_pieces_or_a_file(tmp_path):
    texts = ["so it is", "so is it"]
    assert "o" in make_tokenizer(texts).lab2ind
    assert make_tokenizer(texts, " ").encode("is so") == [2, 4]
    assert make_tokenizer(texts, num_pieces=8).sentencepiece
    path = write(tmp_path / "v.json", LETTERS)
    assert tokens_of(make_tokenizer(texts, vocabulary=path)) == LETTERS
    for options in ({"separator": " "}, {"vocabulary": path}):
        with pytest.raises(ValueError, match="got two of them"):
            make_tokenizer(texts, num_pieces=8, **options)
