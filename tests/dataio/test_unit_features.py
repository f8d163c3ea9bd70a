"""Frames that units are made of."""

import pytest
import torch
from torchaudio.compliance import kaldi

from unispeech_sb.dataio.unit_features import HiddenStates, MFCCs
from unispeech_sb.lobes.backbone import Backbone


def noise(*lengths):
    """Waveforms of such lengths."""
    return [0.1 * torch.randn(length) for length in lengths]


def slopes(rows):
    """Kaldi's differences over two frames on each side, by the formula."""
    padded = torch.cat([rows[:1]] * 2 + [rows] + [rows[-1:]] * 2)
    found = torch.zeros_like(rows)
    for distance in (1, 2):
        later = padded[2 + distance :][: len(rows)]
        earlier = padded[2 - distance :][: len(rows)]
        found += distance * (later - earlier) / 10
    return found


def test_mfccs_have_their_differences():
    (wav,) = noise(8000)
    (feats,) = MFCCs()([wav])
    cepstra, first, second = feats.split(13, dim=1)
    torch.testing.assert_close(first, slopes(cepstra))
    torch.testing.assert_close(second, slopes(first))
    assert MFCCs.dim == feats.shape[1]


def test_mfccs_begin_with_a_cepstrum_not_with_the_energy():
    (wav,) = noise(8000)
    (feats,) = MFCCs()([wav])
    logs = kaldi.fbank(wav[None], sample_frequency=16000)
    mean = logs.sum(dim=1) / 23**0.5  # the first cosine is constant
    torch.testing.assert_close(feats[:, 0], mean, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("length", [400, 559, 560, 16000, 16123])
def test_mfccs_are_a_hundred_a_second(length):
    (feats,) = MFCCs()(noise(length))
    assert len(feats) == (length - 400) // 160 + 1


def test_hidden_states_are_those_of_the_layer():
    backbone = Backbone.from_preset("tiny", freeze=True)
    (wav,) = noise(8000)
    states = list(backbone.iter_states(wav[None]))
    for layer, expected in enumerate(states):
        (feats,) = HiddenStates(backbone, layer)([wav])
        torch.testing.assert_close(feats, expected[0])


def test_the_last_states_are_before_the_final_norm():
    backbone = Backbone.from_preset("small", freeze=True)
    (wav,) = noise(8000)
    (feats,) = HiddenStates(backbone, 3)([wav])
    torch.testing.assert_close(
        backbone.encoder.final_norm(feats[None]), backbone(wav[None])
    )


@pytest.mark.parametrize("model", ["tiny", "small"])
def test_a_batch_gives_what_its_recordings_give_alone(model):
    states = HiddenStates(Backbone.from_preset(model, freeze=True), 2)
    wavs = noise(8000, 5000, 1200)
    for wav, found in zip(wavs, states(wavs)):
        torch.testing.assert_close(
            found, states([wav])[0], rtol=1e-4, atol=1e-5
        )


def test_layers_above_are_not_computed():
    backbone = Backbone.from_preset("tiny", freeze=True)

    def fail(*_):
        raise AssertionError("the second block was computed")

    backbone.encoder.layers[1].register_forward_pre_hook(fail)
    assert len(HiddenStates(backbone, 1)(noise(800))[0]) == 2


@pytest.mark.parametrize("model", ["tiny", "small"])
@pytest.mark.parametrize("length", [16000, 16320, 50123])
def test_pieces_have_as_many_frames_as_the_whole(model, length):
    backbone = Backbone.from_preset(model, freeze=True)
    wavs = noise(length, 4000)
    whole = HiddenStates(backbone, 1)(wavs)
    cut = HiddenStates(backbone, 1, chunk_s=0.5)(wavs)
    assert [feats.shape for feats in cut] == [feats.shape for feats in whole]


def test_pieces_are_not_shifted():
    backbone = Backbone.from_preset("small", freeze=True, normalize_wav=False)
    # Without positions, each frame of the input depends on its window only
    backbone.encoder.pos_conv_embed.register_forward_hook(
        lambda module, inputs, output: torch.zeros_like(output)
    )
    wavs = noise(50123)
    (whole,) = HiddenStates(backbone, 0)(wavs)
    (cut,) = HiddenStates(backbone, 0, chunk_s=0.5)(wavs)
    torch.testing.assert_close(cut, whole, rtol=1e-4, atol=1e-5)


def test_rate_and_window_are_the_backbones():
    tiny = HiddenStates(Backbone.from_preset("tiny"), 1)
    assert (tiny.label_rate, tiny.window, tiny.window_s) == (50, 400, 0.025)
    small = HiddenStates(Backbone.from_preset("small"), 1)
    assert (small.label_rate, small.window) == (50, 930)


def test_a_layer_that_is_not_there_is_refused():
    for layer in (-1, 3):
        with pytest.raises(ValueError, match=f"expected 0 to 2.* got {layer}"):
            HiddenStates(Backbone.from_preset("tiny"), layer)
