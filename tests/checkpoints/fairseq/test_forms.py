"""The same checkpoints in other forms: names and options of 2021, half
precision, torch's older format.
"""

from argparse import Namespace

import pytest
import torch

from tests.checkpoints.fairseq.comparing import (
    restored,
    same_states,
)
from tests.checkpoints.safety.planted import foreign_class
from unispeech_sb.checkpoints.fairseq import (
    read_fairseq,
)
from unispeech_sb.checkpoints.safety.pickles import read_objects


def named(content, name):
    """The names of July 2021."""
    content["cfg"]["model"]["_name"] = name
    return content


def namespaced(content):
    """All options in one Namespace, as before 2021."""
    cfg = content["cfg"]
    content["args"] = Namespace(
        **{**cfg["task"], **cfg["model"], "arch": cfg["model"]["_name"]}
    )
    content["cfg"] = None
    del content["args"]._name
    return content


def test_names_and_options_of_2021_give_the_same(stage1, sat, tmp_path):
    for content, name in ((stage1, "wav2vec_mtls1"), (sat, "bc_m_hubert")):
        now = read_fairseq(content, "x.pt")
        then = read_fairseq(named(content, name), "x.pt")
        assert then.config == now.config
        restored(content)
        torch.save(namespaced(content), tmp_path / "x.pt")
        old = read_objects(tmp_path / "x.pt")
        assert old["cfg"] is None
        found = read_fairseq(old, "x.pt")
        assert found.config == now.config
        assert found.facts["layerdrop"].source == "args.encoder_layerdrop"
        assert same_states(found, now)


def test_option_names_of_2021_of_unispeech_sat(sat):
    model = sat["cfg"]["model"]
    for new, old in (
        ("utterance_contrastive_layer", "spk_layer"),
        ("num_instances", "num_negatives"),
        ("cross_sample_instances", "cross_sample_negatives"),
    ):
        model[old] = model.pop(new)
    found = read_fairseq(sat, "x.pt")
    assert found.config["utterance_contrastive_layer"] == 1
    assert found.config["cross_sample_instances"] == 10


def test_options_pickled_by_omegaconf(stage1, tmp_path, monkeypatch):
    container = foreign_class(monkeypatch, "omegaconf.dictconfig.DictConfig")
    leaf = foreign_class(monkeypatch, "omegaconf.nodes.AnyNode")

    def wrapped(value):
        if not isinstance(value, dict):
            return leaf(_val=value)
        return container(_content={k: wrapped(v) for k, v in value.items()})

    now = read_fairseq(stage1, "x.pt")
    restored(stage1)
    stage1["cfg"] = wrapped(stage1["cfg"])
    torch.save(stage1, tmp_path / "x.pt")
    monkeypatch.undo()
    found = read_fairseq(read_objects(tmp_path / "x.pt"), "x.pt")
    assert found.config == now.config


@pytest.mark.parametrize("form", ["half", "legacy"])
def test_other_forms_of_file_give_the_same_weights(form, stage1, tmp_path):
    path, model = tmp_path / "x.pt", stage1["model"]
    now = read_fairseq(stage1, "x.pt")
    restored(stage1)
    if form == "half":
        stage1["model"] = {k: v.half() for k, v in model.items()}
    torch.save(stage1, path, _use_new_zipfile_serialization=(form != "legacy"))
    found = read_fairseq(read_objects(path), path)
    for name, tensor in now.backbone.items():
        expected = tensor.half() if form == "half" else tensor
        assert torch.equal(found.backbone[name], expected)
