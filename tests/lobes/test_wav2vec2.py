"""SpeechBrain's names of self-supervised models, and what recipes touch."""

import copy
import io
import itertools
import pickle

import pytest
import torch
import yaml
from hyperpyyaml import load_hyperpyyaml
from speechbrain.integrations.huggingface import wav2vec2 as theirs
from speechbrain.integrations.huggingface.weighted_ssl import (
    WeightedSSLModel as TheirWeightedSSLModel,
)

from tests.huggingface import save_folder, tiny_model
from unispeech_sb import lobes
from unispeech_sb.lobes import backbone as backbone_module
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


FLAGS = ("freeze", "freeze_feature_extractor", "apply_spec_augment")
MASKING = {"mask_time_prob": 0.5, "mask_feature_prob": 0.5}
MODELS = {
    "base": {"feat_extract_norm": "group"},
    "large": {"feat_extract_norm": "layer", "do_stable_layer_norm": True},
}


@pytest.fixture(scope="module", params=MODELS)
def two(request, tmp_path_factory):
    """A folder of transformers, and whether its waveforms are normalised."""
    name, normalizes = request.param, request.param == "large"
    model = tiny_model("unispeech-sat", **MODELS[name], **MASKING)
    folder = save_folder(model, tmp_path_factory.mktemp(name), normalizes)
    return str(folder), normalizes


def every_fifth(length):
    """A mask that needs no luck."""
    return torch.arange(length) % 5 == 0


@pytest.fixture
def same_masks(monkeypatch):
    """Both draw the same spans."""
    from transformers.models.unispeech_sat import modeling_unispeech_sat

    monkeypatch.setattr(
        modeling_unispeech_sat,
        "_compute_mask_indices",
        lambda shape, **_: every_fifth(shape[1]).expand(shape).numpy(),
    )
    monkeypatch.setattr(
        backbone_module,
        "span_mask",
        lambda lengths, size, *_: every_fifth(size).expand(len(lengths), -1),
    )


@pytest.mark.parametrize("training", [False, True])
def test_every_flag_is_speechbrains(two, tmp_path, same_masks, training):
    hub, normalizes = two
    wavs = torch.randn(2, 3000) + 0.5
    for values in itertools.product((False, True), repeat=len(FLAGS)):
        flags = dict(zip(FLAGS, values, strict=True))
        if flags["freeze"] and flags["apply_spec_augment"] and training:
            continue  # docs/speechbrain.md: ours stays in evaluation mode
        their = theirs.Wav2Vec2(hub, str(tmp_path), **flags)
        our = lobes.Wav2Vec2(
            hub, str(tmp_path), **flags, normalize_eps=1e-5, last_state="raw"
        )
        assert our.normalize_wav == their.normalize_wav == normalizes
        names = {name.removeprefix("model.") for name in trained(their)}
        assert trained(our) == names
        for output in itertools.product((False, True), repeat=2):
            for lobe in (our, their):  # recipes set the second one late
                lobe.output_norm, lobe.output_all_hiddens = output
            check_same(our.train(training), their.train(training), wavs)


@pytest.mark.parametrize("masked", [False, True])
def test_a_frozen_model_stays_in_evaluation_mode(masked, tmp_path):
    """The last row of differences in docs/speechbrain.md."""
    options = {"mask_time_length": 2, "mask_feature_length": 2}
    options["hidden_dropout"] = 0.0 if masked else 0.5
    model = tiny_model("unispeech-sat", **options, **MASKING)
    hub = str(save_folder(model, tmp_path / "hub"))
    given = {"freeze": True, "apply_spec_augment": masked}
    their, our = (
        cls(hub, str(tmp_path), **given)
        for cls in (theirs.Wav2Vec2, lobes.Wav2Vec2)
    )
    wavs = torch.randn(2, 3000)
    expected = our.eval()(wavs)
    # As Brain.fit does, whose modules are in one container
    torch.nn.ModuleList([our, their]).train()
    assert not our.training and their.model.training
    for _ in range(2):
        assert torch.equal(our(wavs), expected)
    assert not torch.allclose(their(wavs), their(wavs), atol=0.01)
    check_same(our, their.eval(), wavs)


def check_same(our, their, wavs):
    """Outputs of two lobes are the same, and gradients, where any train."""
    outputs = [lobe(wavs) for lobe in (our, their)]
    torch.testing.assert_close(*outputs, rtol=1e-5, atol=1e-5)
    if trained(their):
        check_gradients(our, their, outputs)


def check_gradients(our, their, outputs):
    """Gradients of two lobes are the same, and there are some."""
    for lobe, output in zip((our, their), outputs, strict=True):
        lobe.zero_grad()
        output.pow(3).mean().backward()
    found = dict(our.named_parameters())
    largest = 0.0
    for name, parameter in their.named_parameters():
        gradient = found[name.removeprefix("model.")].grad
        if parameter.grad is None:
            assert gradient is None or not gradient.any()
        else:
            torch.testing.assert_close(
                gradient, parameter.grad, rtol=1e-3, atol=1e-5
            )
            largest = max(largest, parameter.grad.abs().max().item())
    assert largest > 1e-4


@pytest.mark.parametrize("layernorm", [False, True])
def test_the_weighted_sum_is_speechbrains(hub, tmp_path, layernorm):
    their = TheirWeightedSSLModel(str(hub), str(tmp_path), layernorm, True)
    our = lobes.WeightedSSLModel(str(hub), str(tmp_path), layernorm, True)
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


@pytest.fixture(scope="module")
def unispeech(tmp_path_factory):
    """A folder of a UniSpeech, with sizes of its own for the quantizer."""
    model = tiny_model("unispeech", num_codevectors_per_group=6)
    return save_folder(model, tmp_path_factory.mktemp("unispeech"), True)


def test_pretraining_gives_what_speechbrains_recipe_expects(unispeech):
    lobe = lobes.Wav2Vec2Pretrain(
        unispeech, save_path="", mask_prob=0.5, mask_length=3
    )
    assert lobe.head.quantizer.codevectors.numel() == 2 * 6 * 4
    wavs, wav_lens = torch.randn(3, 16000), torch.tensor([1.0, 0.7, 0.5])
    for mode in (True, False):
        out, mask = lobe.train(mode)(wavs, wav_lens)
        assert mask.dtype == torch.int64 and mask.shape == (3, 49)
        assert not mask[2, 24:].any() and mask[2, :24].any()
        cosines = torch.cosine_similarity(
            out.projected_states, out.projected_quantized_states, dim=-1
        )
        chosen = mask.type(torch.BoolTensor)
        assert torch.masked_select(cosines, chosen).mean().isfinite()
        expected = out.contrastive_loss + 0.1 * out.diversity_loss
        torch.testing.assert_close(out.loss, expected)
    lobe.train()(wavs, wav_lens)[0].loss.backward()
    still = {n for n, p in lobe.named_parameters() if p.grad is None}
    assert not still


def test_pretraining_learns(unispeech):
    lobe = lobes.Wav2Vec2Pretrain(unispeech, mask_length=2, num_negatives=10)
    wavs, losses = torch.randn(2, 8000), []
    adam = torch.optim.Adam(lobe.parameters(), lr=1e-2)
    for _ in range(30):
        torch.manual_seed(0)  # the same masks, codes and candidates
        out, mask = lobe(wavs)
        losses.append(out.loss.item() / mask.sum().item())
        adam.zero_grad()
        out.loss.backward()
        adam.step()
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("source", ["folder", "unispeech_sat_base"])
def test_pretraining_without_units_is_not_unispeech_sats(hub, source):
    source = hub if source == "folder" else source
    with pytest.raises(ValueError, match="a unit for each frame") as caught:
        lobes.Wav2Vec2Pretrain(source)
    assert "\n" not in str(caught.value)


def test_an_accuracy_in_the_meta_can_be_read_back(unispeech):
    lobe = lobes.Wav2Vec2Pretrain(unispeech, mask_length=2).eval()
    accuracies = []
    for _ in range(2):  # as the recipe does
        out, mask = lobe(torch.randn(2, 8000))
        cosines = torch.cosine_similarity(
            out.projected_states, out.projected_quantized_states, dim=-1
        )
        chosen = torch.masked_select(cosines, mask.type(torch.BoolTensor))
        accuracies.append(chosen.mean())
    accuracy = sum(accuracies) / 2
    text = io.StringIO()
    yaml.dump({"acc": accuracy}, text)
    assert yaml.safe_load(text.getvalue()) == {"acc": accuracy.item()}
    assert str(accuracy) == str(accuracy.item())
    assert torch.Tensor not in yaml.Dumper.yaml_representers
    assert type(lobe.train()(torch.randn(2, 8000))[0][1]) is torch.Tensor


def test_waveforms_are_normalised_where_it_is_said(hub):
    wavs = torch.randn(2, 4000) + 0.5
    as_saved = lobes.WeightedSSLModel(hub, normalize_wav=None).eval()
    assert as_saved.config.normalize_wav
    plain = lobes.WeightedSSLModel(hub).eval()
    assert not plain.config.normalize_wav
    assert not torch.allclose(plain(wavs), as_saved(wavs))


def test_a_lobe_that_was_cut_is_saved_as_it_is(hub, tmp_path):
    lobe = lobes.Wav2Vec2(hub).eval()
    lobe.model.encoder.layers = lobe.model.encoder.layers[:2]
    lobe.save(tmp_path / "wav2vec2.ckpt")
    again = Backbone.from_pretrained(tmp_path / "wav2vec2.ckpt").eval()
    wavs = torch.randn(1, 2000)
    assert torch.equal(again(wavs), lobe(wavs))
