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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from unispeech_sb.checkpoints.safety.archives import open_archive
from unispeech_sb.checkpoints.safety.opcodes import Refusal, Simulation
from unispeech_sb.checkpoints.safety.stubs import MAPPINGS, STUBS, empty_mapping

ZIP = b"PK"
PICKLE = b"\x80"
LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""The pickled number that files before torch 1.6 start with."""
LEGACY_PICKLES = 5
"""That number, a version, the machine, the objects, keys of storages."""

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


def is_torch_file(path):
    """Tells a PyTorch file, zip or older, from others.

    Arguments
    ---------
    path : str or pathlib.Path
        The file.

    Returns
    -------
    bool
        Whether it starts as one.

    Raises
    ------
    FileNotFoundError
        When there is no such file.

    Example
    -------
    >>> path = getfixture("tmp_path") / "x.pt"
    >>> torch.save({}, path)
    >>> is_torch_file(path)
    True
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file")
    with open(path, "rb") as stream:
        start = stream.read(9)
    if start[8:] == b"{":  # safetensors: eight bytes of length, then JSON
        return False
    return start[:2] == ZIP or start[:1] == PICKLE


def read_objects(path):
    """Reads everything in a PyTorch file.

    Arguments
    ---------
    path : str or pathlib.Path
        A file of ``torch.save``: zip, or of torch before 1.6.

    Returns
    -------
    object
        Containers, values and tensors on the CPU, which are mapped where
        the file is a zip. Objects of fairseq, omegaconf and argparse are
        ``Stub`` instances: ``plain`` turns options into dicts.

    Raises
    ------
    ValueError
        When the file is damaged, names anything that is not on the list of
        ``stubs``, or claims to be larger than it is.

    Example
    -------
    >>> path = getfixture("tmp_path") / "x.pt"
    >>> torch.save({"model": torch.zeros(2), "epoch": 3}, path)
    >>> read_objects(path)
    {'model': tensor([0., 0.]), 'epoch': 3}
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
