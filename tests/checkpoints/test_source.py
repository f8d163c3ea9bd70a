"""Where checkpoints come from, and what is said when there is none."""

import json

import pytest
import torch

from tests.huggingface import save_folder, tiny_model
from unispeech_sb.checkpoints.files import write_tensors
from unispeech_sb.checkpoints.source import find_source, read_backbone
from unispeech_sb.lobes.backbone import Backbone


def test_a_hub_name_without_a_network_is_one_clear_error():
    with pytest.raises(ValueError, match="there is no such folder, and") as e:
        find_source("microsoft/unispeech-sat-base")
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("path", ["./typo", "/no/such/folder", "typo"])
def test_a_mistyped_path_is_not_looked_up_on_the_hub(path, monkeypatch):
    monkeypatch.setattr(
        "unispeech_sb.checkpoints.source.snapshot_download", None
    )
    with pytest.raises(ValueError, match=f"{path}: expected a folder, a"):
        find_source(path)


def test_a_folder_without_a_checkpoint_is_described(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ValueError, match="it holds notes.txt"):
        read_backbone(tmp_path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A Hugging Face folder that tests copy and break."""
    model = tiny_model("unispeech")
    return save_folder(model, tmp_path_factory.mktemp("hf"))


@pytest.fixture
def broken(folder, tmp_path):
    """A copy of the folder, and its configuration to change."""
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def rewrite(folder, name, **changes):
    """Changes keys of a JSON file."""
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("normalize", [True, False])
def test_what_save_pretrained_leaves_out_can_be_given(broken, normalize):
    """A model's own save_pretrained writes no preprocessor_config.json."""
    (broken / "preprocessor_config.json").unlink()
    way_out = f"unispeech-sb convert {broken} NEW --set normalize_wav=true"
    with pytest.raises(ValueError, match=way_out):
        Backbone.from_pretrained(broken)
    found = Backbone.from_pretrained(broken, normalize_wav=normalize)
    assert found.normalize_wav is normalize


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda f: rewrite(f, "config.json", model_type="sew"),
            "model_type unispeech or unispeech-sat or .*; got 'sew'",
        ),
        (
            lambda f: (f / "config.json").write_text("{"),
            "config.json: expected JSON",
        ),
        (
            lambda f: (f / "config.json").write_text("[1]"),
            "expected a JSON object",
        ),
        (
            lambda f: (f / "preprocessor_config.json").unlink(),
            "preprocessor_config.json, whose do_normalize",
        ),
        (
            lambda f: rewrite(f, "preprocessor_config.json", do_normalize=1),
            "do_normalize to be true or false; got 1",
        ),
        (
            lambda f: (f / "model.safetensors").unlink(),
            "expected one of model.safetensors, .*; there is none",
        ),
        (
            lambda f: (f / "model.safetensors").write_bytes(b"\0" * 99),
            "expected a safetensors file",
        ),
        (
            lambda f: rewrite(f, "config.json", num_hidden_layers=4),
            "missing encoder.layers.3.attention.*and 11 more",
        ),
        (
            lambda f: rewrite(f, "config.json", num_hidden_layers=2),
            "unexpected encoder.layers.2.attention",
        ),
        (
            lambda f: rewrite(f, "config.json", intermediate_size=31),
            r"misshapen .*\(expected \[31\], got \[32\]\)",
        ),
    ],
)
def test_a_damaged_checkpoint_gets_one_clear_error(broken, damage, message):
    damage(broken)
    with pytest.raises(ValueError, match=message) as caught:
        Backbone.from_pretrained(broken)
    assert "\n" not in str(caught.value)
    assert str(broken) in str(caught.value)


@pytest.mark.parametrize(
    "note",
    [
        "[" * 100_000,
        json.dumps({"class": "a.B"}),
        json.dumps({"class": "a.B", "config": {"hidden_size": [1]}}),
    ],
)
def test_a_damaged_note_on_a_lobe_is_one_clear_error(note, tmp_path):
    path = tmp_path / "backbone.ckpt"
    write_tensors(path, {"a": torch.ones(1)}, {"lobe": note})
    with pytest.raises(ValueError, match=r"backbone\.ckpt: expected") as caught:
        read_backbone(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_weight_file_stands_for_its_folder(folder):
    weights = folder / "model.safetensors"
    assert find_source(weights) == folder
    found = Backbone.from_pretrained(weights).state_dict()
    for name, tensor in Backbone.from_pretrained(folder).state_dict().items():
        assert torch.equal(found[name], tensor)
