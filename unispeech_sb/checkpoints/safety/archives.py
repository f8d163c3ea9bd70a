"""Zip files of ``torch.save``, checked before torch opens them."""

import struct
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

END = b"PK\x05\x06"
END_SIZE = 22
MOST_RECORDS = 100_000
MOST_PICKLE = 64 * 2**20
"""Bytes. Pickles of real checkpoints have a few; tensors lie beside them."""

FAULTS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    NotImplementedError,
    EOFError,
    ValueError,
)


class Archive(NamedTuple):
    """What a checked zip file holds.

    Arguments
    ---------
    program : bytes
        The pickle that rebuilds its objects.
    sizes : dict
        Key of a storage -> number of bytes.

    Example
    -------
    >>> Archive(b"N.", {}).sizes
    {}
    """

    program: bytes
    sizes: dict


def open_archive(path):
    """Checks a zip file of ``torch.save`` and reads its pickle.

    Arguments
    ---------
    path : str or pathlib.Path
        The file.

    Returns
    -------
    Archive
        Its pickle and the sizes of its storages.

    Raises
    ------
    ValueError
        When it is damaged, compressed, or not as ``torch.save`` writes it.

    Example
    -------
    >>> import torch
    >>> path = getfixture("tmp_path") / "x.pt"
    >>> torch.save(torch.zeros(3), path)
    >>> open_archive(path).sizes
    {'0': 12}
    """
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
    except FAULTS as error:
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
