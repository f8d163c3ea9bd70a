"""Outputs that appear whole or not at all, and that one process writes."""

import errno
import json
import logging
import math
import os
import re
import secrets
import shlex
import shutil
import stat
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # of Windows
    fcntl = None  # type: ignore[assignment]

_logger = logging.getLogger(__name__)

_FULL = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EIO}
"""Faults of writing that do not name the file themselves."""
_TAKEN = {errno.EACCES, errno.EAGAIN}
_LEFTOVER = re.compile(r"\.([0-9a-f]{8})\.(\d{1,10})\.[0-9a-f]{12}-")
_LONGEST = 180  # bytes of a name that stay in a temporary one
_ATTEMPTS = 100  # to lock a file whose owner ends at that moment
_MOST_BYTES = 4096  # of a note on who writes
_WAIT_S = 0.5
"""Seconds from one look at what another process caches to the next."""


def _machine():
    """Digest of this machine since it was started, and of its processes."""
    parts = [os.uname().nodename if hasattr(os, "uname") else ""]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        parts.append(str(os.stat("/proc/self/ns/pid").st_ino))
    return f"{zlib.crc32(' '.join(parts).encode()):08x}"


_MACHINE = _machine()
_swept: set[str] = set()
_locked: dict[tuple[int, str], list[int]] = {}  # open file, and how often


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
        When the file cannot be written, for want of space too; the error names
        ``path``.

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
    replaces = os.path.isfile(path) or not os.path.exists(path)
    draft = temporary_path(target) if replaces else Path(path)
    written = nullcontext(draft)
    try:
        with naming(draft, path):
            if mode is not None:
                written = _open(draft, mode, replaces)
            with written as file:
                yield file
            if replaces:
                os.replace(draft, target)
    except OSError as error:
        if error.errno is None and error.filename is None:  # NumPy's
            raise not_written(path, error) from error
        raise
    finally:
        if replaces:
            draft.unlink(missing_ok=True)


def temporary_path(path: Path) -> Path:
    """An unpredictable hidden name beside a path, which its suffix ends.

    The name says which process made it, by which a later one removes what
    killed ones have left.
    """
    key = os.path.realpath(path.parent)
    if key not in _swept:
        sweep(path.parent)
        _swept.add(key)
    end = path.name
    while len(os.fsencode(end)) > _LONGEST:
        end = end[1:]
    start = f".{_MACHINE}.{os.getpid()}.{secrets.token_hex(6)}"
    return path.with_name(f"{start}-{end}")


@contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """Makes a folder with a ``temporary_path``, for what is moved out of it,
    or for all of it to be moved; it is gone when the block ends."""
    folder = temporary_path(path)
    with naming(folder, path):
        try:
            folder.mkdir()
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def sweep(folder: str | Path) -> None:
    """Removes temporary files and folders of processes of this machine that
    run no more."""
    names = []
    with suppress(OSError):  # there is no such folder yet, or not for us
        names = os.listdir(folder)
    for name in names:
        found = _LEFTOVER.match(name)
        if found and found[1] == _MACHINE and not _runs(int(found[2])):
            remove(Path(folder, name))


def remove(path: Path) -> None:
    """Removes a file, a link or a folder, as far as it can be."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def not_written(path: str | Path, error: Exception) -> OSError:
    """The error for a file that a library could not write."""
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return OSError(errno.EIO, f"not written ({reason})", os.fspath(path))


@contextmanager
def naming(draft: Path, path: str | Path) -> Iterator[None]:
    """Gives faults of writing a temporary file or folder the name of what it
    is for."""
    try:
        yield
    except OSError as error:
        names = (error.filename, error.filename2)
        inside = [str(n) for n in names if str(n).startswith(str(draft))]
        if inside:
            error.filename = f"{path}{inside[0].removeprefix(str(draft))}"
            del error.filename2  # None would be printed
        elif error.filename is None and error.errno in _FULL:
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


class OneWriter:
    """Keeps other processes from writing the same output.

    A lock file says who writes; another process that asks is refused, with
    process, machine, time and command. The kernel's lock on the file
    (``fcntl.lockf``) ends with the process that has it, however it ends, so
    that a killed one is in nobody's way; it is not inherited by forked workers.
    It holds across machines on NFS where that supports locks. On file systems
    without locks the note in the file decides: a process of this machine that
    runs no more is passed over, another machine's is not.

    Arguments
    ---------
    output : str or path-like
        The file or folder that is written.
    lock : path-like, optional
        The lock file; ``.NAME.lock`` beside the output when omitted.
    shared : bool
        Whether objects of this process share the lock.

    Raises
    ------
    BlockingIOError
        When another process, or this one, is writing it.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.txt"
    >>> with OneWriter(path):
    ...     OneWriter(path).acquire()
    Traceback (most recent call last):
    ...
    BlockingIOError: .../a.txt: being written by process ... since ...
    """

    def __init__(
        self,
        output: str | Path,
        lock: Path | None = None,
        shared: bool = False,
    ) -> None:
        self.output, self.shared = output, shared
        target = Path(os.path.realpath(output))
        self.path = lock or target.with_name(f".{target.name}.lock")
        place = os.path.realpath(self.path.parent)
        self._key = os.getpid(), os.path.join(place, self.path.name)
        self._has_it = False

    def __enter__(self) -> "OneWriter":
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def __del__(self) -> None:
        self.release()

    def acquire(self) -> None:
        """Takes the lock, and removes temporary files that killed processes
        left beside it."""
        if self._key in _locked:
            if not self.shared or self._has_it:
                self._refuse(_note())
            _locked[self._key][1] += 1
            self._has_it = True
            return
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        for _ in range(_ATTEMPTS):
            file = os.open(self.path, flags, 0o666)
            try:
                self._has_it = self._take(file)
            finally:
                if not self._has_it:
                    os.close(file)
            if self._has_it:
                break
        else:
            raise OSError(f"{self.path}: expected a file that stays in place")
        _locked[self._key] = [file, 1]
        sweep(self.path.parent)

    def release(self) -> None:
        """Gives the lock back and removes its file; a second call, or one in a
        forked process, does nothing."""
        if not self._has_it or self._key[0] != os.getpid():
            return
        self._has_it = False
        _locked[self._key][1] -= 1
        file, count = _locked[self._key]
        if count == 0:
            del _locked[self._key]
            with suppress(OSError):
                os.unlink(self.path)
            os.close(file)

    def _take(self, file):
        """Locks an open file; whether it is still the one at its path."""
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
            raise OSError(f"{self.path}: expected a lock file of this package")
        has_locks = fcntl is not None
        try:
            if has_locks:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            has_locks = False
            if error.errno in _TAKEN:
                self._refuse(_parsed(os.pread(file, _MOST_BYTES, 0)))
        content = os.pread(file, _MOST_BYTES, 0)
        note = _parsed(content)
        if content and note is None:
            raise OSError(f"{self.path}: expected a lock file of this package")
        if not has_locks:
            self._judge(note)
        try:
            now = os.stat(self.path, follow_symlinks=False)
        except FileNotFoundError:
            return False  # its owner has just ended
        if (now.st_dev, now.st_ino) != (found.st_dev, found.st_ino):
            return False
        try:
            with naming(self.path, self.output):
                os.ftruncate(file, 0)
                os.pwrite(file, json.dumps(_note()).encode(), 0)
        except OSError:
            os.unlink(self.path)
            raise
        return True

    def _judge(self, note):
        """Refuses by the note alone, where there are no locks."""
        if note and (note["machine"] != _MACHINE or _runs(note["pid"])):
            self._refuse(note, f"; if it is not, remove {self.path}")

    def _refuse(self, note, hint=""):
        """Says who writes."""
        who = "another process"
        if note is not None:
            who = "process {pid} of {host} since {since} ({command})".format(
                **note
            )
        raise BlockingIOError(
            f"{self.output}: being written by {who}{hint}; wait for it, or "
            "choose another output"
        )


def cached_folder(
    kind: str, name: str, make: Callable[[Path], object], done: str
) -> Path:
    """A folder that ``make`` writes, whole or not at all, where it is not there
    yet; the log says so by ``done``.

    It is kept in ``$XDG_CACHE_HOME/unispeech_sb/KIND``, under ``~/.cache`` by
    default, and may be removed at any time. A process that finds another at
    work on it waits.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    if not cache.is_absolute():  # as the standard has it
        cache = Path("~/.cache").expanduser()
    folder = cache / "unispeech_sb" / kind / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = OneWriter(folder, folder.with_name(f".{folder.name}.cache.lock"))
    while not folder.exists():
        try:
            lock.acquire()
        except BlockingIOError as error:
            _logger.info(str(error))
            time.sleep(_WAIT_S)
            continue
        try:
            if not folder.exists():  # it may have been finished just before
                make(folder)
                _logger.warning(f"{done} {folder}")
        finally:
            lock.release()
    return folder


def _note():
    """Who writes."""
    program = os.path.basename(sys.argv[0] or "python")
    return {
        "pid": os.getpid(),
        "host": os.uname().nodename if hasattr(os, "uname") else "",
        "machine": _MACHINE,
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        "command": shlex.join([program, *sys.argv[1:]])[:200],
    }


def _parsed(content):
    """The note in a lock file; None where there is none."""
    try:
        note = json.loads(content)
        own = _note()
    except ValueError:
        return None
    if not isinstance(note, dict) or note.keys() != own.keys():
        return None
    if any(type(note[key]) is not type(own[key]) for key in own):
        return None
    return note


def _runs(pid):
    """Whether a process of this machine runs."""
    if os.name != "posix":
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _open(draft, mode, is_new):
    """Opens a file to write, a new one where nothing may be there."""
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    return open(draft, mode.replace("w", "x") if is_new else mode, **text)
