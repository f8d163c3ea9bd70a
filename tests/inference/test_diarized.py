"""A diarization must come back from every kind of file."""

import json

import pytest

from unispeech_sb.dataio.rttm import Segment, read_audacity, read_rttm
from unispeech_sb.inference.diarized import Diarization, recording_name
from unispeech_sb.inference.turns import Turn

FOUND = Diarization(
    "talk",
    4000.0,
    (
        Turn(0.04, 1.52, "speaker1", 0.75),
        Turn(1.0, 2.5, "speaker2", 0.9),
        Turn(3600.5, 3601.0, "speaker1", 0.61),
    ),
)
ANNOTATION = [
    Segment(0.04, 1.52, "speaker1"),
    Segment(1.0, 2.5, "speaker2"),
    Segment(3600.5, 3601.0, "speaker1"),
]


def test_speakers_and_segments_are_told():
    assert FOUND.speakers == ["speaker1", "speaker2"]
    assert FOUND.annotation == ANNOTATION
    start, end, speaker, confidence = FOUND.segments[0]
    assert (start, end, speaker, confidence) == (0.04, 1.52, "speaker1", 0.75)


def test_files_hold_what_is_returned_and_read_back(tmp_path):
    for kind in ("rttm", "audacity", "json"):
        write = getattr(FOUND, f"to_{kind}")
        text = write()
        assert write(tmp_path / kind) == text
        assert (tmp_path / kind).read_text() == text
    assert read_rttm(tmp_path / "rttm") == {"talk": ANNOTATION}
    assert read_audacity(tmp_path / "audacity") == ANNOTATION
    content = json.loads((tmp_path / "json").read_text())
    assert content["name"] == "talk" and content["duration"] == 4000.0
    assert [Turn(**segment) for segment in content["segments"]] == list(
        FOUND.segments
    )


def test_text_is_for_reading():
    assert FOUND.to_text().splitlines()[-1] == (
        "1:00:00.50  1:00:01.00  speaker1"
    )
    assert Diarization("a", 1.0, ()).to_text() == ""


@pytest.mark.parametrize("reference", [None, ANNOTATION])
def test_the_timeline_is_drawn(reference, tmp_path):
    FOUND.plot(tmp_path / "a.png", reference)
    assert (tmp_path / "a.png").read_bytes()[1:4] == b"PNG"


def test_recordings_are_named_without_blanks():
    assert recording_name("a b/c\td e.tar.wav") == "c_d_e.tar"
