"""What the commands share: readers of arguments, and checks of files."""

import argparse
import ast
import os

import pytest

from tests.conftest import ROOT
from unispeech_sb.commands import options


@pytest.mark.parametrize(
    ("read", "good", "bad"),
    [
        (options.positive, {"1.5": 1.5}, ("0", "-1", "inf", "nan", "x")),
        (options.probability, {"0.01": 0.01}, ("0", "1", "2", "x")),
        (options.finite, {"-1e3": -1000.0, "0": 0.0}, ("inf", "nan", "x")),
        (options.at_least(0), {"0": 0, "3": 3}, ("-1", "1.5", "", "x")),
        (options.at_least(2), {"2": 2}, ("1", "0")),
    ],
)
def test_readers_take_numbers_of_their_range_only(read, good, bad):
    assert {text: read(text) for text in good} == good
    for text in bad:
        with pytest.raises(argparse.ArgumentTypeError, match=f"got {text}"):
            read(text)


def test_missing_files_are_named_before_the_work(tmp_path, capsys):
    (tmp_path / "here.wav").touch()
    here, none = str(tmp_path / "here.wav"), str(tmp_path / "none.wav")
    options.check_files("embed", [here])
    assert capsys.readouterr().err == ""
    options.check_files("embed", [here, none])
    assert capsys.readouterr().err == (
        "embed: 1 of 2 files do not exist, the others are processed; missing: "
        f"{none}\n"
    )
    with pytest.raises(SystemExit) as caught:
        options.check_files("embed", [none])
    assert caught.value.code == 1
    assert capsys.readouterr().err == (
        f"embed: 1 of 1 files failed:\n  {none}: there is no such file\n"
    )


def test_a_list_among_the_recordings_is_explained(tmp_path, capsys):
    path = tmp_path / "list.TXT"
    path.touch()
    for files, hinted in ([path, "a.wav"], 1), (["a.wav"], 0), (["x.txt"], 0):
        errors = {str(file): f"{file}: no" for file in files}
        options.report_failures("embed", [*errors], errors)
        hint = f"\n  (a list of recordings is given as @{path})\n"
        assert (hint in capsys.readouterr().err) == hinted


def test_no_bar_is_drawn_where_no_terminal_shows_it(capsys):
    with options.progress_bar([], "speech") as bar:
        bar.total = 2.0
        options.advance(bar)(1.5)
    assert capsys.readouterr().err == ""
    calls = [
        (path, call)
        for path in [*(ROOT / "unispeech_sb").rglob("*.py")]
        for call in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(call, ast.Call)
        and getattr(call.func, "id", "") in ("tqdm", "trange")
    ]
    assert len(calls) > 10
    for path, call in calls:
        assert "disable" in [word.arg for word in call.keywords], path


def test_outputs_need_different_names():
    stem = os.path.basename
    options.check_names(["a/talk", "a/walk"], stem)
    for files in (["a/talk", "b/talk"], ["a/talk", "a/talk"]):
        message = f"different names .* {files[0]} and {files[1]} would both be"
        with pytest.raises(ValueError, match=message):
            options.check_names(files, stem)


def test_outputs_that_cannot_be_written_are_refused(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "file")
    options.check_output(None)
    options.check_output_folder(None)
    options.check_output(tmp_path / "new")
    options.check_output(tmp_path / "file", [tmp_path / "other", None])
    options.check_output(tmp_path / "a/b/new", makes_folder=True)
    options.check_output_folder(tmp_path / "a/b")
    for path, message in (
        (tmp_path, "expected a file to write; it is a folder"),
        (tmp_path / "a/new", "there is no folder .*a$"),
        (tmp_path / "file/new", "expected a folder; .*file is none"),
    ):
        with pytest.raises(ValueError, match=message):
            options.check_output(path)
    for path in (tmp_path / "file", tmp_path / "file/a/b"):
        with pytest.raises(ValueError, match="expected a folder; .*file is no"):
            options.check_output_folder(path)
    with pytest.raises(ValueError, match="than the input .*file"):
        options.check_output(tmp_path / "link", [tmp_path / "file"])
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    for check in (options.check_output, options.check_output_folder):
        with pytest.raises(ValueError, match="that may be written to"):
            check(tmp_path / "new")
