"""PyTorch files, read without running anything in them.

Both of torch's formats are read with ``weights_only=True``, after the file
and its pickle have been checked: every name is on a list, and nothing becomes
larger than the file.
"""

import io
import mmap
import pickle
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from unispeech_sb.checkpoints.safety.opcodes import Refusal, Simulation
from unispeech_sb.checkpoints.safety.stubs import MAPPINGS, STUBS, empty_mapping

ZIP = b"PK"
PICKLE = b"\x80"
LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""The pickled number that files before torch 1.6 start with."""
LEGACY_PICKLES = 5
"""That number, a version, the machine, the objects, keys of storages."""

END = b"PK\x05\x06"
END_SIZE = 22
MOST_RECORDS = 100_000
MOST_PICKLE = 64 * 2**20
"""Bytes. Pickles of real checkpoints have a few; tensors lie beside them."""

SAFE: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (stub, name) for name, stub in STUBS.items()
]
SAFE += [(empty_mapping, name) for name in MAPPINGS]
FAULTS = (
    pickle.UnpicklingError,
    struct.error,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What torch raises on damaged files."""


ZIP_FAULTS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    NotImplementedError,
    EOFError,
    ValueError,
)


def is_torch_file(path: str | Path) -> bool:
    """Whether a file, which has to be there, starts as torch's: as a zip, or
    as those before."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file")
    with open(path, "rb") as stream:
        start = stream.read(9)
    if start[8:] == b"{":  # safetensors: eight bytes of length, then JSON
        return False
    return start[:2] == ZIP or start[:1] == PICKLE


def read_objects(path: str | Path) -> Any:
    """Reads everything in a file of ``torch.save``, zip or of torch before 1.6.

    Tensors are on the CPU, and mapped where the file is a zip. Objects of
    fairseq, omegaconf and argparse are ``Stub`` instances: ``plain`` turns
    options into dicts. A file that is damaged, names anything that is not on
    the list of ``stubs``, or claims to be larger than it is, is a
    ``ValueError``.
    """
    if not is_torch_file(path):
        raise ValueError(
            f"{path}: expected a file of tensors that torch.save wrote; it "
            "starts as something else"
        )
    try:
        zipped = _check(path)
    except Refusal as error:
        raise ValueError(
            f"{path}: expected a file of tensors; it is refused, since {error}"
        ) from error
    safe = torch.serialization.safe_globals(SAFE)
    try:
        with safe, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on other protocols, sources
            return torch.load(
                path, map_location="cpu", weights_only=True, mmap=zipped
            )
    except FAULTS as error:
        raise ValueError(
            f"{path}: expected a file of tensors; it is damaged or holds "
            f"other objects ({type(error).__name__})"
        ) from error


def _check(path):
    """Follows the file's pickles; tells whether it is a zip."""
    size = Path(path).stat().st_size
    with open(path, "rb") as stream:
        zipped = stream.read(2) == ZIP
    if zipped:
        archive = open_archive(path)
        Simulation(size, archive.sizes).run(io.BytesIO(archive.program))
        return True
    simulation = Simulation(size)
    with (
        open(path, "rb") as stream,
        mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        legacy = content[: len(LEGACY)] == LEGACY
        for _ in range(LEGACY_PICKLES if legacy else 1):
            simulation.run(content)
    if not legacy:
        raise Refusal("it is a bare pickle, which torch.save does not write")
    return False


class Archive(NamedTuple):
    """What a checked zip file holds.

    Arguments
    ---------
    program : bytes
        The pickle that rebuilds its objects.
    sizes : dict
        Key of a storage -> number of bytes.
    """

    program: bytes
    sizes: dict[str, int]


def open_archive(path: str | Path) -> Archive:
    """Checks a zip file of ``torch.save`` before torch opens it, and reads its
    pickle: an ``Archive``. One that is damaged, compressed, or not as
    ``torch.save`` writes it is a ``ValueError``."""
    _check_end(path)
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
            _check_records(records, path)
            top = records[0].filename.partition("/")[0]
            named = {info.filename: info for info in records}
            program = named.get(f"{top}/data.pkl")
            if program is None:
                raise _refusal(path, "it has no data.pkl")
            if program.file_size > MOST_PICKLE:
                raise _refusal(
                    path, f"its data.pkl has {program.file_size} bytes"
                )
            content = archive.read(program)
    except _Refused:
        raise
    except ZIP_FAULTS as error:
        raise ValueError(
            f"{path}: expected a file of tensors; the zip file is damaged "
            f"({type(error).__name__})"
        ) from error
    data = f"{top}/data/"
    sizes = {
        name.removeprefix(data): info.file_size
        for name, info in named.items()
        if name.startswith(data)
    }
    return Archive(content, sizes)


class _Refused(ValueError):
    """A fault that has its sentence already."""


def _refusal(path, why):
    """The error for a file that torch must not open."""
    return _Refused(
        f"{path}: expected a file of tensors as torch.save writes it; {why}"
    )


def _check_end(path):
    """Refuses what zip readers may understand in different ways."""
    size = Path(path).stat().st_size
    with open(path, "rb") as stream:
        stream.seek(max(0, size - END_SIZE))
        end = stream.read()
    if len(end) < END_SIZE or not end.startswith(END):
        raise _refusal(path, "the end of the zip file is missing")
    if end[-2:] != b"\0\0" or END in end[1:]:
        raise _refusal(path, "the zip file ends with a comment")


def _check_records(records, path):
    """Refuses compressed, overlapping, oversized or misnamed records."""
    size, start = Path(path).stat().st_size, 0
    names = {info.filename.casefold() for info in records}
    if not records or len(records) > MOST_RECORDS:
        raise _refusal(path, f"it has {len(records)} records")
    if len(names) < len(records):
        raise _refusal(path, "two records have the same name")
    top = records[0].filename.partition("/")[0]
    for info in sorted(records, key=lambda info: info.header_offset):
        parts = info.filename.split("/")
        shown = f"record {ascii(info.filename):.80}"
        if parts[0] != top or len(parts) < 2 or {"", ".", ".."} & set(parts):
            raise _refusal(path, f"{shown} has a path of its own")
        if "\\" in info.filename or ":" in info.filename:
            raise _refusal(path, f"{shown} has a path of its own")
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise _refusal(path, f"{shown} is compressed or encrypted")
        if info.file_size != info.compress_size:
            raise _refusal(path, f"{shown} lies about its size")
        if info.header_offset < start:
            raise _refusal(path, f"{shown} overlaps another")
        start = info.header_offset + info.file_size
        if start > size:
            raise _refusal(path, f"{shown} is longer than the file")
    if min(info.header_offset for info in records) > 0:
        raise _refusal(path, "something stands before the zip file")
