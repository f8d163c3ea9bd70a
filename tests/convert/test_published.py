"""Every public checkpoint by its layout: true sizes, no true weights.

Names, classes and sizes are those of the model pages; ``guessed`` marks what
could not be read there.
"""

import functools
import json
import re
import shutil
import struct
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from tests.huggingface import feature_extractor
from unispeech_sb.checkpoints.huggingface import CLASSES
from unispeech_sb.checkpoints.source import read_checkpoint
from unispeech_sb.convert import convert_checkpoint, describe, to_huggingface
from unispeech_sb.convert.lobes import KINDS, build_lobes

LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "codevector_dim": 768,
    "proj_codevector_dim": 768,
}
BIASED = {**LARGE, "conv_bias": True}
MIXED = {"use_weighted_layer_sum": True}
SPEAKERS = {"num_labels": 1211, **MIXED}
TWO = {"num_labels": 2, **MIXED}
PHONES = {**LARGE, "mask_time_prob": 0.075}

PUBLISHED = {
    "microsoft/unispeech-large-1500h-cv": (
        "UniSpeechForPreTraining",
        {**BIASED, "num_ctc_classes": 80},
    ),
    "microsoft/unispeech-large-multi-lingual-1500h-cv": (
        "UniSpeechForPreTraining",
        {**BIASED, "num_ctc_classes": 300},  # guessed
    ),
    "microsoft/unispeech-1350-en-353-fr-ft-1h": (
        "UniSpeechForCTC",
        {**PHONES, "vocab_size": 46, "pad_token_id": 42},
    ),
    "microsoft/unispeech-1350-en-168-es-ft-1h": (
        "UniSpeechForCTC",
        {**PHONES, "vocab_size": 45, "pad_token_id": 41},
    ),
    "microsoft/unispeech-1350-en-90-it-ft-1h": (
        "UniSpeechForCTC",
        {**PHONES, "vocab_size": 65, "pad_token_id": 61},
    ),
    "microsoft/unispeech-1350-en-17h-ky-ft-1h": (
        "UniSpeechForCTC",
        {**PHONES, "vocab_size": 43, "pad_token_id": 39},
    ),
    "patrickvonplaten/unispeech-large-1500h-cv-timit": (
        "UniSpeechForCTC",
        {**BIASED, "vocab_size": 31, "pad_token_id": 28},
    ),
    "microsoft/unispeech-sat-base": ("UniSpeechSatForPreTraining", {}),
    "microsoft/unispeech-sat-base-plus": ("UniSpeechSatForPreTraining", {}),
    "microsoft/unispeech-sat-large": ("UniSpeechSatForPreTraining", LARGE),
    "microsoft/unispeech-sat-base-100h-libri-ft": ("UniSpeechSatForCTC", {}),
    "microsoft/unispeech-sat-base-sv": ("UniSpeechSatForXVector", SPEAKERS),
    "microsoft/unispeech-sat-base-plus-sv": (
        "UniSpeechSatForXVector",
        SPEAKERS,
    ),
    "microsoft/unispeech-sat-large-sv": (
        "UniSpeechSatForXVector",
        {**LARGE, **SPEAKERS},
    ),
    "microsoft/unispeech-sat-base-sd": (
        "UniSpeechSatForAudioFrameClassification",
        TWO,
    ),
    "microsoft/unispeech-sat-base-plus-sd": (
        "UniSpeechSatForAudioFrameClassification",
        TWO,
    ),
    "microsoft/unispeech-sat-large-sd": (
        "UniSpeechSatForAudioFrameClassification",
        {**LARGE, **TWO},
    ),
}
"""Hub name -> transformers' class, options that differ from its defaults."""

MEGABYTES = {
    "microsoft/unispeech-large-1500h-cv": 1270,
    "microsoft/unispeech-large-multi-lingual-1500h-cv": 1270,
    "microsoft/unispeech-1350-en-353-fr-ft-1h": 1260,
    "microsoft/unispeech-sat-base": 382,
    "microsoft/unispeech-sat-large": 1280,
    "microsoft/unispeech-sat-base-100h-libri-ft": 378,
    "microsoft/unispeech-sat-base-sv": 404,
    "microsoft/unispeech-sat-large-sv": 1290,
    "microsoft/unispeech-sat-large-sd": 1260,
}
"""Hub name -> size of the weights, as its page shows it."""

THERE_AND_BACK = (
    "microsoft/unispeech-sat-base-sv",
    "microsoft/unispeech-1350-en-168-es-ft-1h",
)
"""A Base and a Large model, converted with random weights."""

each = pytest.mark.parametrize("name", PUBLISHED)


def config_of(name):
    """transformers' configuration of a public checkpoint."""
    family, options = PUBLISHED[name]
    prefix = family.partition("For")[0]
    config = getattr(transformers, f"{prefix}Config")(**options)
    config.architectures = [family]
    return config


@functools.cache
def model_of(name):
    """A public checkpoint's model in transformers, without its weights."""
    with torch.device("meta"):
        return getattr(transformers, PUBLISHED[name][0])(config_of(name))


def empty_folder(name, folder):
    """A folder in the public layout, its weights a hole in the disk."""
    model = model_of(name)
    header, end = {}, 0
    for key, tensor in model.state_dict().items():
        start, end = end, end + tensor.numel() * 4
        header[key] = {
            "dtype": "F32",
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    folder.mkdir()
    with open(folder / "model.safetensors", "wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        stream.truncate(8 + len(text) + end)
    config_of(name).save_pretrained(folder)
    feature_extractor(do_normalize=True).save_pretrained(folder)
    return folder, sum(p.numel() for p in model.parameters())


@pytest.mark.slow
@each
def test_every_public_layout_fits_strictly(name, tmp_path):
    folder, num_parameters = empty_folder(name, tmp_path / "hf")
    found = read_checkpoint(folder)
    lobes = build_lobes(found, folder)
    counted = sum(p.numel() for m in lobes.values() for p in m.parameters())
    assert counted == num_parameters
    assert (found.family, found.task) == CLASSES[PUBLISHED[name][0]]
    text = str(describe(folder))
    assert f"{num_parameters:,}" in text
    size = "Large" if "-large" in name or "1350" in name else "Base"
    assert re.search(rf"^size +{size}", text, re.MULTILINE)


@pytest.mark.parametrize("name", MEGABYTES)
def test_the_sizes_are_those_on_the_pages(name):
    parameters = model_of(name).parameters()
    megabytes = 4 * sum(p.numel() for p in parameters) / 1e6
    assert abs(megabytes / MEGABYTES[name] - 1) < 0.02


def test_the_page_lists_them_all(root):
    page = (root / "docs" / "checkpoints.md").read_text()
    rows = [
        [cell.strip(" `") for cell in line.strip("|").split("|")]
        for line in page.splitlines()
        if line.startswith("| `unispeech-sb convert ")
    ]
    found = {}
    for command, *facts in rows:
        _, _, name, folder = command.split()
        assert folder == name.partition("/")[2]
        found[name] = facts
    assert list(found) == list(PUBLISHED)
    for name, (cls, _) in PUBLISHED.items():
        count = sum(p.numel() for p in model_of(name).parameters())
        task = CLASSES[cls][1]
        # Each CTC model has its vocabulary beside it
        interface = next(k.interface for k in KINDS if k.task == task)
        checked = "layout, count"
        checked += ", size" if name in MEGABYTES else ""
        checked += ", values" if name in THERE_AND_BACK else ""
        millions = f"{count / 1e6:.2f} M"
        assert found[name] == [cls, interface, millions, checked]


@pytest.mark.slow
@pytest.mark.parametrize("name", THERE_AND_BACK)
def test_a_checkpoint_of_true_size_goes_there_and_back(name):
    with TemporaryDirectory() as folder:  # pytest would keep gigabytes
        if shutil.disk_usage(folder).free < 8e9:
            pytest.skip(f"needs 8 GB free in {folder}")
        folder = Path(folder)
        empty_folder(name, folder / "hf")
        path = folder / "hf" / "model.safetensors"
        tensors = {
            key: torch.randn(64)[torch.randint(64, tensor.shape)]
            for key, tensor in load_file(path).items()
        }
        save_file(tensors, path, metadata={"format": "pt"})
        convert_checkpoint(folder / "hf", folder / "sb")
        to_huggingface(folder / "sb", folder / "back")
        back = load_file(folder / "back" / "model.safetensors")
        assert back.keys() == tensors.keys()
        for key, tensor in tensors.items():
            assert torch.equal(tensor, back[key]), key
