"""Files that appear whole or not at all."""

import json
import logging
import math
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_logger = logging.getLogger(__name__)


@contextmanager
def atomic(path: str | Path, mode: str | None = "w") -> Iterator[Any]:
    """Writes a file beside its place and moves it there when it is whole.

    Until the block ends, readers find what was there before; when the block
    raises, they still do, and nothing is left behind. Of a symbolic link the
    file that it points to is replaced, not the link. What cannot be replaced,
    such as ``/dev/stdout``, is written to directly.

    Arguments
    ---------
    path : str or path-like
        The file to write or to replace. Its folder has to be there.
    mode : str, optional
        "w" for text in UTF-8 without translation of line ends, "wb" for
        bytes, None for code that opens the file by its name.

    Yields
    ------
    io.IOBase or pathlib.Path
        An open file; with ``mode=None`` a path with the suffix of ``path``.

    Raises
    ------
    OSError
        When the file cannot be written; the error names ``path``.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.txt"
    >>> with atomic(path) as file:
    ...     _ = file.write("whole")
    ...     path.exists()
    False
    >>> path.read_text()
    'whole'
    """
    target = Path(os.path.realpath(path))
    draft = target.with_name(f".{secrets.token_hex(6)}-{target.name}")
    replaces = os.path.isfile(path) or not os.path.exists(path)
    if not replaces:
        target = draft = Path(path)
    try:
        if mode is None:
            yield draft
        else:
            new = mode.replace("w", "x") if replaces else mode
            with _open(draft, new, path) as file:
                yield file
        if replaces:
            os.replace(draft, target)
    finally:
        if replaces:
            draft.unlink(missing_ok=True)


def _open(draft, mode, path):
    """Opens a file; an error names the one that was asked for."""
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    try:
        return open(draft, mode, **text)
    except OSError as error:
        error.filename = os.fspath(path)
        raise


def write_json(path: str | Path, content: Any, indent: int = 2) -> None:
    """Writes JSON, whole or not at all.

    JSON has no infinity and no NaN: such a number becomes null, and is logged
    by its name.
    """
    lost: list[str] = []
    plain = _finite(content, "", lost)
    with atomic(path) as file:
        file.write(json.dumps(plain, indent=indent, allow_nan=False) + "\n")
    if lost:
        _logger.warning(f"{path}: null stands for {', '.join(lost)}")


def _finite(value, name, lost):
    """The value with None for numbers that JSON lacks, noted in ``lost``."""
    if isinstance(value, dict):
        return {k: _finite(v, f"{name} {k}", lost) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry, name, lost) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        lost.append(f"{name.strip()} = {value}")
        return None
    return value
