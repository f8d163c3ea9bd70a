"""All classes of transformers: here, in SpeechBrain, and back again."""

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from speechbrain.inference.ASR import EncoderASR
from speechbrain.inference.encoders import WaveformEncoder
from torch.nn import functional as F

from tests.huggingface import (
    full_config,
    save_folder,
    tiny_config,
    tiny_model,
)
from unispeech_sb.checkpoints.huggingface import CLASSES, FAMILIES, join_heads
from unispeech_sb.convert import convert_checkpoint, to_huggingface
from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.nnet.losses import classification_loss

STYLES = {
    "group": {},
    "layer": {
        "feat_extract_norm": "layer",
        "do_stable_layer_norm": True,
        "use_weighted_layer_sum": True,
        "conv_bias": True,
    },
}
TDNN = {
    "tdnn_dim": [12, 12, 14],
    "tdnn_kernel": [3, 2, 1],
    "tdnn_dilation": [1, 2, 1],
    "xvector_output_dim": 10,
}
SMALL = {
    "codevector_dim": 8,
    "num_codevectors_per_group": 6,
    "num_clusters": 9,
    "num_ctc_classes": 11,
    "vocab_size": 7,
    "mask_time_prob": 0.05,
    **TDNN,
}
all_classes = pytest.mark.parametrize("name", CLASSES)


def make(name, style, folder, weight_norm="new", **options):
    """A tiny model of a class, and its folder."""
    family, head = CLASSES[name]
    model = tiny_model(family, head, **{**SMALL, **STYLES[style], **options})
    return model, save_folder(
        model, folder, do_normalize=style == "layer", weight_norm=weight_norm
    )


def wavs_of(style, batch=2, samples=7000):
    """Waveforms, normalised where the folder says that they are to be."""
    wavs = torch.randn(batch, samples)
    if style != "layer":
        return wavs, wavs
    centred = wavs - wavs.mean(1, keepdim=True)
    spread = wavs.var(1, correction=0, keepdim=True)
    return wavs, centred / torch.sqrt(spread + 1e-7)


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


def reference(name, model, wavs):
    """What transformers computes, by the names used here."""
    hidden = getattr(model, model.base_model_prefix, model)(wavs)
    torch.manual_seed(5)
    outputs = model(wavs)
    task = CLASSES[name][1]
    if task == "Model":
        return {"features": hidden.last_hidden_state}
    if task == "ForXVector":
        return {"embeddings": outputs.embeddings, "logits": outputs.logits}
    if task == "ForPreTraining" and name.startswith("UniSpeechSat"):
        return {"logits": outputs.logits}
    if task == "ForPreTraining" and name.startswith("Wav2Vec2"):
        projected = outputs.projected_quantized_states
        return {"states": outputs.projected_states, "projected": projected}
    if task == "ForPreTraining":
        return {"projected": outputs.projected_quantized_states}
    return {"logits": outputs.logits}


def ours(name, mods, wavs):
    """The same from the modules of a pretrained folder."""
    backbone = mods.encoder
    out = backbone.encode(wavs, output_hidden_states=True)
    task = CLASSES[name][1]
    feats = out.last_hidden_state
    if getattr(mods, "head", None) is not None:
        mix = getattr(mods.head, "layer_mix", None)
        feats = feats if mix is None else out.hidden_states
    if task == "Model":
        return {"features": feats}
    if task == "ForXVector":
        return {
            "embeddings": mods.head.embed(feats),
            "logits": mods.head(feats),
        }
    if task == "ForPreTraining" and name.startswith("UniSpeechSat"):
        return {"logits": out.extract_features}
    if task == "ForPreTraining":
        found = mods.head(feats, out.extract_features)
        states = {"states": found.projected_states}
        states = states if name.startswith("Wav2Vec2") else {}
        return {**states, "projected": found.projected_quantized_states}
    return {"logits": mods.head(feats)}


def modules_of(folder):
    """Every module of a pretrained folder, whatever its interface."""
    text = (folder / "hyperparams.yaml").read_text()
    if " encoder: !ref <backbone>" in text:
        return WaveformEncoder.from_hparams(source=str(folder)).mods
    from hyperpyyaml import load_hyperpyyaml

    hparams = load_hyperpyyaml(text)
    hparams["pretrainer"].set_collect_in(str(folder))
    hparams["pretrainer"].collect_files(default_source=str(folder))
    hparams["pretrainer"].load_collected()
    found = {"encoder": hparams["backbone"], "head": hparams["head"]}
    if "objective" in hparams:
        found["objective"] = hparams["objective"]
    return torch.nn.ModuleDict(found).eval()


def projected(outputs):
    """A random projection of all outputs to one number."""
    generator = torch.Generator().manual_seed(3)
    total = 0.0
    for key in sorted(outputs):
        weights = torch.randn(outputs[key].numel(), generator=generator)
        total = total + (outputs[key].flatten() * weights).sum()
    return total


def parameters_of(name, mods):
    """Parameters of a folder's modules under transformers' names."""
    family, task = CLASSES[name]
    prefix = "" if task == "Model" else FAMILIES[family]
    found = {
        prefix + key: value for key, value in mods.encoder.named_parameters()
    }
    heads = {
        lobe: dict(getattr(mods, lobe).named_parameters())
        for lobe in ("head", "objective")
        if hasattr(mods, lobe)
    }
    return found | join_heads(heads, task)


def compare_gradients(name, mods, model):
    """Every parameter's gradient is that of transformers, relative to 1 or
    to the largest entry of all.
    """
    found = {
        key: parameter.grad
        for key, parameter in parameters_of(name, mods).items()
        if parameter.grad is not None
    }
    expected = {
        key: parameter.grad
        for key, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    assert expected.keys() <= found.keys()
    largest = max(1.0, *(float(g.abs().max()) for g in expected.values()))
    for key, value in found.items():
        wanted = expected.get(key, torch.zeros(()))
        error = float((value - wanted).abs().max())
        assert error <= 1e-5 * largest, key


@all_classes
@pytest.mark.parametrize("style", STYLES)
def test_a_folder_gives_what_transformers_gives(name, style, tmp_path):
    model, hf = make(name, style, tmp_path / "hf")
    convert_checkpoint(hf, tmp_path / "sb")
    mods = modules_of(tmp_path / "sb").requires_grad_(True)
    wavs, normed = wavs_of(style)
    expected = reference(name, model, normed)
    found = ours(name, mods, wavs)
    for key, value in expected.items():
        found[key] = found[key].reshape(value.shape)
        torch.testing.assert_close(found[key], value, rtol=1e-5, atol=1e-5)
    projected(found).backward()
    projected(expected).backward()
    compare_gradients(name, mods, model)


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


def ctc_loss(mods, logits, labels):
    """Sum over the batch."""
    return F.ctc_loss(
        logits.log_softmax(-1).transpose(0, 1), labels,
        torch.full((2,), logits.shape[1]), torch.full((2,), 2),
        blank=0, reduction="sum",
    )  # fmt: skip


LOSSES = {
    "ForCTC": (torch.tensor([[1, 2], [3, 4]]), ctc_loss),
    "ForSequenceClassification": (
        torch.tensor([0, 3]),
        lambda mods, logits, labels: classification_loss(logits, labels),
    ),
    "ForAudioFrameClassification": (
        F.one_hot(torch.arange(42) % 5, 5).view(2, 21, 5),
        lambda mods, logits, labels: F.cross_entropy(
            logits.transpose(1, 2), labels.argmax(-1)
        ),
    ),
    "ForXVector": (
        torch.tensor([0, 3]),
        lambda mods, logits, labels: mods.objective(logits, labels),
    ),
}
"""Task -> labels, and the loss as this package computes it."""


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(
    "name", [name for name, known in CLASSES.items() if known[1] in LOSSES]
)
def test_losses_and_their_gradients_are_transformers(name, style, tmp_path):
    model, hf = make(name, style, tmp_path / "hf", ctc_loss_reduction="sum")
    convert_checkpoint(hf, tmp_path / "sb")
    mods = modules_of(tmp_path / "sb").requires_grad_(True)
    wavs, normed = wavs_of(style)
    labels, loss = LOSSES[CLASSES[name][1]]
    expected = model(normed, labels=labels).loss
    found = loss(mods, ours(name, mods, wavs)["logits"], labels)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    found.backward()
    expected.backward()
    compare_gradients(name, mods, model)


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
