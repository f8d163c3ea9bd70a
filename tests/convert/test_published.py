"""Every public checkpoint by its layout: true sizes, no true weights."""

import json
import re
import struct

import pytest
import torch
import transformers

from tests.huggingface import write_preprocessor
from tests.published import MEGABYTES, PUBLISHED
from unispeech_sb.checkpoints.keys import CLASSES
from unispeech_sb.checkpoints.source import read_checkpoint
from unispeech_sb.convert import convert_checkpoint, describe, to_huggingface
from unispeech_sb.convert.lobes import build_lobes
from unispeech_sb.convert.pretrained import SERVED_BY

each = pytest.mark.parametrize("name", PUBLISHED)


def config_of(name):
    """transformers' configuration of a public checkpoint."""
    family, options = PUBLISHED[name]
    prefix = family.partition("For")[0]
    config = getattr(transformers, f"{prefix}Config")(**options)
    config.architectures = [family]
    return config


def empty_folder(name, folder):
    """A folder in the public layout, its weights a hole in the disk."""
    config = config_of(name)
    with torch.device("meta"):
        model = getattr(transformers, PUBLISHED[name][0])(config)
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
    config.save_pretrained(folder)
    write_preprocessor(folder, do_normalize=True)
    return folder, sum(p.numel() for p in model.parameters())


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
    with torch.device("meta"):
        model = getattr(transformers, PUBLISHED[name][0])(config_of(name))
    megabytes = 4 * sum(p.numel() for p in model.parameters()) / 1e6
    assert abs(megabytes / MEGABYTES[name] - 1) < 0.02


def test_the_readme_lists_them_all(root, tmp_path):
    readme = (root / "README.md").read_text()
    rows = [
        [cell.strip(" `") for cell in line.strip("|").split("|")]
        for line in readme.splitlines()
        if line.startswith("| `unispeech-sb convert ")
    ]
    found = {}
    for command, cls, interface, parameters in rows:
        _, _, name, folder = command.split()
        assert folder == name.partition("/")[2]
        found[name] = (cls, interface, parameters)
    assert list(found) == list(PUBLISHED)
    for name, (cls, _) in PUBLISHED.items():
        with torch.device("meta"):
            model = getattr(transformers, cls)(config_of(name))
        count = sum(p.numel() for p in model.parameters())
        interface = SERVED_BY.get(CLASSES[cls][1], "WaveformEncoder")
        assert found[name] == (cls, interface, f"{count / 1e6:.2f} M")


def test_a_checkpoint_of_true_size_goes_there_and_back(tmp_path):
    name = "microsoft/unispeech-sat-base-sv"
    config = config_of(name)
    model = transformers.UniSpeechSatForXVector(config).eval()
    model.save_pretrained(tmp_path / "hf")
    write_preprocessor(tmp_path / "hf", do_normalize=False)
    convert_checkpoint(tmp_path / "hf", tmp_path / "sb")
    to_huggingface(tmp_path / "sb", tmp_path / "back")
    again, info = transformers.UniSpeechSatForXVector.from_pretrained(
        tmp_path / "back", output_loading_info=True
    )
    assert not any(info.values())
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[key])
