"""What files of downstream models share: shapes, and a fairseq backbone
inside under a prefix.
"""

from typing import NamedTuple

import torch

from unispeech_sb.checkpoints.checkpoint import TENSORS, Fact
from unispeech_sb.checkpoints.fairseq import (
    backbone_options,
    complete_backbone,
    rename_backbone,
)
from unispeech_sb.checkpoints.fairseq.names import TOP, rename

OBJECTIVE = "part of the pre-training objective, which this model does not use"
SWITCHES = {
    "last_state": Fact("normed", "the authors' code: it hooks the output"),
    "mask_rule": Fact("hf", "the authors' code: it never pads"),
}
NORMALIZED = (
    "assumed: Large models, with a norm in each convolution, were trained "
    "on normalised waveforms, Base models were not"
)
ASSUMED_NORM = (
    "normalize_wav: assumed {}, by the backbone's size; no tensor tells, and "
    "--set normalize_wav={} gives the other"
)


class Upstream(NamedTuple):
    """The backbone in a downstream file, and what is left of the file.

    Arguments
    ---------
    backbone : dict
        Name in ``Backbone`` -> tensor; empty where the file has none.
    rest : dict
        Name in the file -> tensor, for all that is neither backbone nor
        dropped.
    facts : dict
        Option of ``Backbone`` -> ``Fact``.
    dropped : dict
        Name in the file -> why it is left out.
    notes : list of str
        What was added or assumed.

    Example
    -------
    >>> Upstream({}, {}, {}, {}, []).backbone
    {}
    """

    backbone: dict
    rest: dict
    facts: dict
    dropped: dict
    notes: list


def read_upstream(tensors, prefix, path, overrides):
    """Takes the backbone out of a downstream model.

    Arguments
    ---------
    tensors : dict
        Name in the file -> tensor.
    prefix : str
        What the names of the backbone start with.
    path : str or pathlib.Path
        Where they are from, for errors.
    overrides : dict
        Options that the user gave.

    Returns
    -------
    Upstream
        Both parts.

    Raises
    ------
    ValueError
        When the backbone is incomplete or contradicts a given option.

    Example
    -------
    >>> read_upstream({"linear.bias": 1}, "feature_extract.", "x.pt", {}).rest
    {'linear.bias': 1}
    """
    backbone, others = rename_backbone(tensors, prefix)
    dropped = {
        name: OBJECTIVE
        for name in others
        if name.startswith(prefix) and rename(name.removeprefix(prefix), TOP)
    }
    rest = {name: t for name, t in others.items() if name not in dropped}
    if not backbone:
        return Upstream({}, rest, dict(SWITCHES), dropped, [])
    notes = complete_backbone(backbone)
    asked = {k: v for k, v in overrides.items() if k not in SWITCHES}
    _, facts, assumed = backbone_options(backbone, path, asked)
    facts = facts | SWITCHES
    normalized = facts["feat_extract_norm"].value == "layer"
    facts["normalize_wav"] = Fact(normalized, NORMALIZED)
    if "normalize_wav" not in overrides:
        texts = ["true", "false"] if normalized else ["false", "true"]
        assumed = [*assumed, ASSUMED_NORM.format(*texts)]
    return Upstream(backbone, rest, facts, dropped, notes + assumed)


def named_tensors(value, what, path):
    """Checks that a part of a file is named tensors.

    Arguments
    ---------
    value : object
        The part.
    what : str
        What it is called in the file.
    path : str or pathlib.Path
        The file, for the error.

    Returns
    -------
    dict
        Name -> tensor.

    Raises
    ------
    ValueError
        When it is anything else.

    Example
    -------
    >>> named_tensors({"a": 1}, "model", "x.pt")
    Traceback (most recent call last):
    ...
    ValueError: x.pt: expected named tensors in model
    """
    if not isinstance(value, dict) or not all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor)
        for name, tensor in value.items()
    ):
        raise ValueError(f"{path}: expected named tensors in {what}")
    return value


def shape_of(tensors, name, dims, path):
    """Shape of a tensor that has to be there.

    Arguments
    ---------
    tensors : dict
        Name -> tensor.
    name : str
        The one to measure.
    dims : int
        Number of its dimensions.
    path : str or pathlib.Path
        The file, for the error.

    Returns
    -------
    list of int
        Its shape.

    Raises
    ------
    ValueError
        When it is absent, empty, or has another number of dimensions.

    Example
    -------
    >>> shape_of({"a.bias": torch.zeros(3)}, "a.bias", 1, "x.pt")
    [3]
    """
    if name not in tensors:
        raise ValueError(f"{path}: expected the tensor {name}; it is missing")
    shape = list(tensors[name].shape)
    if len(shape) != dims or 0 in shape:
        raise ValueError(
            f"{path}: expected {name} with {dims} dimensions, none of them "
            f"0; got {shape}"
        )
    return shape


def measured(**sizes):
    """Notes sizes as read off tensors.

    Arguments
    ---------
    **sizes : int
        Value of each option.

    Returns
    -------
    dict
        Name -> ``Fact``.

    Example
    -------
    >>> measured(channels=512)
    {'channels': Fact(value=512, source='shapes of the tensors')}
    """
    return {name: Fact(size, TENSORS) for name, size in sizes.items()}


def check_agreement(head, backbone, path):
    """Checks that a head and the backbone in its file belong together.

    Arguments
    ---------
    head : dict
        Name of a size -> ``Fact``, from the head's tensors.
    backbone : dict
        The same from the backbone's; empty where the file has none.
    path : str or pathlib.Path
        The file, for the error.

    Raises
    ------
    ValueError
        When both say a size, and not the same one.

    Example
    -------
    >>> check_agreement(measured(hidden_size=8), measured(hidden_size=4), "x")
    Traceback (most recent call last):
    ...
    ValueError: x: expected a head for a backbone of hidden_size 4; got ...
    """
    for name in head.keys() & backbone.keys():
        if head[name].value != backbone[name].value:
            raise ValueError(
                f"{path}: expected a head for a backbone of {name} "
                f"{backbone[name].value}; got one for {head[name].value}"
            )
