"""Running statistics are those of the whole, and windows get them."""

import pytest
import torch

from tests.inference.models import uneven_speech
from unispeech_sb.inference.audio_blocks import GlobalStatistics, global_norm
from unispeech_sb.lobes.backbone import Backbone


def statistics_of(wav, block):
    """Gathered block by block."""
    statistics = GlobalStatistics(kernel=10, stride=5)
    for part in wav.split(block):
        statistics.add(part)
    return statistics


@pytest.mark.parametrize("block", [3, 160, 9999, 48000])
def test_statistics_do_not_depend_on_the_blocks(block):
    wav = uneven_speech(0.3 if block == 3 else 3.0)
    statistics = statistics_of(wav, block)
    patches = wav.double().unfold(0, 10, 5)
    assert statistics.num_samples == len(wav)
    assert statistics.mean == pytest.approx(wav.double().mean().item())
    assert statistics.variance == pytest.approx(
        wav.double().var(correction=0).item()
    )
    torch.testing.assert_close(statistics.patch_mean, patches.mean(0))
    torch.testing.assert_close(
        statistics.patch_covariance, torch.cov(patches.T, correction=0)
    )


@pytest.mark.parametrize("norm", ["group", "layer"])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_a_part_is_normalised_as_in_the_whole(norm, normalize, bias):
    backbone = Backbone.from_preset(
        "tiny", feat_extract_norm=norm, normalize_wav=normalize, conv_bias=bias
    ).eval()
    if bias:
        backbone.feature_extractor.conv_layers[0].conv.bias.data.normal_()
    wav = uneven_speech(2.0)
    statistics = statistics_of(wav, 7000)
    part = wav[3200:12000]
    with torch.no_grad():
        whole = backbone.encode(wav[None]).extract_features[0]
        alone = backbone.encode(part[None]).extract_features[0]
        with global_norm(backbone, [statistics]) as prepare:
            (ready,) = prepare([part])
            ours = backbone.encode(ready[None]).extract_features[0]
    expected = whole[10 : 10 + len(ours)]
    torch.testing.assert_close(ours, expected, atol=2e-4, rtol=1e-4)
    if norm == "group":
        assert not torch.allclose(alone, expected, atol=1e-2)


def test_the_backbone_is_as_before_afterwards():
    backbone = Backbone.from_preset("tiny", normalize_wav=True).eval()
    wav = torch.randn(1, 3000)
    statistics = statistics_of(uneven_speech(1.0), 5000)
    before, keys = backbone(wav), list(backbone.state_dict())
    with (
        pytest.raises(RuntimeError),
        global_norm(backbone, [statistics]),
    ):
        assert not backbone.normalize_wav
        raise RuntimeError
    assert backbone.normalize_wav
    assert list(backbone.state_dict()) == keys
    assert torch.equal(backbone(wav), before)


def test_the_variance_of_a_constant_is_not_below_zero():
    below = 0
    for constant in torch.rand(100):
        statistics = statistics_of(constant.expand(4801), 4801)
        squares = statistics._squares / statistics.num_samples
        below += squares < statistics.mean**2  # by rounding
        assert statistics.variance >= 0
        assert statistics.variance == pytest.approx(0, abs=1e-6)
    assert below
