"""Checkpoints of other frameworks to pretrained folders."""

from unispeech_sb.convert.huggingface import (
    ConversionReport,
    convert_checkpoint,
)

__all__ = ["ConversionReport", "convert_checkpoint"]
