"""fairseq's dictionaries: symbols by index, in two layouts.

``Dictionary(json)`` puts the symbols first and the four specials after them;
text files give the specials first. CTC's blank is ``<s>`` in both.
"""

from pathlib import Path
from typing import NamedTuple

from unispeech_sb.checkpoints.safety.limits import shown
from unispeech_sb.checkpoints.safety.stubs import Stub
from unispeech_sb.checkpoints.texts import order_tokens, read_json

SPECIALS = ["<s>", "<pad>", "</s>", "<unk>"]
BLANK = SPECIALS[0]
FIRST, LAST = "specials first", "symbols first"
CLASS = "fairseq.data.dictionary.Dictionary"
MOST_BYTES = 64 * 2**20


class Vocabulary(NamedTuple):
    """A dictionary's symbols.

    Arguments
    ---------
    tokens : list of str
        The symbols by index, specials included.
    blank_index : int
        Index of CTC's blank.
    layout : str
        ``symbols first`` or ``specials first``.

    Example
    -------
    >>> Vocabulary(["a", "<s>"], 1, "symbols first").blank_index
    1
    """

    tokens: list
    blank_index: int
    layout: str


def read_dictionary(stub, where):
    """Reads a pickled dictionary.

    Arguments
    ---------
    stub : Stub
        Of ``fairseq.data.dictionary.Dictionary``.
    where : str
        What it is, for errors.

    Returns
    -------
    Vocabulary
        Its symbols.

    Raises
    ------
    ValueError
        When it is damaged, or its specials are in no known place.

    Example
    -------
    >>> read_dictionary(None, "x.pt: target_dictionary")
    Traceback (most recent call last):
    ...
    ValueError: x.pt: target_dictionary: expected a dictionary of fairseq; ...
    """
    right = isinstance(stub, Stub) and stub.name == CLASS
    state = stub.state if right else None
    tokens = state.get("symbols") if isinstance(state, dict) else None
    if not isinstance(tokens, list) or not all(
        isinstance(token, str) for token in tokens
    ):
        raise ValueError(
            f"{where}: expected a dictionary of fairseq; got {shown(stub)}"
        )
    vocabulary = _arrange(tokens, where)
    index = state.get("bos_index", vocabulary.blank_index)
    if index != vocabulary.blank_index:
        raise ValueError(
            f"{where}: expected {BLANK} at its bos_index {shown(index)}; it is "
            f"at {vocabulary.blank_index}"
        )
    return vocabulary


def read_vocabulary(path):
    """Reads the file that a dictionary was made of.

    Arguments
    ---------
    path : str or pathlib.Path
        ``vocab.json`` (symbol -> index), or a text file with a symbol and
        its count on each line.

    Returns
    -------
    Vocabulary
        Its symbols and the specials, as fairseq orders them.

    Raises
    ------
    ValueError
        When the file is neither.

    Example
    -------
    >>> path = getfixture("tmp_path") / "dict.ltr.txt"
    >>> _ = path.write_text("| 94802\\nE 51860\\n")
    >>> read_vocabulary(path).tokens
    ['<s>', '<pad>', '</s>', '<unk>', '|', 'E']
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if path.suffix == ".json":
        indices = read_json(path)
        symbols = order_tokens(indices, len(indices), path)
        if max(indices.values(), default=-1) >= len(symbols):
            raise ValueError(
                f"{path}: expected indices 0 to {len(symbols) - 1}; the "
                f"largest is {shown(max(indices.values()))}"
            )
        return _arrange(symbols + SPECIALS, path)
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"{path}: expected at most {MOST_BYTES} bytes")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected text in UTF-8") from error
    symbols = []
    for number, line in enumerate(lines, 1):
        symbol, _, count = line.removesuffix(" #fairseq:overwrite").rpartition(
            " "
        )
        if not count.isdecimal():
            raise ValueError(
                f"{path}: expected a symbol and its count on line {number}; "
                f"got {shown(line)}"
            )
        symbols.append(symbol)
    return _arrange(SPECIALS + symbols, path)


def _arrange(tokens, where):
    """Recognises the layout by the places of the specials."""
    if tokens[:4] == SPECIALS:
        return Vocabulary(tokens, 0, FIRST)
    if tokens[-4:] == SPECIALS:
        return Vocabulary(tokens, len(tokens) - 4, LAST)
    raise ValueError(
        f"{where}: expected {' '.join(SPECIALS)} as the first four symbols "
        f"or the last four; the first are {shown(' '.join(tokens[:4]))}"
    )
