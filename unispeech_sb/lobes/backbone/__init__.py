"""The backbone of both families, its presets, and how it is loaded."""

from unispeech_sb.lobes.backbone.model import Backbone
from unispeech_sb.lobes.backbone.output import BackboneOutput
from unispeech_sb.lobes.backbone.presets import PRESETS

__all__ = ["PRESETS", "Backbone", "BackboneOutput"]
