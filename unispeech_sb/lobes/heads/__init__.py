"""Heads: features in, scores or an embedding out."""

from unispeech_sb.lobes.heads.diarization import DiarizationHead, EENDVCHead
from unispeech_sb.lobes.heads.ecapa import ECAPAHead
from unispeech_sb.lobes.heads.frame import FrameHead
from unispeech_sb.lobes.heads.margins import AAMSoftmax
from unispeech_sb.lobes.heads.pretraining import UniSpeechHead
from unispeech_sb.lobes.heads.pretraining_sat import UniSpeechSATHead
from unispeech_sb.lobes.heads.recurrent import (
    ProjectedFrameHead,
    RecurrentHead,
)
from unispeech_sb.lobes.heads.serving import (
    FramePosteriors,
    PassThrough,
    SpeakerPosteriors,
    UtteranceEncoder,
    UtterancePosteriors,
)
from unispeech_sb.lobes.heads.speaker import AMSoftmax, SpeakerHead
from unispeech_sb.lobes.heads.statistics import StatisticsHead
from unispeech_sb.lobes.heads.utterance import UtteranceHead

__all__ = [
    "AAMSoftmax",
    "AMSoftmax",
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
    "UniSpeechHead",
    "UniSpeechSATHead",
    "UtteranceEncoder",
    "UtteranceHead",
    "UtterancePosteriors",
]
