"""Every lobe under one roof: ``speechbrain.lobes.models.unispeech`` in a yaml.

setup.cfg lists the same classes in the entry-point group
``speechbrain.lobes``.
"""

from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.lobes.heads import (
    PassThrough,
    UtteranceEncoder,
    UtteranceHead,
    UtterancePosteriors,
)

__all__ = [
    "Backbone",
    "PassThrough",
    "UtteranceEncoder",
    "UtteranceHead",
    "UtterancePosteriors",
]
