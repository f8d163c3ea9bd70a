"""Every lobe under one roof: ``speechbrain.lobes.models.unispeech`` in a yaml.

setup.cfg lists the same classes in the entry-point group
``speechbrain.lobes``.
"""

from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.lobes.heads import (
    AAMSoftmax,
    AMSoftmax,
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

__all__ = [
    "AAMSoftmax",
    "AMSoftmax",
    "Backbone",
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
    "UniSpeechHead",
    "UniSpeechSATHead",
    "UtteranceEncoder",
    "UtteranceHead",
    "UtterancePosteriors",
]
