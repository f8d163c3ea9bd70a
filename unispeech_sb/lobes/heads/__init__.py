"""Heads: features in, scores or an embedding out."""

from unispeech_sb.lobes.heads.serving import (
    PassThrough,
    UtteranceEncoder,
    UtterancePosteriors,
)
from unispeech_sb.lobes.heads.utterance import UtteranceHead

__all__ = [
    "PassThrough",
    "UtteranceEncoder",
    "UtteranceHead",
    "UtterancePosteriors",
]
