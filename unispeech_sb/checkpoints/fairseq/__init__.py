"""Checkpoints that the authors' fairseq wrote."""

from unispeech_sb.checkpoints.fairseq.names import rename_backbone
from unispeech_sb.checkpoints.fairseq.reader import is_fairseq, read_fairseq
from unispeech_sb.checkpoints.fairseq.sizes import (
    backbone_options,
    complete_backbone,
)

__all__ = [
    "backbone_options",
    "complete_backbone",
    "is_fairseq",
    "read_fairseq",
    "rename_backbone",
]
