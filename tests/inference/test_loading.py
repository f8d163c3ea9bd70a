"""Folders are loaded whole and safely: nothing in them runs."""

import re
import resource
import shutil
import sys
from functools import partial

import pytest
import torch
from speechbrain.utils.fetching import FetchFrom, FetchSource

from tests.checkpoints import plants
from tests.convert.exports import write_exports
from unispeech_sb.checkpoints.interfaces import INTERFACES, folder_kind
from unispeech_sb.checkpoints.pretrained_folder import write_beam_search
from unispeech_sb.inference import (
    LongFormASR,
    SpeakerDiarization,
    SpeakerVerification,
)

LOADED = {
    "asr": LongFormASR,
    "asr_pieces": LongFormASR,
    "asr_superb": LongFormASR,
    "phoneme_recognition_superb": LongFormASR,
    "with_beam": LongFormASR,
    "speaker_verification": SpeakerVerification,
    "speaker_verification_superb": SpeakerVerification,
    "speaker_verification_large": SpeakerVerification,
    "speaker_diarization": SpeakerDiarization,
    "speaker_diarization_vc": SpeakerDiarization,
}
"""Export -> the interface that loads it."""

each = pytest.mark.parametrize("name", LOADED)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Exports by name; not to be changed."""
    folder = tmp_path_factory.mktemp("exports")
    found = write_exports(folder)
    found["with_beam"] = folder / "with_beam"
    write_beam_search(found["with_beam"], found["asr"], beam_size=5)
    return found


@pytest.fixture
def copy(folders, tmp_path):
    """Copies a folder, with another text of its yaml."""

    def copy(name, change=lambda text: text):
        target = tmp_path / "copy"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(folders[name], target)
        path = target / "hyperparams.yaml"
        path.write_text(change(path.read_text()))
        return target

    return copy


@each
def test_a_folder_loads_as_speechbrain_loads_it(name, folders):
    ours = LOADED[name].from_hparams(folders[name])
    theirs = LOADED[name].from_hparams(str(folders[name]), trust=True)
    expected = theirs.mods.state_dict()
    assert len(expected) > 10
    assert ours.mods.state_dict().keys() == expected.keys()
    for key, value in ours.mods.state_dict().items():
        assert value.device.type == "cpu"
        assert torch.equal(value, expected[key]), key
    assert vars(ours.hparams).keys() == vars(theirs.hparams).keys()
    assert not ours.mods.training
    assert not any(p.requires_grad for p in ours.mods.parameters())


@each
def test_no_plant_runs(name, copy, tmp_path, monkeypatch):
    plants.plant_module(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    text = copy(name).joinpath("hyperparams.yaml").read_text()
    texts = plants.planted(text, tmp_path)
    assert len(texts) >= 20
    for planted in texts.values():
        folder = copy(name, lambda _, planted=planted: planted)
        (folder / "custom.py").write_text(f"import {plants.MODULE}")
        with pytest.raises(ValueError, match="hyperparams.yaml"):
            LOADED[name].from_hparams(folder)
        assert not (tmp_path / "ran").exists()
    assert plants.MODULE not in sys.modules


def test_a_plant_runs_where_the_user_says_so(copy, tmp_path):
    plant = plants.TAGS["apply"].format(ran=tmp_path / "ran")
    folder = copy("asr", lambda text: f"{text}\n{plant}\n")
    LongFormASR.from_hparams(str(folder), trust=True)
    assert (tmp_path / "ran").exists()


def test_a_speaker_model_by_name_is_checked_too(copy, folders, tmp_path):
    plant = plants.TAGS["apply"].format(ran=tmp_path / "ran")
    bad = copy("speaker_verification", lambda text: f"{text}\n{plant}\n")
    good = folders["speaker_diarization"]
    with pytest.raises(ValueError, match="!apply:os.system"):
        SpeakerDiarization.from_hparams(good, speaker_model=bad)
    assert not (tmp_path / "ran").exists()
    SpeakerDiarization.from_hparams(good, speaker_model=str(bad), trust=True)
    assert (tmp_path / "ran").exists()
    with pytest.raises(ValueError, match="a folder for SpeakerRecognition"):
        SpeakerDiarization.from_hparams(good, speaker_model=folders["asr"])


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_size: 16": "hidden_size: 4096"},
        {"intermediate_size: 32": "intermediate_size: 65536"},
        {"num_hidden_layers: 2": "num_hidden_layers: 256"},
        {"num_classes: 9": "num_classes: 1000000"},
        {"input_size: 16": "input_size: 1000000"},
        {"conv_dim: [8": "conv_dim: [16384"},
    ],
)
def test_a_size_that_no_file_has_is_not_allocated(changes, copy):
    def change(text):
        for old, new in changes.items():
            old = re.sub("9$", r"\\d+", old).replace("[", r"\[")
            text, count = re.subn(old, new, text, count=1)
            assert count == 1
        return text

    folder = copy("asr", change)
    before = resource.getrusage(resource.RUSAGE_SELF)
    with pytest.raises(
        ValueError, match=r"\.ckpt does not fit |copy: expected"
    ):
        LongFormASR.from_hparams(folder)
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert after.ru_maxrss - before.ru_maxrss < 50_000  # KB


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("input_size: 16", "input_sizes: 16"), "arguments of FrameHead"),
        (("input_size: 16", "input_size: x"), "input_size of FrameHead to be"),
        (("    dropout: 0.0", "    dropout: True"), "dropout of F"),
        (("    encoder: !new:", "    x: !new:"), "encoder among them; got x"),
        (("modules:\n", "modules:\n    pop: !ref <head>\n"), "got pop, enc"),
        (("sample_rate: 16000", "compile: True"), "no option of a run; got co"),
        (("sample_rate: 16000", "device: cuda"), "no option of a run; got dev"),
        (("        blank_index: !ref", "        blank: !ref"), "got 'blank'"),
        (("        backbone: !ref <backbone>\n        head", "        head"),
         "arguments of FramePosteriors"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_sentence(change, expected, copy):
    folder = copy("asr", lambda text: text.replace(*change, 1))
    with pytest.raises(ValueError) as caught:
        LongFormASR.from_hparams(folder)
    sentence = str(caught.value)
    assert sentence.startswith(f"{folder}/hyperparams.yaml")
    assert expected in sentence and "\n" not in sentence


@each
def test_a_key_that_an_interface_needs_is_missed_by_name(name, copy):
    for key in LOADED[name].HPARAMS_NEEDED:
        rename = partial(re.sub, f"(?m)^{key}:", f"other_{key}:")
        folder = copy(name, rename)
        with pytest.raises(ValueError) as caught:
            LOADED[name].from_hparams(folder)
        sentence = str(caught.value)
        assert sentence.startswith(str(folder)) and "\n" not in sentence
        if not sentence.startswith(f"{folder}: expected a folder for "):
            assert sentence.startswith(f"{folder}/hyperparams.yaml: ")
            assert sentence.endswith(f"got no {key}")


def test_a_folder_is_checked_for_its_kind_first(folders, monkeypatch):
    monkeypatch.setattr(torch.nn.Module, "__init__", None)
    for folder in folders.values():
        right = INTERFACES[folder_kind(folder)].ours.rpartition(".")[2]
        wrong = {i for i in LOADED.values() if i.__name__ != right}
        assert wrong
        for interface in wrong:
            with pytest.raises(ValueError, match="expected a folder for"):
                interface.from_hparams(folder)


def test_any_model_embeds_only_when_told(folders):
    folder = folders["keyword_spotting"]
    with pytest.raises(ValueError, match="it is for EncoderClassifier"):
        SpeakerVerification.from_hparams(folder)
    model = SpeakerVerification.from_hparams(folder, any_model=True)
    assert model.embed(torch.randn(16000)).vector.dim() == 1
    with pytest.raises(ValueError, match="it is for EncoderASR"):
        SpeakerVerification.from_hparams(folders["asr"], any_model=True)


def test_a_huge_file_of_labels_is_not_read(copy):
    folder = copy("asr")
    with open(folder / "tokenizer.ckpt", "r+b") as file:
        file.truncate(2**30)
    with pytest.raises(ValueError, match="tokenizer.ckpt: expected at most"):
        LongFormASR.from_hparams(folder)


def test_overrides_and_options_are_taken(folders):
    asr = LongFormASR.from_hparams(
        folders["asr"], overrides={"head": {"dropout": 0.5}}, window_s=3.0
    )
    assert asr.window_s == 3.0
    assert asr.mods.encoder.head.config["dropout"] == 0.5


def test_files_are_fetched_as_speechbrain_fetches_them(folders, tmp_path):
    source = FetchSource(FetchFrom.LOCAL, str(folders["asr"]))
    places = {"source": source, "savedir": str(tmp_path / "saved")}
    assert LongFormASR.from_hparams(**places, download_only=True) is None
    names = {path.name for path in (tmp_path / "saved").iterdir()}
    assert {"hyperparams.yaml", "backbone.ckpt", "head.ckpt"} <= names
    asr = LongFormASR.from_hparams(**places)
    assert asr.hparams.savedir == places["savedir"]


def test_a_yaml_of_another_name_is_checked_as_well(copy, tmp_path):
    folder = copy("asr")
    (folder / "hyperparams.yaml").rename(folder / "own.yaml")
    LongFormASR.from_hparams(folder, "own.yaml")
    plant = plants.TAGS["apply"].format(ran=tmp_path / "ran")
    with open(folder / "own.yaml", "a") as file:
        file.write(f"{plant}\n")
    with pytest.raises(ValueError, match="own.yaml, line .*!apply:os.system"):
        LongFormASR.from_hparams(folder, hparams_file="own.yaml")
    assert not (tmp_path / "ran").exists()


def test_what_is_no_folder_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="expected a folder with hyperparams"):
        LongFormASR.from_hparams(tmp_path)
