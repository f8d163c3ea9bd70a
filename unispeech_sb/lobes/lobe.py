"""What every lobe has in common: its own arguments, and strict files."""

import inspect
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from speechbrain.utils.checkpoints import (
    mark_as_loader,
    mark_as_saver,
    mark_as_transfer,
    register_checkpoint_hooks,
)
from torch import nn
from torch.overrides import TorchFunctionMode

from unispeech_sb.checkpoints.files import (
    load_strict,
    public_path,
    read_tensors,
    write_tensors,
)
from unispeech_sb.checkpoints.options import shown

_TYPES: dict[type, set[type]]
_TYPES = {int: {int}, bool: {bool}, str: {str}, float: {int, float}}
"""Annotation of a plain argument -> what it may be."""


class _MetaInit(TorchFunctionMode):
    """Initialises modules on the meta device without drawing weights.

    Drawing weights and their norms imports torch's compiler, for seconds.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """Runs everything else."""
        kwargs = kwargs or {}
        if func in (nn.init.normal_, torch.Tensor.normal_):
            return args[0] if args else kwargs["tensor"]
        if func is torch.norm_except_dim:
            weight, _, kept = args
            sizes = enumerate(weight.shape)
            return weight.new_empty([n if i == kept else 1 for i, n in sizes])
        return func(*args, **kwargs)


@contextmanager
def without_weights(source: str | Path) -> Iterator[None]:
    """Builds modules on the meta device, as their weights are in a file.

    Their parameters have shapes but no memory, and nothing is drawn. The name
    of the file precedes what a constructor refuses.
    """
    try:
        with torch.device("meta"), _MetaInit():
            yield
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error


def constructor_arguments(
    given: dict[str, Any], *left_out: str
) -> dict[str, Any]:
    """What ``Lobe`` keeps of a constructor: its arguments, but for those left
    out, by its ``locals()`` in the first line. Sequences become lists."""
    return {
        name: [*value] if isinstance(value, (list, tuple)) else value
        for name, value in given.items()
        if name not in ("self", "__class__", *left_out)
    }


class LobeConfig(dict[str, Any]):
    """A lobe's constructor arguments, also as attributes: ``config.name``.

    Example
    -------
    >>> LobeConfig(hidden_size=768).hidden_size
    768
    """

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(
                f"config: expected one of {', '.join(self)}; got {name!r}"
            ) from None


@register_checkpoint_hooks
class _Stored(nn.Module):
    """A module in a file that says how it was built, and that fits exactly.

    SpeechBrain's default transfer hook loads a file that does not match at
    all and only logs a warning; the hooks here raise instead.
    """

    @mark_as_saver
    def save(self, path: str | Path) -> None:
        """Writes weights and constructor arguments to one file.

        Arguments
        ---------
        path : str or pathlib.Path
            The file, usually ``<name>.ckpt``.
        """
        key, note = self._note()
        write_tensors(path, self.state_dict(), {key: json.dumps(note)})

    def __prepare_scriptable__(self) -> nn.Module:
        """Refuses TorchScript, which ``jit`` of SpeechBrain's run_opts asks
        for: it takes no generators, for one."""
        raise ValueError(
            "jit: expected modules that TorchScript takes; got "
            f"{type(self).__name__}: leave it out by jit_module_keys, or give "
            "compile instead"
        )

    @mark_as_transfer
    def load(self, path: str | Path) -> None:
        """Loads a file that must fit exactly.

        Arguments
        ---------
        path : str or pathlib.Path
            A file of ``save``, or any safetensors or PyTorch state dict.

        Raises
        ------
        ValueError
            Names every tensor that is missing, unexpected or misshapen.
        """
        first = next(self.parameters(), None)
        empty = first is not None and first.is_meta
        tensors = read_tensors(path)
        if empty:  # copied, as what is computed depends on the alignment
            tensors = {name: value.clone() for name, value in tensors.items()}
        load_strict(self, tensors, path, assign=empty)

    @mark_as_loader
    def recover(self, path: str | Path, end_of_epoch: bool) -> None:
        """Loads a file of a training checkpoint.

        Arguments
        ---------
        path : str or pathlib.Path
            The file.
        end_of_epoch : bool
            Part of SpeechBrain's signature; not used.
        """
        self.load(path)

    def _note(self) -> tuple[str, dict[str, Any]]:
        """What the file says of the module. One note: safetensors writes
        several in an order that varies."""
        raise NotImplementedError


class Lobe(_Stored):
    """A module that knows how it was built and loads strictly.

    Arguments
    ---------
    config : dict
        The constructor's arguments: plain numbers, texts, lists.

    Example
    -------
    >>> Lobe({"input_size": 4}).config
    {'input_size': 4}
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.config = LobeConfig(config)

    def current_config(self) -> dict[str, Any]:
        """The arguments that build the module as it is now."""
        return self.config

    def _note(self) -> tuple[str, dict[str, Any]]:
        """Class and arguments."""
        return "lobe", _described(self)


class LobeGroup(_Stored):
    """Lobes that train together, among other modules, in one file.

    It says of each lobe how it was built, so that each can be read from it.

    Example
    -------
    >>> group = LobeGroup()
    >>> group.head = Lobe({"input_size": 4})
    >>> group.save(getfixture("tmp_path") / "group.ckpt")
    """

    def _note(self) -> tuple[str, dict[str, Any]]:
        """Name -> class and arguments."""
        lobes = dict(self.named_children())
        return "lobes", {
            name: _described(lobe)
            for name, lobe in lobes.items()
            if isinstance(lobe, Lobe)
        }


def _described(lobe):
    """Class and arguments of a lobe, for its file."""
    path = public_path(type(lobe))
    return {"class": path, "config": lobe.current_config()}


def build_empty(
    cls: type[Lobe], config: dict[str, Any], source: str | Path
) -> Lobe:
    """Builds a lobe without weights, from arguments in a file; those that do
    not fit are a ``ValueError``."""
    arguments = inspect.signature(cls).parameters
    for name, value in config.items():
        kind = arguments[name].annotation if name in arguments else Any
        if kind in _TYPES and type(value) not in _TYPES[kind]:
            raise ValueError(
                f"{source}: expected {name} of {cls.__name__} to be of type "
                f"{kind.__name__}; got {shown(value)}"
            )
    faults = (TypeError, RuntimeError, ArithmeticError, AssertionError)
    try:
        with without_weights(source):
            return cls(**config)
    except (*faults, LookupError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"{source}: expected the arguments of {cls.__name__} ({first})"
        ) from error
