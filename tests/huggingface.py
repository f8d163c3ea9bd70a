"""Tiny random models of transformers, as references and as files."""

import json

import pytest
import torch
import transformers
from packaging.version import Version
from safetensors.torch import load_file, save_file

FAMILIES = {
    "unispeech": "UniSpeech",
    "unispeech-sat": "UniSpeechSat",
    "wav2vec2": "Wav2Vec2",
    "hubert": "Hubert",
    "wavlm": "WavLM",
}
PREFIXES = {family: family.replace("-", "_") for family in FAMILIES}
NEW = "parametrizations.weight.original"
needs_5_21 = pytest.mark.skipif(
    Version(transformers.__version__) < Version("5.21"),
    reason="needs transformers 5.21, which needs Python 3.11",
)
"""Marks tests that rely on what older versions of transformers lack."""


def tiny_config(family, **options):
    """A configuration that runs in milliseconds and draws nothing."""
    sizes = {
        "hidden_size": 16,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "conv_dim": [8, 8, 8, 8, 8, 8, 8],
        "num_conv_pos_embeddings": 8,
        "num_conv_pos_embedding_groups": 2,
        "classifier_proj_size": 12,
        "num_labels": 5,
        "initializer_range": 0.2,
        "apply_spec_augment": False,
        "codevector_dim": 8,
        "proj_codevector_dim": 8,
        # of WavLM, whose distances of a few frames share buckets already
        "num_buckets": 12,
        "max_bucket_distance": 9,
    }
    off = dict.fromkeys(
        ("hidden_dropout", "activation_dropout", "attention_dropout",
         "feat_proj_dropout", "final_dropout", "layerdrop"), 0.0,
    )  # fmt: skip
    cls = getattr(transformers, FAMILIES[family] + "Config")
    return cls(**{**sizes, **off, **options})


def full_config(family, **options):
    """A configuration of published size."""
    return getattr(transformers, FAMILIES[family] + "Config")(**options)


def tiny_model(family, head="Model", **options):
    """A random model in evaluation mode, its norms and biases random too."""
    config = tiny_config(family, **options)
    model = getattr(transformers, FAMILIES[family] + head)(config).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() < 2:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.add_(0.1 * noise)
    return model


def save_folder(
    model, folder, do_normalize=False, weight_norm="new", vocabulary=None
):
    """Has transformers write a folder: model, feature extractor, and, with a
    vocabulary (token -> index), both in a processor with a CTC tokenizer.

    ``weight_norm="old"`` renames tensors to the spelling of published files.
    """
    model.save_pretrained(folder)
    if weight_norm == "old":
        path = folder / "model.safetensors"
        tensors = {
            key.replace(NEW + "0", "weight_g").replace(NEW + "1", "weight_v"): t
            for key, t in load_file(path).items()
        }
        assert any(key.endswith("conv.weight_g") for key in tensors)
        save_file(tensors, path, metadata={"format": "pt"})
    extractor = feature_extractor(do_normalize)
    if vocabulary is None:
        extractor.save_pretrained(folder)
    else:
        tokenizer = ctc_tokenizer(vocabulary, folder / "vocab.json")
        processor = transformers.Wav2Vec2Processor(extractor, tokenizer)
        processor.save_pretrained(folder)
    return folder


def feature_extractor(do_normalize):
    """What transformers prepares waveforms with."""
    return transformers.Wav2Vec2FeatureExtractor(do_normalize=do_normalize)


def ctc_tokenizer(vocabulary, path):
    """A tokenizer without tokens beyond a vocabulary, which may be one for
    each language. ``path`` is where it reads the vocabulary from."""
    path.write_text(json.dumps(vocabulary))
    lang = next((k for k, v in vocabulary.items() if isinstance(v, dict)), None)
    names = vocabulary[lang] if lang else vocabulary
    special = {
        f"{name}_token": f"<{token}>" if f"<{token}>" in names else None
        for name, token in (
            ("pad", "pad"), ("unk", "unk"), ("bos", "s"), ("eos", "/s")
        )
    }  # fmt: skip
    return transformers.Wav2Vec2CTCTokenizer(
        path, target_lang=lang, word_delimiter_token="|", **special
    )


def attention_mask(lengths):
    """transformers' mask of a padded batch, [B, N]."""
    lengths = torch.as_tensor(lengths)
    return (torch.arange(int(lengths.max())) < lengths[:, None]).long()
