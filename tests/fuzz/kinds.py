"""What a kind of hostile input is, and what all kinds look at.

A kind writes whole files, damages a copy of them, and judges what becomes of
it. ``fuzzing.py`` has the table of all kinds and runs them.
"""

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

from unispeech_sb import commands

MOST_TEXT = 1500
"""Characters of a refusal, the path included."""
NEVER_PRINTED = (
    "Traceback (most recent call last)",
    "run again with --traceback and report it",
    "not enough memory",
    "a file is damaged, or is not what it was taken for",
    "a text is not what was expected",
)
"""Words of errors that nobody expected; see ``unispeech_sb/errors.py``."""


class Unfit(Exception):
    """What was printed or left is not as promised."""


class Kind(NamedTuple):
    """A kind of input.

    ``writers`` make folders of whole files. A case is a copy of one of them,
    which ``damage(folder, rng)`` changes and ``judge(case)`` looks at, a folder
    with the copy as ``source``: it gives "accepted" or "refused" and a text, or
    raises. ``count`` is that of the full run, ``limit_s`` the most seconds.
    """

    writers: tuple
    damage: object
    judge: object
    count: int
    limit_s: float = 10


def command(*arguments):
    """Runs a command line: exit code, standard output and standard error."""
    out, error = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(error):
        try:
            code = commands.main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = end.code or 0
    check_printed(error.getvalue())
    return code, out.getvalue(), error.getvalue()


def check_printed(text):
    """Refuses what no user is to see."""
    for words in NEVER_PRINTED:
        if words in text:
            place = text.index(words)
            raise Unfit(f"printed: {text[max(0, place - 500) : place + 300]}")


def check_refusal(error, source):
    """Checks the words of an error, as the command line folds them."""
    text = " ".join(str(error).split())
    folder = source if source.is_dir() else source.parent
    if len(text) > MOST_TEXT:
        raise Unfit(f"{len(text)} characters: {text[:300]}") from error
    if str(folder) not in text:
        raise Unfit(f"does not name the file: {text[:600]}") from error
    check_printed(text)


def refused_line(printed):
    """The one line that a command printed when it refused something."""
    lines = [line for line in printed.split("\n") if line.strip()]
    last = lines[-1] if lines else ""
    if not last.startswith("unispeech-sb: ") or not last.isprintable():
        raise Unfit(f"not one printable line: {ascii(printed[-600:])}")
    return last.removeprefix("unispeech-sb: ")


def write_note(folder, **note):
    """Keeps what the damage of a case was, beside its source."""
    path = Path(folder).parent / "case.json"
    path.write_text(json.dumps(note), encoding="utf-8")


def read_note(case):
    """The note of a case; empty where nothing was damaged."""
    path = Path(case) / "case.json"
    return json.loads(path.read_text("utf-8")) if path.exists() else {}
