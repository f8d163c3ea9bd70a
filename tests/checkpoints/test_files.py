"""Tensor files: nothing is executed, half-written or loaded in part."""

import pickle

import pytest
import torch
from safetensors.torch import save_file

from unispeech_sb.checkpoints.files import (
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
