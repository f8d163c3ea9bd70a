"""Audacity's labels and Kaldi's segments: there and back, and refusals."""

import pytest

from unispeech_sb.dataio.annotation_files import (
    read_audacity,
    read_kaldi_segments,
    write_audacity,
    write_kaldi_segments,
)
from unispeech_sb.dataio.annotations import read_rttm

TALK = [(0.5, 1.75, "anna"), (1.0, 4.0, "ben"), (2.0, 3.0, "anna")]


def test_audacity_there_and_back_is_the_same(tmp_path):
    segments = [*TALK, (5.0, 6.0, "Ben C.")]
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
    annotations = {"talk": TALK, "other": [(0.0, 9.0, "anna")]}
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
        ("u1 talk 0 1\nu1 talk 2 3", "u1 anna", "line 2: u1 occurs twice"),
        ("u1 talk 0 1", "u1 anna\nu1 ben", "utt2spk, line 2: u1 occurs"),
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
