"""Hugging Face checkpoints to pretrained folders, and what is refused."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from speechbrain.inference.classifiers import EncoderClassifier
from speechbrain.inference.encoders import WaveformEncoder

from tests.huggingface import (
    FAMILIES,
    attention_mask,
    save_folder,
    tiny_model,
    write_preprocessor,
)
from unispeech_sb.convert import convert_checkpoint
from unispeech_sb.lobes.backbone import Backbone

HEAD = "ForSequenceClassification"
OTHERS = [
    ("unispeech", "Model"),
    ("unispeech", "ForCTC"),
    ("unispeech", "ForPreTraining"),
    ("unispeech-sat", "Model"),
    ("unispeech-sat", "ForCTC"),
    ("unispeech-sat", "ForPreTraining"),
    ("unispeech-sat", "ForAudioFrameClassification"),
    ("unispeech-sat", "ForXVector"),
]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("weight_norm", ["old", "new"])
@pytest.mark.parametrize("weighted", [False, True])
def test_classifier_gives_transformers_posteriors(
    family, weight_norm, weighted, tmp_path
):
    labels = {0: "no", 1: "yes", 2: "up", 3: "down", 4: "maybe so"}
    model = tiny_model(
        family, HEAD, feat_extract_norm="layer", do_stable_layer_norm=False,
        use_weighted_layer_sum=weighted, id2label=labels,
    )  # fmt: skip
    hf = save_folder(model, tmp_path / "hf", weight_norm=weight_norm)
    report = convert_checkpoint(hf, tmp_path / "sb")
    assert report.interface == "EncoderClassifier"
    assert report.dropped == {}
    assert sum(report.used.values()) == len(model.state_dict())
    classifier = EncoderClassifier.from_hparams(source=str(tmp_path / "sb"))
    lengths = torch.tensor([7000, 4444])
    mask = attention_mask(lengths)
    wavs = torch.randn(2, 7000) * mask
    expected = model(wavs, attention_mask=mask).logits.log_softmax(-1)
    found, _, index, names = classifier.classify_batch(wavs, lengths / 7000)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert names == [labels[i] for i in index.tolist()]


def test_waveforms_are_normalised_as_the_preprocessor_says(tmp_path):
    model = tiny_model("unispeech")
    wavs = 0.3 + 0.002 * torch.randn(1, 4000)  # quiet: epsilon matters
    normed = (wavs - wavs.mean()) / torch.sqrt(wavs.var(correction=0) + 1e-7)
    for normalize, given in ((False, wavs), (True, normed)):
        folder = save_folder(model, tmp_path / str(normalize), normalize)
        found = Backbone.from_pretrained(folder).eval()(wavs)
        expected = model(given).last_hidden_state
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("family", "head"), OTHERS, ids=str)
def test_every_other_class_gives_its_backbone_and_says_what_it_drops(
    family, head, tmp_path
):
    model = tiny_model(family, head)
    hf = save_folder(model, tmp_path / "hf")
    report = convert_checkpoint(hf, tmp_path / "sb")
    tensors = load_file(hf / "model.safetensors")
    assert report.used["backbone"] + len(report.dropped) == len(tensors)
    assert all(report.dropped.values())
    assert (head == "Model") == (report.dropped == {})
    for name, reason in report.dropped.items():
        assert f"dropped {name}: {reason}" in str(report)
    encoder = WaveformEncoder.from_hparams(source=str(tmp_path / "sb"))
    wavs = torch.randn(1, 4000)
    backbone = getattr(model, model.base_model_prefix, model)
    torch.testing.assert_close(
        encoder.encode_batch(wavs, torch.ones(1)),
        backbone(wavs).last_hidden_state,
        rtol=1e-5,
        atol=1e-5,
    )


@pytest.mark.parametrize("kind", ["bin", "sharded safetensors", "sharded bin"])
def test_every_kind_of_weight_file_gives_the_same_backbone(kind, tmp_path):
    model = tiny_model("unispeech-sat", HEAD)
    reference = save_folder(model, tmp_path / "reference")
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "config.json").write_bytes(
        (reference / "config.json").read_bytes()
    )
    write_preprocessor(folder, False)
    tensors = load_file(reference / "model.safetensors")
    names = sorted(tensors)
    halves = {1: names[::2], 2: names[1::2]}
    suffix = kind.split()[-1]
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    save = save_file if suffix == "safetensors" else torch.save
    if kind == "bin":
        save(tensors, folder / "pytorch_model.bin")
    else:
        weight_map = {}
        for number, part in halves.items():
            file = f"{stem}-0000{number}-of-00002.{suffix}"
            save({name: tensors[name] for name in part}, folder / file)
            weight_map |= dict.fromkeys(part, file)
        index = folder / f"{stem}.{suffix}.index.json"
        index.write_text(json.dumps({"weight_map": weight_map}))
    expected = Backbone.from_pretrained(reference).state_dict()
    found = Backbone.from_pretrained(folder).state_dict()
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor)


def test_a_missing_shard_or_a_path_in_the_index_is_refused(tmp_path):
    model = tiny_model("unispeech")
    folder = save_folder(model, tmp_path / "hf")
    (folder / "model.safetensors").unlink()
    index = folder / "model.safetensors.index.json"
    for shard, error in (
        ("a.safetensors", FileNotFoundError),
        ("../a.safetensors", ValueError),
    ):
        index.write_text(json.dumps({"weight_map": {"x": shard}}))
        with pytest.raises(error, match=r"a\.safetensors"):
            Backbone.from_pretrained(folder)


def test_a_refused_checkpoint_writes_nothing(tmp_path):
    model = tiny_model("unispeech", HEAD)
    hf = save_folder(model, tmp_path / "hf")
    tensors = load_file(hf / "model.safetensors")
    extra = {**tensors, "intruder.weight": torch.zeros(1)}
    save_file(extra, hf / "model.safetensors")
    with pytest.raises(ValueError, match=r"unexpected intruder\.weight"):
        convert_checkpoint(hf, tmp_path / "sb")
    del tensors["classifier.bias"]
    save_file(tensors, hf / "model.safetensors")
    with pytest.raises(ValueError, match=r"missing classifier\.bias"):
        convert_checkpoint(hf, tmp_path / "sb")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["hf"]


def test_an_unknown_tensor_on_another_class_is_refused(tmp_path):
    hf = save_folder(tiny_model("unispeech", "ForCTC"), tmp_path / "hf")
    tensors = load_file(hf / "model.safetensors")
    tensors["intruder.weight"] = torch.zeros(1)
    save_file(tensors, hf / "model.safetensors")
    with pytest.raises(ValueError, match="no tensor 'intruder.weight'"):
        convert_checkpoint(hf, tmp_path / "sb")


def test_an_existing_destination_is_kept(tmp_path):
    hf = save_folder(tiny_model("unispeech"), tmp_path / "hf")
    (tmp_path / "sb").mkdir()
    (tmp_path / "sb" / "thesis.txt").touch()
    with pytest.raises(ValueError, match="expected a new folder"):
        convert_checkpoint(hf, tmp_path / "sb")
    assert [p.name for p in (tmp_path / "sb").iterdir()] == ["thesis.txt"]
