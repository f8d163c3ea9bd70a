"""The two pre-trainings: a backbone and a head in, named losses out."""

from unispeech_sb.lobes.pretraining.objective import (
    PretrainingOutput,
    load_head,
    weighted_loss,
)
from unispeech_sb.lobes.pretraining.unispeech import (
    UNISPEECH_WEIGHTS,
    Negatives,
    UniSpeech,
    UniSpeechDraws,
)
from unispeech_sb.lobes.pretraining.unispeech_sat import (
    SAT_WEIGHTS,
    Instances,
    UniSpeechSAT,
    UniSpeechSATDraws,
)

__all__ = [
    "SAT_WEIGHTS",
    "UNISPEECH_WEIGHTS",
    "Instances",
    "Negatives",
    "PretrainingOutput",
    "UniSpeech",
    "UniSpeechDraws",
    "UniSpeechSAT",
    "UniSpeechSATDraws",
    "load_head",
    "weighted_loss",
]
