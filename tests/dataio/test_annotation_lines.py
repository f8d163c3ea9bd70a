"""Lines of annotation files: times as text, and files written together."""

import pytest

from unispeech_sb.dataio.annotation_lines import (
    check_name,
    fields_of,
    seconds_text,
    write_files,
)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.000"),
        (1.5, "1.500"),
        (30.0, "30.000"),
        (0.1 + 0.2, "0.300"),
        (3599.123456789, "3599.123457"),
        (0.1234, "0.1234"),
        (1e5, "100000.000"),
    ],
)
def test_times_have_three_to_six_digits(seconds, text):
    assert seconds_text(seconds) == text


def test_files_are_written_together_or_not_at_all(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("before")
    with pytest.raises(FileNotFoundError):
        write_files({one: ["now"], tmp_path / "nowhere" / "other": ["now"]})
    assert one.read_text() == "before"
    assert list(tmp_path.iterdir()) == [one]
    write_files({one: ["now"], other: ["too"]})
    assert (one.read_text(), other.read_text()) == ("now\n", "too\n")


def test_lines_are_counted_from_one_with_those_passed_over(tmp_path):
    path = tmp_path / "a"
    path.write_text("; no\n\na\tb c\n")
    assert list(fields_of(path)) == [(f"{path}, line 3", ["a", "b", "c"])]
    assert list(fields_of(path, "\t"))[0][1] == ["a", "b c"]


@pytest.mark.parametrize("name", ["", " ", "a ", "a\tb", "a\nb", "a\n"])
def test_names_that_are_no_field_are_refused(name):
    for separator in (None, "\t"):
        with pytest.raises(ValueError, match="a.rttm: expected a name without"):
            check_name(name, "a.rttm", separator)
