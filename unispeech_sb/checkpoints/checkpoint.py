"""What any file of another framework holds, under one set of names.

Every reader gives a ``Checkpoint``, and says of each option where it is from.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from unispeech_sb.checkpoints.options import shown

TASKS = (
    "Model",
    "ForPreTraining",
    "ForCTC",
    "ForSequenceClassification",
    "ForAudioFrameClassification",
    "ForXVector",
    "ForECAPA",
    "ForEENDVC",
    "ForRecurrentCTC",
    "ForProjectedCTC",
    "ForLSTMDiarization",
)
"""What stands on the backbone: transformers' classes without the family's
name, the authors' speaker verification and diarization, then s3prl's speech and
phoneme recognition and diarization."""

TENSORS = "shapes of the tensors"
"""Source of what cannot be set otherwise."""


class Fact(NamedTuple):
    """Something known about a checkpoint.

    Arguments
    ---------
    value : object
        A number, a text or a list.
    source : str
        Where it was read, or the rule that gave it.
    """

    value: Any
    source: str


@dataclass
class Checkpoint:
    """A checkpoint of another framework under transformers' names.

    Arguments
    ---------
    origin : str
        What was read: ``Hugging Face``, ``fairseq``, ``s3prl``, ...
    family : str
        One of ``options.FAMILIES``.
    task : str
        One of ``TASKS``.
    config : dict
        Options of ``Backbone`` and of the head, under the names of
        transformers' configuration.
    backbone : dict
        Name in ``Backbone`` -> tensor. Empty where the file has a head only.
    top : dict
        transformers' name -> tensor, for what stands on the backbone; the
        authors' heads have the names of their lobes.
    tokens : list of str or None
        The vocabulary of a CTC model by index.
    vocabulary : str or None
        Name of a vocabulary that the file does not hold, one of
        ``convert.tokenizers.VOCABULARIES``.
    blank_index : int or None
        Index of CTC's blank.
    labels : list of str or None
        Names of the classes by index.
    files : dict
        Name -> text of files to keep as they are, such as ``vocab.json``.
    facts : dict
        Name -> ``Fact``.
    dropped : dict
        Name of a tensor that is left out -> why.
    notes : list of str
        What was added, assumed or changed on the way.
    """

    origin: str
    family: str
    task: str
    config: dict[str, Any]
    backbone: dict[str, torch.Tensor]
    top: dict[str, torch.Tensor] = field(default_factory=dict)
    tokens: list[str] | None = None
    blank_index: int | None = None
    labels: list[str] | None = None
    files: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Fact] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    vocabulary: str | None = None


def settle(facts, overrides, path):
    """Puts the options that the user gave in place of what was found; the
    ``ValueError`` says which of them contradicts the tensors."""
    settled = dict(facts)
    for name, value in overrides.items():
        fact = facts.get(name)
        if fact and fact.source == TENSORS and fact.value != value:
            raise ValueError(
                f"{path}: expected {name} {fact.value} ({TENSORS}); "
                f"got {shown(value)} (given)"
            )
        settled[name] = Fact(value, "given")
    return settled


def measured(**sizes):
    """Name -> ``Fact`` of sizes that were read off tensors."""
    return {name: Fact(size, TENSORS) for name, size in sizes.items()}


def check_agreement(head, backbone, path):
    """Checks that the measured sizes of a head, name -> ``Fact``, are those
    of the backbone in its file, where there is one."""
    for name in head.keys() & backbone.keys():
        if head[name].value != backbone[name].value:
            raise ValueError(
                f"{path}: expected a head for a backbone of {name} "
                f"{backbone[name].value}; got one for {head[name].value}"
            )


def named_tensors(value, what, path):
    """A part of a file, once it is checked to be name -> tensor."""
    if not isinstance(value, dict) or not all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor)
        for name, tensor in value.items()
    ):
        raise ValueError(f"{path}: expected named tensors in {what}")
    return value


def shape_of(tensors, name, dims, path):
    """Shape of a tensor that has to be there, with so many dimensions, none
    of them 0."""
    if name not in tensors:
        raise ValueError(f"{path}: expected the tensor {name}; it is missing")
    shape = list(tensors[name].shape)
    if len(shape) != dims or 0 in shape:
        raise ValueError(
            f"{path}: expected {name} with {dims} dimensions, none of them "
            f"0; got {shape}"
        )
    return shape
