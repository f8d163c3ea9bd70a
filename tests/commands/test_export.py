"""The command ``export --to``: its arguments, and what it writes."""

import json
import re
import shlex

import numpy as np
import pytest
import soundfile
import torch

from tests.inference.graph_models import noise, save
from unispeech_sb.commands import main
from unispeech_sb.commands.convert import export

WITHOUT = {"onnx": "onnxruntime", "openvino": "openvino"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with small models."""
    folder = tmp_path_factory.mktemp("export")
    for name, kind in (("asr", "frames"), ("speakers", "speakers")):
        save(folder / name, kind)
    return folder


@pytest.mark.parametrize("to", WITHOUT)
def test_what_is_missing_is_said_before_any_work(
    to, place, monkeypatch, capsys
):
    find = "unispeech_sb.environment.find_spec"
    monkeypatch.setattr(find, lambda name: None if name == WITHOUT[to] else 1)
    monkeypatch.chdir(place)
    assert main(["export", "asr", "--to", to]) == 1
    said = capsys.readouterr().err
    assert f"--to {to} needs the package {WITHOUT[to]}" in said
    assert "pip install 'unispeech_sb[export]'" in said
    assert main(["transcribe", "asr", "a.wav", "--engine", to]) == 1
    assert f"--engine {to} needs the pack" in capsys.readouterr().err
    assert {path.name for path in place.iterdir()} == {"asr", "speakers"}


def test_what_is_exported_already_is_named(place, tmp_path, capsys):
    assert main(["export", str(place / "asr")]) == 1
    said = capsys.readouterr().err
    assert "expected a training checkpoint, CKPT+..., or --to onnx" in said
    assert f"it is for EncoderASR: unispeech-sb transcribe {place}/asr" in said
    (tmp_path / "hyperparams.yaml").write_text("output_folder: a\n")
    assert main(["export", str(tmp_path)]) == 1
    assert "the run has no result yet" in capsys.readouterr().err
    for name in ("CKPT+1", "CKPT+2"):
        (tmp_path / "save" / name).mkdir(parents=True)
    assert main(["export", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert f"last checkpoint is {tmp_path}/save/CKPT+2" in said


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("asr --int8", "--int8: only with --to"),
        ("asr --layers 1", "--layers: only with --to"),
        ("asr --to onnx --labels a.txt", "--labels: not with --to"),
        ("asr new --to onnx -o new", "expected DST or --output; got both"),
        ("asr --to tflite", "invalid choice"),
        ("asr --to onnx --layers 1,1", "expected different numbers"),
    ],
)
def test_arguments_that_make_no_sense(
    line, sentence, place, monkeypatch, capsys
):
    monkeypatch.chdir(place)
    with pytest.raises(SystemExit) as ended:
        export(shlex.split(line))
    assert ended.value.code == 2 and sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("none/at/all --to onnx", "none/at/all: expected a folder"),
        ("asr speakers --to onnx", "speakers: expected a new folder"),
        ("asr --to onnx --layers 1", "--layers is for folders of features"),
        ("speakers --to onnx-asr", "expected a folder for EncoderASR"),
    ],
)
def test_what_cannot_be_exported(line, sentence, place, monkeypatch):
    pytest.importorskip("onnxruntime", reason="needs the extra export")
    monkeypatch.chdir(place)
    with pytest.raises(ValueError, match=sentence):
        export(shlex.split(line))
    assert {path.name for path in place.iterdir()} == {"asr", "speakers"}


@pytest.mark.slow
def test_a_folder_says_what_is_known(place, monkeypatch, capsys):
    onnx = pytest.importorskip("onnx", reason="needs the extra export")
    pytest.importorskip("onnxscript", reason="needs the extra export")
    pytest.importorskip("onnxruntime", reason="needs the extra export")
    monkeypatch.chdir(place)
    assert main(["export", "speakers", "--to", "onnx", "--int8"]) == 0
    assert "model.json, model.onnx" in capsys.readouterr().out
    about = json.loads((place / "speakers-onnx/model.json").read_text())
    assert about["class"] == "SpeakerRecognition"
    assert about["labels"] == ["s1", "s2", "s3"]
    assert (about["sampling_rate"], about["precision"]) == (16000, "int8")
    graph = onnx.load(place / "speakers-onnx/model.onnx")
    noted = {entry.key: entry.value for entry in graph.metadata_props}
    assert json.loads(noted["labels"]) == about["labels"]
    assert noted["class"] == about["class"]
    assert "MatMulInteger" in {node.op_type for node in graph.graph.node}
    assert main(["info", "speakers-onnx", "--verify"]) == 0
    (place / "speakers-onnx/model.onnx").write_bytes(b"no graph")
    with pytest.raises(SystemExit):
        main(["info", "speakers-onnx", "--verify"])
    assert "changed  model.onnx" in capsys.readouterr().out


@pytest.mark.slow
def test_onnx_asr_spells_as_this_package(place, monkeypatch):
    ort = pytest.importorskip("onnxruntime", reason="needs the extra export")
    pytest.importorskip("onnxscript", reason="needs the extra export")
    monkeypatch.chdir(place)
    export(["asr", "--to", "onnx-asr"])
    folder = place / "asr-onnx-asr"
    lines = (folder / "vocab.txt").read_text("utf-8").splitlines()
    assert lines == ["<blk> 0", "\u2581 1", "a 2", "b 3", "c 4", " 5"]
    config = json.loads((folder / "config.json").read_text())
    assert config == {"model_type": "wav2vec2-ctc", "subsampling_factor": 320}
    session = ort.InferenceSession(folder / "model.onnx")
    wavs = torch.stack([noise(20000), torch.randn(20000)]).numpy()
    feeds = {"input_values": wavs, "input_lengths": np.array([20000, 9000])}
    (scores,) = session.run(["logprobs"], feeds)
    assert (scores[1, 28:].argmax(-1) == 0).all()  # which it may look at
    models = pytest.importorskip(
        "onnx_asr.models.wav2vec2", reason="needs an onnx-asr with wav2vec2"
    )
    assert models.Wav2Vec2Ctc

    import onnx_asr

    from unispeech_sb.inference.loading import load

    theirs = onnx_asr.load_model(
        "wav2vec2-ctc", folder, providers=["CPUExecutionProvider"]
    )
    wavs = [0.3 * noise(count).numpy() for count in (20000, 9000)]
    ours = load("asr")([torch.from_numpy(wav) for wav in wavs])
    assert theirs.recognize(wavs) == [found.text for found in ours]


@pytest.mark.slow
def test_the_page_runs(tmp_path, root, monkeypatch, capsys):
    for package in ("onnxscript", "onnxruntime", "openvino"):
        pytest.importorskip(package, reason="needs the extra export")
    for name, kind in (
        ("asr", "frames"), ("keywords", "utterance"),
        ("backbone", "features, Large"),
    ):  # fmt: skip
        save(tmp_path / name, kind)
    soundfile.write(tmp_path / "talk.wav", 0.3 * noise(20000).numpy(), 16000)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    page = (root / "docs/export.md").read_text("utf-8")
    lines, code = re.findall(r"^```\w*\n(.*?)^```", page, re.M | re.S)
    assert len(lines.splitlines()) == 6
    for line in lines.splitlines():
        program, *words = shlex.split(line.replace("1,2", "0,1"))
        assert program == "unispeech-sb" and main(words) == 0, line
    made = {path.name for path in (tmp_path / "keywords-openvino").iterdir()}
    assert {"model.xml", "model.bin", "model.json", "README.md"} < made
    exec(compile(code, "docs/export.md", "exec"), {})
