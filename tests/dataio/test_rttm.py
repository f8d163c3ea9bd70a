"""Annotations: each format there and back, what is joined, what is refused."""

import pytest

from unispeech_sb.dataio.rttm import (
    Segment,
    match_names,
    normalized,
    read_audacity,
    read_kaldi_segments,
    read_rttm,
    read_uem,
    write_audacity,
    write_files,
    write_kaldi_segments,
    write_rttm,
    write_uem,
)
from unispeech_sb.text import fields_of

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
        "speaker's segment from 0.0 to 3.0 is over; merge_segments=True "
        "joins them"
    )
    assert read_rttm(path, merge=True)["talk"] == [
        (0.0, 4.0, "anna"),
        (1.0, 4.0, "ben"),
        (9.0, 10.0, "anna"),
    ]


def test_what_merging_joins_and_drops_is_counted(tmp_path, caplog):
    path = tmp_path / "a.rttm"
    path.write_text(
        line(0, 2) + line(1, 2) + line(2.5, 1) + line(5, 0) + line(6, 1)
    )
    with pytest.raises(
        ValueError, match=r"line 4: .*; merge_segments=True drops"
    ):
        read_rttm(path)
    found = read_rttm(path, merge=True)["talk"]
    assert found == [(0.0, 3.5, "anna"), (6.0, 7.0, "anna")]
    assert "joined 2 segments" in caplog.text
    assert "left out 1 of 0 s" in caplog.text
    path.write_text(line(5, 0))
    assert read_rttm(path, merge=True) == {}
    path.write_text("5.0\t5.0\tanna\n")
    assert read_audacity(path, merge=True) == []


def test_braces_in_names_are_no_placeholders(tmp_path):
    path = tmp_path / "a.rttm"
    path.write_text(line(0, 2, "{x}") + line(1, 2, "{x}"))
    with pytest.raises(ValueError, match="{x} of talk starts"):
        read_rttm(path)


@pytest.mark.parametrize(
    ("names", "recording", "wav", "expected"),
    [
        (["0513.wav", "0514.wav"], "0513", "/data/0513.wav", "0513.wav"),
        (["TALK", "other"], "talk", "/data/talk.WAV", "TALK"),
        (["my_talk"], "my talk", "/data/my talk.wav", "my_talk"),
        (["data/a.flac", "data/b.flac"], "a", "/x/a.flac", "data/a.flac"),
        (["a", "A"], "a", "/x/a.wav", "a"),
        (["Talk", "TALK"], "talk", "/x/talk.wav", None),
        (["other"], "talk", "/x/talk.wav", None),
        (["talk"], "id7", "/x/talk.wav", "talk"),
    ],
)
def test_names_meet_in_spite_of_suffix_case_and_blanks(
    names, recording, wav, expected
):
    assert match_names({recording: wav}, names).get(recording) == expected


def test_a_name_means_one_recording():
    both = {"Talk": "/x/Talk.wav", "TALK": "/x/TALK.wav"}
    assert match_names(both, ["talk"]) == {}
    assert match_names({**both, "talk": "/y.wav"}, ["talk"]) == {"talk": "talk"}


def test_of_a_repeated_segment_the_last_line_is_taken(tmp_path, caplog):
    (tmp_path / "segments").write_text(
        "anna-1 talk 0 1\nanna-1 talk 5 6\nben-1 talk 2 3\n"
    )
    (tmp_path / "utt2spk").write_text("anna-1 anna\nben-1 ben\nben-1 carl\n")
    found = read_kaldi_segments(tmp_path)["talk"]
    assert found == [(2.0, 3.0, "carl"), (5.0, 6.0, "anna")]
    assert "segments: 1 names occur several times" in caplog.text
    assert "utt2spk: 1 names" in caplog.text and "ben-1" in caplog.text


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
        (line(1e300, 1), "line 1: expected seconds at most 1e.07, got '1e.300"),
        (line(0, 1e12), "line 1: expected seconds at most 1e.07"),
        (line("1_0", 1), "line 1: expected seconds from 0 on, got '1_0'"),
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
    with pytest.raises(ValueError, match="a.rttm, line 1: .* in UTF-8"):
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
        ("talk 1 0 1e12", "line 1: expected seconds at most"),
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


PAIRS = [(0.5, 1.75, "anna"), (1.0, 4.0, "ben"), (2.0, 3.0, "anna")]


def test_audacity_there_and_back_is_the_same(tmp_path):
    segments = [*PAIRS, (5.0, 6.0, "Ben C.")]
    write_audacity(tmp_path / "labels.txt", segments)
    assert read_audacity(tmp_path / "labels.txt") == segments
    write_audacity(tmp_path / "none.txt", [])
    assert read_audacity(tmp_path / "none.txt") == []


def test_labels_as_audacity_writes_them_are_read(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_text(
        "1.000000\t2.500000\tben\n\\\t100.0\t4000.0\n"
        "0.000000\t1.200000\tanna \n"
    )
    assert read_audacity(path) == [(0.0, 1.2, "anna"), (1.0, 2.5, "ben")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.0\t1.0\n", "line 1: expected start, end and the speaker's name"),
        ("0.0\t1.0\t \n", "line 1: expected start, end and the speaker's"),
        ("0.0 1.0 anna\n", "line 1: expected start, end and the speaker's"),
        ("0,0\t1,0\tanna\n", "line 1: expected seconds from 0 on, got '0,0'"),
        ("1.0\t1.0\tanna\n", "line 1: expected an end behind the start"),
        ("0\t2\ta\n0\t2\tb\n1\t3\ta\n", "line 3: a of labels starts at 1.0"),
    ],
)
def test_bad_labels_are_named(tmp_path, text, message):
    path = tmp_path / "labels.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"labels.txt, {message}"):
        read_audacity(path)


def test_overlapping_labels_can_be_merged(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_text("0\t2\ta\n1\t3\ta\n")
    assert read_audacity(path, merge=True) == [(0.0, 3.0, "a")]


def test_kaldi_there_and_back_is_the_same(tmp_path):
    annotations = {"talk": PAIRS, "other": [(0.0, 9.0, "anna")]}
    write_kaldi_segments(tmp_path, annotations)
    assert read_kaldi_segments(tmp_path) == annotations
    names = [
        line.split()[0]
        for line in (tmp_path / "segments").read_text().splitlines()
    ]
    assert names == sorted(names)
    assert names[0] == "anna_other_000000_009000"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["segments", "utt2spk"]


def test_two_segments_of_one_name_are_refused(tmp_path):
    segments = [(0.0, 1.0, "anna"), (0.0, 1.0001, "anna")]
    with pytest.raises(ValueError, match="two segments are named anna_talk_0"):
        write_kaldi_segments(tmp_path, {"talk": segments})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("segments", "speakers", "message"),
    [
        ("u1 talk 0 1", "u2 anna", "segments, line 1: u1 has no speaker in"),
        ("u1 talk 0 1", "u1 anna x", "utt2spk, line 1: expected 2 fields"),
        ("u1 talk 0 1 1", "u1 anna", "segments, line 1: expected 4 fields"),
        ("u1 talk 0 -1", "u1 anna", "line 1: expected seconds .* got '-1'"),
        ("u1 talk 2 1", "u1 anna", "line 1: expected an end behind"),
        (
            "u1 talk 0 2\nu2 talk 1 3",
            "u1 anna\nu2 anna",
            "segments, line 2: anna of talk starts at 1.0",
        ),
    ],
)
def test_bad_kaldi_folders_are_named(tmp_path, segments, speakers, message):
    (tmp_path / "segments").write_text(segments)
    (tmp_path / "utt2spk").write_text(speakers)
    with pytest.raises(ValueError, match=message):
        read_kaldi_segments(tmp_path)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(ValueError, match="utt2spk: there is no such file"):
        read_kaldi_segments(tmp_path)


@pytest.mark.real_data
def test_rttm_and_segments_of_a_real_folder_say_the_same(data_folder):
    for split, count in (("train", 60), ("dev", 16)):
        folder = data_folder / "diarization" / "mix2" / split
        ours = read_kaldi_segments(folder)
        assert len(ours) == count
        for name, segments in read_rttm(folder / "rttm").items():
            for one, other in zip(segments, ours[name], strict=True):
                assert one.speaker == other.speaker
                assert one[:2] == pytest.approx(other[:2], abs=0.0021)


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
def test_times_have_three_to_six_digits(tmp_path, seconds, text):
    write_uem(tmp_path / "a.uem", {"talk": [(seconds, 200000)]})
    written = (tmp_path / "a.uem").read_text()
    assert written == f"talk 1 {text} 200000.000\n"


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
def test_names_that_are_no_field_are_refused(tmp_path, name):
    for write, given in (
        (write_rttm, {"talk": [(0, 1, name)]}),
        (write_audacity, [(0, 1, name)]),
    ):
        with pytest.raises(ValueError, match="a: expected a name without"):
            write(tmp_path / "a", given)
    with pytest.raises(ValueError, match="a: expected a name without blanks"):
        write_rttm(tmp_path / "a", {"talk": [(0, 1, "Anna B.")]})
    assert not list(tmp_path.iterdir())
