"""Folders of transformers' classes, in the two styles of published ones."""

import pytest
import torch

from tests.huggingface import save_folder, tiny_model
from unispeech_sb.checkpoints.huggingface import CLASSES

STYLES = {
    "group": {},
    "layer": {
        "feat_extract_norm": "layer",
        "do_stable_layer_norm": True,
        "use_weighted_layer_sum": True,
        "conv_bias": True,
    },
}
TDNN = {
    "tdnn_dim": [12, 12, 14],
    "tdnn_kernel": [3, 2, 1],
    "tdnn_dilation": [1, 2, 1],
    "xvector_output_dim": 10,
}
SMALL = {
    "codevector_dim": 8,
    "num_codevectors_per_group": 6,
    "num_clusters": 9,
    "num_ctc_classes": 11,
    "vocab_size": 7,
    "mask_time_prob": 0.05,
    **TDNN,
}
all_classes = pytest.mark.parametrize("name", CLASSES)


def make(name, style, folder, weight_norm="new", **options):
    """A tiny model of a class, and its folder."""
    family, head = CLASSES[name]
    model = tiny_model(family, head, **{**SMALL, **STYLES[style], **options})
    return model, save_folder(
        model, folder, do_normalize=style == "layer", weight_norm=weight_norm
    )


def wavs_of(style, batch=2, samples=7000):
    """Waveforms, normalised where the folder says that they are to be."""
    wavs = torch.randn(batch, samples)
    if style != "layer":
        return wavs, wavs
    centred = wavs - wavs.mean(1, keepdim=True)
    spread = wavs.var(1, correction=0, keepdim=True)
    return wavs, centred / torch.sqrt(spread + 1e-7)
