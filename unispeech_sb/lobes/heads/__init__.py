"""Heads: features in, scores or an embedding out."""

from unispeech_sb.lobes.heads.classification import (
    FrameHead,
    ProjectedFrameHead,
    RecurrentHead,
    UtteranceHead,
)
from unispeech_sb.lobes.heads.diarization import DiarizationHead, EENDVCHead
from unispeech_sb.lobes.heads.pretraining import (
    UniSpeechHead,
    UniSpeechSATHead,
)
from unispeech_sb.lobes.heads.speaker import (
    AAMSoftmax,
    AMSoftmax,
    ECAPAHead,
    SpeakerHead,
    StatisticsHead,
)
from unispeech_sb.lobes.heads.speechbrain import (
    Chain,
    FrameActivities,
    FramePosteriors,
    IntentPosteriors,
    PassThrough,
    SpeakerPosteriors,
    UtteranceEncoder,
    UtterancePosteriors,
)

__all__ = [
    "AAMSoftmax",
    "AMSoftmax",
    "Chain",
    "DiarizationHead",
    "ECAPAHead",
    "EENDVCHead",
    "FrameActivities",
    "FrameHead",
    "FramePosteriors",
    "IntentPosteriors",
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
