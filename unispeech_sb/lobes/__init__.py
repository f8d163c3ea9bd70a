"""Backbone and heads: the modules that a yaml names."""

from typing import Any

_OF_SPEECHBRAIN = ("Wav2Vec2", "Wav2Vec2Pretrain", "WeightedSSLModel")


def __getattr__(name: str) -> Any:
    """The classes of SpeechBrain's names, when they are asked for."""
    if name not in _OF_SPEECHBRAIN:
        raise AttributeError(f"module {__name__} has no attribute {name!r}")
    from unispeech_sb.lobes import wav2vec2

    return getattr(wav2vec2, name)
