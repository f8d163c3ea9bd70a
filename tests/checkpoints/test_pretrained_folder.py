"""Pretrained folders appear whole or not at all."""

import errno
import shutil
import subprocess

import pytest
import torch
import yaml
from speechbrain.inference.speaker import SpeakerRecognition

from unispeech_sb.checkpoints.pretrained_folder import (
    check_sums,
    new_folder,
    write_pretrained,
)
from unispeech_sb.dataio.labels import LabelEncoder
from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.lobes.heads import AMSoftmax, SpeakerHead
from unispeech_sb.metrics.calibration import Calibration


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


def test_one_process_makes_a_folder(tmp_path):
    with new_folder(tmp_path / "new") as folder:
        (folder / "first").touch()
        with (
            pytest.raises(BlockingIOError, match="/new: being written by"),
            new_folder(tmp_path / "new"),
        ):
            pass
    assert (tmp_path / "new" / "first").exists()
    assert list(tmp_path.iterdir()) == [tmp_path / "new"]


def test_want_of_space_names_the_folder(tmp_path):
    with (
        pytest.raises(OSError) as caught,
        new_folder(tmp_path / "new") as folder,
    ):
        raise OSError(errno.ENOSPC, "full", str(folder / "a.ckpt"))
    assert caught.value.filename == f"{tmp_path}/new/a.ckpt"
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def summed(tmp_path):
    """A folder of three files."""
    with new_folder(tmp_path / "new") as folder:
        (folder / "transformers").mkdir()
        for name in ("a.ckpt", "b c.txt", "transformers/vocab.json"):
            (folder / name).write_text(name)
    return tmp_path / "new"


def test_the_sums_tell_what_has_changed(summed):
    report = check_sums(summed)
    assert report.is_whole and len(report.same) == 3
    assert str(report) == "3 files as SHA256SUMS has them"
    (summed / "a.ckpt").write_text("b.ckpt")
    (summed / "b c.txt").unlink()
    (summed / "custom.py").touch()
    report = check_sums(summed)
    assert not report.is_whole
    assert report[1:] == (["a.ckpt"], ["b c.txt"], ["custom.py"])
    assert str(report).splitlines()[:3] == [
        "changed  a.ckpt", "missing  b c.txt", "extra    custom.py",
    ]  # fmt: skip


def test_the_sums_are_those_of_coreutils(summed):
    if shutil.which("sha256sum") is None:
        pytest.skip("no sha256sum")
    command = ["sha256sum", "--strict", "-c", "SHA256SUMS"]
    subprocess.run(command, cwd=summed, check=True)
    command = "sha256sum a.ckpt 'b c.txt' transformers/vocab.json > SHA256SUMS"
    subprocess.run(command, cwd=summed, check=True, shell=True)
    assert check_sums(summed).is_whole


@pytest.mark.parametrize(
    "line", ["0" * 64 + "  ../secret", "0" * 64 + "  /etc/passwd", "x  a", "\0"]
)
def test_sums_of_files_elsewhere_are_refused(line, summed):
    (summed / "SHA256SUMS").write_text(line + "\n")
    with pytest.raises(ValueError, match="SHA256SUMS, line 1: expected a sha"):
        check_sums(summed)
    (summed / "SHA256SUMS").unlink()
    with pytest.raises(ValueError, match="expected a folder with SHA256SUMS"):
        check_sums(summed)


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


def speaker_lobes(*names):
    """The lobes of a speaker model."""
    lobes = {
        "backbone": Backbone.from_preset("tiny"),
        "head": SpeakerHead(16, [8], [1], [1], xvector_output_dim=4),
        "objective": AMSoftmax(4, num_classes=2),
    }
    return {name: lobes[name] for name in names}


def test_speakers_are_classified_where_they_have_names(tmp_path):
    labels = LabelEncoder.from_labels(["ann", "bob"])
    for number, (names, encoder) in enumerate(
        [
            (("backbone", "head", "objective"), labels),
            (("backbone", "head", "objective"), None),
            (("backbone", "head"), labels),
        ]
    ):
        path = tmp_path / f"{number}"
        write_pretrained(
            path, speaker_lobes(*names), "SpeakerRecognition", "", encoder
        )
        found = SpeakerRecognition.from_hparams(str(path))
        assert ("classifier" in found.mods) == (number == 0)
        assert found.encode_batch(torch.randn(1, 800)).shape == (1, 1, 4)


def test_a_calibration_is_loaded_with_the_rest(tmp_path):
    calibration = Calibration(3.0, -2.0, num_trials=(5, 6))
    for given in (calibration, None):
        path = tmp_path / str(given is None)
        write_pretrained(
            path,
            speaker_lobes("backbone", "head"),
            "SpeakerRecognition",
            "",
            calibration=given,
        )
        found = SpeakerRecognition.from_hparams(str(path)).hparams
        assert hasattr(found, "calibration") == (given is not None)
    assert (tmp_path / "False" / "calibration.ckpt").is_file()
    loaded = SpeakerRecognition.from_hparams(str(tmp_path / "False")).hparams
    assert vars(loaded.calibration) == vars(calibration)
    (tmp_path / "False" / "calibration.ckpt").write_text("{}")
    with pytest.raises(ValueError, match=r"calibration\.ckpt: expected"):
        SpeakerRecognition.from_hparams(str(tmp_path / "False"))
