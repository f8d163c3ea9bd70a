"""Every lobe under one roof: ``speechbrain.lobes.models.unispeech`` in a yaml.

setup.cfg lists the same classes in the entry-point group
``speechbrain.lobes``.
"""

from unispeech_sb.lobes import heads
from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.lobes.heads import *  # noqa: F403
from unispeech_sb.lobes.pretraining import UniSpeech, UniSpeechSAT

__all__ = ["Backbone", "UniSpeech", "UniSpeechSAT", *heads.__all__]
