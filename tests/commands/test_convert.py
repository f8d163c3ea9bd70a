"""The commands on checkpoints: what they refuse before they read anything."""

import sys
from types import ModuleType

import pytest

from unispeech_sb.commands.convert import convert, info, to_hf


@pytest.fixture
def given(monkeypatch):
    """What the work behind the commands was called with."""
    calls = []
    module = ModuleType("unispeech_sb.convert")
    for name in ("convert_checkpoint", "to_huggingface", "describe"):
        setattr(module, name, lambda *a, **k: calls.append((a, k)))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return calls


def test_arguments_reach_the_work(given, tmp_path, capsys):
    here, new = str(tmp_path), str(tmp_path / "new")
    convert([here, new, "--backbone", "a/b", "--set", "layers=[1, 2]"])
    to_hf([here, new, "--family", "unispeech", "--backbone-only"])
    info([here, "--set", "mask_rule=hf", "--set", "mask_rule=fairseq"])
    to_hf([here, new, "--config", "a/b", "--set", "output_norm=false"])
    options = {"family": "unispeech", "backbone_only": True, "config": None}
    other = {"family": None, "backbone_only": False, "config": "a/b"}
    assert given == [
        ((here, new, "a/b", None), {"layers": [1, 2]}),
        ((), {"folder": here, "dst": new, **options}),
        ((here,), {"config": None, "mask_rule": "fairseq"}),
        ((), {"folder": here, "dst": new, "output_norm": False, **other}),
    ]


def test_a_weight_file_may_stand_for_its_folder(given, tmp_path):
    (tmp_path / "config.json").touch()
    info([str(tmp_path / "model.safetensors")])
    assert len(given) == 1


@pytest.mark.parametrize("source", ["none", "./a/b", "~/a", "a/b/c", "/a"])
def test_what_is_neither_here_nor_on_the_hub_is_refused(source, given):
    for command in (["new"], ["new", "--backbone", source]):
        start = source if "--backbone" not in command else "a/b"
        with pytest.raises(ValueError, match=f"{source}: expected a folder, a"):
            convert([start, *command])
    assert given == []


def test_what_is_there_is_not_written_over(given, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.txt").touch()
    (tmp_path / "empty").mkdir()
    for command in (convert, to_hf):
        for name in ("full", "full/a.txt"):
            target = str(tmp_path / name)
            with pytest.raises(
                ValueError, match="expected a new folder; it ex"
            ):
                command([str(tmp_path), target])
        command([str(tmp_path), str(tmp_path / "empty")])
    assert len(given) == 2
