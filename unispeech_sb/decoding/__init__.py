"""Decoding of CTC models: greedy, and by prefix beam search."""

from unispeech_sb.decoding.hot_words import HotWords
from unispeech_sb.decoding.language_model import LanguageModel
from unispeech_sb.decoding.search import (
    BeamWordDecoder,
    Hypothesis,
    PrefixBeamSearch,
)
from unispeech_sb.decoding.searcher import PrefixBeamSearcher
from unispeech_sb.decoding.tuning import tune
from unispeech_sb.decoding.words import (
    Transcript,
    Word,
    WordDecoder,
    greedy_transcript,
)

__all__ = [
    "BeamWordDecoder",
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
