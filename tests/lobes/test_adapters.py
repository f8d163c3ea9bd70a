"""Per-language adapters against transformers, and what only we promise."""

import copy

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

from tests.huggingface import PREFIXES, save_folder, tiny_config, tiny_model
from unispeech_sb.lobes.adapters import (
    adapter_languages,
    load_adapter,
    save_adapter,
)
from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.lobes.heads import FrameHead

TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}
OPTIONS = {
    "do_stable_layer_norm": True,
    "feat_extract_norm": "layer",
    "adapter_attn_dim": 6,
    "vocab_size": 11,
    "layer_norm_eps": 1e-3,  # not that of the adapters' norm
}
LANGUAGES = {"eng": 11, "zho-script_simplified": 19}


def draw(*shape):
    """The same random numbers in every test."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def their_adapter(family, vocab_size, seed):
    """The tensors of a language under transformers' names."""
    generator = torch.Generator().manual_seed(seed)
    model = tiny_model(
        family, "ForCTC", **{**OPTIONS, "vocab_size": vocab_size}
    )
    return {
        name: 0.3 * torch.randn(p.shape, generator=generator)
        for name, p in model.state_dict().items()
        if "adapter_layer" in name or name.startswith("lm_head.")
    }


def our_pair(model, tmp_path):
    """The backbone and head of a CTC model of transformers."""
    backbone = Backbone.from_pretrained(save_folder(model, tmp_path / "hf"))
    head = FrameHead(16, model.config.vocab_size)
    head.classifier.load_state_dict(model.lm_head.state_dict())
    return backbone.eval(), head.eval()


@pytest.fixture(params=["unispeech", "unispeech-sat", "wav2vec2", "hubert"])
def family(request):
    """Each family in turn."""
    return request.param


@pytest.fixture
def languages(family, tmp_path):
    """A folder with two languages, one file of each kind."""
    first, second = LANGUAGES
    save_file(
        their_adapter(family, LANGUAGES[first], 1),
        tmp_path / f"adapter.{first}.safetensors",
    )
    torch.save(
        their_adapter(family, LANGUAGES[second], 2),
        tmp_path / f"adapter.{second}.bin",
    )
    return tmp_path


@pytest.fixture
def pair(family, tmp_path):
    """A backbone with adapters, and a CTC head."""
    return our_pair(tiny_model(family, "ForCTC", **OPTIONS), tmp_path)


def state_of(pair):
    """Every tensor of both modules, copied."""
    return [copy.deepcopy(module.state_dict()) for module in pair]


def assert_same_state(found, expected):
    """Compares two results of ``state_of`` bit for bit."""
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_states_and_gradients_equal_transformers(family, tmp_path):
    model = tiny_model(family, "ForCTC", **OPTIONS).train()
    backbone, head = our_pair(model, tmp_path)
    wavs = draw(2, 4000)
    theirs = model(wavs, output_hidden_states=True)
    ours = backbone.train().encode(wavs, output_hidden_states=True)
    torch.testing.assert_close(
        torch.stack(ours.hidden_states[:-1]),
        torch.stack(theirs.hidden_states[:-1]),
        **TOLERANCE,
    )
    logits = head(ours.last_hidden_state)
    torch.testing.assert_close(logits, theirs.logits, **TOLERANCE)
    weights = draw(*logits.shape)
    (logits * weights).sum().backward()
    (theirs.logits * weights).sum().backward()
    reference = getattr(model, PREFIXES[family])
    adapters = [n for n, _ in reference.named_parameters() if "adapter" in n]
    assert len(adapters) == 3 * 6
    assert {n for n, _ in backbone.named_parameters() if "adapter" in n} == set(
        adapters
    )
    for name, parameter in reference.named_parameters():
        if parameter.grad is None:
            continue
        scale = parameter.grad.abs().max().clamp(min=1.0)
        torch.testing.assert_close(
            backbone.get_parameter(name).grad / scale, parameter.grad / scale,
            **TOLERANCE, msg=lambda text, name=name: f"{name}: {text}",
        )  # fmt: skip


def test_adapters_start_as_transformers_starts_them():
    theirs = tiny_model("unispeech", "ForCTC", **OPTIONS, hidden_size=64)
    ours = Backbone(
        hidden_size=64, num_hidden_layers=3, num_attention_heads=2,
        intermediate_size=32, conv_dim=[8] * 7, initializer_range=0.2,
        num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2,
        do_stable_layer_norm=True, adapter_attn_dim=6,
    )  # fmt: skip
    for index in range(3):
        reference = theirs.unispeech.encoder.layers[index].adapter_layer
        adapter = ours.encoder.layers[index].adapter_layer
        for name in ("linear_1", "linear_2"):
            found, expected = getattr(adapter, name), getattr(reference, name)
            ratio = found.weight.std() / expected.weight.std()
            assert 0.75 < ratio < 1.33
            assert not found.bias.any()
        assert torch.equal(adapter.norm.weight, torch.ones(64))


def test_a_language_gives_the_logits_of_transformers(
    family, languages, tmp_path
):
    wavs = draw(2, 4000)
    shared = tiny_model(family, "ForCTC", **OPTIONS)
    pair = our_pair(shared, tmp_path)
    for seed, (lang, size) in enumerate(LANGUAGES.items(), start=1):
        options = {**OPTIONS, "vocab_size": size}
        model = tiny_model(family, "ForCTC", **options)
        tensors = their_adapter(family, size, seed)
        model.load_state_dict(shared.state_dict() | tensors)
        load_adapter(languages, lang, *pair)
        backbone, head = pair
        assert head.config["num_classes"] == size
        torch.testing.assert_close(
            head(backbone(wavs)), model(wavs).logits, **TOLERANCE
        )


def test_the_layout_is_that_of_wav2vec2(languages, pair, family):
    sizes = tiny_config(family, **OPTIONS).to_dict()
    sizes = {k: v for k, v in sizes.items() if k != "model_type"}
    theirs = set(Wav2Vec2ForCTC(Wav2Vec2Config(**sizes))._get_adapters())
    path = save_adapter(languages, "fra", *pair, family)
    ours = {
        name.replace(PREFIXES[family] + ".", "wav2vec2.")
        for name in load_file(path)
    }
    assert ours == theirs
    assert len(ours) == 3 * 6 + 2


def test_switching_there_and_back_gives_the_same_bits(languages, pair):
    backbone, head = pair
    wavs, (first, second) = draw(1, 4000), LANGUAGES
    logits = []
    for lang in (first, second, first):
        load_adapter(languages, lang, backbone, head)
        logits.append(head(backbone(wavs)))
    assert torch.equal(logits[0], logits[2])
    assert logits[1].shape[-1] == LANGUAGES[second]
    features = [backbone(wavs)]
    load_adapter(languages, second, backbone, head)
    assert not torch.allclose(backbone(wavs), features[0])


def test_a_saved_language_loads_with_the_same_bits(languages, pair, family):
    save_adapter(languages, "fra", *pair, family)
    before = state_of(pair)
    load_adapter(languages, "zho-script_simplified", *pair)
    assert not torch.equal(
        pair[1].classifier.weight, before[1]["classifier.weight"]
    )
    load_adapter(languages, "fra", *pair)
    assert_same_state(state_of(pair), before)
    assert adapter_languages(languages) == sorted([*LANGUAGES, "fra"])
    assert not list(languages.glob("*.tmp"))


def test_of_two_files_of_a_language_safetensors_count(languages, pair, family):
    before = state_of(pair)
    save_adapter(languages, "zho-script_simplified", *pair, family)
    assert adapter_languages(languages) == sorted(LANGUAGES)
    load_adapter(languages, "zho-script_simplified", *pair)
    assert_same_state(state_of(pair), before)


def test_type_and_trainability_stay(languages, pair):
    backbone, head = (module.to(torch.bfloat16) for module in pair)
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_("adapter_layer" in name)
    trained = [p for p in backbone.parameters() if p.requires_grad]
    head.classifier.bias.requires_grad_(False)
    load_adapter(languages, "zho-script_simplified", backbone, head)
    assert {p.dtype for p in (*backbone.parameters(), *head.parameters())} == {
        torch.bfloat16
    }
    assert all(p.requires_grad for p in trained)
    assert sum(p.requires_grad for p in backbone.parameters()) == len(trained)
    assert {id(p) for p in trained} < {id(p) for p in backbone.parameters()}
    assert head.classifier.weight.requires_grad
    assert not head.classifier.bias.requires_grad


def test_padding_changes_nothing(languages, pair):
    backbone, head = pair
    load_adapter(languages, "eng", backbone, head)
    lengths = torch.tensor([6000, 4321, 900])
    batched = head(backbone(draw(3, 6000), lengths / 6000))
    for row, samples in enumerate(lengths):
        alone = head(backbone(draw(3, 6000)[row : row + 1, :samples]))
        torch.testing.assert_close(
            batched[row, : alone.shape[1]], alone[0], **TOLERANCE
        )


def change(languages, **changes):
    """Writes a faulty language ``bad``: a name's tensor, or None to drop."""
    tensors = load_file(languages / "adapter.eng.safetensors")
    for key, tensor in changes.items():
        [name] = [n for n in tensors if n.endswith(key.replace("__", "."))]
        del tensors[name]
        if tensor is not None:
            tensors[name] = tensor
    return tensors


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"layers__1__adapter_layer__norm__bias": None},
            r"missing \w+\.encoder.layers.1.adapter_layer.norm.bias$",
        ),
        ({"lm_head__weight": None}, "missing lm_head.weight"),
        (
            {"lm_head__weight": torch.zeros(5, 7)},
            r"misshapen lm_head.bias .*, lm_head.weight \(expected \[5, 16\]",
        ),
        ({"lm_head__weight": torch.zeros(0, 16)}, r"got \[0, 16\]"),
        ({"lm_head__weight": torch.tensor(1.0)}, r"got \[\]"),
        (
            {"layers__0__adapter_layer__linear_1__weight": torch.zeros(2, 16)},
            r"linear_1.weight \(expected \[6, 16\], got \[2, 16\]\)",
        ),
    ],
    ids=str,
)
def test_a_file_that_does_not_fit_changes_nothing(
    changes, message, languages, pair
):
    tensors = change(languages, **changes)
    save_file(tensors, languages / "adapter.bad.safetensors")
    before = state_of(pair)
    with pytest.raises(ValueError, match=message) as caught:
        load_adapter(languages, "bad", *pair)
    assert "adapter.bad.safetensors" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert_same_state(state_of(pair), before)
    assert pair[1].config["num_classes"] == 11


def test_tensors_of_something_else_are_named(languages, pair, family):
    name = f"{PREFIXES[family]}.masked_spec_embed"
    tensors = change(languages) | {name: torch.ones(16)}
    save_file(tensors, languages / "adapter.bad.safetensors")
    with pytest.raises(ValueError, match=f"unexpected .*{name}"):
        load_adapter(languages, "bad", *pair)


def test_an_unknown_language_gets_the_list_of_those_there(languages, pair):
    message = "languages eng, zho-script_simplified; got 'deu'"
    with pytest.raises(ValueError, match=message):
        load_adapter(languages, "deu", *pair)
    with pytest.raises(ValueError, match="none there"):
        load_adapter(languages / "nowhere", "deu", *pair)


@pytest.mark.parametrize(
    "lang", ["../eng", "a/b", "a\\b", "", ".", "..", "e\n"]
)
def test_only_plain_names_are_languages(lang, languages, pair, family):
    for call in (
        lambda: load_adapter(languages, lang, *pair),
        lambda: save_adapter(languages, lang, *pair, family),
    ):
        with pytest.raises(ValueError, match="language: expected letters"):
            call()
    assert len(list(languages.rglob("adapter.*"))) == 2


def test_a_backbone_without_adapters_is_refused(languages, family):
    backbone = Backbone.from_preset("tiny")
    head = FrameHead(16, 11)
    for call in (
        lambda: load_adapter(languages, "eng", backbone, head),
        lambda: save_adapter(languages, "eng", backbone, head, family),
    ):
        with pytest.raises(ValueError, match="backbone with adapter_attn_dim"):
            call()
    assert all(p.requires_grad for p in backbone.parameters())


def test_an_unknown_family_is_refused(languages, pair):
    with pytest.raises(ValueError, match="or wavlm; got 'sew'"):
        save_adapter(languages, "fra", *pair, "sew")
