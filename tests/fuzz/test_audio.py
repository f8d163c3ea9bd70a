"""A short run over damaged recordings, and whether it finds what it should."""

import sys

import pytest
import torch

from tests.fuzz import audio
from unispeech_sb.dataio.audio import AudioError

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="memory is read in /proc"
)


def test_damaged_recordings_are_read_or_refused_in_one_line(tmp_path):
    num_read, failures = audio.fuzz(600, 0, tmp_path)
    assert not failures, failures[0]
    assert 60 < num_read < 400


def test_whole_recordings_are_read_by_every_reader(tmp_path):
    paths = audio.write_recordings(tmp_path)
    assert len({path.suffix for path in paths}) >= 20
    for path in paths[::5]:
        for read in audio.READERS:
            read(path)


def allocate(path):
    """What takes memory."""
    torch.ones(2**27)


def refuse(path):
    """What does not name the file."""
    raise AudioError("truncated")


def fail(path):
    """What is no refusal."""
    raise MemoryError


@pytest.mark.parametrize("read", [allocate, refuse, fail])
def test_what_is_no_refusal_is_a_failure(read, tmp_path, monkeypatch):
    monkeypatch.setattr(audio, "READERS", [read])
    _, failures = audio.fuzz(2, 0, tmp_path)
    assert failures
