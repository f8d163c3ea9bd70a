"""Conversations that are kept are read back as a corpus."""

import pytest
import soundfile
import torch

from unispeech_sb.dataio.corpora.conversations import conversations
from unispeech_sb.dataio.mixture_sets import write_mixtures
from unispeech_sb.dataio.mixtures import Mixture
from unispeech_sb.dataio.rttm import read_rttm

MADE = [
    Mixture(0.1 * torch.randn(8000), [(0.1, 0.4, "anna"), (0.3, 0.5, "ben")]),
    Mixture(0.1 * torch.randn(16000), [(0.25, 1.0, "ben")]),
]


def test_a_written_set_is_a_corpus(tmp_path):
    folder = tmp_path / "train"
    write_mixtures(MADE, 2, folder, prefix="talk")
    records = list(conversations(folder))
    assert [record["ID"] for record in records] == ["talk_00000", "talk_00001"]
    assert [record["duration"] for record in records] == [0.5, 1.0]
    assert {record["split"] for record in records} == {"train"}
    annotations = read_rttm(records[0]["rttm"])
    assert list(annotations.values()) == [made.segments for made in MADE]
    wav, rate = soundfile.read(records[1]["wav"], dtype="float32")
    torch.testing.assert_close(
        torch.from_numpy(wav), MADE[1].wav, atol=1e-4, rtol=0
    )
    assert rate == 16000
    durations = (folder / "reco2dur").read_text().split()
    assert durations == ["talk_00000", "0.500000", "talk_00001", "1.000000"]


def test_a_set_is_not_written_over(tmp_path):
    write_mixtures(MADE, 1, tmp_path)
    with pytest.raises(ValueError, match="it has a wav.scp"):
        write_mixtures(MADE, 1, tmp_path)
