"""Text: the lines of files, numbers and names in them, the letters of
languages, slots, and what notebooks show.

Every table, list, annotation and language model is read here: UTF-8 with or
without a byte order mark, lines that end as on Unix, Windows or an old Mac,
packed by gzip, bzip2 or xz or not. What is wrong is named with its line.
"""

import bz2
import contextlib
import csv
import difflib
import gzip
import html
import logging
import lzma
import math
import os
import re
import unicodedata
import zlib
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

_logger = logging.getLogger(__name__)

_PACKED = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}
_DAMAGED = (EOFError, OSError, zlib.error, lzma.LZMAError)
_MARK = b"\xef\xbb\xbf"
_WIDE = {
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
_BLOCK = 2**20
_LONGEST = 2**24
"""Bytes of a line: no table has more, and what is no text may have any."""
_MOST_TIMES = 200
"""How many times its packed size a text may have."""

MOST_S = 1e7
"""Seconds, 115 days: no recording is longer, so a greater time is a mistake."""

_NUM_NAMED = 3
"""Names that a message gives as examples."""

_MOST_SHOWN = 200
"""Characters of a name that a message gives."""

_DOTTED = ("tr", "az", "crh", "gag")
"""Languages that write i with and without a dot, as two letters."""
_COMPATIBLE = ("compat", "wide", "narrow", "isolated", "initial", "medial",
               "final")  # fmt: skip
_WHOLE = "\u0e33\u0eb3"  # Thai and Lao vowels that decompose but are letters
_JAMO = re.compile("[\u3131-\u318e\uffa0-\uffdc]")  # Korean, likewise
_NO_LETTERS = re.compile(
    "[\u0640\u034f\u180b-\u180d\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef]"
)
"""Tatweel, which lengthens a letter, and what chooses the form of one."""
_ZERO_WIDTH_SPACE = "\u200b"
_STRESS = re.compile("(?<=[\u0400-\u04ff])[\u0300\u0301]+")
_APOSTROPHES = re.compile("['’‘‛ʼʹ′＇`´]")
_OKINA = "\u02bb"
_DOTS = re.compile("(?<=l)[·•‧∙⋅](?=l)|(?<=[ns])[·•‧∙⋅](?=h)")
"""Middle dots that are part of a word: Catalan l·l, Occitan n·h and s·h."""

_SLOT = re.compile(r"B-(\S+) (.+?) E-\1")
_BEGIN_TAG, _END_TAG = re.compile(r"B-\S+ "), re.compile(r" E-\S+")


def lines_of(path: str | Path) -> Iterator[tuple[int, str]]:
    """Yields number and text of each line of a file, without its end."""
    number = 0
    for block in _whole_lines(path):
        if number == 0:
            _check_encoding(block, path)
            block = block.removeprefix(_MARK)
        text, fault = _decoded(block)
        if "\0" in text:
            text = text[: text.rfind("\n", 0, text.index("\0")) + 1]
            fault = "got a NUL byte, as of a binary or UTF-16"
        if "\r" in text:
            text = text.replace("\r\n", "\n").replace("\r", "\n")
        lines = text.removesuffix("\n").split("\n") if text else []
        yield from enumerate(lines, number + 1)
        number += len(lines)
        if fault is not None:
            raise _no_text(path, number + 1, fault)


def split_pair(line, marks):
    """The fields of a line: what stands between its tabs where that makes two
    names, else between blanks, or in double quotes. ``marks`` are words that
    are no names."""
    line = line.strip()
    parts = [part.strip() for part in line.split("\t")]
    sides = [
        part.lower().split() for part in parts if part.lower() not in marks
    ]
    tabs = len(sides) == 2 and all(sides)
    if tabs:  # unless some are between blanks after all
        ends = {w for s in sides if len(s) > 1 for w in (s[0], s[-1])}
        tabs = ends.isdisjoint(marks)
    if '"' not in line:
        return parts if tabs else line.split()
    rows = csv.reader(
        [line if tabs else line.replace("\t", " ")],
        delimiter="\t" if tabs else " ",
        skipinitialspace=True,
    )
    return [field for field in next(rows) if field]


def _decoded(block):
    """Text of a block up to a line that is not UTF-8, and what is wrong."""
    try:
        return block.decode(), None
    except UnicodeDecodeError as error:
        begin = block.rfind(b"\n", 0, error.start) + 1
        fault = (
            f"got the byte 0x{block[error.start]:02x} at byte "
            f"{error.start - begin + 1}, as of Latin-1 or another encoding"
        )
        return block[:begin].decode(), fault


def _whole_lines(path):
    """Yields blocks of a file, unpacked, that end where a line does."""
    begun, number, num_bytes, most = b"", 1, 0, _most_bytes(path)
    with _opened(path) as file:
        while True:
            try:
                block = file.read(_BLOCK)
            except _DAMAGED as error:
                raise ValueError(
                    f"{path}, line {number}: the packed file is cut or "
                    f"damaged ({error})"
                ) from error
            if not block:
                break
            num_bytes += len(block)
            if num_bytes > most:
                raise _no_text(
                    path,
                    number,
                    f"got a packed file of more than {_MOST_TIMES} times its "
                    "size",
                )
            end = block.rfind(b"\n") + 1
            if end:
                yield begun + block[:end]
                number += block.count(b"\n")
                begun = b""
            begun += block[end:]
            if len(begun) > _LONGEST:
                reason = f"got a line of more than {_LONGEST} bytes"
                raise _no_text(path, number, reason)
    if begun:
        yield begun


def _no_text(path, number, reason):
    """The error for a line that is no text."""
    return ValueError(
        f"{path}, line {number}: expected text in UTF-8, {reason}"
    )


def _check_encoding(block, path):
    """Raises where a file says that it is in another encoding."""
    for mark, name in _WIDE.items():
        if block.startswith(mark):
            raise _no_text(path, 1, f"got {name}")


def read_text(path: str | Path) -> str:
    """All lines of a text file, with "\\n" between them."""
    return "\n".join(line for _, line in lines_of(path))


def fields_of(
    path: str | Path, separator: str | None = None
) -> Iterator[tuple[str, list[str]]]:
    """File with line number, and the fields, of each line that is not empty.

    Comments (``;``) are passed over. Fields are separated by blanks, or by
    ``separator``.
    """
    for number, line in lines_of(path):
        if line.strip() and not line.lstrip().startswith(";"):
            yield f"{path}, line {number}", line.split(separator)


def _most_bytes(path):
    """Bytes that a file may have when it is unpacked: no text packs as well as
    zeros do."""
    if not os.path.isfile(path):
        return 0
    return max(_LONGEST + 1, _MOST_TIMES * os.path.getsize(path))


@contextlib.contextmanager
def _opened(path):
    """A file as bytes, unpacked if it is packed."""
    if not os.path.isfile(path):
        if os.path.isdir(path):
            raise ValueError(f"{path}: expected a text file; it is a folder")
        raise ValueError(f"{path}: {absent(path, 'file')}")
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(open(path, "rb"))
        start = file.peek(8)
        for magic, unpack in _PACKED.items():
            if start.startswith(magic):
                file = stack.enter_context(unpack(file))
        yield file


def separator_of(path: str | Path) -> str:
    """What separates the columns of a table: most of it in its first line."""
    line = next((line for _, line in lines_of(path)), "")
    return max(",;\t", key=line.count)


def read_number(
    field: str,
    where: str = "",
    what: str = "seconds",
    least: float = 0.0,
    most: float = MOST_S,
) -> float:
    """Reads a number of a table, from ``least`` to ``most``.

    ``where`` begins the message of the error, ``what`` is what it counts.
    """
    try:
        number = math.nan if "_" in field else float(field)
    except ValueError:
        number = math.nan
    if not least <= number <= most:
        high = most < number < math.inf
        limit = f"at most {most:g}" if high else f"from {least:g} on"
        start = f"{where}: " if where else ""
        raise ValueError(f"{start}expected {what} {limit}, got {field!r:.60}")
    return number


def named(names: Iterable[object], most: int = _NUM_NAMED) -> str:
    """The first names of some, for a message, and how many more there are."""
    shown = [_shown(str(name)) for name in names]
    more = f" and {len(shown) - most} more" if len(shown) > most else ""
    return (", ".join(shown[:most]) or "none") + more


def _shown(name):
    """A name as a terminal may print it, the middle of a long one left out."""
    if not name.isprintable():
        name = name.encode("unicode_escape", "surrogatepass").decode()
    if len(name) > _MOST_SHOWN:
        half = _MOST_SHOWN // 2
        name = f"{name[:half]}...{name[-half:]}"
    return name


def absent(path: str | Path, what: str = "file or folder") -> str:
    """Says that nothing is at a path, or no ``what``, and what of a similar
    name is there."""
    if not os.fspath(path):
        return f"expected the name of a {what}; got an empty one"
    path, names = Path(path), []
    if os.path.exists(path):
        kind = "a pipe, a socket or a device"
        kind = "a file" if os.path.isfile(path) else kind
        kind = "a folder" if os.path.isdir(path) else kind
        return f"expected a {what}; it is {kind}"
    if os.path.islink(path):
        return f"there is no such {what}; it is a link to {os.readlink(path)}"
    if str(path) == "-":
        return f"there is no such {what}; the standard input is not read"
    with contextlib.suppress(OSError):  # nor is the folder above it
        names = sorted(os.listdir(path.parent))
    close = difflib.get_close_matches(path.name, names, 1, 0.8)
    hint = f"; did you mean {path.parent / close[0]}?" if close else ""
    return f"there is no such {what}{hint}"


def compare_names(
    wanted: Collection[str], known: Collection[str], of: str, to: str
) -> list[str]:
    """Names that another list lacks; an error where that is all of them.

    ``of`` and ``to`` are what messages call the lists. Some are a warning.
    """
    missing = [name for name in wanted if name not in known]
    report_missing(missing, wanted, known, of, to)
    return missing


def report_missing(
    missing: Collection[str],
    wanted: Collection[str],
    known: Collection[str],
    of: str,
    to: str,
) -> None:
    """Raises where all names that are wanted are missing, warns of some.

    The other arguments are as for ``compare_names``; ``known`` are examples.
    """
    if missing and len(missing) == len(wanted):
        raise ValueError(
            f"{of} and {to} have no name in common: {named(missing)} "
            f"against {named(known)}"
        )
    if missing:
        _logger.warning(
            f"{len(missing)} of {len(wanted)} names of {of} are not in {to}: "
            f"{named(missing)}"
        )


def lower(text: str, language: str | None = None) -> str:
    """Small letters by the rules of a language, such as "tr", composed.

    Where i and ı are two letters, I becomes ı. A dot above i is no letter.
    """
    text = unicodedata.normalize("NFC", text)
    if _is_dotted(language):
        text = text.replace("İ", "i").replace("I", "ı")
    text = text.lower().replace("i\u0307", "i")
    return unicodedata.normalize("NFC", text)


def upper(text: str, language: str | None = None) -> str:
    """Capital letters by the rules of a language, composed."""
    text = unicodedata.normalize("NFC", text)
    if _is_dotted(language):
        text = text.replace("i", "İ")
    return unicodedata.normalize("NFC", text.upper())


def _is_dotted(language):
    """Whether a language, by its code, has a dotted and a dotless i."""
    return language is not None and _code(language) in _DOTTED


def _code(language):
    """The language of a locale: "tr" of "tr-TR"."""
    return re.split("[-_]", language or "")[0].lower()


def composed(text: str) -> str:
    """Letters that look alike as one: composed, without format characters.

    Soft hyphens, joiners and marks of direction go; a zero-width space, which
    stands between words, becomes a space.
    """
    text = text.replace(_ZERO_WIDTH_SPACE, " ")
    kept = (c for c in text if unicodedata.category(c) != "Cf")
    return unicodedata.normalize("NFC", "".join(kept))


def plain_words(sentence: str, language: str | None = None) -> str:
    """Words of a sentence in any language, in lower case, a space between them.

    Kept are letters, their marks, digits, apostrophes within words, and the
    middle dot of l·l. Ligatures and forms of presentation are their letters;
    stress marks on Cyrillic letters go. Of ``language``, the code, depend case
    and the apostrophe of Uzbek, which is part of a letter there.
    """
    letters = "".join(map(_plain, composed(sentence)))
    text = _STRESS.sub("", lower(_NO_LETTERS.sub("", letters), language))
    text = _APOSTROPHES.sub("'", text)
    if _code(language) == "uz":
        text = re.sub("(?<=[og])'", _OKINA, text)
    text = _DOTS.sub("·", text)
    kept, inside = [], False
    for place, character in enumerate(text):
        kind = unicodedata.category(character)[0]
        inside = kind in "LN" or kind == "M" and inside
        dotted = character == "·" and _DOTS.match(text, place)
        kept.append(character if inside or dotted or character == "'" else " ")
    words = (word.strip("'") for word in "".join(kept).split())
    return " ".join(word for word in words if word)


def _plain(character):
    """The letters that a ligature or another form of letters stands for."""
    kind = unicodedata.category(character)
    if kind == "Me":  # circles around letters
        return ""
    form = unicodedata.decomposition(character).partition(">")[0][1:]
    if kind[0] != "L" or form not in _COMPATIBLE or character in _WHOLE:
        return character
    if _JAMO.match(character):
        return character
    return unicodedata.normalize("NFKC", character)


def find_slots(text: str, keep_tags: bool = False) -> list[tuple[str, str]]:
    """Name and value of each slot of a text with tags, in order.

    ``B-artist QUEEN E-artist`` gives ``("artist", "QUEEN")``. As in SUPERB,
    the nearest end is taken, from left to right, also one of a longer name,
    and a tag that is not closed gives nothing. Tags within a value go, unless
    ``keep_tags``.
    """
    found = _SLOT.findall(re.sub(" +", " ", text))
    if keep_tags:
        return found
    return [(name, without_tags(value)) for name, value in found]


def without_tags(text: str) -> str:
    """A text without the tags of slots and the spaces that are part of them."""
    # Spaces of two tags in a row overlap, so one kind after the other
    return _END_TAG.sub("", _BEGIN_TAG.sub("", text))


def is_tag(token: str) -> bool:
    """Whether a token is a tag of a slot: it has a space at an end."""
    return token.strip() not in ("", token)


def notebook_html(content: str, note: str = "") -> str:
    """A part of a notebook, in which nothing is read as a formula, and a small
    note below it; ``content`` is HTML and ``note`` is text."""
    if note:
        content += f"<small>{html.escape(note)}</small>"
    return f'<div class="tex2jax_ignore mathjax_ignore">{content}</div>'
