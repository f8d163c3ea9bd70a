"""What a user sees of an error, of Ctrl-C and of SIGTERM: one line.

Every command and every recipe runs in ``run_guarded``, the one place where
errors of all kinds are caught. Nothing here imports torch: errors of libraries
are known by their names and by the attributes that they have.
"""

import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, TextIO

INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM
"""Exit codes after Ctrl-C and SIGTERM, as shells count."""

ITEM = "\n  - "
"""What begins an item in a message that lists some, one on each line."""

_LONGEST = 1200
"""Characters of a sentence; of a longer one the middle is left out."""

_IN_OUR_WORDS = (ValueError, OSError, ImportError)
"""Errors whose message is a sentence for the user, as this package writes
them."""

_UNNAMED = (UnicodeError, json.JSONDecodeError)
"""Errors of libraries among these, which do not name the file."""

_DAMAGED = (zipfile.BadZipFile, EOFError)
_DAMAGED_NAMES = {"SafetensorError", "UnpicklingError", "error"}
_MEMORY_NAMES = {"OutOfMemoryError"}
_NO_MEMORY = ("can't allocate memory", "CUDA out of memory", "std::bad_alloc")
"""What RuntimeErrors of torch say on CPUs, which have no class of their own."""

_WORKER = "Traceback (most recent call last):"
_OTHER_ENDED = "another process of this run has ended"
_LATER_S = 1.0
"""Seconds in which torchrun sees which process has ended first."""
_OTHER_PROCESS = ("Connection closed by peer", "Connection reset by peer")


class _Terminated(KeyboardInterrupt):
    """SIGTERM came."""


def run_guarded(
    function: Callable[[], int | None],
    program: str,
    traceback: bool = False,
    to_continue: str = "",
) -> int:
    """Calls a function; an error that ends it becomes a line on stderr.

    Arguments
    ---------
    function : callable
        Without arguments; gives an exit code, or None for 0.
    program : str
        What the line begins with.
    traceback : bool
        Raise errors instead.
    to_continue : str
        What Ctrl-C left, and how to go on.

    Returns
    -------
    int
        Exit code: 1 after an error, 130 after Ctrl-C, 143 after SIGTERM. A
        ``SystemExit`` passes.

    Example
    -------
    >>> run_guarded(lambda: 0, "a program")
    0
    """
    _open_streams()
    # A log that cannot be written is no traceback on the standard error
    logging.raiseExceptions = traceback
    try:
        with _terminable():
            try:
                return function() or 0
            finally:
                _flush()
    except BrokenPipeError:  # of `| head`, which has seen enough
        _drop_output()
        return 1
    except KeyboardInterrupt as error:
        terminated = isinstance(error, _Terminated)
        word = "terminated" if terminated else "interrupted"
        line = f"{word}; {to_continue}" if to_continue else word
        print_escaped(f"{program}: {line}", sys.stderr)
        return TERMINATED if terminated else INTERRUPTED
    except Exception as error:
        line = f"{program}: {explain(error)}"
        if not traceback:
            print_escaped(line, sys.stderr)
        _tell_launcher(line)
        if traceback:
            raise
        return 1


def explain(error: BaseException) -> str:
    """The sentence on an error of any kind.

    Messages of this package's own errors stand as they are; others are
    introduced by what they mean, and one that nobody expected by its kind and
    its place.
    """
    name, text = _name_and_text(error)
    mark = getattr(error, "problem_mark", None)
    if mark is not None:  # PyYAML's and ruamel's
        text = (
            f"{mark.name}, line {mark.line + 1}, column {mark.column + 1}: "
            f"expected yaml: {getattr(error, 'problem', None) or text}"
        )
    elif isinstance(error, subprocess.CalledProcessError):
        text = _of_program(error)
    elif _is_of_memory(error, name, text):
        text = (
            f"not enough memory ({text}): give less at a time (shorter "
            "recordings, --batch-seconds, --max_batch_s, --batch_size) or a "
            "machine with more"
        )
    elif isinstance(error, _DAMAGED) or name in _DAMAGED_NAMES:
        text = f"a file is damaged, or is not what it was taken for: {text}"
        text += _where(error)
    elif name.startswith("Dist") or any(t in text for t in _OTHER_PROCESS):
        text = f"{_OTHER_ENDED}, see its error ({text})"
    elif isinstance(error, _UNNAMED):
        text = f"a text is not what was expected: {text}{_where(error)}"
    elif isinstance(error, OSError) and error.errno and not error.filename:
        text += _where(error)
    elif not isinstance(error, _IN_OUR_WORDS):
        text = (
            f"internal error: {name}: {text}{_where(error)}; run again with "
            "--traceback and report it"
        )
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST // 2]} ... {text[-_LONGEST // 2 :]}"
    return text


def _tell_launcher(line):
    """Leaves the sentence where torchrun looks for the reason of a process that
    failed, of which it shows the earliest: no one that another's end led to."""
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path:
        late_s = 60 if _OTHER_ENDED in line else 0
        when = str(int(time.time()) + late_s)
        more = {"py_callstack": line, "timestamp": when}
        reason = {"message": {"message": line, "extraInfo": more}}
        with suppress(OSError), open(path, "w", encoding="utf-8") as file:
            json.dump(reason, file)
        if late_s:
            time.sleep(_LATER_S)


def check_device(name: Any) -> None:
    """Refuses a device that this machine does not have; None passes."""
    if name is None:
        return

    import torch

    expected = f"device: expected one that this machine has; got {name}"
    try:
        device = torch.device(name)
        if device.type == "meta":
            raise ValueError(expected)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, ImportError) as error:
        raise ValueError(f"{expected} ({_first_line(str(error))})") from error


def check_compiler() -> None:
    """Refuses torch.compile where the machine has no C++ compiler."""
    names = [os.environ.get("CXX", ""), "g++", "clang++", "cl"]
    if not any(shutil.which(name) for name in names if name):
        raise ValueError(
            "compile: expected a C++ compiler (g++, or the one that the "
            "variable CXX names); there is none"
        )


def print_escaped(text: object, stream: TextIO | None = None) -> None:
    """Prints what may quote a file: control characters are escaped."""
    shown = "".join(
        char
        if char.isprintable() or char == "\n"
        else char.encode("unicode_escape", "surrogatepass").decode()
        for char in str(text)
    )
    print(shown, file=stream or sys.stdout)


def take_traceback(argv: list[str]) -> tuple[list[str], bool]:
    """Takes ``--traceback`` out of a command line, wherever it stands."""
    end = argv.index("--") if "--" in argv else len(argv)
    rest = [word for word in argv[:end] if word != "--traceback"]
    return [*rest, *argv[end:]], len(rest) < end


def _name_and_text(error):
    """Name of the class of an error, and its message on one line, but for the
    items of a list.

    The message of an error in another process, as of a DataLoader's worker,
    is a whole traceback, of which the end counts.
    """
    name, text = type(error).__name__, str(error)
    if _WORKER in text:
        tail = text.rpartition(_WORKER)[2]
        lines = tail.splitlines()
        ends = [
            number
            for number, line in enumerate(lines)
            if re.match(r"[A-Za-z_][\w.]*(: |$)", line)
        ]
        if ends:
            name, _, first = lines[ends[0]].partition(":")
            name = name.rpartition(".")[2]
            text = "\n".join([first, *lines[ends[0] + 1 :]])
    lines = [" ".join(line.split()) for line in text.split(ITEM)]
    return name, ITEM.join(lines) or name


def _is_of_memory(error, name, text):
    """Whether memory is what is missing."""
    of_torch = isinstance(error, RuntimeError)
    return (
        isinstance(error, MemoryError)
        or name in _MEMORY_NAMES
        or (of_torch and any(words in text for words in _NO_MEMORY))
    )


def _of_program(error):
    """The sentence on another program that failed."""
    command = error.cmd if isinstance(error.cmd, str) else error.cmd[0]
    printed = error.stderr or error.output or ""
    if isinstance(printed, bytes):
        printed = printed.decode(errors="replace")
    last = printed.strip().splitlines()[-1:]
    return f"{command} failed with status {error.returncode}: " + (
        last[0] if last else "it printed nothing"
    )


def _where(error):
    """Function of this package that an error came through last."""
    found, step = "", error.__traceback__
    while step is not None:
        module = step.tb_frame.f_globals.get("__name__", "")
        function = step.tb_frame.f_code.co_name
        ours = module.split(".")[0] in ("unispeech_sb", "recipes")
        if ours and function != run_guarded.__name__:
            found = f" (in {module}, {function})"
        step = step.tb_next
    return found


def _first_line(text):
    """Start of a message."""
    return " ".join(text.strip().partition("\n")[0].split())[:200]


@contextmanager
def _terminable() -> Iterator[None]:
    """Within it SIGTERM ends the program as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() == owner:
            raise _Terminated
        signal.signal(number, signal.SIG_DFL)  # a process that was forked
        os.kill(os.getpid(), number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _open_streams():
    """Names that are not UTF-8 can be printed; a closed stream is replaced."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
            setattr(sys, name, stream)
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _flush():
    """Writes what was printed; an error names where to."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _drop_output()
        place = "standard output"
        raise OSError(error.errno, error.strerror, place) from error


def _drop_output():
    """Nothing is printed any more, at the interpreter's end neither."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
