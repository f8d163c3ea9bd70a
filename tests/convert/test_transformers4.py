"""Heads on a weighted sum of layers, as transformers 4 computed them.

``benchmarks/last_state.py`` says how the outputs were recorded.
"""

import json

import pytest
import torch

from benchmarks.last_state import (
    CLASSES,
    RECORD,
    build,
    converted_outputs,
    outputs_of,
    read_record,
    rebuild,
)
from unispeech_sb.convert import convert_checkpoint


@pytest.fixture(params=CLASSES)
def name(request):
    return request.param


def converted(name, folder, **options):
    """What was recorded, and what the converted folder gives."""
    recorded = read_record(name)
    rebuild(name, recorded, folder / "hf")
    convert_checkpoint(folder / "hf", folder / "sb", **options)
    return recorded, converted_outputs(folder / "sb", recorded["wavs"])


def test_a_checkpoint_of_transformers_4_gives_what_it_gave_there(
    name, tmp_path
):
    recorded, found = converted(name, tmp_path)
    assert recorded["version"].startswith("4.")
    assert found.keys() == recorded["outputs"].keys()
    for key, value in recorded["outputs"].items():
        torch.testing.assert_close(
            found[key].reshape(value.shape), value, rtol=1e-5, atol=1e-5
        )


def test_the_raw_last_state_is_that_of_transformers_5(name, tmp_path):
    recorded, found = converted(name, tmp_path, last_state="raw")
    model = build(name, recorded["config"])
    model.load_state_dict(recorded["state"])
    now = outputs_of(model, recorded["wavs"])
    for key, value in recorded["outputs"].items():
        mine = found[key].reshape(value.shape)
        torch.testing.assert_close(mine, now[key], rtol=1e-5, atol=1e-5)
        assert (mine - value).abs().max() > 1e-3


def test_the_version_in_the_file_decides(name, tmp_path):
    rebuild(name, {**read_record(name), "version": "5.0.0"}, tmp_path / "hf")
    convert_checkpoint(tmp_path / "hf", tmp_path / "sb")
    origin = json.loads((tmp_path / "sb" / "origin.json").read_text())
    assert origin["facts"]["last_state"]["value"] == "raw"


def test_the_record_is_small():
    assert RECORD.stat().st_size < 200_000
