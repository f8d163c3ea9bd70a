"""Whatever this package writes, each command takes it or says who does."""

import re
import shutil
import sys
from contextlib import suppress

import pytest

from tests.checkpoints import plants
from tests.convert.exports import write_exports, write_others, write_sounds
from tests.inference.models import save_arpa
from unispeech_sb.checkpoints.interfaces import INTERFACES, folder_kind
from unispeech_sb.cli import main
from unispeech_sb.lobes.backbone import Backbone

KINDS = {
    "keyword_spotting": "EncoderClassifier",
    "emotion_recognition": "EncoderClassifier",
    "intent_classification": "EncoderClassifier",
    "speaker_identification": "EncoderClassifier",
    "asr": "EncoderASR",
    "asr_pieces": "EncoderASR",
    "asr_superb": "EncoderASR",
    "slot_filling": "EncoderASR",
    "slot_filling_superb": "EncoderASR",
    "phoneme_recognition": "EncoderASR",
    "phoneme_recognition_superb": "EncoderASR",
    "speaker_verification": "SpeakerRecognition",
    "speaker_verification_superb": "SpeakerRecognition",
    "speaker_verification_large": "SpeakerRecognition",
    "speaker_diarization": "SpeakerDiarization",
    "speaker_diarization_vc": "SpeakerDiarization",
    "pretrain_unispeech": "WaveformEncoder",
    "pretrain_unispeech_continued": "WaveformEncoder",
    "pretrain_unispeech_sat": "WaveformEncoder",
    "ForAudioFrameClassification": "SpeakerDiarization",
    "ForCTC": "WaveformEncoder",  # without a vocabulary
    "ForPreTraining": "WaveformEncoder",
    "ForSequenceClassification": "EncoderClassifier",
    "ForXVector": "SpeakerRecognition",
    "Model": "WaveformEncoder",
    "hugging_face": "Hugging Face",
    "with_beam": "EncoderASR",
    "run": "run",
    "checkpoint": "training checkpoint",
    "checkpoints": "training checkpoint",
    "units": "units",
    "lobe": "file",
    "backbone": "file",
    "nothing": "",
}
"""What is written -> its kind."""

NOT_IN_TRANSFORMERS = {
    "speaker_identification": "StatisticsHead",
    "asr_pieces": "SentencePiece",
    "asr_superb": "RecurrentHead",
    "intent_classification": "6 labels of 5 outputs",
    "slot_filling": "tags of slots",
    "slot_filling_superb": "RecurrentHead",
    "phoneme_recognition_superb": "ProjectedFrameHead",
    "speaker_verification": "StatisticsHead",
    "speaker_verification_large": "ECAPAHead",
    "speaker_diarization": "DiarizationHead",
    "speaker_diarization_vc": "EENDVCHead",
    "pretrain_unispeech_continued": "this objective",
}
"""Folder -> what ``to-hf`` names when it refuses."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory, root):
    """Everything that is written, by name."""
    folder = tmp_path_factory.mktemp("own")
    exports = write_exports(folder)
    yaml = root / "hparams" / "asr.yaml"
    return exports | write_others(folder, exports, yaml)


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """Recordings and lists of them."""
    folder = tmp_path_factory.mktemp("sounds")
    write_sounds(folder)
    return folder


CONVERTED = ("hugging_face", "checkpoint", "backbone")
"""What ``convert`` makes a folder of."""

each = pytest.mark.parametrize("name", KINDS)


def test_all_that_is_written_is_looked_at(folders):
    assert folders.keys() == KINDS.keys()


@each
def test_a_folder_is_told_by_its_names(name, folders):
    assert folder_kind(folders[name]) == KINDS[name]


COMMANDS = {
    "transcribe": ("EncoderASR", "{folder} {sounds}/a.wav"),
    "tune-lm": ("EncoderASR", "{folder} {sounds}/table.csv --lm no.arpa"),
    "diarize": ("SpeakerDiarization", "{folder} {sounds}/a.wav"),
    "classify": ("EncoderClassifier", "{folder} {sounds}/a.wav"),
    "embed": ("SpeakerRecognition", "{folder} {sounds}/a.wav -o {new}"),
    "verify": (
        "SpeakerRecognition",
        "{folder} {sounds}/a.wav {sounds}/b.wav --threshold 0.5",
    ),
    "score": (
        "SpeakerRecognition",
        "{folder} --trials {sounds}/trials.txt --audio-root {sounds} --draws 0",
    ),
}
"""Command -> the interface that it needs, its arguments."""


ANY = {"features": "{folder} {sounds}/a.wav -o {new}"}
"""Commands that take a folder of any interface."""


def run(command, pattern, capsys, **paths):
    """Runs a command; its exit code and the lines of its error."""
    arguments = pattern.format(**paths).split()
    code = main([command, *arguments])
    errors = capsys.readouterr().err.splitlines()
    return code, [e for e in errors if e.startswith("unispeech-sb: ")]


@pytest.mark.parametrize("command", COMMANDS)
@each
def test_a_command_takes_its_folders_and_names_the_rest(
    command, name, folders, sounds, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    wanted, pattern = COMMANDS[command]
    folder, kind = folders[name], KINDS[name]
    if command == "tune-lm" and kind == wanted:
        return  # tests/inference/test_tune_lm.py
    code, errors = run(
        command, pattern, capsys,
        folder=folder, sounds=sounds, new=tmp_path / "new",
    )  # fmt: skip
    if kind == wanted:
        assert (code, errors) == (0, [])
        return
    assert code == 1 and len(errors) == 1
    expected = "expected a folder with hyperparams.yaml"
    if kind in INTERFACES:
        expected = rf"expected a folder for {wanted}; it is for {kind}: \S+"
    elif kind:
        expected = rf"expected a folder for {wanted}; it is (a|the) "
    assert re.match(
        re.escape(f"unispeech-sb: {folder}: ") + expected, errors[0]
    )
    if name in ("run", "checkpoint", "checkpoints"):
        assert errors[0].endswith(f"is {folders['run'] / 'export'}")


@each
def test_a_folder_of_any_interface_has_features(
    name, folders, sounds, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    code, errors = run(
        "features", ANY["features"], capsys,
        folder=folders[name], sounds=sounds, new=tmp_path / "new",
    )  # fmt: skip
    right = KINDS[name] in INTERFACES or name == "hugging_face"
    assert (code, len(errors)) == ((0, 0) if right else (1, 1))
    assert (tmp_path / "new" / "a.npy").exists() == right


def test_a_speaker_model_is_checked_as_well(folders, sounds, capsys):
    pattern = "{folder} {sounds}/a.wav --speaker-model {speakers}"
    paths = {"folder": folders["speaker_diarization"], "sounds": sounds}
    for name, right in (("asr", 1), ("speaker_verification", 0)):
        paths["speakers"] = folders[name]
        code, errors = run("diarize", pattern, capsys, **paths)
        assert code == right and len(errors) == right
        if errors:
            assert (
                f"{folders[name]}: expected a folder for Speaker" in errors[0]
            )


OF_A_KIND = (
    *("asr", "keyword_spotting", "speaker_verification"),
    *("speaker_diarization", "pretrain_unispeech", "with_beam"),
)
"""A folder of each interface."""
WITHOUT_YAML = {"info": "{folder}", "to-hf": "{folder} {new}",
                "convert": "{folder} {new}"}  # fmt: skip
"""Commands that build nothing of a folder's yaml."""
FEW = ("apply", "include", "argument", "loader")
"""Plants for the commands that do not read the whole yaml of a folder."""


@pytest.fixture
def ran(tmp_path, monkeypatch):
    """What planted code makes."""
    plants.plant_module(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "ran"


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_A_KIND)
@pytest.mark.parametrize("command", [*COMMANDS, *ANY, *WITHOUT_YAML])
def test_nothing_planted_runs(
    command, name, folders, sounds, ran, tmp_path, capsys
):
    copy = shutil.copytree(folders[name], tmp_path / "copy")
    yaml = copy / "hyperparams.yaml"
    others = {**ANY, **WITHOUT_YAML}
    wanted, pattern = COMMANDS.get(command, (None, others.get(command)))
    if command == "tune-lm":
        pytest.importorskip("kenlm", reason="the extra lm is not installed")
        arpa = save_arpa(tmp_path / "words.arpa", so=-1.0, it=-1.0)
        pattern = pattern.replace("no.arpa", str(arpa))
    reads = KINDS[name] == wanted or command in ANY or name == "asr"
    for kind, text in plants.planted(yaml.read_text(), tmp_path).items():
        if not reads and kind not in FEW:
            continue
        yaml.write_text(text)
        paths = {"folder": copy, "sounds": sounds}
        paths["new"] = tmp_path / f"new-{kind.replace(' ', '-')}"
        code, errors = run(command, pattern, capsys, **paths)
        assert not ran.exists()
        assert (code, len(errors)) in {(1, 1), (0, 0)}
        if KINDS[name] == wanted or command in ANY:
            assert code == 1 and str(yaml) in errors[0]
            assert kind not in plants.LIVE or "--trust" in errors[0]
    assert plants.MODULE not in sys.modules


@pytest.mark.parametrize("name", OF_A_KIND)
def test_nothing_planted_runs_where_a_recipe_starts_from_it(
    name, folders, ran, tmp_path
):
    copy = shutil.copytree(folders[name], tmp_path / "copy")
    yaml = copy / "hyperparams.yaml"
    for text in plants.planted(yaml.read_text(), tmp_path).values():
        yaml.write_text(text)
        with suppress(ValueError):
            assert Backbone.from_preset(str(copy)).dim == 16
        assert not ran.exists()


def test_what_is_trusted_runs(folders, sounds, ran, tmp_path, capsys):
    copy = shutil.copytree(folders["asr"], tmp_path / "copy")
    plant = plants.TAGS["apply"].format(ran=ran)
    with open(copy / "hyperparams.yaml", "a") as file:
        file.write(f"{plant}\n")
    paths = {"folder": copy, "sounds": sounds}
    pattern = "{folder} {sounds}/a.wav"
    assert run("info", "{folder}", capsys, **paths)[0] == 0
    assert run("transcribe", pattern, capsys, **paths)[0] == 1
    assert not ran.exists()
    assert run("transcribe", f"{pattern} --trust", capsys, **paths)[0] == 0
    assert ran.exists()


def test_a_planted_speaker_model_does_not_run(
    folders, sounds, ran, tmp_path, capsys
):
    copy = shutil.copytree(folders["speaker_verification"], tmp_path / "copy")
    plant = plants.TAGS["apply"].format(ran=ran)
    with open(copy / "hyperparams.yaml", "a") as file:
        file.write(f"{plant}\n")
    code, errors = run(
        "diarize", "{folder} {sounds}/a.wav --speaker-model {copy}", capsys,
        folder=folders["speaker_diarization"], sounds=sounds, copy=copy,
    )  # fmt: skip
    assert code == 1 and "!apply:os.system" in errors[0] and not ran.exists()


def test_embed_takes_any_model_when_told(folders, sounds, tmp_path, capsys):
    code, errors = run(
        "embed", "{folder} {sounds}/a.wav -o {new}", capsys,
        folder=folders["keyword_spotting"], sounds=sounds, new=tmp_path / "a",
    )  # fmt: skip
    assert code == 1 and errors[0].endswith("need --any-model")
    pattern = "{folder} {sounds}/a.wav -o {new} --any-model"
    for name, right in (
        ("keyword_spotting", 0), ("asr", 1), ("speaker_diarization", 1),
    ):  # fmt: skip
        code, errors = run(
            "embed", pattern, capsys,
            folder=folders[name], sounds=sounds, new=tmp_path / name,
        )  # fmt: skip
        assert code == right == len(errors)


@each
def test_a_folder_is_as_its_sums_say(name, folders, tmp_path, capsys):
    folder = folders[name]
    if KINDS[name] not in INTERFACES:
        assert main(["info", "--verify", str(folder)]) == 1
        assert "expected a folder with SHA256SUMS" in capsys.readouterr().err
        return
    assert main(["info", "--verify", str(folder)]) == 0
    assert " files as SHA256SUMS has them" in capsys.readouterr().out
    copy = shutil.copytree(folder, tmp_path / "copy")
    with open(copy / "backbone.ckpt", "ab") as file:
        file.write(b"0")
    (copy / "README.md").unlink()
    (copy / "custom.py").touch()
    with pytest.raises(SystemExit) as caught:
        main(["info", "--verify", str(copy)])
    assert caught.value.code == 1
    assert capsys.readouterr().out.splitlines()[:3] == [
        "changed  backbone.ckpt", "missing  README.md", "extra    custom.py",
    ]  # fmt: skip


@each
def test_info_describes_all_of_it(name, folders, capsys):
    code = main(["info", str(folders[name])])
    out, err = capsys.readouterr()
    if name == "nothing":
        assert code == 1 and "expected a checkpoint" in err
        return
    assert (code, err) == (0, "")
    lines = out.splitlines()
    rows = dict(line.split("  ", 1) for line in lines if "  " in line)
    interface = INTERFACES.get(KINDS[name])
    if interface:
        assert interface.task in rows["task"]
        assert interface.speechbrain in rows["interface"]
        assert interface.ours in rows.get("our class", "")
    if folders[name].name == "export":
        assert "EER 3.5 on test" in rows["scores"]
        assert "0.25" in rows["trained: lr"]
    not_all = [line for line in lines if "would not convert" in line]
    assert len(not_all) == 1
    if name in NOT_IN_TRANSFORMERS:
        assert NOT_IN_TRANSFORMERS[name] in not_all[0]
        assert "--backbone-only" in not_all[0]
    elif interface:
        assert not_all == ["would not convert: nothing"]


@each
def test_to_hf_writes_what_info_promises(name, folders, tmp_path, capsys):
    pattern, folder = "{folder} {new}", folders[name]
    paths = {"folder": folder, "new": tmp_path / "new"}
    code, errors = run("to-hf", pattern, capsys, **paths)
    converted = name in CONVERTED
    if KINDS[name] in INTERFACES and name not in NOT_IN_TRANSFORMERS:
        converted = True
    if converted:
        assert (code, errors) == (0, [])
        return
    assert code == 1 and len(errors) == 1 and not paths["new"].exists()
    if name not in NOT_IN_TRANSFORMERS:
        what = "checkpoint" if name == "lobe" else "pretrained folder"
        assert f"{folder}: expected a {what}" in errors[0]
        return
    assert NOT_IN_TRANSFORMERS[name] in errors[0]
    assert "--backbone-only writes the backbone" in errors[0]
    code, _ = run("to-hf", pattern + " --backbone-only", capsys, **paths)
    assert code == 0 and (paths["new"] / "config.json").is_file()


@each
def test_convert_takes_what_is_no_folder_for_an_interface(
    name, folders, tmp_path, capsys
):
    code, errors = run(
        "convert", "{folder} {new}", capsys,
        folder=folders[name], new=tmp_path / "new",
    )  # fmt: skip
    if name in CONVERTED:
        assert code == 0
        return
    assert code == 1 and len(errors) == 1
    assert f"{folders[name]}: expected a checkpoint" in errors[0]
    assert name == "nothing" or "another framework; it is " in errors[0]


@each
def test_a_backbone_is_loaded_or_the_way_to_it_is_named(name, folders):
    has_none = ("run", "checkpoints", "units", "lobe", "nothing")
    if name not in has_none:
        assert Backbone.from_pretrained(folders[name]).dim == 16
        return
    with pytest.raises(ValueError, match=": expected") as found:
        Backbone.from_pretrained(folders[name])
    assert "\n" not in str(found.value)
    if name in ("run", "checkpoints"):
        assert str(found.value).endswith(f"is {folders['run'] / 'export'}")


def test_a_file_of_another_module_is_no_backbone(folders, tmp_path, capsys):
    folder = shutil.copytree(folders["keyword_spotting"], tmp_path / "mixed")
    shutil.copy(folder / "head.ckpt", folder / "backbone.ckpt")
    options = [str(folder), str(tmp_path / "new"), "--backbone-only"]
    assert main(["to-hf", *options]) == 1
    assert "backbone.ckpt: expected a Backbone; got" in capsys.readouterr().err
