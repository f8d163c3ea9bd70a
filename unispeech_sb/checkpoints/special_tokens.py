"""Special tokens of a CTC model: which is the blank, and who says what where
a model's configuration and its tokenizer disagree.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unispeech_sb.checkpoints.checkpoint import Checkpoint, Fact
from unispeech_sb.checkpoints.options import shown
from unispeech_sb.checkpoints.texts import read_json, read_tokens

SETTINGS_FILES = ("tokenizer_config.json", "special_tokens_map.json")
NAMED = {"pad": "<pad>", "bos": "<s>", "eos": "</s>", "unk": "<unk>"}
"""Special token -> its text where a tokenizer's files do not name it."""
WARNING = "warning: "
"""What those notes start with that say who contradicts whom."""
MOST_BEYOND = 1000
"""Tokens beyond a model's outputs that are looked at."""


def settle_tokens(
    checkpoint: Checkpoint,
    folder: Path,
    written: Mapping[str, Any],
    lang: str | None = None,
) -> None:
    """Reads the tokens of a CTC model, of a language where there are several;
    settles its blank, and notes where its tokenizer disagrees with what is
    written in its configuration."""
    size = checkpoint.config["vocab_size"]
    tokens = checkpoint.tokens = read_tokens(folder, size, lang)
    specials = special_tokens(folder, tokens) if tokens else {}
    if tokens is not None:
        beyond = read_tokens(folder, size + MOST_BEYOND, lang) or []
        checkpoint.notes += _size_warnings(tokens, beyond[size:])
    facts = checkpoint.facts
    blank, warning = find_blank(
        facts["pad_token_id"], specials.get("pad"), tokens
    )
    given = facts.pop("blank", None)
    if given is not None:
        index = token_index(given.value, tokens, size)
        blank, warning = given._replace(value=index), None
    elif facts["pad_token_id"].source == "given":
        blank, warning = facts["pad_token_id"], None
    path = folder / "config.json"
    if blank is None or blank.value >= size:
        got = None if blank is None else f"{blank.value} ({blank.source})"
        raise ValueError(
            f"{path}: expected pad_token_id below {size}, the index of CTC's "
            f"blank; got {got}, and the tokenizer names no token for it"
        )
    facts["blank_index"], checkpoint.blank_index = blank, blank.value
    checkpoint.notes += [warning] if warning else []
    for name in ("bos", "eos", "unk"):
        key, theirs = f"{name}_token_id", specials.get(name)
        chosen = key in facts and facts[key].source == "given"
        if chosen or theirs is None or theirs.value is None:
            continue
        said = Fact(written.get(key), f"{path.name}: {key}")
        if type(said.value) is int and said.value != theirs.value:
            facts[key] = theirs
            checkpoint.notes.append(_disagreement(key, said, theirs, tokens))


def special_tokens(
    folder: str | Path, tokens: Sequence[str]
) -> dict[str, Fact]:
    """Index of the special tokens that a tokenizer's files name, None for one
    that is not among the model's; keys are those of ``NAMED``."""
    found: dict[str, Any] = {}
    files: dict[str, str] = {}
    for name in SETTINGS_FILES:
        path = Path(folder, name)
        # as in transformers, whose later files have all in the first
        if path.is_file() and "added_tokens_decoder" not in found:
            content = read_json(path)
            found |= content
            files |= dict.fromkeys(content, name)
    specials = {}
    for name, default in NAMED.items():
        key = f"{name}_token"
        text = found.get(key, default)
        text = text.get("content") if isinstance(text, dict) else text
        known = isinstance(text, str) and text in tokens
        specials[name] = Fact(
            tokens.index(text) if known else None,
            f"{files.get(key, 'default of transformers')}: {key}",
        )
    return specials


def find_blank(
    said: Fact,
    theirs: Fact | None,
    tokens: Sequence[str] | None,
) -> tuple[Fact | None, str | None]:
    """Index of CTC's blank, by the configuration's ``pad_token_id`` and the
    tokenizer's pad token; and a warning where the two disagree.

    The tokenizer's goes first then, since transformers decodes by it.
    """
    if theirs is None or theirs.value is None:
        return (None if said.value is None else said), None
    if said.value is None:
        return theirs, None
    if said.value == theirs.value:
        return said, None
    return theirs, (
        _disagreement("blank", said, theirs, tokens)
        + f", as transformers decodes; --set blank={said.value} takes the other"
    )


def _disagreement(name, said, theirs, tokens):
    """Says which of two files says what, and that the second was taken."""
    ours, other = (
        f"{fact.value} {shown(tokens[fact.value])}"
        if tokens and 0 <= fact.value < len(tokens) else str(fact.value)
        for fact in (said, theirs)
    )  # fmt: skip
    return (
        f"{WARNING}{name}: {ours} by {said.source}, but {other} by "
        f"{theirs.source}; took {theirs.value}"
    )


def _size_warnings(tokens, beyond):
    """Warns of tokens without an output, and of outputs without a token."""
    start = (
        f"{WARNING}vocab_size: {len(tokens)} by config.json, but the tokenizer"
    )
    beyond, missing = (
        [token for token in found if token.startswith("<unused ") is unused]
        for found, unused in ((beyond, False), (tokens, True))
    )
    found = []
    if beyond:
        found.append(
            f"{start} has {shown(', '.join(beyond[:9]))} beyond; left out, as "
            "the model has no output for it"
        )
    if missing:
        found.append(
            f"{start} has no token for {len(missing)} of the outputs, "
            f"{shown(', '.join(missing[:9]))}; took the model's size"
        )
    return found


def token_index(
    token: str | int, tokens: Sequence[str] | None, size: int
) -> int:
    """Index of a token that a user gives by its text or index."""
    if isinstance(token, str) and tokens and token in tokens:
        return tokens.index(token)
    if isinstance(token, int) and token < size:
        return token
    raise ValueError(
        f"blank: expected a token of the model or an index below {size}; "
        f"got {shown(token)}"
    )
