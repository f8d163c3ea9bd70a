"""The table of what a folder may have, and what is refused."""

import json

import pytest
import torch

from tests.convert.exports import DIM
from tests.huggingface import save_folder, tiny_model
from unispeech_sb.checkpoints.huggingface import read_huggingface
from unispeech_sb.checkpoints.options import OURS
from unispeech_sb.checkpoints.pretrained_folder import (
    LobeFile,
    write_pretrained,
)
from unispeech_sb.convert import describe, to_huggingface
from unispeech_sb.convert.lobes import (
    KINDS,
    build_lobes,
    check_lobe,
    kinds_of,
)
from unispeech_sb.dataio.labels import LabelEncoder
from unispeech_sb.lobes import heads
from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.lobes.lobe import Lobe

ONLY_HERE = [name for name, option in OURS.items() if option.only_here]


def test_every_public_head_has_a_row():
    listed = {kind.cls.__name__ for kind in KINDS}
    public = {
        name for name in heads.__all__ if issubclass(getattr(heads, name), Lobe)
    }
    assert listed == public | {"Backbone"}
    wrappers = set(heads.__all__) - public
    assert all(
        issubclass(getattr(heads, name), torch.nn.Module) for name in wrappers
    )


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "UtteranceHead",
        "elsewhere.UtteranceHead",
        "unispeech_sb.lobesUtteranceHead",
        "unispeech_sb.lobes.heads.PassThrough",
        "unispeech_sb.lobes.heads.",
    ],
)
def test_another_class_is_none_of_this_package(name):
    with pytest.raises(ValueError, match=r"a\.ckpt: expected a lobe of this"):
        check_lobe(LobeFile(name, {}, {}), "a.ckpt")


def test_a_huge_number_is_refused_before_anything_is_built():
    name = "unispeech_sb.lobes.heads.FrameHead"
    sizes = {"input_size": 10**7, "num_classes": 2}
    with pytest.raises(ValueError, match="at most 1000000; got 10000000"):
        check_lobe(LobeFile(name, sizes, {}), "a.ckpt")


@pytest.mark.parametrize("module", ["heads", "heads.utterance"])
def test_a_class_may_say_where_it_is_defined(module):
    name = f"unispeech_sb.lobes.{module}.UtteranceHead"
    (kind,) = kinds_of(LobeFile(name, {}, {}), "a.ckpt")
    assert kind.cls is heads.UtteranceHead


def export(folder, **lobes):
    """A folder of some modules."""
    lobes = {"backbone": Backbone.from_preset("tiny"), **lobes}
    labels = LabelEncoder.from_labels(["ann", "bob", "cleo"])
    write_pretrained(folder, lobes, "SpeakerRecognition", "", labels)
    return folder


def x_vector():
    """A head that transformers has."""
    return heads.SpeakerHead(DIM, [8], [1], [1], xvector_output_dim=6)


@pytest.mark.parametrize(
    ("lobes", "name"),
    [
        # its several vectors a speaker would pass for other speakers
        (lambda: {"head": x_vector(),
                  "objective": heads.AAMSoftmax(6, 3, sub_centers=2)},
         "AAMSoftmax"),
        (lambda: {"head": heads.UtteranceHead(DIM, 3),
                  "objective": heads.AMSoftmax(6, 3)}, "AMSoftmax"),
        (lambda: {"head": heads.AMSoftmax(DIM, 3)}, "AMSoftmax"),
    ],
)  # fmt: skip
def test_what_would_come_out_wrong_in_transformers_is_refused(
    lobes, name, tmp_path
):
    folder = export(tmp_path / "sb", **lobes())
    reason = f"transformers has no class for {name}; --backbone-only writes"
    with pytest.raises(ValueError, match=reason):
        to_huggingface(folder, tmp_path / "hf")
    assert reason in str(describe(folder))
    assert not (tmp_path / "hf").exists()


def test_a_head_of_one_family_decides_for_it(tmp_path):
    head = heads.UniSpeechHead(DIM, 8, [2, 5, 8], 8, 7)
    folder = export(tmp_path / "sb", head=head)
    assert describe(folder).facts["family"].value == "unispeech"
    to_huggingface(folder, tmp_path / "hf")
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert config["architectures"] == ["UniSpeechForPreTraining"]


def test_some_steps_are_only_here():
    assert "output_norm" in ONLY_HERE


@pytest.mark.parametrize("name", ONLY_HERE)
def test_what_not_even_the_backbone_allows_is_told_of_all(name, tmp_path):
    value = 30.0 if name == "window_s" else not OURS[name].default
    backbone = Backbone.from_preset("tiny", **{name: value})
    head = heads.StatisticsHead(DIM, 3)
    folder = export(tmp_path / "sb", backbone=backbone, head=head)
    text = str(describe(folder))
    assert "would not convert: all of it (transformers has no class" in text
    with pytest.raises(
        ValueError, match=f"expected {name} {OURS[name].default}"
    ):
        to_huggingface(folder, tmp_path / "hf", backbone_only=True)


def test_an_objective_without_phones_has_no_scores_of_them(tmp_path):
    folder = save_folder(tiny_model("unispeech", "ForPreTraining"), tmp_path)
    found = read_huggingface(folder)
    assert build_lobes(found, folder)["head"].ctc_proj is not None
    for name in ("ctc_proj.weight", "ctc_proj.bias"):
        del found.top[name]  # as in the authors' second stage
    head = build_lobes(found, folder)["head"]
    assert head.ctc_proj is None and head.config["num_ctc_classes"] == 0
