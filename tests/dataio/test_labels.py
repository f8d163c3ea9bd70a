"""Tests of ``unispeech_sb.dataio.labels``."""

import logging

import pytest
from speechbrain.utils.parameter_transfer import Pretrainer

from unispeech_sb.dataio.labels import LabelEncoder

LABELS = ["no", "yes", 'it\'s "so"', "_silence_"]


def transfer(folder):
    """Loads a label encoder as SpeechBrain's interfaces do."""
    encoder = LabelEncoder()
    pretrainer = Pretrainer(
        loadables={"label_encoder": encoder}, collect_in=folder
    )
    pretrainer.load_collected()
    return encoder


def test_labels_come_back_and_decode_without_a_warning(tmp_path, caplog):
    LabelEncoder.from_labels(LABELS).save(tmp_path / "label_encoder.ckpt")
    with caplog.at_level(logging.WARNING):
        encoder = transfer(tmp_path)
        assert encoder.decode_ndim([0, 1, 2, 3]) == LABELS
    assert not caplog.records


@pytest.mark.parametrize(
    "content", ["", "no labels", "'no' => 0\n'yes' => 2\n" + "=" * 16 + "\n"]
)
def test_a_damaged_file_is_an_error(tmp_path, content):
    path = tmp_path / "label_encoder.ckpt"
    path.write_text(content)
    with pytest.raises(ValueError, match=f"{path}: expected labels"):
        transfer(tmp_path)


def test_a_missing_file_is_an_error(tmp_path):
    path = tmp_path / "label_encoder.ckpt"
    with pytest.raises(ValueError, match=f"{path}: expected labels"):
        LabelEncoder().load_strict(path)


def test_repeated_labels_are_refused():
    with pytest.raises(ValueError, match="got 3 with 2 different ones"):
        LabelEncoder.from_labels(["a", "b", "a"])


def test_labels_that_a_file_cannot_hold_are_refused():
    with pytest.raises(ValueError, match="labels without ' => '"):
        LabelEncoder.from_labels(["a => b"])
