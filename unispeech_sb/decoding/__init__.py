"""Decoding of CTC models: greedy, and by prefix beam search; alignment."""

from unispeech_sb.decoding.forced_alignment import (
    AlignedLine,
    Alignment,
    ForcedAligner,
)
from unispeech_sb.decoding.scoring import HotWords, LanguageModel
from unispeech_sb.decoding.search import (
    BeamWordDecoder,
    Hypothesis,
    PrefixBeamSearch,
    PrefixBeamSearcher,
)
from unispeech_sb.decoding.tuning import tune
from unispeech_sb.decoding.words import (
    Transcript,
    Word,
    WordDecoder,
    greedy_transcript,
)

__all__ = [
    "AlignedLine",
    "Alignment",
    "BeamWordDecoder",
    "ForcedAligner",
    "HotWords",
    "Hypothesis",
    "LanguageModel",
    "PrefixBeamSearch",
    "PrefixBeamSearcher",
    "Transcript",
    "Word",
    "WordDecoder",
    "greedy_transcript",
    "tune",
]
