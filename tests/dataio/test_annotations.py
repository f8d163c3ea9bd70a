"""Annotations: what is joined, RTTM and UEM there and back, what is refused."""

import pytest

from unispeech_sb.dataio.annotations import (
    Segment,
    normalized,
    read_rttm,
    read_uem,
    write_rttm,
    write_uem,
)

TALK = [
    Segment(0.5, 1.75, "anna"),
    Segment(1.0, 4.0, "ben"),
    Segment(2.0, 3.0, "anna"),
]
LINE = "SPEAKER talk 1 0.5 1.25 <NA> <NA> anna <NA> <NA>\n"


def line(start, duration, speaker="anna", recording="talk", channel="1"):
    """A line of an RTTM file."""
    return (
        f"SPEAKER {recording} {channel} {start} {duration} <NA> <NA> "
        f"{speaker} <NA> <NA>\n"
    )


@pytest.mark.parametrize(
    ("segments", "expected"),
    [
        ([], []),
        ([(2, 3, "a"), (0, 1, "a")], [(0, 1, "a"), (2, 3, "a")]),
        ([(1, 3, "a"), (0, 1, "a")], [(0, 3, "a")]),
        ([(0, 5, "a"), (1, 2, "a"), (4, 6, "a")], [(0, 6, "a")]),
        ([(0, 2, "b"), (1, 3, "a")], [(0, 2, "b"), (1, 3, "a")]),
        ([(0, 2, "b"), (0, 2, "a")], [(0, 2, "a"), (0, 2, "b")]),
        # Joining moves no start, so that the order stays.
        (
            [(0, 1, "b"), (0, 1, "a"), (1, 9, "a"), (0, 2, "c")],
            [(0, 1, "b"), (0, 2, "c"), (0, 9, "a")],
        ),
    ],
)
def test_segments_of_one_speaker_are_joined_and_sorted(segments, expected):
    assert normalized(segments) == expected
    assert normalized(reversed(segments)) == expected


def test_rttm_there_and_back_is_the_same(tmp_path):
    other = [Segment(0.0625 / 1000, 0.1 + 0.2, "3526"), Segment(0.3, 9.0, "7")]
    annotations = {"talk": TALK, "other": other}
    write_rttm(tmp_path / "a.rttm", annotations)
    found = read_rttm(tmp_path / "a.rttm")
    assert list(found) == ["talk", "other"]
    assert found["talk"] == TALK
    # Files have microseconds.
    for segment, expected in zip(found["other"], other):
        assert segment == pytest.approx(expected, abs=1e-6)
    write_rttm(tmp_path / "b.rttm", found)
    assert read_rttm(tmp_path / "b.rttm") == found
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.rttm", "b.rttm"]


def test_recordings_without_segments_have_no_line(tmp_path):
    write_rttm(tmp_path / "a.rttm", {"silence": []})
    assert (tmp_path / "a.rttm").read_text() == ""
    assert read_rttm(tmp_path / "a.rttm") == {}


def test_what_says_nothing_of_speakers_is_passed_over(tmp_path):
    path = tmp_path / "a.rttm"
    path.write_text(
        ";; by hand\n\n"
        "SPKR-INFO talk 1 <NA> <NA> <NA> adult_female anna <NA> <NA>\n"
        "  \n"
        "NON-SPEECH talk 1 3.0 1.0 <NA> noise <NA> <NA> <NA>\n" + LINE
    )
    assert read_rttm(path) == {"talk": [(0.5, 1.75, "anna")]}


def test_nine_fields_and_windows_lines_are_read(tmp_path):
    path = tmp_path / "a.rttm"
    path.write_bytes(b"\xef\xbb\xbfSPEAKER talk 1 0 1 <NA> <NA> anna <NA>\r\n")
    assert read_rttm(path) == {"talk": [(0.0, 1.0, "anna")]}


def test_ends_are_not_off_by_the_sum_of_two_floats(tmp_path):
    path = tmp_path / "a.rttm"
    path.write_text(line(0.1, 0.2) + line(0.3, 0.4))
    assert read_rttm(path)["talk"] == [(0.1, 0.3, "anna"), (0.3, 0.7, "anna")]


def test_rounding_to_milliseconds_is_no_overlap(tmp_path):
    path = tmp_path / "a.rttm"
    path.write_text(line(0.0, 1.001) + line(1.0, 1.0))
    assert len(read_rttm(path)["talk"]) == 2
    path.write_text(line(0.0, 1.002) + line(1.0, 1.0))
    with pytest.raises(ValueError, match="line 2: anna of talk starts at 1.0"):
        read_rttm(path)


def test_overlap_of_a_speaker_is_named_or_merged(tmp_path):
    path = tmp_path / "a.rttm"
    path.write_text(
        line(2.0, 2.0) + line(1.0, 3.0, "ben") + line(0.0, 3.0) + line(9, 1)
    )
    with pytest.raises(ValueError) as error:
        read_rttm(path)
    assert str(error.value) == (
        f"{path}, line 1: anna of talk starts at 2.0, before the same "
        "speaker's segment from 0.0 to 3.0 is over"
    )
    assert read_rttm(path, merge=True)["talk"] == [
        (0.0, 4.0, "anna"),
        (1.0, 4.0, "ben"),
        (9.0, 10.0, "anna"),
    ]


def test_an_overlap_with_a_segment_longer_ago_is_seen(tmp_path):
    path = tmp_path / "a.rttm"
    path.write_text(line(0, 9) + line(1, 2, "ben") + line(3, 4))
    with pytest.raises(ValueError, match="line 3: anna of talk"):
        read_rttm(path)


def test_touching_segments_stay_apart_unless_merged(tmp_path):
    path = tmp_path / "a.rttm"
    path.write_text(line(0, 1) + line(1, 1))
    assert len(read_rttm(path)["talk"]) == 2
    assert read_rttm(path, merge=True)["talk"] == [(0.0, 2.0, "anna")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LINE + "SPEAKER talk 1 0.5 1.0 <NA> <NA> anna", "line 2: .*fields"),
        (LINE.strip() + " 1 2", "line 1: expected nine or ten fields, got 12"),
        ("anna 0.0 1.0", "line 1: expected a type of RTTM .*'anna'"),
        (line("x", 1), "line 1: expected seconds from 0 on, got 'x'"),
        (line(0, "nan"), "line 1: expected seconds from 0 on, got 'nan'"),
        (line("inf", 1), "line 1: expected seconds from 0 on, got 'inf'"),
        (line(-0.5, 1), "line 1: expected seconds from 0 on, got '-0.5'"),
        (line(1, -1), "line 1: expected seconds from 0 on, got '-1'"),
        (LINE + line(1, 0), "line 2: expected an end behind the start 1.0"),
        (line(0, 1) + line(2, 1, channel=2), "line 2: expected one channel"),
    ],
)
def test_bad_lines_are_named(tmp_path, text, message):
    path = tmp_path / "a.rttm"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        read_rttm(path)
    assert str(error.value).startswith(f"{path}, line ")


def test_missing_files_and_other_files_are_named(tmp_path):
    with pytest.raises(ValueError, match="nowhere.rttm: there is no such file"):
        read_rttm(tmp_path / "nowhere.rttm")
    path = tmp_path / "a.rttm"
    path.write_bytes(b"RIFF\xff\xfe\x00")
    with pytest.raises(ValueError, match="a.rttm: expected text in UTF-8"):
        read_rttm(path)


@pytest.mark.parametrize(
    ("recording", "segment", "message"),
    [
        ("my talk", (0, 1, "anna"), "without blanks, got 'my talk'"),
        ("talk", (0, 1, ""), "without blanks, got ''"),
        ("talk", (0, 1, "anna\tb"), "without blanks"),
        ("talk", (0, 1, "anna\n"), "without blanks"),
        ("talk", (-1, 1, "anna"), "from 0 on, got -1"),
        ("talk", (1, 1, "anna"), "an end behind the start 1.0, got 1.0"),
        ("talk", (0, 1e-7, "anna"), "an end behind the start 0.0, got 0.0"),
        ("talk", (0, float("nan"), "anna"), "an end behind the start"),
    ],
)
def test_what_a_file_cannot_hold_is_not_written(
    tmp_path, recording, segment, message
):
    path = tmp_path / "a.rttm"
    path.write_text("before")
    with pytest.raises(ValueError, match=message):
        write_rttm(path, {"fine": TALK, recording: [segment]})
    assert path.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["a.rttm"]


def test_uem_there_and_back_is_the_same(tmp_path):
    stretches = {"talk": [(0.0, 10.0), (12.5, 30.0)], "other": [(1.0, 2.0)]}
    write_uem(tmp_path / "a.uem", stretches)
    assert read_uem(tmp_path / "a.uem") == stretches


def test_stretches_of_a_uem_are_sorted_and_joined(tmp_path):
    path = tmp_path / "a.uem"
    path.write_text(";; scored\ntalk 1 5 9\ntalk 1 0 1\ntalk 1 1 2\n")
    assert read_uem(path) == {"talk": [(0.0, 2.0), (5.0, 9.0)]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("talk 1 0", "line 1: expected four fields, got 3"),
        ("talk 1 0 1\ntalk 1 3 2", "line 2: expected an end behind the start"),
        ("talk 1 0 end", "line 1: expected seconds from 0 on, got 'end'"),
        ("talk 1 0 1\ntalk 2 0 1", "line 2: expected one channel"),
    ],
)
def test_bad_lines_of_a_uem_are_named(tmp_path, text, message):
    path = tmp_path / "a.uem"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"a.uem, {message}"):
        read_uem(path)


@pytest.mark.real_data
def test_real_annotations_are_read(data_folder):
    files = sorted((data_folder / "diarization").rglob("*rttm"))
    assert len(files) == 12
    for file in files:
        for recording, segments in read_rttm(file).items():
            assert segments == sorted(segments), recording
            assert max(segment.end for segment in segments) <= 40
    stretches = read_uem(data_folder / "diarization" / "real" / "trn00.uem")
    assert stretches == {"trn00": [(0.0, 30.0)]}
