"""Normalisation over an utterance's own samples and frames."""

import pytest
import torch
from torch.nn import functional as F
from transformers import Wav2Vec2FeatureExtractor

from unispeech_sb.nnet.frontend import FeatureExtractor, normalize_wavs

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


@pytest.mark.parametrize("norm", ["group", "layer"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_frames_do_not_see_the_padding(norm, checkpointing):
    extractor = FeatureExtractor([8, 6], [10, 3], [5, 2], norm=norm)
    lengths = torch.tensor([300, 999, 300, 1000, 57])
    wavs = torch.randn(5, 1000)  # anything in the padding
    feats = extractor(wavs, lengths, checkpointing)
    assert feats.shape == (5, 99, 6)
    for row, length in enumerate(lengths):
        alone = extractor(wavs[row : row + 1, :length])[0]
        torch.testing.assert_close(feats[row, : len(alone)], alone)
        assert not feats[row, len(alone) :].any()
