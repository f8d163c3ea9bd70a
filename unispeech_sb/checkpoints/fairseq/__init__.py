"""Checkpoints that the authors' fairseq wrote."""

from unispeech_sb.checkpoints.fairseq.reader import is_fairseq, read_fairseq
from unispeech_sb.checkpoints.fairseq.tensors import (
    backbone_options,
    complete_backbone,
    rename_backbone,
)

__all__ = [
    "backbone_options",
    "complete_backbone",
    "is_fairseq",
    "read_fairseq",
    "rename_backbone",
]
