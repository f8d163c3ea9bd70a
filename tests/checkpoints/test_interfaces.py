"""Folders are told apart by names and text, before anything is loaded."""

import subprocess
import sys

import pytest

from unispeech_sb.checkpoints.interfaces import (
    FOREIGN,
    INTERFACES,
    expect_folder,
    folder_kind,
)
from unispeech_sb.inference.asr import LongFormASR

OURS = "backbone: !new:unispeech_sb.lobes.backbone.Backbone\n"
LOADED = "pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer\n"


def write(folder, text):
    """Writes a yaml; the folder."""
    (folder / "hyperparams.yaml").write_text(text, encoding="utf-8")
    return folder


def test_asking_imports_no_torch():
    ask = (
        "import sys\nfrom unispeech_sb.checkpoints.interfaces import *\n"
        "assert folder_kind('.') == '' and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", ask], check=True, cwd="/")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (OURS + "modules: {encoder: a}\n" + LOADED, "WaveformEncoder"),
        # as the first versions wrote it
        (OURS + "modules: {embedding_model: a}\n" + LOADED,
         "SpeakerRecognition"),
        (OURS + "modules: {nothing: a}\n" + LOADED, FOREIGN),
        (OURS + LOADED, FOREIGN),
        ("encoder: !new:speechbrain.nnet.linear.Linear\n"
         "modules: {embedding_model: a}\n" + LOADED, FOREIGN),
        ("output_folder: a\n" + OURS, "run"),
        ("[1, 2]", FOREIGN),
        ("", FOREIGN),
        ("planted: !apply:os._exit [3]\n" + OURS, FOREIGN),
    ],
)  # fmt: skip
def test_the_names_in_a_yaml_tell_what_it_is_for(text, kind, tmp_path):
    assert folder_kind(write(tmp_path, text)) == kind


@pytest.mark.parametrize("text", ["a: [", "a: b: c", "[" * 100_000, "\t- a"])
def test_a_damaged_yaml_is_one_sentence(text, tmp_path):
    with pytest.raises(ValueError, match="expected yaml") as caught:
        folder_kind(write(tmp_path, text))
    assert str(caught.value).startswith(f"{tmp_path}/hyperparams.yaml: ")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_a_huge_yaml_is_not_read(tmp_path):
    with pytest.raises(ValueError, match="at most 262144 bytes"):
        folder_kind(write(tmp_path, "a" * 2**21))


def test_a_folder_of_others_is_left_to_who_loads_it(tmp_path):
    expect_folder(write(tmp_path, "a: 1\n"), "EncoderASR")


def test_a_class_stands_for_its_interface(tmp_path):
    write(tmp_path, OURS + "modules: {encoder: a}\n" + LOADED)
    expect_folder(tmp_path, "WaveformEncoder")
    for wanted in (LongFormASR, "EncoderASR"):
        with pytest.raises(ValueError) as caught:
            expect_folder(tmp_path, wanted)
        assert str(caught.value) == (
            f"{tmp_path}: expected a folder for EncoderASR; it is for "
            f"WaveformEncoder: unispeech-sb features {tmp_path} FILES -o DIR "
            f"(also recipe TASK --model={tmp_path})"
        )


def test_what_is_no_model_is_shown(tmp_path):
    expected = "expected a folder with hyperparams.yaml; "
    with pytest.raises(ValueError, match=f"{expected}it is empty$"):
        expect_folder(tmp_path, "EncoderASR")
    for name in "cadfeb":
        (tmp_path / f"{name}.wav").touch()
    held = "it holds a.wav, b.wav, c.wav, d.wav, e.wav and 1 more$"
    with pytest.raises(ValueError, match=expected + held):
        expect_folder(tmp_path, "EncoderASR")
    (tmp_path / "export").mkdir()
    missing = f"there is no such folder; did you mean {tmp_path}/export.$"
    with pytest.raises(ValueError, match=expected + missing):
        expect_folder(tmp_path / "exprt", "EncoderASR")


def test_the_classes_in_the_table_exist():
    for interface in INTERFACES.values():
        for path in filter(None, (interface.speechbrain, interface.ours)):
            module, _, name = path.rpartition(".")
            __import__(module)
            assert hasattr(sys.modules[module], name)


def test_a_run_without_a_result_says_so(tmp_path):
    write(tmp_path, "output_folder: a\n")
    with pytest.raises(ValueError, match="run; the run has no result yet"):
        expect_folder(tmp_path, "EncoderASR")
    (tmp_path / "units").mkdir()
    (tmp_path / "units" / "units.json").touch()
    with pytest.raises(ValueError, match=f"of the run is {tmp_path}/units"):
        expect_folder(tmp_path, "EncoderASR")


def test_what_a_readme_shows_can_be_imported():
    for interface in INTERFACES.values():
        lines = interface.usage.splitlines()
        imports = [line for line in lines if line.startswith("from ")]
        assert imports
        for line in imports:
            exec(line, {})
