"""What the commands share: readers of arguments, and checks of files."""

import argparse

import pytest

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


def test_outputs_need_different_names():
    options.check_names(["talk", "walk"])
    with pytest.raises(ValueError, match="expected different names"):
        options.check_names(["talk", "talk"])
