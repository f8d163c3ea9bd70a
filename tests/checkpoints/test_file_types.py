"""What is said of a file or folder that is no checkpoint of these families.

Where the peer that writes such a file is installed, it writes it here."""

import gzip
import io
import json
import os
import struct
import tarfile
import zipfile

import numpy as np
import pytest
import soundfile
import torch
import transformers
from safetensors.torch import save_file
from speechbrain.inference.speaker import SpeakerRecognition
from speechbrain.utils.checkpoints import Checkpointer
from speechbrain.utils.epoch_loop import EpochCounter

from tests.huggingface import FAMILIES, save_folder, tiny_model
from unispeech_sb.checkpoints.file_types import what_file, what_folder
from unispeech_sb.checkpoints.source import read_backbone, read_checkpoint
from unispeech_sb.convert import convert_checkpoint, describe

POINTER = (
    "version https://git-lfs.github.com/spec/v1\n"
    f"oid sha256:{'0' * 64}\nsize 1262000000\n"
)
PAGE = "\n<!DOCTYPE html>\n<html><body>404: not found</body></html>"
OTHERS = {
    "pointer of Git LFS": POINTER.encode(),
    "a web page, as a failed download": PAGE.encode(),
    "an XML text, as a failed": b'<?xml version="1.0"?><Error>Denied</Error>',
    "a JSON text": b'{"error": "Repository not found"}',
    "it is a text": "pip install töröcs".encode(),
    "it is empty": b"",
    "an HDF5 file, as Keras": b"\x89HDF\r\n\x1a\n" + bytes(600),
    "model of TensorFlow Lite": b"\x1c\0\0\0TFL3" + bytes(600),
    "model in GGUF": b"GGUF\x03\0\0\0" + bytes(600),
    "model in ONNX": b"\x08\x07\x12\x07pytorch\x1a\x052.1.0" + bytes(60),
    "a language model of KenLM": b"mmap lm http://kheafield.com/code format",
    "a language model [(]ARPA": b"\\data\\\nngram 1=3\n",
}


@pytest.mark.parametrize("expected", OTHERS)
@pytest.mark.parametrize("name", ["m.pt", "m.safetensors", "pytorch_model.bin"])
def test_a_file_of_another_kind_is_named(expected, name, tmp_path):
    path = tmp_path / name
    path.write_bytes(OTHERS[expected])
    for read in (read_checkpoint, read_backbone):
        with pytest.raises(ValueError, match=expected) as caught:
            read(path)
        assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.ckpt.index", "TensorFlow checkpoint"),
        ("model.ckpt.data-00000-of-00001", "TensorFlow checkpoint"),
        ("saved_model.pb", "SavedModel"),
        ("flax_model.msgpack", "weights of Flax"),
        ("encoder.onnx", "a model in ONNX"),
        ("tf_model.h5", "weights of Keras or TensorFlow"),
        ("adapter_model.bin", "adapters of PEFT"),
    ],
)
def test_a_name_tells_where_bytes_do_not(name, expected, tmp_path):
    (tmp_path / name).write_bytes(bytes([7, 200, 1, 0]) * 200)
    with pytest.raises(ValueError, match=expected):
        read_checkpoint(tmp_path / name)
    with pytest.raises(ValueError, match=f"{name}, .*{expected}"):
        read_checkpoint(tmp_path)
    model = tiny_model("unispeech")
    model.config.save_pretrained(tmp_path)
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"there is none, .*{expected}"):
        read_checkpoint(tmp_path)


def test_bytes_that_nothing_is_known_of_are_left_to_the_readers(tmp_path):
    for content in (b"\x08\x80\x12\x07", b"\x08\x07\x99\x07", b"\xff\xfe"):
        (tmp_path / "x").write_bytes(content * 200)
        assert what_file(tmp_path / "x") is None
    (tmp_path / "x").write_bytes("ä".encode() * 256 + b"\xc3")
    assert what_file(tmp_path / "x") == "a text"


def test_weights_of_a_variant_are_named(tmp_path):
    model = tiny_model("unispeech")
    model.save_pretrained(tmp_path, variant="fp16")
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="it has model.fp16.safetensors, wei"):
        read_backbone(tmp_path)
    (tmp_path / "model.fp16.safetensors").rename(tmp_path / "model.safetensors")
    assert read_backbone(tmp_path)[2] == tmp_path


def test_what_is_no_file_is_not_opened(tmp_path):
    path = tmp_path / "pipe.pt"
    os.mkfifo(path)  # opening it would wait for a writer
    for read in (read_checkpoint, read_backbone):
        with pytest.raises((ValueError, OSError), match=r"pipe\.pt"):
            read(path)


def test_archives_say_what_they_hold(tmp_path):
    path = tmp_path / "m.pt"
    np.savez(tmp_path / "m.npz", weight=np.ones(3))
    module = torch.nn.Linear(2, 2)
    found = {(tmp_path / "m.npz").read_bytes(): "arrays of NumPy"}
    torch.jit.script(module).save(path)
    found[path.read_bytes()] = "a program of TorchScript"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("checkpoint_best.pt", "x")
    found[path.read_bytes()] = "checkpoint_best.pt; unpack it first"
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.pt"))
    found[stream.getvalue()] = "a tar archive; unpack it first"
    found[gzip.compress(b"x" * 99)] = "a gzip file; unpack it first"
    np.save(tmp_path / "a.npy", np.ones(3))
    found[(tmp_path / "a.npy").read_bytes()] = "an array of NumPy"
    soundfile.write(tmp_path / "a.wav", np.zeros(99), 16000)
    found[(tmp_path / "a.wav").read_bytes()] = "a recording .WAV"
    for content, expected in found.items():
        path.write_bytes(content)
        with pytest.raises(ValueError, match=expected):
            read_checkpoint(path)


@pytest.mark.parametrize("cut", [12, 300, -1, -4000])
def test_a_safetensors_file_cut_short_is_told_with_both_sizes(cut, tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(2000), "b": torch.zeros(3)}, path)
    whole = path.read_bytes()
    assert what_file(path) is None
    path.write_bytes(whole[:cut])
    size = len(whole[:cut])
    header = size < 8 + struct.unpack("<Q", whole[:8])[0]
    where = f"{size} bytes in its header" if header else f"of {len(whole)} byt"
    with pytest.raises(ValueError, match=f"cut short, at .*{where}"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    "offsets", ["[0, 1e999]", "[0]", "7", '[0, "x"]', "[0, [1]]", "[0, NaN]"]
)
def test_a_header_without_sense_is_left_to_safetensors(offsets, tmp_path):
    header = f'{{"a": {{"dtype": "F32", "data_offsets": {offsets}}}}}'.encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    assert what_file(path) is None
    with pytest.raises(ValueError, match="damaged or something else"):
        read_checkpoint(path)


def test_weights_inside_a_folder_are_looked_at_too(tmp_path):
    folder = save_folder(tiny_model("unispeech-sat"), tmp_path / "hf")
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    for content, expected in (
        (POINTER.encode(), "pointer of Git LFS"),
        (PAGE.encode(), "a web page"),
        (whole[:-9], f"cut short, at {len(whole) - 9} of {len(whole)} bytes"),
    ):
        weights.write_bytes(content)
        with pytest.raises(ValueError, match=expected):
            read_checkpoint(folder)
    shard = folder / "model-00001-of-00001.safetensors"
    weights.rename(shard)
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"x": shard.name}})
    )
    with pytest.raises(ValueError, match=f"{shard.name}: .*cut short"):
        read_checkpoint(folder)


@pytest.mark.parametrize("name", ["backbone.ckpt", "head.ckpt"])
def test_modules_of_our_folders_are_looked_at_too(name, tmp_path):
    save_folder(tiny_model("unispeech-sat", "ForXVector"), tmp_path / "hf")
    convert_checkpoint(tmp_path / "hf", tmp_path / "sb")
    path = tmp_path / "sb" / name
    whole = path.read_bytes()
    for content, expected in (
        (POINTER.encode(), "it is a pointer of Git LFS"),
        (whole[: len(whole) // 2], f"cut short, at .* of {len(whole)} bytes"),
    ):
        path.write_bytes(content)
        for read in (describe, to_model, describe_file(name)):
            with pytest.raises(ValueError, match=expected) as caught:
                read(tmp_path / "sb")
            assert str(path) in str(caught.value)


def to_model(folder):
    """Loads a folder as SpeechBrain does."""
    SpeakerRecognition.from_hparams(source=str(folder))


def describe_file(name):
    """Describes one file of a folder."""
    return lambda folder: describe(folder / name)


SMALL = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "intermediate_size": 16, "conv_dim": [8], "conv_kernel": [10],
    "conv_stride": [5], "num_feat_extract_layers": 1,
    "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2,
}  # fmt: skip
RELATIVES = {
    "Data2VecAudio": "a data2vec model",
}


@pytest.mark.parametrize("name", RELATIVES)
def test_a_related_model_of_transformers_is_named(name, tmp_path):
    config = getattr(transformers, f"{name}Config")(**SMALL, vocab_size=5)
    model = getattr(transformers, f"{name}ForCTC")(config)
    model.save_pretrained(tmp_path / "hf")
    weights = tmp_path / "hf" / "model.safetensors"
    with pytest.raises(ValueError, match=f"got '{config.model_type}'"):
        read_checkpoint(tmp_path / "hf")
    alone = tmp_path / "alone.safetensors"
    weights.rename(alone)
    torch.save(model.state_dict(), tmp_path / "alone.bin")
    for path in (alone, tmp_path / "alone.bin"):
        with pytest.raises(ValueError, match=f"it is {RELATIVES[name]}"):
            read_checkpoint(path)


@pytest.mark.parametrize("family", FAMILIES)
def test_our_weights_alone_ask_for_their_configuration(family, tmp_path):
    model = tiny_model(family, "ForCTC")
    torch.save(model.state_dict(), tmp_path / "weights.bin")
    with pytest.raises(ValueError, match=r"whose config.json has to stand"):
        read_checkpoint(tmp_path / "weights.bin")


@pytest.mark.parametrize(
    ("name", "tensor", "expected"),
    [
        (None, "encoder.layers.0.self_attn.grep_linear.weight", "a WavLM mode"),
        ("hubert_mr", "label_embs_concat", "got 'hubert_mr'"),
        ("data2vec_audio", "regression_head.0.weight", "a data2vec model"),
    ],
)
def test_a_related_model_of_fairseq_is_named(name, tensor, expected, tmp_path):
    options = {"encoder_layers": 1, **({"_name": name} if name else {})}
    content = {"cfg": {"model": options}, "model": {tensor: torch.ones(2)}}
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=expected):
        read_checkpoint(tmp_path / "model.pt")


def test_what_a_training_leaves_beside_its_model_is_named(tmp_path):
    weight = torch.nn.Parameter(torch.ones(2))
    adam = torch.optim.Adam([weight])
    weight.sum().backward()
    adam.step()
    path = tmp_path / "optimizer.ckpt"
    for content, expected in (
        (adam.state_dict(), "the state of an optimizer alone"),
        ({"optimizer": adam.state_dict(), "epoch": 3}, "without its model"),
        ({"state_dict": {"a": weight}, "pytorch-lightning_version": "2"},
         "PyTorch Lightning"),
    ):  # fmt: skip
        torch.save(content, path)
        with pytest.raises(ValueError, match=expected):
            read_checkpoint(path)


def test_what_speechbrain_saves_of_a_training_is_named(tmp_path):
    model = torch.nn.Linear(2, 2)
    adam = torch.optim.Adam(model.parameters())
    parts = {"model": model, "optimizer": adam, "counter": EpochCounter(3)}
    checkpointer = Checkpointer(tmp_path / "run" / "save", parts)
    saved = checkpointer.save_checkpoint(meta={"loss": 1.0}).path
    (tmp_path / "run" / "hyperparams.yaml").write_text("lr: 0.1\n")
    for path, expected in {
        saved: "it is a training checkpoint",
        saved.parent: "it is a training checkpoint",
        tmp_path / "run": "SpeechBrain's folder of a training",
        saved / "model.ckpt": "it holds weight, bias",
        saved / "optimizer.ckpt": "the state of an optimizer alone",
        saved / "counter.ckpt": "it is a text",
    }.items():
        for read in (read_checkpoint, read_backbone):
            with pytest.raises(ValueError, match=expected) as caught:
                read(path)
            assert str(path) in str(caught.value)


def test_folders_of_trainings_are_named(tmp_path):
    kinds = {
        "CKPT+2026-01-01+00/model.ckpt": "training checkpoints of SpeechBrain",
        "save/x": "training",
        "checkpoint-500/x": "give a checkpoint in it",
    }
    for number, (file, expected) in enumerate(kinds.items()):
        folder = tmp_path / str(number)
        (folder / file).parent.mkdir(parents=True)
        (folder / file).touch()
        if file.startswith("save"):
            (folder / "hyperparams.yaml").write_text("lr: 0.1\nmodel: null\n")
        with pytest.raises(ValueError, match=expected) as caught:
            read_checkpoint(folder)
        assert "\n" not in str(caught.value)
    assert what_folder(tmp_path) is None
