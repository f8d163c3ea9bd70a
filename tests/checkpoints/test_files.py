"""Tensor files: nothing is executed, half-written or loaded in part."""

import json
import pickle
import struct

import pytest
import torch
from safetensors.torch import save_file

from unispeech_sb.checkpoints.files import (
    CHUNK,
    check_finite,
    load_strict,
    read_metadata,
    read_tensors,
    write_tensors,
)

TENSORS = {"weight": torch.arange(6.0).view(2, 3), "bias": torch.zeros(2)}


def test_tensors_and_notes_come_back_with_the_same_bits(tmp_path):
    path = tmp_path / "x.ckpt"
    tensors = {"a": torch.randn(3, 4).T, "b": torch.tensor(1.5)}
    write_tensors(path, tensors, {"class": "A"})
    assert read_metadata(path) == {"class": "A"}
    for name, tensor in read_tensors(path).items():
        assert torch.equal(tensor, tensors[name])
    assert [p.name for p in tmp_path.iterdir()] == ["x.ckpt"]


def test_pytorch_files_are_read_too(tmp_path):
    torch.save(TENSORS, tmp_path / "new.bin")
    torch.save(
        TENSORS, tmp_path / "old.bin", _use_new_zipfile_serialization=False
    )
    for name in ("new.bin", "old.bin"):
        found = read_tensors(tmp_path / name)
        assert torch.equal(found["weight"], TENSORS["weight"])
        assert read_metadata(tmp_path / name) == {}


class Intruder:
    """What a pickle could do on loading."""

    def __reduce__(self):
        return (open, ("intruded", "w"))


def test_nothing_in_a_file_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": Intruder()}, "new.bin")
    with open("bare.bin", "wb") as stream:
        pickle.dump({"weight": Intruder()}, stream)
    for name in ("new.bin", "bare.bin"):
        with pytest.raises(ValueError, match="expected a file of tensors"):
            read_tensors(name)
    assert not (tmp_path / "intruded").exists()


@pytest.mark.parametrize("kind", ["safetensors", "torch"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_truncated_files_are_one_clear_error(kind, share, tmp_path):
    path = tmp_path / "model"
    tensors = {"weight": torch.randn(1000)}
    save = save_file if kind == "safetensors" else torch.save
    save(tensors, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=f"{path}: expected") as caught:
        read_tensors(path)
    assert "\n" not in str(caught.value)


def test_other_content_is_refused(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "state.pt")
    (tmp_path / "text.ckpt").write_text("no tensors here, only this text")
    with pytest.raises(ValueError, match="expected named tensors only"):
        read_tensors(tmp_path / "state.pt")
    with pytest.raises(ValueError, match="expected a safetensors file"):
        read_tensors(tmp_path / "text.ckpt")
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_tensors(tmp_path / "missing.ckpt")


def test_what_does_not_fit_is_named(tmp_path):
    module = torch.nn.Linear(3, 2)
    before = module.weight.clone()
    wrong = {"weight": torch.zeros(3, 2), "extra": torch.zeros(1)}
    with pytest.raises(ValueError) as caught:
        load_strict(module, wrong, "x.ckpt")
    assert str(caught.value) == (
        "x.ckpt does not fit Linear: missing bias; unexpected extra; "
        "misshapen weight (expected [2, 3], got [3, 2])"
    )
    assert torch.equal(module.weight, before)
    load_strict(module, TENSORS, "x.ckpt")
    assert torch.equal(module.weight, TENSORS["weight"])


def test_half_precision_files_load_as_single_precision():
    half = {name: tensor.half() for name, tensor in TENSORS.items()}
    module = torch.nn.Linear(3, 2)
    for assign in (False, True):
        load_strict(module, half, "x.ckpt", assign)
        assert module.weight.dtype == torch.float32


def header(content, data=b""):
    """A safetensors file with any header."""
    text = content if isinstance(content, bytes) else json.dumps(content)
    text = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(shape=(2,), offsets=(0, 8), dtype="F32"):
    """What a header says of one tensor."""
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


LIES = {
    "more data than there is": header({"a": entry((4,), (0, 16))}, bytes(8)),
    "less data than there is": header({"a": entry()}, bytes(16)),
    "two tensors in one place": header({"a": entry(), "b": entry()}, bytes(8)),
    "tensors that overlap": header(
        {"a": entry(), "b": entry(offsets=(4, 12))}, bytes(12)
    ),
    "a gap": header({"a": entry(), "b": entry(offsets=(12, 20))}, bytes(20)),
    "one name twice": header(
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},'
        b'"a":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}',
        bytes(16),
    ),
    "a shape of another size": header({"a": entry((3,))}, bytes(8)),
    "a shape that overflows": header({"a": entry((2**62, 8))}, bytes(8)),
    "a negative shape": header({"a": entry((-2,))}, bytes(8)),
    "an end before its start": header({"a": entry((2,), (8, 0))}, bytes(8)),
    "an unknown type": header({"a": entry(dtype="OBJECT")}, bytes(8)),
    "no JSON": header(b"{" * 100),
    "a huge header": struct.pack("<Q", 2**62) + b"{}",
    "a long header": struct.pack("<Q", 90 * 2**20) + b"{}",
    "deep nesting": header(b'{"a":' * 10_000),
}


@pytest.mark.parametrize("name", LIES)
def test_a_safetensors_header_cannot_lie(name, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(header({"a": entry()}, struct.pack("<2f", 1, 2)))
    assert read_tensors(path)["a"].tolist() == [1, 2]
    path.write_bytes(LIES[name])
    expected = f"{path}: expected a safetensors file"
    with pytest.raises(ValueError, match=expected) as caught:
        read_tensors(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_value_that_is_no_number_is_found(value, dtype):
    tensors = {
        "index": torch.arange(3),
        "good": torch.randn(3, 5, dtype=dtype).T,
        "bad": torch.zeros(CHUNK + 3, dtype=dtype),
    }
    check_finite(tensors, "x.pt")
    tensors["bad"][-1] = value
    with pytest.raises(ValueError, match=r"x\.pt: .*; bad has NaN or inf"):
        check_finite(tensors, "x.pt")


def test_long_names_are_shortened_in_errors():
    with pytest.raises(ValueError, match="missing bias, weight") as caught:
        load_strict(torch.nn.Linear(2, 1), {"a" * 9999: torch.ones(1)}, "x")
    assert len(str(caught.value)) < 300
