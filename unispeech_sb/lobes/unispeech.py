"""Every lobe under one roof: ``speechbrain.lobes.models.unispeech`` in a yaml.

setup.cfg lists the same classes in the entry-point group
``speechbrain.lobes``.
"""

from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.lobes.heads import (
    AAMSoftmax,
    AMSoftmax,
    DiarizationHead,
    ECAPAHead,
    EENDVCHead,
    FrameHead,
    FramePosteriors,
    PassThrough,
    ProjectedFrameHead,
    RecurrentHead,
    SpeakerHead,
    SpeakerPosteriors,
    StatisticsHead,
    UniSpeechHead,
    UniSpeechSATHead,
    UtteranceEncoder,
    UtteranceHead,
    UtterancePosteriors,
)
from unispeech_sb.lobes.pretraining import UniSpeech, UniSpeechSAT

__all__ = [
    "AAMSoftmax",
    "AMSoftmax",
    "Backbone",
    "DiarizationHead",
    "ECAPAHead",
    "EENDVCHead",
    "FrameHead",
    "FramePosteriors",
    "PassThrough",
    "ProjectedFrameHead",
    "RecurrentHead",
    "SpeakerHead",
    "SpeakerPosteriors",
    "StatisticsHead",
    "UniSpeech",
    "UniSpeechHead",
    "UniSpeechSAT",
    "UniSpeechSATHead",
    "UtteranceEncoder",
    "UtteranceHead",
    "UtterancePosteriors",
]
