"""``unispeech-sb info``: what a checkpoint is, and how that is known."""

import math

import pytest
import torch

from tests.huggingface import save_folder, tiny_model
from unispeech_sb.checkpoints.pretrained_folder import (
    training_record,
    write_pretrained,
)
from unispeech_sb.cli import main
from unispeech_sb.convert import (
    convert_checkpoint,
    describe,
    to_huggingface,
)
from unispeech_sb.convert.tokenizers import make_tokenizer
from unispeech_sb.lobes import heads
from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.lobes.lobe import Lobe
from unispeech_sb.metrics.calibration import Calibration

LOBE_INIT = Lobe.__init__


@pytest.fixture
def no_models(monkeypatch):
    """Fails a test that builds a module."""

    def refuse(*_, **__):
        raise AssertionError("a module was built")

    monkeypatch.setattr(Lobe, "__init__", refuse)


def rows_of(text):
    """First column -> the other two."""
    rows = {}
    for line in text.splitlines():
        name, *rest = [part.strip() for part in line.split("  ") if part]
        rows[name] = rest
    return rows


@pytest.fixture
def speech_folder(tmp_path):
    """A CTC model with a vocabulary."""
    model = tiny_model("unispeech", "ForCTC", vocab_size=4, pad_token_id=3)
    vocabulary = {"a": 0, "b": 1, "|": 2, "<pad>": 3}
    return save_folder(model, tmp_path / "hf", True, vocabulary=vocabulary)


def test_a_hugging_face_folder_is_told(speech_folder, no_models, capsys):
    assert main(["info", str(speech_folder)]) == 0
    rows = rows_of(capsys.readouterr().out)
    assert rows["what"][0] == "Hugging Face: UniSpeechForCTC"
    assert rows["family"] == ["unispeech", "config.json: model_type"]
    assert rows["size"][0] == "other (3 x 16)"
    assert rows["vocabulary"][0] == "a, b, |, <pad>"
    assert rows["blank"] == ["3 '<pad>'", "config.json: pad_token_id"]
    assert rows["normalize_wav"] == [
        "True", "processor_config.json: do_normalize",
    ]  # fmt: skip
    assert rows["sampling_rate"][0] == "16000"
    assert rows["tensors"][0].endswith("float32")
    assert "would not convert: nothing" in rows


def test_what_is_given_is_told_as_given(speech_folder, capsys):
    main(["info", str(speech_folder), "--set", "mask_rule=fairseq"])
    rows = rows_of(capsys.readouterr().out)
    assert rows["mask_rule"] == ["fairseq", "given"]


def test_parameters_are_counted(tmp_path, no_models):
    model = tiny_model("unispeech-sat", "ForXVector")
    folder = save_folder(model, tmp_path / "hf")
    count = sum(p.numel() for p in model.parameters())
    head = count - sum(p.numel() for p in model.unispeech_sat.parameters())
    found = describe(folder).facts["parameters"].value
    assert found.startswith(f"{count:,} (backbone ")
    assert found.endswith(f"head {head:,})")


def test_an_export_is_told(speech_folder, tmp_path, capsys):
    convert_checkpoint(speech_folder, tmp_path / "sb")
    main(["info", str(tmp_path / "sb")])
    rows = rows_of(capsys.readouterr().out)
    assert rows["what"][0] == "pretrained folder of unispeech_sb"
    assert rows["converted from"][0] == "Hugging Face, ForCTC"
    assert rows["head"] == ["FrameHead", "head.ckpt"]
    assert rows["mask_rule"] == ["hf", "backbone.ckpt"]
    assert rows["labels"][0] == "a, b, |, <pad>"


def test_what_is_no_module_of_a_folder_is_passed_over(speech_folder, tmp_path):
    convert_checkpoint(speech_folder, tmp_path / "sb")
    Calibration().save(tmp_path / "sb" / "calibration.ckpt")
    (tmp_path / "sb" / "language_model.ckpt").write_text("\\data\\\n")
    assert "head" in describe(tmp_path / "sb").facts
    to_huggingface(tmp_path / "sb", tmp_path / "back")
    assert (tmp_path / "back" / "config.json").is_file()


def test_pieces_of_words_have_no_tokenizer_in_transformers(tmp_path):
    tokenizer = make_tokenizer(["so it is", "is it so"], num_pieces=9)
    lobes = {
        "backbone": Backbone.from_preset("tiny"),
        "head": heads.FrameHead(16, len(tokenizer)),
    }
    folder = tmp_path / "sb"
    write_pretrained(
        folder, lobes, "EncoderASR", "A test.", tokenizer, blank_index=0
    )
    with pytest.raises(ValueError, match="no CTC tokenizer of SentencePiece's"):
        to_huggingface(folder, tmp_path / "hf")
    to_huggingface(folder, tmp_path / "hf", backbone_only=True)


HEADS = {
    "AAMSoftmax": heads.AAMSoftmax(16, 3),
    "ProjectedFrameHead": heads.ProjectedFrameHead(16, 4),
    "RecurrentHead": heads.RecurrentHead(16, 4, 4, 4),
}


@pytest.mark.parametrize("name", HEADS)
def test_heads_that_only_this_package_has_are_told(name, tmp_path):
    lobes = {"backbone": Backbone.from_preset("tiny"), "head": HEADS[name]}
    write_pretrained(tmp_path / "sb", lobes, "WaveformEncoder", "A test.")
    assert describe(tmp_path / "sb").facts["head"].value == name
    with pytest.raises(ValueError, match=f"has no class for {name}"):
        to_huggingface(tmp_path / "sb", tmp_path / "hf")


def test_one_module_of_an_export_is_told(speech_folder, tmp_path, no_models):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Lobe, "__init__", LOBE_INIT)
        convert_checkpoint(speech_folder, tmp_path / "sb")
    rows = rows_of(str(describe(tmp_path / "sb" / "head.ckpt")))
    assert rows["what"][0] == "FrameHead of unispeech_sb"
    assert rows["parameters"][0] == "68 (head 68)"


def test_what_would_not_convert_is_told_once_with_its_reason():
    from unispeech_sb.convert.info import Description

    dropped = dict.fromkeys(["q.a", "q.b"], "not part of the model")
    text = str(Description({}, dropped, ["assumed"]))
    assert text.splitlines() == [
        "would not convert: q.a, q.b (not part of the model)",
        "note: assumed",
    ]


def test_a_file_of_something_else_is_one_sentence(tmp_path, capsys):
    torch.save({"weights": torch.ones(1)}, tmp_path / "a.pt")
    assert main(["info", str(tmp_path / "a.pt")]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "it holds weights" in error


def test_a_setting_without_a_value_is_one_sentence(tmp_path, capsys):
    assert main(["info", str(tmp_path), "--set", "mask_rule"]) == 1
    assert "expected NAME=VALUE" in capsys.readouterr().err


def test_scores_and_training_are_told_where_they_were_written(tmp_path):
    record = training_record(
        {"WER": 12.3456, "CER": math.inf},
        "test",
        {"lr": 0.00001, "data_folder": "LibriSpeech", "stages": [1, 2]},
        family="unispeech",
    )
    lobes = {"backbone": Backbone.from_preset("tiny")}
    for name, files in (("told", record), ("untold", {})):
        write_pretrained(
            tmp_path / name, lobes, "WaveformEncoder", "", files=files
        )
    facts = describe(tmp_path / "told").facts
    assert facts["family"] == ("unispeech", "training.json")
    assert facts["scores"].value == "WER 12.35, CER Infinity on test"
    rows = rows_of(str(describe(tmp_path / "told")))
    assert rows["trained: lr"] == ["1e-05", "training.json"]
    assert rows["trained: stages"][0] == "1, 2"
    untold = describe(tmp_path / "untold").facts
    for name in ("family", "scores", "trained"):
        assert untold[name] == ("not recorded", "no training.json")
    (tmp_path / "told" / "training.json").write_text('{"scores": [1]}')
    with pytest.raises(ValueError, match="expected scores to be of the type"):
        describe(tmp_path / "told")


def test_a_converted_folder_is_of_its_authors_unless_it_says_more(
    speech_folder, tmp_path
):
    convert_checkpoint(speech_folder, tmp_path / "sb")
    facts = describe(tmp_path / "sb").facts
    assert not {"scores", "trained"} & facts.keys()
    (record,) = training_record({"PER": 5.5}, "test", {"lr": 0.5}).values()
    (tmp_path / "sb" / "training.json").write_text(record)
    facts = describe(tmp_path / "sb").facts
    assert facts["scores"].value == "PER 5.5 on test"
    assert facts["family"] == ("unispeech", "origin.json")


@pytest.mark.parametrize("content", ["[1]", "{", "{}" * 3])
def test_a_damaged_text_of_a_folder_is_named(content, speech_folder, tmp_path):
    convert_checkpoint(speech_folder, tmp_path / "sb")
    path = tmp_path / "sb" / "transformers" / "config.json"
    path.write_text(content)
    with pytest.raises(ValueError, match="config.json: expected"):
        describe(tmp_path / "sb")
