"""SpeechBrain's names of self-supervised models, and what recipes touch."""

import copy
import pickle

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.integrations.huggingface import wav2vec2 as theirs
from speechbrain.integrations.huggingface.weighted_ssl import (
    WeightedSSLModel as TheirWeightedSSLModel,
)

from tests.huggingface import save_folder, tiny_model
from unispeech_sb import lobes
from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.lobes.lobe import LobeConfig


@pytest.fixture(scope="module", params=["group", "layer"])
def hub(request, tmp_path_factory):
    """A Hugging Face folder in place of a model on the hub."""
    model = tiny_model("unispeech-sat", feat_extract_norm=request.param)
    return save_folder(model, tmp_path_factory.mktemp("hub"), True)


def trained(module):
    """Names of the parameters that train."""
    return {n for n, p in module.named_parameters() if p.requires_grad}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"output_norm": True, "freeze": True},
        {"output_all_hiddens": True, "freeze_feature_extractor": True},
    ],
)
def test_only_the_class_changes_in_a_yaml(hub, tmp_path, options):
    text = "lobe: !new:{}\n    source: {}\n    save_path: {}\n" + "".join(
        f"    {key}: {value}\n" for key, value in options.items()
    )
    module = "speechbrain.integrations.huggingface.wav2vec2"
    their, our = (
        load_hyperpyyaml(text.format(name, hub, tmp_path))["lobe"]
        for name in (f"{module}.Wav2Vec2", "unispeech_sb.lobes.Wav2Vec2")
    )
    assert isinstance(their, theirs.Wav2Vec2) and isinstance(our, Backbone)
    wavs = torch.randn(1, 4000)
    torch.testing.assert_close(
        our.eval().extract_features(wavs),
        their.eval().extract_features(wavs),
        rtol=1e-4,
        atol=1e-4,
    )
    frozen = not trained(their)
    assert frozen == (not trained(our)) == bool(options.get("freeze"))


@pytest.mark.parametrize("layernorm", [False, True])
def test_the_weighted_sum_is_speechbrains(hub, tmp_path, layernorm):
    their = TheirWeightedSSLModel(str(hub), str(tmp_path), layernorm, True)
    our = lobes.WeightedSSLModel(
        str(hub), str(tmp_path), layernorm, True,
        normalize_wav=False,  # SpeechBrain's passes over it
    )  # fmt: skip
    assert our.num_layers == their.num_layers == len(our.weights)
    with torch.no_grad():
        for model in (their, our):
            model.weights.copy_(torch.linspace(-1, 2, our.num_layers))
    wavs = torch.randn(2, 4000)
    torch.testing.assert_close(
        our.eval()(wavs), their.eval()(wavs), rtol=1e-5, atol=1e-5
    )
    our(wavs).sum().backward()
    assert our.weights.grad is not None and not trained(our.model)


def test_what_is_padded_is_as_alone(hub):
    lobe = lobes.WeightedSSLModel(hub, layernorm=True).eval()
    wavs = torch.randn(2, 4000)
    padded = lobe(wavs, torch.tensor([1.0, 0.5]))[1]
    alone = lobe(wavs[1:, :2000])[0]
    torch.testing.assert_close(padded[: len(alone)], alone)


def test_freezing_may_end_and_begin_late(hub):
    lobe = lobes.Wav2Vec2(hub, freeze=True, freeze_feature_extractor=True)
    assert not trained(lobe) and not lobe.train().training
    lobe.freeze = False
    names = trained(lobe.train())
    assert lobe.training and names
    assert not any(name.startswith("feature_extractor") for name in names)
    assert "encoder.layers.0.attention.q_proj.weight" in names
    lobe.freeze = True
    assert not trained(lobe) and not lobe.training
    weighted = lobes.WeightedSSLModel(hub)
    weighted.freeze = True
    assert trained(weighted) == {"layer_mix.weights"}


def test_parts_are_where_recipes_look(hub):
    lobe = lobes.Wav2Vec2(hub)
    assert lobe.model is lobe and "model" not in lobe.state_dict()
    assert len(list(lobe.modules())) == len(set(lobe.modules()))
    lobe.model.feature_extractor._freeze_parameters()
    assert not trained(lobe.feature_extractor) and trained(lobe.encoder)
    lobe.freeze_model(lobe.model.encoder)
    assert not trained(lobe.encoder) and not lobe.encoder.training
    before = lobe(torch.randn(1, 2000))
    lobe.model.encoder.layers = lobe.model.encoder.layers[:1]
    assert lobe(torch.randn(1, 2000)).shape == before.shape
    assert lobe.config.hidden_size == lobe.config["hidden_size"] == lobe.dim


def test_the_configuration_is_a_dict_with_attributes():
    config = LobeConfig(hidden_size=4)
    for copied in (
        copy.deepcopy(config),
        pickle.loads(pickle.dumps(config)),
    ):
        assert copied == config and copied.hidden_size == 4
    with pytest.raises(AttributeError, match="expected one of hidden_size"):
        config.vocab_size  # noqa: B018


@pytest.mark.parametrize(
    "keyword, named",
    [
        ("cache_dir", "save_path"),
        ("torch_dtype", "precision"),
        ("layer_drop", "layerdrop"),
        ("pretrained_path", "source"),
        ("quantizer", "make_units"),
        ("attn_implementation", "got 'attn_implementation'"),
    ],
)
def test_other_keywords_are_refused_with_what_does_it_here(hub, keyword, named):
    with pytest.raises(ValueError, match=named):
        lobes.Wav2Vec2(hub, **{keyword: "other"})


def test_keywords_that_change_nothing_are_taken(hub):
    lobe = lobes.Wav2Vec2(
        hub, attn_implementation="sdpa", trust_remote_code=False
    )
    assert "attn_implementation" not in lobe.config


def test_there_are_no_other_names():
    with pytest.raises(AttributeError, match="HuBERT"):
        lobes.HuBERT  # noqa: B018
