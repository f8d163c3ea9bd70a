"""Every lobe under one roof: ``speechbrain.lobes.models.unispeech`` in a yaml.

In a wheel that name is a file (plugin/unispeech.py). An editable installation
cannot put files into other packages: there the name is found once
``unispeech_sb`` has been imported.
"""

from unispeech_sb.lobes import heads
from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.lobes.heads import *  # noqa: F403
from unispeech_sb.lobes.pretraining import UniSpeech, UniSpeechSAT

__all__ = ["Backbone", "UniSpeech", "UniSpeechSAT", *heads.__all__]
