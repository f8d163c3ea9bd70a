"""All classes of transformers: here, in SpeechBrain, and back again."""

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from speechbrain.inference.ASR import EncoderASR

from tests.convert.folders import STYLES, all_classes, make, wavs_of
from tests.huggingface import full_config, save_folder, tiny_config, tiny_model
from unispeech_sb.checkpoints.huggingface import CLASSES, FAMILIES
from unispeech_sb.convert import convert_checkpoint, to_huggingface
from unispeech_sb.lobes.backbone import Backbone


def outputs_of(model, wavs):
    """Every tensor that a model of transformers gives, without chance."""
    torch.manual_seed(5)  # UniSpeechForPreTraining replaces frames at random
    outputs = model(wavs)
    return {
        name: value
        for name, value in outputs.items()
        if isinstance(value, torch.Tensor)
    }


@all_classes
@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("weight_norm", ["old", "new"])
def test_there_and_back_gives_the_same_bits(name, style, weight_norm, tmp_path):
    model, hf = make(name, style, tmp_path / "hf", weight_norm)
    report = convert_checkpoint(hf, tmp_path / "sb")
    assert report.dropped == {}
    text = to_huggingface(tmp_path / "sb", tmp_path / "back")
    assert f"transformers.{name}" in text
    before = load_file(hf / "model.safetensors")
    after = load_file(tmp_path / "back" / "model.safetensors")
    assert before.keys() == after.keys()
    for key, tensor in before.items():
        assert tensor.dtype == after[key].dtype
        assert torch.equal(tensor, after[key]), key
    again, info = getattr(transformers, name).from_pretrained(
        tmp_path / "back", output_loading_info=True
    )
    assert not any(info.values()), info
    _, wavs = wavs_of(style)
    expected = outputs_of(model, wavs)
    found = outputs_of(again.eval(), wavs)
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        assert torch.equal(value, found[key])


@pytest.mark.parametrize("version", ["4.57.6", "5.23.0", None])
@pytest.mark.parametrize("mixed", [True, False])
def test_the_last_state_follows_who_trained_the_layer_mix(
    version, mixed, tmp_path
):
    _, hf = make(
        "UniSpeechSatForXVector", "layer", tmp_path / "hf",
        use_weighted_layer_sum=mixed,
    )  # fmt: skip
    config = json.loads((hf / "config.json").read_text())
    config["transformers_version"] = version
    (hf / "config.json").write_text(json.dumps(config))
    convert_checkpoint(hf, tmp_path / "sb")
    yaml = (tmp_path / "sb" / "hyperparams.yaml").read_text()
    raw = mixed and version == "5.23.0"
    assert f"last_state: {'raw' if raw else 'normed'}" in yaml
    readme = (tmp_path / "sb" / "README.md").read_text()
    assert f"| last_state | {'raw' if raw else 'normed'} |" in readme


def test_half_precision_stays_half(tmp_path):
    _, hf = make("UniSpeechForCTC", "group", tmp_path / "hf")
    tensors = load_file(hf / "model.safetensors")
    half = {key: tensor.half() for key, tensor in tensors.items()}
    save_file(half, hf / "model.safetensors", metadata={"format": "pt"})
    convert_checkpoint(hf, tmp_path / "sb")
    to_huggingface(tmp_path / "sb", tmp_path / "back")
    back = load_file(tmp_path / "back" / "model.safetensors")
    for key, tensor in half.items():
        assert torch.equal(tensor, back[key])
    config = json.loads((tmp_path / "back" / "config.json").read_text())
    assert config.get("dtype", config.get("torch_dtype")) == "float16"


def test_a_bare_unispeech_without_masks_gets_no_mask_embedding(tmp_path):
    model, hf = make("UniSpeechModel", "group", tmp_path / "hf",
                     mask_time_prob=0.0)  # fmt: skip
    assert "masked_spec_embed" not in model.state_dict()
    report = convert_checkpoint(hf, tmp_path / "sb")
    assert "drawn anew" in str(report)
    to_huggingface(tmp_path / "sb", tmp_path / "back")
    _, info = transformers.UniSpeechModel.from_pretrained(
        tmp_path / "back", output_loading_info=True
    )
    assert not any(info.values()), info


def published_layout(folder, vocabulary, do_normalize):
    """The texts of published folders, from before transformers 5."""
    (folder / "processor_config.json").unlink()
    for name, content in {
        "preprocessor_config.json": {
            "do_normalize": do_normalize,
            "feature_extractor_type": "Wav2Vec2FeatureExtractor",
            "feature_size": 1,
            "padding_side": "right",
            "padding_value": 0.0,
            "return_attention_mask": False,
            "sampling_rate": 16000,
        },
        "vocab.json": vocabulary,
        "tokenizer_config.json": {
            "tokenizer_class": "Wav2Vec2CTCTokenizer",
            "unk_token": "<unk>",
            "bos_token": "<s>",
            "eos_token": "</s>",
            "pad_token": "<pad>",
        },
        "special_tokens_map.json": {"unk_token": "<unk>", "pad_token": "<pad>"},
    }.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")


@pytest.mark.parametrize("normalizes", [False, True])
@pytest.mark.parametrize("layout", ["published", "of transformers 5"])
def test_a_processor_goes_there_and_back(layout, normalizes, tmp_path):
    tokens = ["a", "b", "|", "<s>", "</s>", "<unk>", "<pad>"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    hf = save_folder(
        tiny_model("unispeech", "ForCTC", vocab_size=7, pad_token_id=6),
        tmp_path / "hf", normalizes, vocabulary=vocabulary,
    )  # fmt: skip
    assert not (hf / "preprocessor_config.json").exists()
    if layout == "published":
        published_layout(hf, vocabulary, normalizes)
    convert_checkpoint(hf, tmp_path / "sb")
    assert Backbone.from_pretrained(hf).normalize_wav == normalizes
    assert Backbone.from_pretrained(tmp_path / "sb").normalize_wav == normalizes
    recognizer = EncoderASR.from_hparams(source=str(tmp_path / "sb"))
    to_huggingface(tmp_path / "sb", tmp_path / "back")
    back = {path.name: path for path in (tmp_path / "back").glob("*.json")}
    for path in hf.glob("*.json"):
        if path.name not in ("config.json", "processor_config.json"):
            assert back[path.name].read_bytes() == path.read_bytes()
    ids = [0, 0, 6, 0, 2, 2, 1, 6]
    assert recognizer.tokenizer.decode_frames(ids) == "aa b"
    for folder in (hf, tmp_path / "back"):
        processor = transformers.AutoProcessor.from_pretrained(folder)
        assert processor.feature_extractor.do_normalize == normalizes
        assert processor.decode(ids) == "aa b"


def test_a_blank_that_the_model_leaves_open_is_the_tokenizers(tmp_path):
    tokens = ["a", "b", "|", "<pad>"]
    model = tiny_model("unispeech", "ForCTC", vocab_size=4, pad_token_id=None)
    hf = save_folder(
        model, tmp_path / "hf", vocabulary={t: i for i, t in enumerate(tokens)}
    )
    convert_checkpoint(hf, tmp_path / "sb")
    recognizer = EncoderASR.from_hparams(source=str(tmp_path / "sb"))
    assert recognizer.tokenizer.blank_index == 3
    assert recognizer.tokenizer.decode_frames([0, 3, 0, 2, 1]) == "aa b"
    (hf / "vocab.json").write_text('{"a": 0, "b": 1, "|": 2, "c": 3}')
    (hf / "tokenizer_config.json").unlink()
    with pytest.raises(ValueError, match="the index of CTC's blank; got None"):
        convert_checkpoint(hf, tmp_path / "other")


def test_settings_inside_a_processor_go_first(tmp_path):
    hf = save_folder(tiny_model("unispeech"), tmp_path / "hf", True)
    path = hf / "processor_config.json"
    for written, normalizes in (
        ({"processor_class": "Wav2Vec2Processor"}, True),
        ({"feature_extractor": {"do_normalize": False}}, False),
    ):
        path.write_text(json.dumps(written))
        found = transformers.AutoFeatureExtractor.from_pretrained(hf)
        assert found.do_normalize == normalizes
        assert Backbone.from_pretrained(hf).normalize_wav == normalizes
    path.write_text('{"feature_extractor": []}')
    with pytest.raises(ValueError, match="feature_extractor to hold settings"):
        Backbone.from_pretrained(hf)


@pytest.mark.parametrize("state", ["normed", "raw"])
@pytest.mark.parametrize("style", ["layer", "group"])
def test_where_transformers_does_otherwise_is_said(style, state, tmp_path):
    _, hf = make(
        "UniSpeechSatForSequenceClassification", style, tmp_path / "hf",
        use_weighted_layer_sum=True,
    )  # fmt: skip
    convert_checkpoint(hf, tmp_path / "sb", last_state=state)
    report = to_huggingface(tmp_path / "sb", tmp_path / "back")
    differs = "transformers 5 the one before it" in report
    assert differs == (style == "layer" and state == "normed")
    assert ("depend on the padding" in report) == (style == "group")
    alone = tmp_path / "alone"
    report = to_huggingface(tmp_path / "sb", alone, backbone_only=True)
    assert "UniSpeechSatModel" in report


def test_an_adapted_config_says_what_is_true_here(tmp_path):
    _, hf = make("UniSpeechSatForSequenceClassification", "layer",
                 tmp_path / "hf")  # fmt: skip
    convert_checkpoint(hf, tmp_path / "sb", layerdrop=0.25)
    to_huggingface(tmp_path / "sb", tmp_path / "back")
    config = json.loads((tmp_path / "back" / "config.json").read_text())
    assert config["layerdrop"] == 0.25
    assert config["last_state"] == "raw"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"family": "unispeech"}, "--family unispeech-sat"),
        ({}, None),
        ({"family": "unispeech", "backbone_only": True}, None),
    ],
)
def test_x_vectors_exist_in_one_family_only(arguments, said, tmp_path):
    _, hf = make("UniSpeechSatForXVector", "group", tmp_path / "hf")
    convert_checkpoint(hf, tmp_path / "sb")
    if said:
        with pytest.raises(ValueError, match=said):
            to_huggingface(tmp_path / "sb", tmp_path / "back", **arguments)
        assert not (tmp_path / "back").exists()
        return
    to_huggingface(tmp_path / "sb", tmp_path / "back", **arguments)
    config = transformers.AutoConfig.from_pretrained(tmp_path / "back")
    name = config.architectures[0]
    _, info = getattr(transformers, name).from_pretrained(
        tmp_path / "back", output_loading_info=True
    )
    assert not any(info.values()), info


@pytest.mark.parametrize(
    ("name", "family", "said"),
    [
        ("WavLMModel", "hubert", "no backbone with num_buckets 12; --family w"),
        ("UniSpeechModel", "wavlm", "with num_buckets null; --family unispeec"),
        ("WavLMForXVector", "unispeech-sat", "no backbone with num_buckets"),
        ("WavLMForCTC", None, "transformers.WavLMForCTC"),
        ("HubertForCTC", "wav2vec2", "transformers.Wav2Vec2ForCTC"),
        ("Wav2Vec2ForXVector", "hubert", "no ForXVector of 'hubert'; --family"),
        ("Wav2Vec2ForPreTraining", "unispeech", "has no place for this objec"),
        ("UniSpeechForPreTraining", "wav2vec2", "has no place for this objec"),
    ],
)
def test_a_family_takes_what_its_models_have(name, family, said, tmp_path):
    _, hf = make(name, "layer", tmp_path / "hf")
    convert_checkpoint(hf, tmp_path / "sb")
    folders = tmp_path / "sb", tmp_path / "back"
    if said.startswith("transformers"):
        assert said in to_huggingface(*folders, family=family)
        return
    with pytest.raises(ValueError, match=said):
        to_huggingface(*folders, family=family)


def test_a_backbone_that_names_no_family_is_of_one_that_has_it(tmp_path):
    for name, buckets in (("WavLMModel", 320), ("UniSpeechSatModel", None)):
        folder = tmp_path / name
        folder.mkdir()
        backbone = Backbone.from_preset("tiny", num_buckets=buckets)
        backbone.save(folder / "backbone.ckpt")
        text = to_huggingface(folder, tmp_path / f"{name} back")
        assert f"transformers.{name}\n" in text


def test_the_defaults_here_are_those_of_transformers():
    from unispeech_sb.checkpoints.options import (
        BACKBONE,
        DEFAULTS,
        HEADS,
        NUM_LABELS,
    )

    for family in FAMILIES:
        config = full_config(family)
        assert config.num_labels == NUM_LABELS
        written = config.to_dict()
        own = DEFAULTS.get(family, {})
        for name, value in {**BACKBONE, **HEADS, **own}.items():
            if name in written:
                assert written[name] == value, name
    config = Backbone(num_hidden_layers=1).config
    known = {name: config[name] for name in BACKBONE}
    plain = {
        k: list(v) if isinstance(v, tuple) else v for k, v in known.items()
    }
    assert plain == {**BACKBONE, "num_hidden_layers": 1}


def test_tiny_models_cover_what_is_converted():
    assert len(CLASSES) == 10 + 6 + 3 + 5
    for name, (family, head) in CLASSES.items():
        assert getattr(transformers, name)
        assert tiny_config(family).model_type == family
        assert name.endswith(head)


def test_a_folder_of_transformers_is_written_with_other_options(tmp_path):
    hub = save_folder(tiny_model("unispeech-sat", "ForCTC"), tmp_path / "hub")
    to_huggingface(hub, tmp_path / "new", mask_time_prob=0.25)
    config = json.loads((tmp_path / "new" / "config.json").read_text())
    assert config["mask_time_prob"] == 0.25
    assert config["architectures"] == ["UniSpeechSatForCTC"]
    convert_checkpoint(hub, tmp_path / "ours")
    with pytest.raises(ValueError, match="an option of the backbone; got voc"):
        to_huggingface(tmp_path / "ours", tmp_path / "x", vocab_size=5)
