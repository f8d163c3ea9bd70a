"""Folders as the installed transformers saves them: all classes, every layout.

A new layout, or a new file in one, fails here first.
"""

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file
from transformers.processing_utils import ProcessorMixin

from tests.huggingface import ctc_tokenizer, feature_extractor, tiny_model
from unispeech_sb.checkpoints.huggingface import CLASSES
from unispeech_sb.convert import convert_checkpoint, describe, to_huggingface
from unispeech_sb.convert.pretrained import interface_of
from unispeech_sb.convert.tokenizers import read_tokenizer
from unispeech_sb.dataio.tokenizers import CTCTokenizer
from unispeech_sb.lobes.backbone import Backbone

LETTERS = ["a", "b", "c", "t", "|", "<unk>", "<pad>"]
BLANK = LETTERS.index("<pad>")
UNIGRAMS = ["ab", "cat"]
ARPA = "\\data\\\nngram 1=3\n\n\\1-grams:\n-1 <s>\n-1 </s>\n-1 ab\n\n\\end\\\n"


class BeamSearchDecoderCTC:
    """Stands for pyctcdecode's decoder, which transformers knows by its name:
    saves what version 0.5.0 saves."""

    def save_to_dir(self, folder):
        labels = [" " if token == "|" else token for token in LETTERS[:-1]]
        labels = [*labels[:-1], "⁇", ""]
        (folder / "alphabet.json").write_text(
            json.dumps({"labels": labels, "is_bpe": False})
        )
        model = folder / "language_model"
        model.mkdir()
        (model / "attrs.json").write_text(
            '{"alpha": 0.5, "beta": 1.5, "unk_score_offset": -10.0, '
            '"score_boundary": true}'
        )
        (model / "unigrams.txt").write_text("\n".join(UNIGRAMS) + "\n")
        (model / "words.arpa").write_text(ARPA)


def tokenizer_of(tmp_path):
    """A tokenizer of letters."""
    vocabulary = {token: index for index, token in enumerate(LETTERS)}
    return ctc_tokenizer(vocabulary, tmp_path / "letters.json")


def save_parts(folder, tmp_path):
    """Feature extractor and tokenizer, each for itself."""
    feature_extractor(True).save_pretrained(folder)
    tokenizer_of(tmp_path).save_pretrained(folder)


def save_extractor(folder, tmp_path):
    """The feature extractor alone."""
    feature_extractor(True).save_pretrained(folder)


def save_processor(folder, tmp_path):
    """Both in one."""
    parts = feature_extractor(True), tokenizer_of(tmp_path)
    transformers.Wav2Vec2Processor(*parts).save_pretrained(folder)


def save_processor_with_lm(folder, tmp_path):
    """Both and a decoder; its constructor asks for pyctcdecode."""
    processor = object.__new__(transformers.Wav2Vec2ProcessorWithLM)
    parts = feature_extractor(True), tokenizer_of(tmp_path)
    ProcessorMixin.__init__(processor, *parts)
    processor.decoder = BeamSearchDecoderCTC()
    processor.save_pretrained(folder)


TEXTS = {
    "parts": save_parts,
    "extractor": save_extractor,
    "processor": save_processor,
    "processor with LM": save_processor_with_lm,
}


def save_whole(model, folder):
    """One file."""
    model.save_pretrained(folder)


def save_sharded(model, folder):
    """Several files and their index."""
    model.save_pretrained(folder, max_shard_size="20KB")
    assert (folder / "model.safetensors.index.json").is_file()


def save_half(model, folder):
    """In half precision."""
    model.half().save_pretrained(folder)
    model.float()


def save_for_torch(model, folder):
    """As versions before 5 saved: a PyTorch file."""
    model.save_pretrained(folder)
    path = folder / "model.safetensors"
    torch.save(load_file(path), folder / "pytorch_model.bin")
    path.unlink()


WEIGHTS = {
    "whole": save_whole,
    "sharded": save_sharded,
    "half": save_half,
    "PyTorch": save_for_torch,
}
LAYOUTS = [("whole", texts) for texts in TEXTS]
LAYOUTS += [(weights, "processor") for weights in list(WEIGHTS)[1:]]


def save(name, folder, tmp_path, weights="whole", texts="processor", **options):
    """A folder of one class in one layout, and its model."""
    if name.endswith("ForCTC"):
        options = {"vocab_size": 7, "pad_token_id": BLANK, **options}
    model = tiny_model(*CLASSES[name], **options)
    WEIGHTS[weights](model, folder)
    TEXTS[texts](folder, tmp_path)
    return model


@pytest.mark.parametrize(("weights", "texts"), LAYOUTS)
@pytest.mark.parametrize("name", CLASSES)
def test_every_class_in_every_layout_is_read(name, weights, texts, tmp_path):
    hf, sb = tmp_path / "hf", tmp_path / "sb"
    model = save(name, hf, tmp_path, weights, texts)
    report = convert_checkpoint(hf, sb)
    text = str(report)
    assert "warning" not in text
    tensors = sum(report.used.values())
    assert tensors == len(model.state_dict())
    backbone = Backbone.from_pretrained(hf).eval()
    assert backbone.normalize_wav and backbone.normalize_eps == 1e-7
    wavs = 0.01 * torch.randn(1, 4000)
    ready = feature_extractor(True)(
        wavs[0].numpy(), sampling_rate=16000, return_tensors="pt"
    )
    inner = getattr(model, model.base_model_prefix, model)
    with torch.no_grad():
        torch.testing.assert_close(
            backbone(wavs), inner(ready.input_values).last_hidden_state,
            atol=0.05 if weights == "half" else 1e-4, rtol=1e-4,
        )  # fmt: skip
        converted = Backbone.from_pretrained(sb).eval()
        assert torch.equal(converted(wavs), backbone(wavs))
    facts = describe(hf).facts
    assert facts["what"].value == f"Hugging Face: {name}"
    assert facts["converts for"].value == report.interface
    tokens = "vocabulary" in facts
    assert tokens == (name.endswith("ForCTC") and texts != "extractor")
    if tokens:
        asr = CTCTokenizer()
        asr.load_strict(sb / "tokenizer.ckpt")
        assert asr.decode_frames([2, 0, BLANK, 0, 3, 4, 1]) == "caat b"
        assert vars(read_tokenizer(hf)) == vars(asr)
    left = {key for key in report.dropped if "language_model" in key}
    assert len(left) == (3 if texts == "processor with LM" else 0)


def test_a_language_model_is_named_with_what_takes_it(tmp_path):
    hf = tmp_path / "hf"
    save("UniSpeechForCTC", hf, tmp_path, texts="processor with LM")
    report = convert_checkpoint(hf, tmp_path / "sb")
    text = str(report)
    path = hf / "language_model" / "words.arpa"
    assert f"--lm {path} --alpha 0.5 --beta 1.5" in text
    assert "dropped nothing" not in text
    assert sorted(report.dropped) == [
        "alphabet.json",
        *(f"language_model/{n}" for n in
          ("attrs.json", "unigrams.txt", "words.arpa")),
    ]  # fmt: skip
    listed = str(describe(hf))
    assert "would not convert: language_model/words.arpa" in listed
    assert "would not convert: nothing" not in listed
    path.unlink()  # as after a download, which takes the small files alone
    dropped = convert_checkpoint(hf, tmp_path / "small").dropped
    assert "which is not here" in dropped["language_model/attrs.json"]
    (hf / "language_model" / "attrs.json").write_text("{")
    with pytest.raises(ValueError, match=r"attrs\.json: expected JSON"):
        convert_checkpoint(hf, tmp_path / "other")


@pytest.fixture
def disagreeing(tmp_path):
    """A CTC model whose configuration names the letter a for the blank."""
    hf = tmp_path / "hf"
    save("UniSpeechSatForCTC", hf, tmp_path, pad_token_id=0)
    return hf


FRAMES = [2, 0, BLANK, 3]


def decoded(folder):
    """What the folder's tokenizer makes of some frames."""
    tokenizer = CTCTokenizer()
    tokenizer.load_strict(folder / "tokenizer.ckpt")
    return tokenizer.decode_frames(FRAMES)


def test_a_blank_that_the_tokenizer_contradicts_is_warned_of(
    disagreeing, tmp_path, caplog
):
    report = convert_checkpoint(disagreeing, tmp_path / "sb")
    expected = (
        "warning: blank: 0 'a' by config.json: pad_token_id, but 6 '<pad>' by "
        "tokenizer_config.json: pad_token; took 6, as transformers decodes; "
        "--set blank=0 takes the other"
    )
    assert expected in str(report).splitlines()
    assert expected in str(describe(disagreeing))
    processor = transformers.AutoProcessor.from_pretrained(disagreeing)
    assert decoded(tmp_path / "sb") == processor.decode(FRAMES) == "cat"
    facts = describe(disagreeing).facts
    assert facts["blank"].value == "6 '<pad>'"
    assert read_tokenizer(disagreeing).blank_index == BLANK
    assert "took 6" in caplog.text
    to_huggingface(tmp_path / "sb", tmp_path / "back")
    back = json.loads((tmp_path / "back" / "config.json").read_text())
    assert back["pad_token_id"] == 6
    assert "warning" not in str(describe(tmp_path / "back"))


@pytest.mark.parametrize(
    ("given", "index"),
    [
        ({"blank": 0}, 0),
        ({"blank": 6}, 6),
        ({"blank": "<pad>"}, 6),
        ({"blank": "a"}, 0),
        ({"pad_token_id": 0}, 0),
    ],
)
def test_a_given_blank_goes_first(given, index, disagreeing, tmp_path):
    report = convert_checkpoint(disagreeing, tmp_path / "sb", **given)
    assert "warning" not in str(report)
    tokenizer = CTCTokenizer()
    tokenizer.load_strict(tmp_path / "sb" / "tokenizer.ckpt")
    assert tokenizer.blank_index == index
    facts = describe(disagreeing, **given).facts
    assert facts["blank"].value == f"{index} {LETTERS[index]!r}"
    assert facts["blank"].source == "given"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (7, "blank: expected a token .* below 7; got 7"),
        ("<blank>", "below 7; got '<blank>'"),
        (True, "blank to be a token, or its index"),
        (-1, "blank to be a token, or its index"),
    ],
)
def test_a_blank_that_is_no_token_is_refused(given, message, disagreeing):
    with pytest.raises(ValueError, match=message):
        describe(disagreeing, blank=given)


def test_a_blank_is_for_ctc_models_alone(tmp_path):
    hf = tmp_path / "hf"
    save("UniSpeechSatForXVector", hf, tmp_path)
    with pytest.raises(ValueError, match="expected a CTC model, .* ForXVector"):
        convert_checkpoint(hf, tmp_path / "sb", blank=0)


@pytest.mark.parametrize("pad", [None, 99])
def test_a_blank_that_the_model_cannot_have_is_the_tokenizers(pad, tmp_path):
    hf = tmp_path / "hf"
    save("UniSpeechForCTC", hf, tmp_path, pad_token_id=pad)
    report = convert_checkpoint(hf, tmp_path / "sb")
    assert ("took 6" in str(report)) == (pad is not None)
    assert decoded(tmp_path / "sb") == "cat"
    for name in ("vocab.json", "tokenizer_config.json"):
        (hf / name).unlink()
    with pytest.raises(ValueError, match=f"below 7, .*; got {pad}"):
        convert_checkpoint(hf, tmp_path / "other")


def rewrite(path, **changes):
    """Changes keys of a JSON file; None takes one away."""
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("name", ["bos", "eos", "unk"])
def test_other_special_tokens_are_compared_too(name, tmp_path):
    hf = tmp_path / "hf"
    save("UniSpeechForCTC", hf, tmp_path)
    rewrite(hf / "tokenizer_config.json", **{f"{name}_token": "<unk>"})
    rewrite(hf / "config.json", **{f"{name}_token_id": 2})
    report = convert_checkpoint(hf, tmp_path / "sb")
    assert (
        f"warning: {name}_token_id: 2 'c' by config.json: {name}_token_id, "
        f"but 5 '<unk>' by tokenizer_config.json: {name}_token; took 5"
    ) in str(report).splitlines()
    to_huggingface(tmp_path / "sb", tmp_path / "back")
    back = json.loads((tmp_path / "back" / "config.json").read_text())
    assert back[f"{name}_token_id"] == 5
    rewrite(hf / "config.json", **{f"{name}_token_id": 5})
    assert "warning" not in str(describe(hf))
    rewrite(hf / "config.json", **{f"{name}_token_id": None})
    assert "warning" not in str(describe(hf))


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (5, "vocab_size: 5 by config.json, but the tokenizer has '<unk>, <pad"),
        (9, "has no token for 2 of the outputs, '<unused 7>, <unused 8>'"),
    ],
)
def test_sizes_of_model_and_tokenizer_are_compared(size, message, tmp_path):
    hf = tmp_path / "hf"
    save("UniSpeechForCTC", hf, tmp_path, vocab_size=size, pad_token_id=0)
    report = convert_checkpoint(hf, tmp_path / "sb")
    (line,) = [n for n in report.notes if "vocab_size" in n]
    assert line.startswith("warning: ") and message in line
    assert line in str(describe(hf))
    assert ("took 6" in str(report)) == (size == 9)  # else there is none


def test_a_file_without_a_tokenizer_goes_by_its_configuration(tmp_path):
    hf = tmp_path / "hf"
    save("UniSpeechForCTC", hf, tmp_path, texts="extractor", pad_token_id=4)
    assert describe(hf).facts["blank"].value == "4"
    assert describe(hf, blank=2).facts["blank"].value == "2"
    with pytest.raises(ValueError, match="below 7; got 'a'"):
        describe(hf, blank="a")


@pytest.mark.parametrize("given", [{}, {"normalize_eps": 1e-5}])
def test_the_epsilon_of_waveforms_survives_the_way_back(given, tmp_path):
    hf, sb, back = (tmp_path / name for name in ("hf", "sb", "back"))
    save("UniSpeechSatModel", hf, tmp_path, texts="extractor")
    convert_checkpoint(hf, sb, **given)
    expected = given.get("normalize_eps", 1e-7)
    assert Backbone.from_pretrained(sb).normalize_eps == expected
    assert f"| normalize_eps | {expected} |" in (sb / "README.md").read_text()
    report = to_huggingface(sb, back)
    assert ("normalised with epsilon 1e-07 there, 1e-05" in report) == (
        given != {}
    )
    assert Backbone.from_pretrained(back).normalize_eps == expected
    convert_checkpoint(back, tmp_path / "again")
    found = Backbone.from_pretrained(tmp_path / "again")
    assert found.normalize_eps == expected
    assert describe(back).facts["normalize_eps"].value == expected
    with pytest.raises(ValueError, match="normalize_eps to be a number from"):
        Backbone.from_pretrained(convert_and_name(hf, tmp_path, 0))


def convert_and_name(hf, tmp_path, eps):
    """A folder converted with an epsilon."""
    convert_checkpoint(hf, tmp_path / "zero", normalize_eps=eps)
    return tmp_path / "zero"


def test_interfaces_are_known_for_every_class():
    assert len(CLASSES) == 24 and callable(interface_of)
