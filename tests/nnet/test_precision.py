"""Lower precisions, against float32 and against their definitions."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.nnet import precision
from unispeech_sb.nnet.attention import linear
from unispeech_sb.nnet.frontend import (
    ACTIVATIONS,
    ChannelNorm,
    ConvLayer,
    TimeNorm,
)
from unispeech_sb.nnet.precision import can_lower, lower_precision

VARIANTS = {
    "base": {},
    "large": {"feat_extract_norm": "layer", "do_stable_layer_norm": True},
    "biases": {"conv_bias": True, "hidden_act": "gelu_new"},
    "selu": {"hidden_act": "selu", "feat_extract_activation": "selu"},
    "adapters": {"do_stable_layer_norm": True, "adapter_attn_dim": 4},
    "windows": {"window_s": 4.0},
    "fairseq": {"mask_rule": "fairseq"},
    "wavlm": {"num_buckets": 32, "max_bucket_distance": 80},
}
MOST = {"bf16": 0.02, "int8": 0.05}
"""Difference to float32, and of one utterance alone and in a batch, to the
root mean square: bfloat16 has 8 bits of a number, 8-bit values 7."""

pytestmark = pytest.mark.skipif(
    not (can_lower("bf16") and can_lower("int8")),
    reason="this CPU or this torch has no such layers",
)


def tiny(kind, **options):
    """A backbone, in float32 where ``kind`` is None."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64}
    found = Backbone.from_preset("tiny", **{**sizes, **options}).eval()
    if kind is not None:
        lower_precision(found.feature_extractor, found.encoder, kind)
    return found


def relative(found, expected):
    """Root mean square of a difference, to that of what is expected."""
    return (found - expected).norm().item() / expected.norm().item()


@pytest.mark.parametrize("kind", MOST)
@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_features_are_those_of_float32(variant, kind):
    wavs, lens = torch.randn(3, 9000), torch.tensor([1.0, 0.4, 0.7])
    options = VARIANTS[variant]
    expected = torch.stack([*tiny(None, **options).iter_states(wavs, lens)])
    found = torch.stack([*tiny(kind, **options).iter_states(wavs, lens)])
    assert found.dtype == torch.float32
    assert 0 < relative(found, expected) < MOST[kind]


@pytest.mark.parametrize("kind", MOST)
@pytest.mark.parametrize("variant", ["base", "large"])
@torch.no_grad()
def test_an_utterance_is_the_same_alone_and_in_a_batch(variant, kind):
    model = tiny(kind, **VARIANTS[variant])
    lengths = [9000, 3333, 7001, 4800]
    wavs = [torch.randn(n) for n in lengths]
    batch = nn.utils.rnn.pad_sequence(wavs, batch_first=True)
    rows = model(batch, torch.tensor(lengths) / max(lengths))
    for wav, row in zip(wavs, rows):
        alone = model(wav[None])[0]
        assert relative(row[: len(alone)], alone) < MOST[kind]


@pytest.mark.parametrize("act", [None, *ACTIVATIONS])
@torch.no_grad()
def test_linear_layers_side_by_side(act):
    act = None if act is None else ACTIVATIONS[act]
    layers, feats = [nn.Linear(32, 8), nn.Linear(32, 16)], torch.randn(2, 5, 32)
    expected = torch.cat([layer(feats) for layer in layers], -1)
    expected = expected if act is None else act(expected)
    for make in (precision._Bf16Linear, precision._Int8Linear):
        for given in (feats, feats.bfloat16()):
            found = make(layers, act)(given)
            assert found.dtype == torch.bfloat16
            assert relative(found.float(), expected) < 0.02


@pytest.mark.parametrize("act", [None, *ACTIVATIONS])
@torch.no_grad()
def test_inference_in_float32_is_that_of_training(act):
    act = None if act is None else ACTIVATIONS[act]
    layer, feats = nn.Linear(32, 8), torch.randn(2, 5, 32)
    with torch.enable_grad():
        expected = linear(layer, feats, act)
    assert expected.requires_grad
    found = linear(layer, feats, act)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    seen = []
    layer.register_forward_hook(lambda *given: seen.append(given[2]))
    found = linear(layer, feats, act)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert len(seen) == 1


@pytest.mark.parametrize("norm", [None, TimeNorm(8)])
@pytest.mark.parametrize("bias", [False, True])
def test_a_first_convolution_is_a_product(bias, norm):
    layer = ConvLayer(1, 8, 10, 5, bias=bias and norm is None, norm=norm)
    wavs, moments = torch.randn(2, 1, 500), None
    expected = layer.conv(wavs)
    if norm is not None:
        nn.init.normal_(norm.weight)
        moments = expected.mean(2), expected.var(2, correction=0)
        expected = norm(expected)
    for frames_first in (False, True):
        found = layer.as_product(wavs, moments, frames_first)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert found.transpose(1, 2).is_contiguous()
    found = layer(wavs, moments)
    torch.testing.assert_close(found, F.gelu(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm", [None, ChannelNorm(16)])
@torch.no_grad()
def test_convolutions(norm):
    layer = ConvLayer(32, 16, 3, 2, bias=True, norm=norm, act="relu")
    feats = torch.randn(2, 32, 40)
    for make in (precision._Bf16Conv, precision._Int8Conv):
        for is_last, dtype in ((True, torch.float32), (False, torch.bfloat16)):
            found = make(layer, is_last)(feats.bfloat16(), None)
            assert found.dtype == dtype
            assert relative(found.float(), layer(feats)) < 0.02


@torch.no_grad()
def test_8_bit_products_are_of_whole_numbers():
    linear, feats = nn.Linear(32, 8), torch.randn(6, 32)
    feats *= torch.logspace(-3, 3, 6)[:, None]  # each frame has its scale

    def rounded(rows, most):
        steps = most / rows.abs().amax(1, keepdim=True)
        return (rows * steps).round().double(), 1 / steps.double()

    left, mine = rounded(feats, 126.5)
    right, own = rounded(linear.weight, 127)
    expected = (left @ right.T) * mine * own.T + linear.bias.double()
    found = precision._Int8Linear([linear])(feats)
    for row, wanted in zip(found.double(), expected):
        assert relative(row, wanted) < 2**-8  # of bfloat16


@torch.no_grad()
def test_a_loud_frame_takes_no_digits_of_others():
    linear, feats = nn.Linear(32, 8), torch.randn(2, 32)
    layer = precision._Int8Linear([linear])
    alone = layer(feats[:1])
    assert torch.equal(layer(feats * torch.tensor([[1.0], [1e6]]))[:1], alone)
    silent = layer(torch.zeros(1, 32))
    torch.testing.assert_close(
        silent[0].float(), linear.bias, rtol=0.01, atol=0
    )


@torch.no_grad()
def test_positions_are_those_of_each_utterance():
    positions = tiny(None).encoder.pos_conv_embed
    lowered = precision._Bf16Positions(positions)
    feats, counts = torch.randn(1, 12, 32), [5, 7]
    expected = positions(feats, counts)
    assert relative(lowered(feats, counts).float(), expected) < 0.02
    expected = F.gelu(positions.conv(feats.transpose(1, 2))[..., :12])
    found = lowered(feats).float().transpose(1, 2)
    assert relative(found, expected) < 0.02


@pytest.mark.parametrize("kind", MOST)
def test_memory_of_weights_shrinks(kind):
    model = tiny(kind)
    left = {name for name, _ in model.named_parameters()}
    assert not [n for n in left if "proj.weight" in n and "layers" in n]
    assert not [n for n in left if "dense" in n]


def test_units_of_other_devices_are_not_made_up(monkeypatch):
    assert not precision.has_bf16_units("meta")
    for found, expected in (
        ({"avx512_bf16": True}, True),
        ({"amx_bf16": True}, True),
        ({"avx512_f": True}, False),
    ):
        monkeypatch.setattr(
            torch.cpu, "get_capabilities", lambda found=found: found
        )
        assert precision.has_bf16_units("cpu") is expected
