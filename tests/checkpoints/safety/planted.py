"""Files with attacks in them, made by hand."""

import io
import pickle
import struct
import sys
import types
import zipfile

import torch


class Planted:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def torch_zip(path, program, records=None, **options):
    """Writes a zip as ``torch.save`` does, around any pickle."""
    with zipfile.ZipFile(path, "w", **options) as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/byteorder", b"little")
        for name, content in (records or {}).items():
            archive.writestr(f"archive/{name}", content)
        archive.writestr("archive/version", b"3\n")
    return path


def tensor_program(numel=4, shape=(4,), stride=(1,), offset=0, kind="Float"):
    """A pickle of one tensor over the storage ``0``."""

    def number(value):
        size = max(1, (value.bit_length() + 8) // 8)
        return (
            b"\x8a"
            + bytes([size])
            + value.to_bytes(size, "little", signed=True)
        )

    def text(value):
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    def numbers(values):
        return b"(" + b"".join(map(number, values)) + b"t"

    return (
        b"\x80\x02}" + text("weight") + b"ctorch._utils\n_rebuild_tensor_v2\n"
        + b"((" + text("storage") + f"ctorch\n{kind}Storage\n".encode()
        + text("0") + text("cpu") + number(numel) + b"tQ" + number(offset)
        + numbers(shape) + numbers(stride)
        + b"\x89ccollections\nOrderedDict\n)Rt" + b"Rs."
    )  # fmt: skip


def legacy_bytes(value):
    """A file of torch before 1.6."""
    stream = io.BytesIO()
    torch.save(value, stream, _use_new_zipfile_serialization=False)
    return stream.getvalue()


def bare(value):
    """A pickle outside any file of torch."""
    return pickle.dumps(value, protocol=2)


def foreign_class(monkeypatch, full_name):
    """A class that pickles under a name of a package that is not here."""
    module, _, name = full_name.rpartition(".")
    parts = module.split(".")
    for end in range(1, len(parts) + 1):
        package = ".".join(parts[:end])
        if package not in sys.modules:
            made = types.ModuleType(package)
            monkeypatch.setitem(sys.modules, package, made)
    cls = type(name, (types.SimpleNamespace,), {"__module__": module})
    cls.__reduce_ex__ = object.__reduce_ex__
    cls.__reduce__ = object.__reduce__
    monkeypatch.setattr(sys.modules[module], name, cls, raising=False)
    return cls
