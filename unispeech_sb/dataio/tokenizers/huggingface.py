"""What the names of tokens mean: transformers' usual ones, and its files."""

import json
import re

DELIMITER = "|"
BLANK, UNKNOWN = "<pad>", "<unk>"
UNKNOWNS = (UNKNOWN, "[UNK]", "<UNK>")
_SPECIALS = (
    *("<s>", "</s>", BLANK, "<blank>", "<bos>", "<eos>"),
    *("[PAD]", "[CLS]", "[SEP]", "<PAD>", *UNKNOWNS),
)
"""Names of tokens that no text holds."""

LIBRISPEECH_LETTERS = "|ETAONIHSRDLUMWCFGYPBVK'XJQZ"
"""fairseq's letters of LibriSpeech, the most frequent first."""

_UNUSED = re.compile(r"<unused \d+>")
"""Name of an output that a vocabulary leaves out."""

_CHARACTERS = ("Wav2Vec2CTCTokenizer", "Wav2Vec2Tokenizer")
_PHONES = ("Wav2Vec2PhonemeCTCTokenizer",)
"""transformers' classes by what their tokens are."""

_NAMED = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": UNKNOWN,
    "pad_token": BLANK,
}
"""transformers' special tokens and their defaults."""

_EXTRA = (
    "additional_special_tokens",
    "extra_special_tokens",
    "added_tokens_decoder",
)
"""Where further ones are; the last has ordinary tokens too."""


def usual_specials(tokens):
    """Tokens of usual special names, and names of outputs without a token."""
    return [t for t in tokens if t in _SPECIALS or _UNUSED.fullmatch(t)]


def huggingface_options(texts, tokens):
    """Arguments of ``CTCTokenizer.from_tokens``, by a Hugging Face folder.

    ``texts`` is name of a file -> text: ``tokenizer_config.json`` and
    ``special_tokens_map.json``, where they are there. One that is damaged, or
    of another kind of tokenizer, is an error.
    """
    settings = _settings(texts)
    kind = settings.get("tokenizer_class") or _CHARACTERS[0]
    if kind not in _CHARACTERS + _PHONES:
        raise ValueError(
            "tokenizer_config.json: expected a tokenizer_class of "
            f"{', '.join(_CHARACTERS + _PHONES)}; got {kind!r:.60}"
        )
    named = {
        key: _content(settings, key, default) for key, default in _NAMED.items()
    }
    unknown = named["unk_token"]
    options = {
        "specials": [
            *usual_specials(tokens),
            *(name for name in named.values() if name),
            *_extra_specials(settings),
        ],
        "unknown": unknown if unknown in tokens else None,
    }
    if kind in _PHONES:
        options["separator"] = " "
        delimiter = _content(settings, "word_delimiter_token", None)
    else:
        delimiter = _content(settings, "word_delimiter_token", DELIMITER)
        options["lowercase"] = bool(settings.get("do_lower_case"))
        options["delimiter_text"] = (
            _content(settings, "replace_word_delimiter_char", " ") or ""
        )
    return {"word_delimiter": delimiter, **options}


def _settings(texts):
    """Options of a Hugging Face tokenizer."""
    found = {}
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        try:
            content = json.loads(texts.get(name, "{}"))
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"{name}: expected JSON ({error!s:.60})"
            ) from error
        if not isinstance(content, dict):
            raise ValueError(f"{name}: expected a JSON object")
        # as in transformers, whose later files have all in the first
        if "added_tokens_decoder" not in found:
            found |= content
    return found


def _content(settings, key, default):
    """An option that is a text, None, or a token with a text."""
    value = settings.get(key, default)
    text = value.get("content") if isinstance(value, dict) else value
    if text is None or isinstance(text, str):
        return text
    raise ValueError(
        f"tokenizer_config.json: expected {key} to be a text; got {value!r:.60}"
    )


def _extra_specials(settings):
    """Special tokens beyond the named ones."""
    found = []
    for key in _EXTRA:
        given = settings.get(key) or []
        if not isinstance(given, (list, dict)):
            raise ValueError(
                f"tokenizer_config.json: expected tokens in {key}; "
                f"got {given!r:.60}"
            )
        entries = given.values() if isinstance(given, dict) else given
        if key == _EXTRA[-1]:
            entries = [entry for entry in entries if _is_special(entry)]
        found += [_content({key: entry}, key, None) for entry in entries]
    return [name for name in found if name]


def _is_special(entry):
    """Whether an added token is no part of a text."""
    return isinstance(entry, dict) and entry.get("special") is True
