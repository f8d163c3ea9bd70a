"""Tensor files: read safely, write whole or not at all, load strictly.

``.ckpt`` files of this package are safetensors that carry their module's
class and constructor arguments, so that each can be built from its own file.
"""

import os
import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

ZIP_MAGIC = b"PK"


def read_tensors(path):
    """Reads every tensor of a safetensors or PyTorch file.

    Safetensors are mapped, not copied. A PyTorch file is read with
    ``weights_only=True``: nothing in it is executed.

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
    if not _is_torch_file(path):
        with _opened(path) as tensors:
            return {name: tensors.get_tensor(name) for name in tensors.keys()}
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise ValueError(
            f"{path}: expected a file of tensors; it is damaged or holds "
            f"other objects ({_first_line(error)})"
        ) from error
    if not isinstance(state, dict) or not all(
        isinstance(value, torch.Tensor) for value in state.values()
    ):
        raise ValueError(f"{path}: expected named tensors only")
    return state


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
    if _is_torch_file(path):
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


def load_strict(module, tensors, source, assign=False):
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
        Take the tensors over, as float32, instead of copying them.

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
    if assign:
        tensors = {name: value.float() for name, value in tensors.items()}
    module.load_state_dict(tensors, strict=True, assign=assign)


def _is_torch_file(path):
    """Tells a PyTorch file (zip, or a bare pickle) from safetensors."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file")
    with open(path, "rb") as stream:
        start = stream.read(2)
    return start == ZIP_MAGIC or start[:1] == b"\x80"


def _opened(path):
    """Opens a safetensors file, or says that it is none."""
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        raise ValueError(
            f"{path}: expected a safetensors file; it is damaged or "
            f"something else ({_first_line(error)})"
        ) from error


def _first_line(error):
    """The first line of an error's message."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _shortened(names, most=5):
    """Names for a sentence: the first few and how many more."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
