"""Training loops: the base of all tasks, and one Brain per kind of task."""

from unispeech_sb.brains.classification import IntentBrain, UtteranceBrain
from unispeech_sb.brains.core import SSLBrain
from unispeech_sb.brains.ctc import CTCBrain, SlotBrain
from unispeech_sb.brains.diarization import DiarizationBrain
from unispeech_sb.brains.pretraining import PretrainBrain
from unispeech_sb.brains.schedules import polynomial, tri_stage
from unispeech_sb.brains.speaker import SpeakerBrain

__all__ = [
    "CTCBrain",
    "DiarizationBrain",
    "IntentBrain",
    "PretrainBrain",
    "SSLBrain",
    "SlotBrain",
    "SpeakerBrain",
    "UtteranceBrain",
    "polynomial",
    "tri_stage",
]
