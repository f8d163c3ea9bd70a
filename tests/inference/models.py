"""Tiny recognisers for the tests of inference."""

import functools

import pytest
import torch
from safetensors.torch import save_file
from speechbrain.decoders import ctc_greedy_decode

from tests.huggingface import save_folder, tiny_model
from unispeech_sb.dataio.tokenizers import CTCTokenizer
from unispeech_sb.inference.asr import LongFormASR
from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.lobes.heads import FrameHead, FramePosteriors

NORMS = pytest.mark.parametrize("norm", ["group", "layer"])
NORMALIZE = pytest.mark.parametrize("normalize", [True, False])
TOKENS = ["-", "|", "a", "b", "c", "<unk>"]
VOCABULARIES = {
    "eng": {"<pad>": 0, "a": 1, "b": 2, "|": 3},
    "fra": {"<pad>": 0, "a": 1, "é": 2, "b": 3, "|": 4},
    "zho": {"<pad>": 0, "文": 1, "|": 2},
}


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


def save_languages(path):
    """Writes a CTC model of transformers with adapters for two languages, and
    a vocabulary for a third."""
    model = tiny_model(
        "unispeech", "ForCTC", feat_extract_norm="layer", vocab_size=4,
        do_stable_layer_norm=True, adapter_attn_dim=4,
    )  # fmt: skip
    folder = save_folder(model, path, vocabulary=VOCABULARIES)
    generator = torch.Generator().manual_seed(1)
    for lang in ("eng", "fra"):
        size = len(VOCABULARIES[lang])
        tensors = {
            name: torch.randn(tensor.shape, generator=generator)
            for name, tensor in model.state_dict().items()
            if ".adapter_layer." in name
        }
        tensors["lm_head.weight"] = torch.randn(size, 16, generator=generator)
        tensors["lm_head.bias"] = torch.zeros(size)
        save_file(tensors, folder / f"adapter.{lang}.safetensors")
    return folder


def save_arpa(path, **log10_probs):
    """Writes a language model of words that do not depend on each other."""
    words = {"<unk>": -9.0, "<s>": -9.0, "</s>": -0.5, **log10_probs}
    lines = ["\\data\\", f"ngram 1={len(words)}", "ngram 2=1", "", "\\1-grams:"]
    lines += [f"{prob}\t{word}\t0" for word, prob in words.items()]
    lines += ["", "\\2-grams:", "-0.5\t<s> </s>", "", "\\end\\", ""]
    path.write_text("\n".join(lines))
    return path
