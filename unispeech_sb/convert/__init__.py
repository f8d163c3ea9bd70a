"""Checkpoints of other frameworks to pretrained folders, and the way back."""

from unispeech_sb.convert.info import describe
from unispeech_sb.convert.pretrained import (
    ConversionReport,
    convert_checkpoint,
    converted_folder,
)
from unispeech_sb.convert.recipes import export_recipe
from unispeech_sb.convert.to_huggingface import to_huggingface

__all__ = [
    "ConversionReport",
    "convert_checkpoint",
    "converted_folder",
    "describe",
    "export_recipe",
    "to_huggingface",
]
