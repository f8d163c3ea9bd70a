"""What the readers and writers of annotation files share: fields of lines with
file and line for messages, times as text, and files written whole.
"""

import math
import os
from pathlib import Path

DIGITS = 6
"""Digits of the seconds in files: finer than a sample."""


def fields_of(path, separator=None):
    """Fields of the lines of an annotation file that say something.

    Arguments
    ---------
    path : str or path-like
        The file.
    separator : str, optional
        What stands between fields; blanks when omitted.

    Yields
    ------
    where : str
        File and line, for messages.
    fields : list of str
        At least one. Comments (``;``) and empty lines are passed over.

    Raises
    ------
    ValueError
        When the file is missing or no text.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.uem"
    >>> _ = path.write_text(";; scored\\n\\ntalk 1 0.0 30.0\\n")
    >>> [fields for _, fields in fields_of(path)]
    [['talk', '1', '0.0', '30.0']]
    """
    if not os.path.isfile(path):
        raise ValueError(f"{path}: there is no such file")
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected text in UTF-8") from error
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip() and not line.lstrip().startswith(";"):
            yield f"{path}, line {number}", line.split(separator)


def read_seconds(field, where):
    """Reads a time.

    Arguments
    ---------
    field : str
        The number.
    where : str
        File and line, for messages.

    Returns
    -------
    float
        Seconds, from 0 on.

    Raises
    ------
    ValueError
        When it is negative, or no finite number.

    Example
    -------
    >>> read_seconds("1.5", "a.rttm, line 1")
    1.5
    """
    try:
        seconds = float(field)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ValueError(f"{where}: expected seconds from 0 on, got {field!r}")
    return seconds


def check_name(name, where, separator=None):
    """Raises unless a name is one field of a line.

    Arguments
    ---------
    name : str
        Of a recording or a speaker.
    where : str or path-like
        File, for messages.
    separator : str, optional
        What stands between fields; blanks when omitted.

    Raises
    ------
    ValueError
        When it is empty, begins or ends with a blank, or holds a separator or
        a line end.

    Example
    -------
    >>> check_name("Anna B.", "a.txt", separator="\\t")
    >>> check_name("Anna B.", "a.rttm")
    Traceback (most recent call last):
    ...
    ValueError: a.rttm: expected a name without blanks, got 'Anna B.'
    """
    forbidden = "blanks" if separator is None else "tabs and line ends"
    one_line = len(name.splitlines()) == 1
    if not one_line or name.strip().split(separator) != [name]:
        raise ValueError(
            f"{where}: expected a name without {forbidden}, got {name!r}"
        )


def seconds_text(seconds):
    """A time as files have it: milliseconds, and finer where it is finer.

    Arguments
    ---------
    seconds : float
        The time.

    Returns
    -------
    str
        With three to six digits behind the point.

    Example
    -------
    >>> seconds_text(1.5), seconds_text(0.0625 / 1000)
    ('1.500', '0.000063')
    """
    text = f"{seconds:.{DIGITS}f}"
    kept = text.rstrip("0")
    return text[: max(len(kept), len(text) - 3)]


def write_files(texts):
    """Writes text files, all of them or none.

    Arguments
    ---------
    texts : dict
        Path -> its lines, without line ends.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.txt"
    >>> write_files({path: ["one", "two"]})
    >>> path.read_text()
    'one\\ntwo\\n'
    """
    partials = {
        Path(path): Path(f"{path}.{os.getpid()}.partial") for path in texts
    }
    try:
        for lines, partial in zip(texts.values(), partials.values()):
            with open(partial, "w", newline="", encoding="utf-8") as file:
                file.writelines(f"{line}\n" for line in lines)
        for path, partial in partials.items():
            os.replace(partial, path)
    finally:
        for partial in partials.values():
            partial.unlink(missing_ok=True)
