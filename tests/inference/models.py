"""Tiny recognisers for the tests of inference."""

import functools

import torch
from speechbrain.decoders import ctc_greedy_decode

from unispeech_sb.dataio.tokenizers import CTCTokenizer
from unispeech_sb.inference.asr import LongFormASR
from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.lobes.heads import FrameHead, FramePosteriors

TOKENS = ["-", "|", "a", "b", "c", "<unk>"]


def characters():
    """A tokenizer of three letters."""
    return CTCTokenizer.from_tokens(TOKENS, blank_index=0)


def recognizer(window_s=20.0, context_s=1.5, **options):
    """A tiny model whose decisions are not close calls."""
    torch.manual_seed(1)
    backbone = Backbone.from_preset("tiny", **options)
    head = FrameHead(16, len(TOKENS))
    head.classifier.weight.data *= 20
    return wired(backbone, head, window_s, context_s)


def wired(backbone, head, window_s, context_s):
    """The interface around a backbone and a head."""
    return LongFormASR(
        {"encoder": FramePosteriors(backbone, head)},
        {
            "tokenizer": characters(),
            "decoding_function": functools.partial(
                ctc_greedy_decode, blank_id=0
            ),
        },
        window_s=window_s,
        context_s=context_s,
    )


def recut(asr, window_s, context_s):
    """The same model with other windows."""
    parts = asr.mods.encoder
    return wired(parts.backbone, parts.head, window_s, context_s)


def uneven_speech(seconds, rate=16000):
    """Noise with an offset and a loudness that grows, so that statistics of
    a part are far from those of the whole."""
    samples = round(seconds * rate)
    loudness = torch.linspace(0.02, 0.5, samples)
    return torch.randn(samples) * loudness + 0.05
