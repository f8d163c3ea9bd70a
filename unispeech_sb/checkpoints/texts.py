"""Small JSON files of a checkpoint folder, and the vocabularies in them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unispeech_sb.checkpoints.options import shown

MOST_BYTES = 64 * 2**20
"""Largest JSON file that is read: no vocabulary comes near it."""


def read_json(path: str | Path) -> dict[str, Any]:
    """Content of a file that has to be a JSON object, and none too large."""
    path = Path(path)
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise ValueError(
            f"{path}: expected at most {MOST_BYTES} bytes of JSON; got {size}"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        first = (str(error).splitlines() or [""])[0]
        raise ValueError(f"{path}: expected JSON ({first})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a JSON object")
    return content


def read_tokens(
    folder: str | Path, size: int, lang: str | None = None
) -> list[str] | None:
    """Reads the vocabulary of a Hugging Face CTC tokenizer: the tokens by
    index; None where there is no ``vocab.json``.

    The model has ``size`` outputs: tokens of higher index go, and an index
    without a token gets the name ``<unused INDEX>``. ``lang`` chooses a
    vocabulary, where there is one for each language.
    """
    folder = Path(folder)
    path = folder / "vocab.json"
    if not path.is_file():
        return None
    written = read_json(path)
    vocabulary = pick_language(written, lang, path)
    added = folder / "added_tokens.json"
    extra = read_json(added) if added.is_file() else {}
    settings = folder / "tokenizer_config.json"
    if settings.is_file():
        decoder = read_json(settings).get("added_tokens_decoder")
        extra = extra | _decoder_tokens(decoder, settings)
    if vocabulary is written:
        return order_tokens(vocabulary | extra, size, path)
    # Of several languages: the indices in the other files are of one of them.
    taken = vocabulary.values()
    extra = {token: i for token, i in extra.items() if i not in taken}
    return order_tokens(extra | vocabulary, size, path)


def pick_language(
    vocabulary: dict[str, Any], lang: str | None, path: str | Path
) -> dict[str, int]:
    """Token -> index of one language of a vocabulary that may be nested; the
    first language when None. ``path`` is for the error."""
    if not any(isinstance(value, dict) for value in vocabulary.values()):
        return vocabulary
    lang = lang or next(iter(vocabulary))
    if not isinstance(vocabulary.get(lang), dict):
        raise ValueError(
            f"{path}: expected one of the languages "
            f"{shown(', '.join(sorted(vocabulary)))}; got {shown(lang)}"
        )
    return vocabulary[lang]


def order_tokens(
    vocabulary: Mapping[str, int], size: int, path: str | Path
) -> list[str]:
    """The ``size`` tokens of a vocabulary, token -> index, by index. An index
    that is no number, negative, or given twice is a ``ValueError``."""
    by_index: dict[int, str] = {}
    for token, index in vocabulary.items():
        if type(index) is not int or index < 0:
            raise ValueError(
                f"{path}: expected token -> index; got {shown(token)} -> "
                f"{shown(index)}"
            )
        if by_index.setdefault(index, token) != token:
            raise ValueError(
                f"{path}: expected one token for each index; got "
                f"{shown(by_index[index])} and {shown(token)} for {index}"
            )
    return [by_index.get(index, f"<unused {index}>") for index in range(size)]


def _decoder_tokens(decoder, path):
    """Token -> index of ``added_tokens_decoder``."""
    if decoder is None:
        return {}
    if not isinstance(decoder, dict):
        raise ValueError(
            f"{path}: expected added_tokens_decoder to map indices to tokens; "
            f"got {shown(decoder)}"
        )
    tokens = {}
    for index, entry in decoder.items():
        if not index.isdecimal() or not isinstance(entry, dict):
            raise ValueError(
                f"{path}: expected added_tokens_decoder to map an index to "
                f"a token; got {shown(index)}"
            )
        tokens[str(entry.get("content"))] = int(index)
    return tokens
