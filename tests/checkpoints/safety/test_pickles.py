"""PyTorch files are read whole, or refused in one sentence."""

import os
import struct
import tracemalloc
import zipfile
from argparse import Namespace
from collections import OrderedDict, defaultdict
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import torch

from tests.checkpoints.safety.planted import (
    Planted,
    bare,
    foreign_class,
    legacy_bytes,
    tensor_program,
    torch_zip,
)
from unispeech_sb.checkpoints.safety.pickles import LEGACY, read_objects
from unispeech_sb.checkpoints.safety.stubs import Stub, plain

FORMATS = ("zip", "legacy", "bare")


def save(value, path, form):
    """Writes a value in one of the formats."""
    if form == "zip":
        torch.save(value, path)
    else:
        path.write_bytes({"legacy": legacy_bytes, "bare": bare}[form](value))


def refusal(path):
    """The one sentence for a file, which must name it."""
    with pytest.raises(ValueError) as caught:
        read_objects(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: expected") and "\n" not in message
    assert len(message) < 400
    return message


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_everything_that_checkpoints_hold_comes_back(form, tmp_path):
    tensors = {
        "float": torch.randn(3, 4).T,
        "half": torch.randn(5).half(),
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(7),
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    tensors["alias"] = tensors["half"][1:3]
    content = {
        "model": OrderedDict(tensors),
        "args": Namespace(arch="wav2vec_ctc", layers=[(512, 10, 5)]),
        "best": np.float64(0.5),
        "array": np.arange(3),
        "where": PurePosixPath("a/b"),
        "meters": defaultdict(list, {"loss": [1.5, None, True]}),
    }
    save(content, tmp_path / "x.pt", form)
    found = read_objects(tmp_path / "x.pt")
    for name, tensor in tensors.items():
        assert torch.equal(found["model"][name], tensor)
    assert plain(found["args"]) == {
        "arch": "wav2vec_ctc", "layers": [[512, 10, 5]],
    }  # fmt: skip
    assert found["meters"] == {"loss": [1.5, None, True]}
    assert plain(found["where"]) == "a/b"
    assert isinstance(found["best"], Stub) and isinstance(found["array"], Stub)


def test_zip_files_are_mapped_and_never_written(tmp_path):
    path = tmp_path / "x.pt"
    torch.save({"weight": torch.zeros(2**24)}, path)
    found = read_objects(path)["weight"]
    assert str(path) in Path("/proc/self/maps").read_text()
    before = path.read_bytes()
    found[:10] = 1.0
    assert path.read_bytes() == before


def test_omegaconf_options_become_plain_data(tmp_path, monkeypatch):
    container = foreign_class(monkeypatch, "omegaconf.dictconfig.DictConfig")
    leaf = foreign_class(monkeypatch, "omegaconf.nodes.AnyNode")
    inner = container(_content={"dim": leaf(_val=32)})
    cfg = container(_content={"model": inner}, _parent=None)
    inner._parent = cfg  # as omegaconf has it: a cycle
    torch.save(cfg, tmp_path / "x.pt")
    monkeypatch.undo()
    found = read_objects(tmp_path / "x.pt")
    assert plain(found) == {"model": {"dim": 32}}


ATTACKS = {
    "posix.system": lambda canary: Planted(os.system, f"touch {canary}"),
    "builtins.eval": lambda canary: Planted(eval, f"open({canary!r}, 'w')"),
    "builtins.exec": lambda canary: Planted(exec, f"open({canary!r}, 'w')"),
    f"{open.__module__}.open": lambda canary: Planted(open, canary, "w"),
    "builtins.getattr": lambda _: Planted(getattr, "a", "format"),
    "builtins.bytearray": lambda _: Planted(bytearray, 10**13),
    "torch.serialization.load": lambda _: Planted(torch.load, "x.pt"),
    "torch.hub.load": lambda _: Planted(torch.hub.load, "a/b", "c"),
    "torch.storage.UntypedStorage": lambda _: Planted(
        torch.UntypedStorage, 10**13
    ),
    "torch.FloatTensor": lambda _: Planted(torch.FloatTensor, 10**12),
    "torch._tensor._rebuild_from_type_v2": lambda _: Planted(
        torch._tensor._rebuild_from_type_v2, print, torch.Tensor, (), {}
    ),
}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", ATTACKS)
def test_no_planted_call_is_made_and_its_name_is_told(name, form, tmp_path):
    canary = tmp_path / "canary"
    planted = ATTACKS[name](str(canary))
    save({"model": {"weight": planted}}, tmp_path / "x.pt", form)
    message = refusal(tmp_path / "x.pt")
    assert f"it names {name}, which is not among the names" in message
    assert not canary.exists()


def deep_tuple(levels):
    """Tuples of tuples: hashing one visits every level."""
    return b"\x80\x02})" + b"\x85" * levels + b"Ns."


def doubled_tuple(levels):
    """Each level holds the one below twice: hashing takes 2**levels."""
    return b"\x80\x02})" + b"q\x00h\x00\x86" * levels + b"Ns."


BOMBS = {
    "deep tuple as a key": (deep_tuple(200_000), "a tuple in it holds"),
    "doubled tuple as a key": (doubled_tuple(60), "a tuple in it holds"),
    "hex of hex of hex": (
        b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00hex\x86R.",
        "encodes text, not as latin1",
    ),
    "a change to a class": (
        b"\x80\x02cargparse\nNamespace\n}b.",
        "changes what is no container",
    ),
    "a mapping with its items": (
        b"\x80\x02ccollections\nOrderedDict\n]\x85R.",
        "a mapping in it is not made empty",
    ),
    "endless steps": (b"\x80\x02" + b"N" * 500_000, "has over 400000 steps"),
    "an unknown step": (b"\x80\x02(i__builtin__\nprint\n.", "step INST"),
    "another protocol": (b"\x80\x04\x95\x00.", "protocol 4"),
    "a promised gigabyte": (
        b"\x80\x02X" + struct.pack("<I", 2**31) + b"a.",
        "its pickle is damaged",
    ),
    "nothing on the stack": (b"\x80\x02.", "its pickle is damaged"),
    "no end": (b"\x80\x02N", "damaged"),
    "numbers with one hash": (
        b"\x80\x02}("
        + b"".join(
            b"\x8a\x0a" + (k * (2**61 - 1)).to_bytes(10, "little") + b"N"
            for k in range(25_000)
        )
        + b"u.",
        "keys that are no text",
    ),
}


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_bombs_do_not_go_off(name, form, tmp_path):
    program, reason = BOMBS[name]
    path = tmp_path / "x.pt"
    if form == "zip":
        torch_zip(path, program)
    else:
        path.write_bytes(LEGACY + program)
    assert reason in refusal(path)


@pytest.mark.slow
def test_options_have_a_depth_and_a_size():
    value = []
    for _ in range(40):
        value = [value, value]
    with pytest.raises(ValueError, match="items|in all"):
        plain(value)
    deep = []
    for _ in range(100):
        deep = [deep]
    with pytest.raises(ValueError, match="at most 50 levels"):
        plain(deep)


STORAGE = {"data/0": struct.pack("<4f", 1, 2, 3, 4)}
LIES = {
    "larger than its storage": {"shape": (5,)},
    "stride zero": {"shape": (100,), "stride": (0,)},
    "beyond the end": {"offset": 2},
    "a huge stride": {"stride": (2**40,)},
    "a huge shape": {"shape": (2**60,)},
    "a negative stride": {"stride": (-1,)},
    "more strides": {"stride": (1, 1)},
    "a huge storage": {"numel": 2**50},
    "a negative storage": {"numel": -4},
    "another type": {"kind": "Double"},
    "an unknown type": {"kind": "Quantum"},
}


@pytest.mark.parametrize("name", LIES)
def test_a_tensor_cannot_be_larger_than_its_file(name, tmp_path):
    honest = torch_zip(tmp_path / "y.pt", tensor_program(), STORAGE)
    assert read_objects(honest)["weight"].tolist() == [1, 2, 3, 4]
    program = tensor_program(**LIES[name])
    refusal(torch_zip(tmp_path / "x.pt", program, STORAGE))


def test_a_storage_larger_than_an_old_file_is_not_allocated(tmp_path):
    path = tmp_path / "x.pt"
    head = legacy_bytes(torch.zeros(1))
    start = head.index(b"\x80", head.index(b"\x80", 20) + 20)
    program = tensor_program(numel=2**45, shape=(2**45,))
    path.write_bytes(head[:start] + program + bare(["0"]))
    assert "larger than the file" in refusal(path) or "absurd" in refusal(path)


@pytest.mark.parametrize(
    "name",
    ["archive/../../evil", "/evil", "other/evil", "archive/a\\b", "C:/a"],
)
def test_records_with_paths_of_their_own_are_refused(name, tmp_path):
    path = torch_zip(tmp_path / "x.pt", b"\x80\x02N.")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, b"evil")
    assert "has a path of its own" in refusal(path)
    assert [p.name for p in tmp_path.iterdir()] == ["x.pt"]


def test_compressed_records_are_refused_unread(tmp_path):
    bomb = {"data/0": bytes(50 * 2**20)}
    path = torch_zip(
        tmp_path / "x.pt", tensor_program(), bomb,
        compression=zipfile.ZIP_DEFLATED,
    )  # fmt: skip
    assert path.stat().st_size < 2**20
    tracemalloc.start()
    assert "is compressed" in refusal(path)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_two_records_of_one_name_are_refused(tmp_path):
    path = torch_zip(tmp_path / "x.pt", b"\x80\x02N.")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/DATA.pkl", b"\x80\x02N.")
    assert "the same name" in refusal(path)


def test_records_that_overlap_are_refused(tmp_path):
    path = torch_zip(tmp_path / "x.pt", tensor_program(), STORAGE)
    content = bytearray(path.read_bytes())
    second = content.rindex(b"PK\x01\x02")  # its entry in the directory
    content[second + 42 : second + 46] = bytes(4)  # points at the first
    path.write_bytes(content)
    assert "overlaps another" in refusal(path)


@pytest.mark.parametrize("form", ["zip", "legacy"])
@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9, 0.999])
def test_truncated_files_are_refused(form, share, tmp_path):
    path = tmp_path / "x.pt"
    save({"a": torch.randn(500), "b": [1, "two"]}, path, form)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    refusal(path)


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_damaged_files_are_one_sentence_or_read(form, tmp_path):
    path = tmp_path / "x.pt"
    content = {"a": torch.randn(3), "b": Namespace(c=(1, 2.5, "x"))}
    save(content, path, form)
    whole = path.read_bytes()
    generator = torch.Generator().manual_seed(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(3):
            place = torch.randint(len(whole), (1,), generator=generator)
            value = torch.randint(256, (1,), generator=generator)
            damaged[int(place)] = int(value)
        path.write_bytes(damaged)
        try:
            read_objects(path)
        except ValueError as error:
            refused += 1
            assert "\n" not in str(error)
    assert 100 < refused < 300


def test_other_files_are_no_torch_files(tmp_path):
    (tmp_path / "x.pt").write_text("not a checkpoint")
    assert "starts as something else" in refusal(tmp_path / "x.pt")
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_objects(tmp_path / "missing.pt")
    save({"a": 1}, tmp_path / "bare.pt", "bare")
    assert "a bare pickle" in refusal(tmp_path / "bare.pt")
