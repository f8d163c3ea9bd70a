"""A file that is written appears whole or not at all."""

import errno
import json
import math
import os
import stat
import subprocess
import sys

import pytest

from unispeech_sb.atomic import (
    OneWriter,
    atomic,
    sweep,
    temporary_folder,
    temporary_path,
    write_json,
)


def test_a_file_is_there_when_it_is_whole(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("before")
    with atomic(path) as file:
        file.write("be")
        file.flush()
        assert path.read_text() == "before"
        file.write("hind\n")
    assert path.read_bytes() == b"behind\n"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("mode", ["w", "wb", None])
def test_an_error_leaves_what_was_there(tmp_path, mode):
    path = tmp_path / "a.txt"
    path.write_text("before")
    with pytest.raises(KeyboardInterrupt), atomic(path, mode) as file:
        if mode is None:
            file.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_bytes_and_line_ends_are_kept(tmp_path):
    for mode, written in (("w", "é\r\n\n"), ("wb", "é\r\n\n".encode())):
        with atomic(tmp_path / "a", mode) as file:
            file.write(written)
        assert (tmp_path / "a").read_bytes() == "é\r\n\n".encode()


def test_a_path_keeps_the_suffix_that_writers_look_at(tmp_path):
    with atomic(tmp_path / "a.png", mode=None) as path:
        assert path.parent == tmp_path and path.suffix == ".png"
        path.write_bytes(b"picture")
    assert (tmp_path / "a.png").read_bytes() == b"picture"


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "store").mkdir()
    target, link = tmp_path / "store" / "a.txt", tmp_path / "a.txt"
    target.write_text("before")
    link.symlink_to(target)
    with atomic(link) as file:
        file.write("behind")
    assert link.is_symlink() and target.read_text() == "behind"
    link.unlink()
    link.symlink_to(tmp_path / "store" / "new.txt")
    with atomic(link) as file:
        file.write("new")
    assert (tmp_path / "store" / "new.txt").read_text() == "new"


def test_the_temporary_name_cannot_be_guessed(tmp_path):
    with atomic(tmp_path / "a", None) as one, atomic(tmp_path / "a", None) as b:
        assert one != b
        for draft in (one, b):
            draft.write_text("")


def test_a_planted_file_is_not_written_through(tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.write_text("mine")
    monkeypatch.setattr("secrets.token_hex", lambda _: "guessed")
    temporary_path(tmp_path / "a").symlink_to(other)
    with pytest.raises(FileExistsError), atomic(tmp_path / "a") as file:
        file.write("yours")
    assert other.read_text() == "mine"


def test_access_is_that_of_any_new_file(tmp_path):
    before = os.umask(0o027)
    try:
        with atomic(tmp_path / "a") as file:
            file.write("")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_a_pipe_is_written_to_and_stays(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with atomic(path) as file:
            file.write("through")
        assert os.read(reader, 100) == b"through"
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(path.stat().st_mode)


def test_an_error_names_the_file_that_was_asked_for(tmp_path):
    path = tmp_path / "nowhere" / "a.txt"
    with pytest.raises(FileNotFoundError) as caught, atomic(path) as file:
        file.write("")
    assert caught.value.filename == str(path)
    with pytest.raises(IsADirectoryError), atomic(tmp_path) as file:
        file.write("")
    assert tmp_path.is_dir()


def test_json_has_no_infinity_and_no_nan(tmp_path, caplog):
    path = tmp_path / "scores.json"
    scores = {"DER": math.inf, "of": {"miss": [1.0, math.nan]}, "n": 3}
    write_json(path, scores)
    content = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert content == {"DER": None, "of": {"miss": [1.0, None]}, "n": 3}
    assert "null stands for DER = inf, of miss = nan" in caplog.text
    caplog.clear()
    write_json(path, {"DER": 1.5})
    assert json.loads(path.read_text()) == {"DER": 1.5}
    assert not caplog.records


@pytest.fixture
def dead():
    """The number of a process that runs no more."""
    child = subprocess.Popen(["true"])
    child.wait()
    return child.pid


def test_what_killed_processes_left_is_removed(tmp_path, dead, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("os.getpid", lambda: dead)
        file = temporary_path(tmp_path / "a.txt")
        folder = temporary_path(tmp_path / "export")
        link = temporary_path(tmp_path / "link")
    other = tmp_path / "kept"
    other.mkdir()
    (other / "mine").touch()
    file.touch()
    (folder / "inside").mkdir(parents=True)
    link.symlink_to(other)
    mine = temporary_path(tmp_path / "a.txt")
    mine.touch()
    elsewhere = tmp_path / file.name.replace(file.name[1:9], "0" * 8)
    elsewhere.touch()
    sweep(tmp_path)
    assert set(tmp_path.iterdir()) == {other, mine, elsewhere}
    assert (other / "mine").exists()


def test_the_first_write_to_a_folder_sweeps_it(tmp_path, dead, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("os.getpid", lambda: dead)
        patch.setattr("unispeech_sb.atomic._swept", {str(tmp_path)})
        left = temporary_path(tmp_path / "a.txt")
    left.touch()
    with atomic(tmp_path / "b.txt") as file:
        file.write("")
    assert list(tmp_path.iterdir()) == [tmp_path / "b.txt"]


def test_a_long_name_still_has_a_temporary_one(tmp_path):
    path = tmp_path / ("é" * 120 + ".txt")
    with atomic(path) as file:
        file.write("long")
    assert path.read_text() == "long"


FULL = """
import resource, signal, sys
from pathlib import Path
import numpy as np, torch
from unispeech_sb.atomic import atomic
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
def text(path):
    with atomic(path) as file:
        file.write("a" * 5000)
def array(path):
    with atomic(path, "wb") as file:
        np.save(file, np.zeros(5000))
def by_name(path):
    with atomic(path, None) as draft:
        Path(draft).write_bytes(bytes(5000))
def tensors(path):
    from unispeech_sb.checkpoints.files import write_tensors
    write_tensors(path, {"a": torch.zeros(5000)})
def folder(path):
    from unispeech_sb.checkpoints.pretrained_folder import new_folder
    with new_folder(path) as inside:
        tensors(inside / "a")
for write in (text, array, by_name, tensors, folder):
    path = Path(sys.argv[1], write.__name__)
    try:
        write(path)
    except OSError as error:
        assert str(path) in str(error), error
        assert "." + write.__name__ not in str(error), error
    else:
        raise AssertionError(write)
    left = list(path.parent.iterdir())
    assert left == [], left
"""


@pytest.mark.slow
def test_want_of_space_names_the_file_and_leaves_no_part(tmp_path):
    pytest.importorskip("resource")
    script = [sys.executable, "-c", FULL, str(tmp_path)]
    subprocess.run(script, check=True)


def test_a_full_device_is_named():
    with pytest.raises(OSError) as caught, atomic("/dev/full") as file:
        file.write("a")
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == "/dev/full"


def test_a_fault_within_a_folder_is_printed_with_one_name(tmp_path):
    final = tmp_path / "made"
    with pytest.raises(OSError) as caught, temporary_folder(final) as draft:
        raise OSError(errno.ENOSPC, "full", str(draft / "a.wav"))
    assert str(caught.value) == f"[Errno 28] full: '{final / 'a.wav'}'"


WRITES = """
import os, sys, time
from unispeech_sb.atomic import OneWriter
lock = OneWriter(sys.argv[1])
lock.acquire()
if sys.argv[2] == "fork" and os.fork() == 0:
    sys.stdin.read()  # outlives its parent
    os._exit(0)
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def writer(tmp_path):
    """Starts a process that has the lock of a file."""
    children = []

    def start(path, fork="no"):
        child = subprocess.Popen(
            [sys.executable, "-c", WRITES, path, fork],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        children.append(child)
        assert child.stdout.readline() == "locked\n"
        return child

    yield start
    for child in children:
        child.kill()
        child.stdin.close()
        child.stdout.close()
        child.wait()


def test_a_second_writer_is_refused_by_name(tmp_path, writer):
    path = tmp_path / "a.txt"
    child = writer(path)
    with pytest.raises(BlockingIOError) as caught:
        OneWriter(path).acquire()
    found = str(caught.value)
    assert found.startswith(f"{path}: being written by process {child.pid} of ")
    assert " since 2" in found and "choose another output" in found
    link = tmp_path / "link"
    path.touch()
    link.symlink_to(path)
    with pytest.raises(BlockingIOError):
        OneWriter(link).acquire()
    with OneWriter(tmp_path / "b.txt"):
        pass


@pytest.mark.parametrize("fork", ["no", "fork"])
def test_a_killed_writer_is_in_nobodys_way(fork, tmp_path, writer):
    path = tmp_path / "a.txt"
    child = writer(path, fork)
    child.kill()
    child.wait()
    assert (tmp_path / ".a.txt.lock").exists()
    with OneWriter(path):
        assert json.loads((tmp_path / ".a.txt.lock").read_text())["pid"] == (
            os.getpid()
        )
    assert list(tmp_path.iterdir()) == []


def test_one_process_writes_once(tmp_path):
    with OneWriter(tmp_path / "a"), pytest.raises(BlockingIOError):
        OneWriter(tmp_path / "a").acquire()
    one, two = (OneWriter(tmp_path / "a", shared=True) for _ in range(2))
    for writer in (one, two):
        writer.acquire()
    one.release()
    with pytest.raises(BlockingIOError):
        OneWriter(tmp_path / "a").acquire()
    del two, writer
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["precious", ""])
def test_a_lock_file_is_not_written_through(content, tmp_path):
    mine, lock = tmp_path / "mine", tmp_path / ".a.lock"
    mine.write_text(content)
    for plant in (lock.symlink_to, lock.hardlink_to):
        plant(mine)
        with pytest.raises(OSError, match=r"\.a\.lock"):
            OneWriter(tmp_path / "a").acquire()
        assert mine.read_text() == content
        lock.unlink()
    lock.symlink_to(tmp_path / "nothing")
    with pytest.raises(OSError, match=r"\.a\.lock"):
        OneWriter(tmp_path / "a").acquire()
    assert not (tmp_path / "nothing").exists()
    lock.unlink()
    lock.write_text("my own file")
    with pytest.raises(OSError, match="expected a lock file"):
        OneWriter(tmp_path / "a").acquire()
    assert lock.read_text() == "my own file"


def test_without_locks_the_note_decides(tmp_path, dead, monkeypatch):
    def lockf(*_):
        raise OSError(errno.ENOLCK, "no locks here")

    monkeypatch.setattr("fcntl.lockf", lockf)
    lock = tmp_path / ".a.lock"
    with OneWriter(tmp_path / "a"):
        note = json.loads(lock.read_text())
    for change, refused in (
        ({"pid": dead}, False),
        ({"pid": os.getppid()}, True),
        ({"pid": dead, "machine": "another"}, True),
    ):
        lock.write_text(json.dumps(note | change))
        if refused:
            with pytest.raises(BlockingIOError, match=r"remove .*\.a\.lock"):
                OneWriter(tmp_path / "a").acquire()
        else:
            OneWriter(tmp_path / "a").__enter__().release()
