"""Voices: comparison, means, measures of quality."""

import math

import pytest
import torch

from unispeech_sb.dataio.audio import AudioError
from unispeech_sb.inference.voices import (
    MeanVoice,
    Voice,
    cosine,
    fault_of,
    pair_quality,
)
from unispeech_sb.metrics.calibration import Calibration


def test_a_voice_has_a_cosine_of_one_with_itself_and_no_order():
    voices = [Voice(torch.randn(256) * 3**n, 1.0) for n in range(-9, 9)]
    for one in voices:
        assert cosine(one, one) == 1.0
        assert cosine(one, Voice(-one.vector, 1.0)) == -1.0
        for other in voices:
            assert cosine(one, other) == cosine(other, one)
            wanted = torch.cosine_similarity(one.vector, other.vector, dim=0)
            assert cosine(one, other) == pytest.approx(wanted.item(), abs=1e-6)


def test_a_mean_weighs_directions_and_norms():
    mean = MeanVoice()
    mean.add(torch.tensor([[8.0, 0.0]]), torch.tensor([3.0]), 3.0)
    mean.add(torch.tensor([[0.0, 2.0], [0.0, 1.0]]), torch.ones(2), 2.0)
    found = mean.voice("a")
    assert found.magnitude == pytest.approx((3 * 8 + 2 + 1) / 5)
    direction = found.vector / found.magnitude
    assert direction.tolist() == pytest.approx([3 / 13**0.5, 2 / 13**0.5])
    assert found.duration_s == 5.0


@pytest.mark.parametrize("vectors", [[[1.0], [-1.0]], [[0.0]], [[math.inf]]])
def test_a_mean_without_direction_is_refused(vectors):
    mean = MeanVoice()
    mean.add(torch.tensor(vectors), torch.ones(len(vectors)), 1.0)
    with pytest.raises(AudioError, match=r"a\.wav: .* a direction"):
        mean.voice("a.wav")


@pytest.mark.parametrize("value", [0.0, math.nan, math.inf])
def test_a_fault_is_named(value):
    error = fault_of(Voice(torch.full((3,), value), 1.0), "a.wav")
    assert str(error).startswith("a.wav: expected an embedding")


def test_only_measures_of_the_calibration_are_given():
    durations, magnitudes = [[1.0, 2.0], [3.0, 1.0]], [[4.0, 5.0], [6.0, 7.0]]
    given = durations, magnitudes
    assert pair_quality(Calibration(), *given) is None
    names = {"magnitude_max": 1.0, "log_duration_min": 2.0}
    found = pair_quality(Calibration(quality=names), *given)
    assert list(found) == list(names)
    assert found["magnitude_max"].tolist() == [6.0, 7.0]
    assert found["log_duration_min"].tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match=r"among log_duration.*; got snr"):
        pair_quality(Calibration(quality={"snr": 1.0}), *given)
