"""Normalisation over an utterance's own samples and frames."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import Wav2Vec2FeatureExtractor

from unispeech_sb.nnet.frontend import TimeNorm, normalize_wavs

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


def test_time_norm_without_padding_is_group_norm():
    norm, reference = TimeNorm(6), nn.GroupNorm(6, 6)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    reference.load_state_dict(norm.state_dict())
    feats = torch.randn(3, 6, 50) * 4 + 2
    torch.testing.assert_close(norm(feats), reference(feats))
    full = norm(feats, torch.full((3,), 50))
    torch.testing.assert_close(full, reference(feats))


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_time_norm_is_exact_for_signals_far_from_zero(offset):
    norm, feats = TimeNorm(4), torch.randn(2, 4, 400) + offset
    normed = norm(feats, torch.tensor([400, 100]))[1, :, :100]
    torch.testing.assert_close(
        normed, norm(feats[1:, :, :100])[0], rtol=1e-3, atol=1e-3
    )
