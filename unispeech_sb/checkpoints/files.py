"""Tensor files: read safely, write whole or not at all, load strictly.

``.ckpt`` files of this package are safetensors that carry their module's
class and constructor arguments, so that each can be built from its own file.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from unispeech_sb.atomic import atomic, not_written
from unispeech_sb.checkpoints.file_types import what_file
from unispeech_sb.checkpoints.safety.pickles import is_torch_file, read_objects

LONGEST = 120
"""Characters of a tensor's name that an error shows."""
CHUNK = 2**20
"""Elements checked at a time, to need little memory."""
FAULTS = (SafetensorError, OSError, RuntimeError, TypeError, ValueError)
"""What reading a damaged safetensors file raises."""


def read_tensors(path: str | Path) -> dict[str, torch.Tensor]:
    """Every tensor, on the CPU, of a safetensors or PyTorch file.

    Safetensors and zip files are mapped, not copied. Nothing in a PyTorch
    file is executed: see ``read_objects``. A file that is damaged, or holds
    anything but named tensors, is a ``ValueError``.
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


def is_safetensors(path: str | Path) -> bool:
    """Whether a file starts as safetensors do: eight bytes of length, then
    JSON."""
    with open(path, "rb") as stream:
        return stream.read(9)[8:] == b"{"


def read_metadata(path: str | Path) -> dict[str, str]:
    """Text notes of a safetensors file; empty where it has none."""
    if is_torch_file(path):
        return {}
    with _opened(path) as tensors:
        return tensors.metadata() or {}


def write_tensors(
    path: str | Path,
    tensors: Mapping[str, torch.Tensor],
    metadata: dict[str, str] | None = None,
) -> None:
    """Writes name -> tensor, and notes, as safetensors: whole or not at all."""
    tensors = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    with atomic(path, mode=None) as draft:
        draft.touch()
        mode = draft.stat().st_mode  # safetensors would let only us read it
        try:
            save_file(tensors, draft, metadata=metadata)
        except SafetensorError as error:
            raise not_written(path, error) from error
        draft.chmod(mode)


def public_path(cls: type) -> str:
    """Path by which files name a class of this package, as a yaml says it after
    ``!new:``: that of its package, if exported."""
    package = cls.__module__.rpartition(".")[0]
    exported = getattr(sys.modules.get(package), "__all__", ())
    module = package if cls.__name__ in exported else cls.__module__
    return f"{module}.{cls.__name__}"


def load_strict(
    module: nn.Module,
    tensors: Mapping[str, torch.Tensor],
    source: str | Path,
    assign: bool = False,
    dtype: torch.dtype | None = torch.float32,
) -> None:
    """Loads a state dict that must fit exactly; the error names the tensors
    that are missing, unexpected or misshapen.

    ``source`` is where they are from. With ``assign`` they are taken over
    instead of copied, as ``dtype``, or as they are when it is None.
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


def check_finite(tensors: Mapping[str, torch.Tensor], path: str | Path) -> None:
    """Refuses tensors, name -> tensor, with NaN or infinite values, and names
    the first; ``path`` is where they are from."""
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
    what = what_file(path) or (
        f"damaged or something else ({_first_line(error)})"
    )
    return ValueError(f"{path}: expected a safetensors file; it is {what}")


def _first_line(error):
    """The start of the first line of an error's message."""
    return (str(error).splitlines() or [type(error).__name__])[0][:120]


def _shortened(names, most=5):
    """Names for a sentence: the first few and how many more."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(name[:LONGEST] for name in names[:most]) + more
