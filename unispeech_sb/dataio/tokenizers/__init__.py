"""Texts to the indices of a CTC model's outputs and back."""

from unispeech_sb.dataio.tokenizers.ctc import CTCTokenizer

__all__ = ["CTCTokenizer"]
