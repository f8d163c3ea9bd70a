"""Every lobe under one roof: ``speechbrain.lobes.models.unispeech`` in a yaml.

In a wheel that name is a file (plugin/unispeech.py). An editable installation
cannot put files into other packages: there the name is found once
``unispeech_sb`` has been imported.
"""

from unispeech_sb.lobes import heads
from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.lobes.heads import *  # noqa: F403
from unispeech_sb.lobes.pretraining import UniSpeech, UniSpeechSAT
from unispeech_sb.lobes.wav2vec2 import (
    Wav2Vec2,
    Wav2Vec2Pretrain,
    WeightedSSLModel,
)

__all__ = [
    "Backbone",
    "UniSpeech",
    "UniSpeechSAT",
    "Wav2Vec2",
    "Wav2Vec2Pretrain",
    "WeightedSSLModel",
    *heads.__all__,
]
