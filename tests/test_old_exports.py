"""Folders that an earlier version wrote still load, and give the same.

``tests/fixtures/old_exports/make.py`` has made them, and tells how. Where a
class has moved, ``unispeech_sb/moved.py`` keeps its old path alive.
"""

import json
import math
import os
import pydoc
import re
import shutil
import tarfile
from importlib import import_module
from pathlib import Path

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml
from safetensors.torch import load_file

from tests.fixtures.old_exports import outputs, sounds
from unispeech_sb.cli import main as command_line
from unispeech_sb.nnet import transformer

HERE = Path(__file__).parent / "fixtures" / "old_exports"
FOLDERS = {
    "exports": (
        "asr", "asr_pieces", "asr_superb", "beam_search", "keyword_spotting",
        "keyword_spotting_superb", "multi_label", "phoneme_recognition",
        "phoneme_recognition_superb", "pretrain_unispeech",
        "pretrain_unispeech_sat", "speaker_diarization",
        "speaker_diarization_superb", "speaker_diarization_vc",
        "speaker_identification", "speaker_verification",
        "speaker_verification_large", "speaker_verification_superb", "tune_lm",
    ),
    "converted": (
        "authors_sd_eend_vc", "authors_sv_ecapa", "fairseq_second_stage",
        "fairseq_unispeech_ctc", "fairseq_unispeech_pretrain",
        "fairseq_unispeech_sat_ctc", "fairseq_unispeech_sat_pretrain",
        "hf_UniSpeechForCTC", "hf_UniSpeechForPreTraining",
        "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", "hf_UniSpeechModel",
        "hf_UniSpeechSatForAudioFrameClassification", "hf_UniSpeechSatForCTC",
        "hf_UniSpeechSatForPreTraining",
        "hf_UniSpeechSatForSequenceClassification",
        "hf_UniSpeechSatForXVector", "hf_UniSpeechSatModel", "hf_languages",
        "hf_old_weight_norm", "s3prl_diarization", "s3prl_emotion",
        "s3prl_speech_commands", "s3prl_sv_voxceleb1", "s3prl_voxceleb1",
    ),
    "training": ("asr", "keyword_spotting"),
}  # fmt: skip
"""Archive -> folders that have a file with expected outputs beside them."""

LOADED = [
    f"{archive}/{name}"
    for archive in ("exports", "converted")
    for name in FOLDERS[archive]
]
YAMLS = (
    "asr", "asr_superb", "keyword_spotting", "keyword_spotting_superb",
    "make_units", "phoneme_recognition", "phoneme_recognition_superb",
    "pretrain_unispeech", "pretrain_unispeech_continued",
    "pretrain_unispeech_large", "pretrain_unispeech_sat",
    "pretrain_unispeech_sat_base", "pretrain_unispeech_sat_large",
    "speaker_diarization", "speaker_diarization_superb",
    "speaker_diarization_vc", "speaker_identification",
    "speaker_identification_superb", "speaker_verification",
    "speaker_verification_large", "speaker_verification_superb",
)  # fmt: skip
CLOSE = {"rel_tol": 1e-4, "abs_tol": 2e-5}
"""Of outputs: other processors and versions of torch round otherwise."""

TRAINED = {"rel_tol": 1e-3, "abs_tol": 1e-3}
"""Of weights that Adam has moved by 0.01 a few times."""

KEY = re.compile(r"(?m)^([a-z]\w*):")
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def old(tmp_path_factory):
    """What the archives hold, a folder for each; not to be changed."""
    folder = tmp_path_factory.mktemp("old")
    for path in HERE.glob("*.tar.xz"):
        with tarfile.open(path) as archive:
            archive.extractall(
                folder / path.name.removesuffix(".tar.xz"), filter="data"
            )
    return folder


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """The recordings that the old runs had; not to be changed."""
    return sounds.write_corpus(tmp_path_factory.mktemp("corpus"))


def expected_of(folder):
    """What is stored of a folder."""
    return json.loads(folder.with_name(f"{folder.name}.json").read_text())


def assert_close(found, expected, where, close=CLOSE):
    """Compares plain data, numbers in texts too, within a tolerance."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for key, value in expected.items():
            assert_close(found[key], value, f"{where}: {key}", close)
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for place, value in enumerate(expected):
            assert_close(found[place], value, f"{where}[{place}]", close)
    elif isinstance(expected, str):
        assert NUMBER.split(found) == NUMBER.split(expected), where
        numbers = zip(NUMBER.findall(found), NUMBER.findall(expected))
        for one, other in numbers:
            # Rounded to some digits: the last one may differ
            digits = len(other.partition(".")[2])
            least = 1.1 * 10**-digits * (digits > 0)
            least = {"rel_tol": 0, "abs_tol": max(least, 1e-5 * (digits > 5))}
            assert math.isclose(float(one), float(other), **least), (
                f"{where}: expected {expected!r}; got {found!r}"
            )
    elif isinstance(expected, float):
        assert math.isclose(found, expected, **close), (
            f"{where}: expected {expected}; got {found}"
        )
    else:
        assert found == expected, where


def test_the_archives_hold_what_is_listed(old):
    found = {path.name for path in old.iterdir()}
    assert found == {"exports", "converted", "training", "yamls"}
    for archive, names in FOLDERS.items():
        stored = {path.stem for path in (old / archive).glob("*.json")}
        assert stored == set(names)
    assert len(LOADED) == 43
    assert {path.stem for path in (old / "yamls").iterdir()} == set(YAMLS)
    assert sum(path.stat().st_size for path in HERE.iterdir()) < 2e6


def states_of(found):
    """Hidden states among the outputs of a folder."""
    return [output["states"] for output in found.values() if "states" in output]


def without_padding(old, states):
    """Puts zeros where the second row of ``sounds.batch`` ends: old versions
    had anything there. States are [..., B, T, D] in lists."""
    if isinstance(old[0][0][0], list):
        for layer, own in zip(old, states, strict=True):
            without_padding(layer, own)
        return
    for time, vector in enumerate(states[1] if len(states) > 1 else ()):
        if not any(vector):
            assert time >= 0.7 * len(states[1])
            old[1][time] = [0.0] * len(vector)


@pytest.mark.parametrize("name", LOADED)
def test_a_folder_gives_what_it_gave(name, old):
    if name == "exports/tune_lm":
        pytest.importorskip("kenlm", reason="the extra lm is not installed")
    expected = expected_of(old / name)["outputs"]
    assert len(expected) >= 1
    found = outputs.outputs(old / name, expected)
    for old_states, states in zip(states_of(expected), states_of(found)):
        without_padding(old_states, states)
    facts = expected.get("describe", {})  # it may tell more than it did
    found["describe"] = {fact: found["describe"][fact] for fact in facts}
    assert_close(found, {"describe": {}, **expected}, name)


def test_class_paths_of_old_yamls_are_found(old):
    paths = set()
    for archive in FOLDERS:
        for file in (old / archive).glob("*.json"):
            paths |= set(json.loads(file.read_text())["classes"])
    for file in [*old.glob("yamls/*"), *old.glob("training/*/*.yaml")]:
        paths |= set(outputs.class_paths(file.read_text()))
    assert len(paths) > 50
    assert [path for path in sorted(paths) if pydoc.locate(path) is None] == []


def test_classes_in_old_weight_files_are_found(old):
    named = set()
    for file in old.glob("*/*/*.ckpt"):
        found = re.match(rb'.{8}{"__metadata__":{"lobe":"({.*?})"}',
                         file.read_bytes(), re.DOTALL)  # fmt: skip
        if found:
            note = json.loads(json.loads(b'"' + found.group(1) + b'"'))
            named.add(note["class"])
    assert len(named) >= 12
    assert [name for name in sorted(named) if pydoc.locate(name) is None] == []


def test_imports_in_old_readmes_work(old):
    imports = set()
    for readme in old.glob("*/*/README.md"):
        text = readme.read_text()
        imports |= set(re.findall(r"(?m)^from (\S+) import (\w+)$", text))
    assert len(imports) >= 6
    for module, name in imports:
        assert hasattr(import_module(module), name)


def test_old_embeddings_are_read_and_kept(old, tmp_path):
    from unispeech_sb.inference.gallery import Gallery

    file = tmp_path / "embeddings.safetensors"
    shutil.copy(old / "exports" / "embeddings.safetensors", file)
    os.utime(file, (2**32, 2**32))  # no recording was modified since
    source = old / "exports" / "speaker_verification"
    expected = load_file(file)
    gallery = Gallery.load(file)
    assert gallery.names == ["a.wav", "b.wav"]
    assert torch.equal(gallery.vectors, expected["vectors"])
    said = outputs.command("embed", source, "a.wav", "b.wav", "-o", file)
    assert re.search(r": 2 \w+, 2 of them from before$", said["printed"])
    assert torch.equal(load_file(file)["vectors"], expected["vectors"])


def placed(folder, copy, corpus):
    """A copy of an old folder whose texts name today's places."""
    shutil.copytree(folder, copy)
    places = {"CORPUS": str(corpus), "RUN": str(copy)}
    for path in copy.rglob("*"):
        if path.suffix in (".csv", ".tsv", ".yaml"):
            text = path.read_text("utf-8")
            path.write_text(
                re.sub(r"\b(CORPUS|RUN)\b", lambda m: places[m.group()], text),
                "utf-8",
            )
    return copy


def run(name, yaml, *options):
    """Runs a recipe, as the command does."""
    return import_module(f"recipes.{name}").main([str(yaml), *options])


def test_old_units_are_trained_on(root, old, corpus, tmp_path):
    units = placed(old / "exports" / "make_units", tmp_path / "units", corpus)
    expected = expected_of(old / "exports" / "pretrain_unispeech_sat")
    found = run(
        "pretrain_unispeech_sat", root / "hparams/pretrain_unispeech_sat.yaml",
        f"--units_folder={units}", f"--output_folder={tmp_path / 'out'}",
        "--seed=1337", *expected["options"],  # the default of old versions
    )  # fmt: skip
    assert_close(found, expected["scores"], "scores", TRAINED)


@pytest.mark.parametrize("form", ["same command", "its own yaml"])
@pytest.mark.parametrize("name", FOLDERS["training"])
def test_a_stopped_run_goes_on(
    name, form, root, old, corpus, tmp_path, monkeypatch
):
    # With padding dropout draws the numbers that it drew in old versions
    monkeypatch.setattr(transformer, "makes_graph", lambda: True)
    expected = expected_of(old / "training" / name)
    folder = placed(old / "training" / name, tmp_path / "run", corpus)
    if form == "same command":
        found = run(
            name, root / f"hparams/{name}.yaml", f"--data_folder={corpus}",
            f"--output_folder={folder}", *expected["options"],
        )  # fmt: skip
    else:
        own = [o for o in expected["options"] if o.partition("=")[0] in OURS]
        yaml = shutil.move(folder / "hyperparams.yaml", tmp_path / "own.yaml")
        found = run(name, yaml, "--skip_prep=True", *own)
    assert_close(found, expected["scores"], "scores", TRAINED)
    weights = {
        f"{file}.{tensor}": outputs.some_numbers(numbers)
        for file in ("backbone", "head")
        for tensor, numbers in load_file(
            folder / "export" / f"{file}.ckpt"
        ).items()
    }
    for tensor, numbers in expected["weights"].items():
        if not tensor.endswith("k_proj.bias"):  # no matter to attention
            assert_close(weights.pop(tensor), numbers, tensor, TRAINED)
    assert all(tensor.endswith("k_proj.bias") for tensor in weights)
    again = outputs.outputs(folder / "export", expected["outputs"])
    assert_close(again, expected["outputs"], name, {"abs_tol": 0.01})


OURS = ("--noprogressbar", "--device", "--ckpt_interval_steps")
"""Options of SpeechBrain, which the yaml of a run does not keep."""


@pytest.mark.parametrize("name", YAMLS)
def test_an_old_yaml_of_a_recipe_builds(name, root, old, tmp_path):
    text = (old / "yamls" / f"{name}.yaml").read_text()
    keys = set(KEY.findall(text))
    today = (root / "hparams" / f"{name}.yaml").read_text()
    assert keys <= set(KEY.findall(today))
    blank = re.findall(r"(?m)^(\w+): !PLACEHOLDER", text)
    overrides = dict.fromkeys(blank, "x") | {"model": "tiny"}
    hparams = load_hyperpyyaml(
        text, {**overrides, "output_folder": str(tmp_path)}
    )
    assert keys <= hparams.keys()


def test_an_old_folder_is_told_of_by_the_command(old, capsys):
    assert command_line(["info", str(old / "exports" / "asr")]) == 0
    assert "pretrained folder of unispeech_sb" in capsys.readouterr().out
