"""Tensor files: read safely, write whole or not at all, load strictly.

``.ckpt`` files of this package are safetensors that carry their module's
class and constructor arguments, so that each can be built from its own file.
"""

import os
import sys
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from unispeech_sb.checkpoints.safety.pickles import is_torch_file, read_objects

LONGEST = 120
"""Characters of a tensor's name that an error shows."""
CHUNK = 2**20
"""Elements checked at a time, to need little memory."""
FAULTS = (SafetensorError, OSError, RuntimeError, TypeError, ValueError)
"""What reading a damaged safetensors file raises."""


def read_tensors(path):
    """Reads every tensor of a safetensors or PyTorch file.

    Safetensors and zip files are mapped, not copied. Nothing in a PyTorch
    file is executed: see ``read_objects``.

    Arguments
    ---------
    path : str or pathlib.Path
        The file.

    Returns
    -------
    dict
        Name -> tensor, on the CPU.

    Raises
    ------
    ValueError
        When the file is damaged or holds anything but named tensors.

    Example
    -------
    >>> path = getfixture("tmp_path") / "x.ckpt"
    >>> write_tensors(path, {"a": torch.ones(2)})
    >>> read_tensors(path)
    {'a': tensor([1., 1.])}
    """
    if not is_torch_file(path):
        with _opened(path) as tensors:
            return _read_all(tensors, path)
    state = read_objects(path)
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor)
        for name, value in state.items()
    ):
        raise ValueError(f"{path}: expected named tensors only")
    return {name: value.detach() for name, value in state.items()}


def is_safetensors(path):
    """Whether a file starts as safetensors do: eight bytes of length, then
    JSON."""
    with open(path, "rb") as stream:
        return stream.read(9)[8:] == b"{"


def read_metadata(path):
    """Reads the text notes of a safetensors file.

    Arguments
    ---------
    path : str or pathlib.Path
        The file.

    Returns
    -------
    dict
        Name -> text. Empty where the file has none.

    Example
    -------
    >>> path = getfixture("tmp_path") / "x.ckpt"
    >>> write_tensors(path, {"a": torch.ones(2)}, {"why": "test"})
    >>> read_metadata(path)
    {'why': 'test'}
    """
    if is_torch_file(path):
        return {}
    with _opened(path) as tensors:
        return tensors.metadata() or {}


def write_tensors(path, tensors, metadata=None):
    """Writes a safetensors file, whole or not at all.

    Arguments
    ---------
    path : str or pathlib.Path
        The file to write or to replace.
    tensors : dict
        Name -> tensor.
    metadata : dict, optional
        Name -> text.

    Example
    -------
    >>> path = getfixture("tmp_path") / "x.ckpt"
    >>> write_tensors(path, {"a": torch.ones(2)})
    >>> path.exists()
    True
    """
    path = Path(path)
    temporary = path.with_name(path.name + ".tmp")
    tensors = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    temporary.touch()
    mode = temporary.stat().st_mode  # safetensors would let only us read it
    save_file(tensors, temporary, metadata=metadata)
    temporary.chmod(mode)
    os.replace(temporary, path)


def public_path(cls):
    """Path by which files name a class: that of its package, if exported.

    Arguments
    ---------
    cls : type
        A class of this package.

    Returns
    -------
    str
        What a yaml says after ``!new:``.

    Example
    -------
    >>> from unispeech_sb.lobes.heads import FrameHead
    >>> public_path(FrameHead)
    'unispeech_sb.lobes.heads.FrameHead'
    """
    package = cls.__module__.rpartition(".")[0]
    exported = getattr(sys.modules.get(package), "__all__", ())
    module = package if cls.__name__ in exported else cls.__module__
    return f"{module}.{cls.__name__}"


def load_strict(module, tensors, source, assign=False, dtype=torch.float32):
    """Loads a state dict that must fit exactly.

    Arguments
    ---------
    module : torch.nn.Module
        The module to fill.
    tensors : dict
        Name -> tensor.
    source : str or pathlib.Path
        Where they are from, for the error.
    assign : bool
        Take the tensors over instead of copying them.
    dtype : torch.dtype or None
        What tensors that are taken over become; as they are when None.

    Raises
    ------
    ValueError
        Names the tensors that are missing, unexpected or misshapen.

    Example
    -------
    >>> load_strict(torch.nn.Linear(2, 1), {}, "x.ckpt")
    Traceback (most recent call last):
    ...
    ValueError: x.ckpt does not fit Linear: missing bias, weight
    """
    expected = module.state_dict()
    shared = sorted(expected.keys() & tensors.keys())
    misshapen = [
        f"{name} (expected {list(expected[name].shape)}, "
        f"got {list(tensors[name].shape)})"
        for name in shared
        if expected[name].shape != tensors[name].shape
    ]
    faults = {
        "missing": sorted(expected.keys() - tensors.keys()),
        "unexpected": sorted(tensors.keys() - expected.keys()),
        "misshapen": misshapen,
    }
    found = [
        f"{kind} {_shortened(names)}" for kind, names in faults.items() if names
    ]
    if found:
        raise ValueError(
            f"{source} does not fit {type(module).__name__}: "
            + "; ".join(found)
        )
    if assign and dtype is not None:
        tensors = {name: value.to(dtype) for name, value in tensors.items()}
    module.load_state_dict(tensors, strict=True, assign=assign)


def check_finite(tensors, path):
    """Refuses tensors with values that are no numbers.

    Arguments
    ---------
    tensors : dict
        Name -> tensor.
    path : str or pathlib.Path
        Where they are from, for the error.

    Raises
    ------
    ValueError
        Names the first tensor with a NaN or an infinite value.

    Example
    -------
    >>> check_finite({"weight": torch.tensor([0.0, torch.nan])}, "x.pt")
    Traceback (most recent call last):
    ...
    ValueError: x.pt: expected finite numbers; weight has NaN or infinite ...
    """
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            continue
        chunks = tensor.flatten().split(CHUNK)
        if not all(bool(chunk.isfinite().all()) for chunk in chunks):
            raise ValueError(
                f"{path}: expected finite numbers; {name} has NaN or "
                "infinite values"
            )


def _read_all(tensors, path):
    """All tensors of an open safetensors file."""
    try:
        return {name: tensors.get_tensor(name) for name in tensors.keys()}
    except FAULTS as error:
        raise _damaged(path, error) from error


def _opened(path):
    """Opens a safetensors file, or says that it is none."""
    try:
        return safe_open(path, framework="pt")
    except FAULTS as error:
        raise _damaged(path, error) from error


def _damaged(path, error):
    """The error for a file that is no safetensors."""
    return ValueError(
        f"{path}: expected a safetensors file; it is damaged or "
        f"something else ({_first_line(error)})"
    )


def _first_line(error):
    """The start of the first line of an error's message."""
    return (str(error).splitlines() or [type(error).__name__])[0][:120]


def _shortened(names, most=5):
    """Names for a sentence: the first few and how many more."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(name[:LONGEST] for name in names[:most]) + more
