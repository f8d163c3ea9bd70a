"""Normalisation over an utterance's own samples and frames."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import Wav2Vec2FeatureExtractor

from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.nnet import frontend
from unispeech_sb.nnet.frontend import (
    FeatureExtractor,
    LayerNorm,
    groups_of_similar_length,
    normalize_wavs,
)

EPSILON = {"authors": 1e-5, "transformers": 1e-7}


def test_normalised_waveforms_equal_both_publishers():
    wav = 0.01 * torch.randn(1, 5000) + 0.3
    torch.testing.assert_close(
        normalize_wavs(wav, eps=EPSILON["authors"]),
        F.layer_norm(wav, wav.shape[1:]),
    )
    theirs = Wav2Vec2FeatureExtractor(do_normalize=True)(
        wav[0].numpy(), sampling_rate=16000, return_tensors="pt"
    )
    torch.testing.assert_close(
        normalize_wavs(wav, eps=EPSILON["transformers"]),
        theirs.input_values,
        rtol=1e-4,
        atol=1e-4,
    )


def test_normalised_waveforms_do_not_see_the_padding():
    wavs, lengths = torch.randn(2, 1000) + 5, torch.tensor([1000, 300])
    normed = normalize_wavs(wavs, lengths)
    alone = normalize_wavs(wavs[1:, :300])
    torch.testing.assert_close(normed[1:, :300], alone)
    assert not normed[1, 300:].any()


@pytest.mark.parametrize("seconds", [1, 10])
def test_an_offset_of_a_waveform_costs_no_digits(seconds):
    torch.manual_seed(seconds)
    noise = 1e-3 * torch.randn(2, 16000 * seconds)
    wavs, lengths = noise + 0.5, torch.tensor([16000 * seconds, 9000])
    own = (wavs[:, : lengths[1]].double(), wavs[1:, : lengths[1]])
    expected = F.layer_norm(own[0][1:], own[0].shape[1:])
    found = normalize_wavs(wavs, lengths)[1:, : lengths[1]]
    for normed in (found, normalize_wavs(own[1])):
        torch.testing.assert_close(
            normed.double(), expected, rtol=1e-5, atol=2e-6
        )


def test_gradients_of_a_norm_are_summed_in_float32_under_autocast():
    torch.manual_seed(0)
    feats, grad = torch.randn(2, 8000, 16).bfloat16()
    norm, grad = LayerNorm(16), grad + 0.3
    with torch.autocast("cpu", torch.bfloat16):
        norm(feats).backward(grad)
    expected = grad.double().sum(0)
    torch.testing.assert_close(norm.bias.grad.double(), expected)
    assert norm(feats).dtype == torch.bfloat16
    for module in Backbone.from_preset("tiny").modules():
        assert type(module) is not nn.LayerNorm


@pytest.mark.parametrize("norm", ["group", "layer"])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("least", [1, 700, 10**6])
def test_frames_do_not_see_the_padding(norm, checkpointing, least, monkeypatch):
    monkeypatch.setattr(frontend, "CPU_PIECE_SAMPLES", least)
    extractor = FeatureExtractor([8, 6], [10, 3], [5, 2], norm=norm)
    lengths = torch.tensor([300, 999, 300, 1000, 57])
    wavs = torch.randn(5, 1000)  # anything in the padding
    feats = extractor(wavs, lengths, checkpointing)
    assert feats.shape == (5, 99, 6)
    for row, length in enumerate(lengths):
        alone = extractor(wavs[row : row + 1, :length])[0]
        torch.testing.assert_close(
            feats[row, : len(alone)], alone, rtol=1e-5, atol=1e-5
        )


def test_groups_hold_every_row_once_and_similar_lengths():
    lengths = torch.randint(400, 30000, (50,)).tolist()
    groups = groups_of_similar_length([*lengths, 150_000], most=100_000)
    assert groups.pop() == [50]
    assert sorted(row for group in groups for row in group) == list(range(50))
    ordered = [lengths[row] for group in groups for row in group]
    assert ordered == sorted(lengths)
    for group, after in zip(groups, groups[1:]):
        assert len(group) * lengths[group[-1]] <= 100_000
        assert (len(group) + 1) * lengths[after[0]] > 100_000


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("offset", [0.0, 5.0])
def test_the_first_norm_is_group_norm_over_the_valid_frames(
    offset, bias, recorded, monkeypatch
):
    monkeypatch.setattr(frontend, "makes_graph", lambda: recorded)
    monkeypatch.setattr(frontend, "CPU_PIECE_SAMPLES", 300)
    monkeypatch.setattr(frontend, "_BLOCK_PATCHES", 30)
    extractor = FeatureExtractor([6, 8], [10, 3], [5, 2], bias)
    first, second = extractor.conv_layers
    for parameter in extractor.parameters():
        nn.init.normal_(parameter)
    reference = nn.GroupNorm(6, 6)
    reference.load_state_dict(first.layer_norm.state_dict())
    lengths = torch.tensor([1000, 555])
    wavs = torch.randn(2, 1000) + offset
    found = extractor(wavs, lengths)
    for row, wav, length in zip(found, wavs, lengths):
        feats = first.conv(wav[None, None, :length])
        feats = second(F.gelu(reference(feats)))[0].T
        torch.testing.assert_close(
            row[: len(feats)], feats, rtol=1e-4, atol=1e-4
        )


def test_the_first_norm_keeps_its_digits_in_half_precision():
    extractor = FeatureExtractor([6], [10], [5])
    wavs = 1e-3 * torch.randn(1, 2000)  # variances that float16 does not have
    expected = extractor(wavs)
    found = extractor.half()(wavs.half())
    assert found.dtype == torch.float16
    torch.testing.assert_close(found.float(), expected, atol=0.02, rtol=0.02)


def test_nothing_is_recomputed_unless_asked_for(monkeypatch):
    extractor = FeatureExtractor([8, 6], [10, 3], [5, 2])
    asked = []
    monkeypatch.setattr(
        frontend, "checkpoint", lambda layer, *args, **kw: asked.append(layer)
    )
    assert extractor(torch.randn(1, 400)).shape[-1] == 6 and not asked
    with pytest.raises(AttributeError):
        extractor(torch.randn(1, 400), checkpointing=True)
    assert asked
