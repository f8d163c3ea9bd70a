"""Backbone and heads: the modules that a yaml names."""

from unispeech_sb.environment import require_torchaudio

require_torchaudio()
