"""Tokenizers that a Hugging Face folder describes."""

import json

import pytest

from unispeech_sb.dataio.tokenizers.ctc import huggingface_options

CONFIG, MAP = "tokenizer_config.json", "special_tokens_map.json"
TOKENS = ["<pad>", "|", "<unk>", "a", "[X]", "[Y]"]


def options(config, special_tokens_map=None):
    """What a folder with these files says."""
    texts = {CONFIG: json.dumps(config)}
    if special_tokens_map is not None:
        texts[MAP] = json.dumps(special_tokens_map)
    return huggingface_options(texts, TOKENS)


def test_a_folder_without_the_files_has_transformers_defaults():
    found = huggingface_options({}, TOKENS)
    assert found["word_delimiter"] == "|"
    assert found["unknown"] == "<unk>"
    assert not found["lowercase"]
    assert "separator" not in found
    assert {"<pad>", "<s>", "</s>", "<unk>"} == set(found["specials"])


def test_phones_stand_apart_and_have_no_delimiter_of_their_own():
    phones = {"tokenizer_class": "Wav2Vec2PhonemeCTCTokenizer"}
    found = options(phones)
    assert (found["separator"], found["word_delimiter"]) == (" ", None)
    found = options({**phones, "word_delimiter_token": "|"})
    assert found["word_delimiter"] == "|"


def test_older_files_keep_special_tokens_apart():
    old = {"content": "[X]", "lstrip": False}
    assert options({"unk_token": "a"}, {"unk_token": old})["unknown"] == "[X]"
    later = {"unk_token": "a", "added_tokens_decoder": {}}
    found = options(later, {"unk_token": old})
    assert found["unknown"] == "a"


@pytest.mark.parametrize(
    "config",
    [
        {"additional_special_tokens": ["[X]", {"content": "[Y]"}]},
        {"extra_special_tokens": {"x": "[X]", "y": "[Y]"}},
        {
            "added_tokens_decoder": {
                "3": {"content": "a", "special": False},
                "4": {"content": "[X]", "special": True},
                "5": {"content": "[Y]", "special": True},
            }
        },
    ],
)
def test_further_special_tokens_are_found(config):
    found = set(options(config)["specials"])
    assert found == {"<pad>", "<s>", "</s>", "<unk>", "[X]", "[Y]"}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"tokenizer_class": "BertTokenizer"}, "tokenizer_class of .*'Bert"),
        ({"unk_token": 3}, "unk_token to be a text; got 3"),
        ({"word_delimiter_token": ["|"]}, "word_delimiter_token to be a text"),
        ({"extra_special_tokens": "[X]"}, "tokens in extra_special_tokens"),
        ({"additional_special_tokens": [3]}, "additional_special_tokens"),
        ([], "JSON object"),
    ],
)
def test_files_that_say_something_else_are_refused(config, message):
    with pytest.raises(ValueError, match=f"{CONFIG}: .*{message}"):
        options(config)


@pytest.mark.parametrize("name", [CONFIG, MAP])
@pytest.mark.parametrize("text", ["", "{", "[" * 100000])
def test_a_damaged_file_is_named(name, text):
    with pytest.raises(ValueError, match=f"{name}: expected JSON"):
        huggingface_options({name: text}, TOKENS)
