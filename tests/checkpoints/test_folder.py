"""Pretrained folders appear whole or not at all."""

import pytest
import yaml

from unispeech_sb.checkpoints.folder import new_folder, write_pretrained
from unispeech_sb.lobes.backbone import Backbone


def test_a_failure_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), new_folder(tmp_path / "new") as folder:
        (folder / "half.ckpt").touch()
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_other_folders_are_not_overwritten(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    for replace in (False, True):
        with (
            pytest.raises(ValueError, match="expected a new folder"),
            new_folder(tmp_path / "mine", replace),
        ):
            pass
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_an_older_export_is_replaced_only_on_request(tmp_path):
    path = tmp_path / "export"
    lobes = {"backbone": Backbone.from_preset("tiny")}
    write_pretrained(path, lobes, "WaveformEncoder", "first")
    with pytest.raises(ValueError, match="exists already"):
        write_pretrained(path, lobes, "WaveformEncoder", "second")
    assert (path / "README.md").read_text() == "first"
    write_pretrained(path, lobes, "WaveformEncoder", "third", replace=True)
    assert (path / "README.md").read_text() == "third"


def test_the_yaml_holds_every_option_and_no_path(tmp_path):
    backbone = Backbone.from_preset("tiny", layerdrop=0.125)
    path = tmp_path / "export"
    write_pretrained(path, {"backbone": backbone}, "WaveformEncoder", "")
    text = (path / "hyperparams.yaml").read_text()
    assert str(tmp_path) not in text
    node = yaml.compose(text).value
    values = {key.value: value for key, value in node}
    assert values["backbone"].tag == "!new:unispeech_sb.lobes.backbone.Backbone"
    options = {key.value for key, _ in values["backbone"].value}
    assert options == set(backbone.config)
