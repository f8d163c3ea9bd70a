"""A file that is written appears whole or not at all."""

import json
import math
import os
import stat

import pytest

from unispeech_sb.atomic import atomic, write_json


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
    (tmp_path / ".guessed-a").symlink_to(other)
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
