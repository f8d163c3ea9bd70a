"""Voices: the embeddings of speakers, what they are compared by, and means."""

import math
from typing import NamedTuple

import torch

from unispeech_sb.dataio.audio import AudioError
from unispeech_sb.metrics.calibration import quality_measures


class Voice(NamedTuple):
    """A speaker's embedding, from one recording or several.

    Arguments
    ---------
    vector : torch.Tensor
        The embedding, float32, [D]. Only its direction is compared; its norm
        is a measure of quality.
    duration_s : float
        Seconds that it was computed from.

    Example
    -------
    >>> Voice(torch.tensor([3.0, 4.0]), 2.5).magnitude
    5.0
    """

    vector: torch.Tensor
    duration_s: float

    @property
    def magnitude(self):
        """Norm of the embedding."""
        return self.vector.norm().item()


class Decision(NamedTuple):
    """What is said of two voices.

    Arguments
    ---------
    score : float
        Cosine of the embeddings, -1 to 1.
    llr : float or None
        Natural log-likelihood ratio of one speaker against two; None without
        a calibration.
    same : bool
        Whether the score is at least the threshold.
    threshold : float
        Of the score.

    Example
    -------
    >>> Decision(score=0.8, llr=2.0, same=True, threshold=0.6).same
    True
    """

    score: float
    llr: float | None
    same: bool
    threshold: float


class MeanVoice:
    """Gathers embeddings, in batches, for the voice that is their mean.

    It has the direction of the mean of their directions, and the mean of
    their norms.

    Example
    -------
    >>> mean = MeanVoice()
    >>> mean.add(torch.tensor([[2.0, 0.0], [4.0, 0.0]]), torch.ones(2), 5.0)
    >>> mean.voice("a.wav").magnitude
    3.0
    """

    def __init__(self):
        self.directions = self.weight = self.magnitude = self.seconds = 0.0

    def add(self, vectors, weights, seconds):
        """Counts embeddings.

        Arguments
        ---------
        vectors : torch.Tensor
            Embeddings, [B, D].
        weights : torch.Tensor
            What each of them counts, above 0, [B].
        seconds : float
            What they were computed from, all together.
        """
        vectors, weights = vectors.double(), weights.double()
        norms = vectors.norm(dim=1)
        # One without a direction becomes NaN, and so does the mean
        self.directions = self.directions + weights @ (vectors / norms[:, None])
        self.magnitude += float(weights @ norms)
        self.weight += float(weights.sum())
        self.seconds += seconds

    def voice(self, name):
        """Computes the mean of what was counted.

        Arguments
        ---------
        name : str or path-like
            What an error is to name.

        Returns
        -------
        Voice
            The mean.

        Raises
        ------
        AudioError
            When it has no direction.
        """
        direction = self.directions / self.directions.norm()
        vector = direction * self.magnitude / self.weight
        voice = Voice(vector.float(), self.seconds)
        error = fault_of(voice, name)
        if error is not None:
            raise error
        return voice


def cosine(left, right):
    """Compares two voices, in float64.

    Arguments
    ---------
    left : Voice
        One of them.
    right : Voice
        The other one; which is which does not matter.

    Returns
    -------
    float
        Cosine, -1 to 1: exactly 1 for one vector.

    Example
    -------
    >>> voices = (Voice(torch.tensor(v), 1.0) for v in ([3.0, 4.0], [2.0, 0.0]))
    >>> cosine(*voices)
    0.6
    """
    left, right = left.vector.double(), right.vector.double()
    norms = left.square().sum() * right.square().sum()
    return max(-1.0, min(1.0, ((left * right).sum() / norms.sqrt()).item()))


def fault_of(voice, name):
    """Tells what is wrong with a voice.

    Arguments
    ---------
    voice : Voice
        What a model gave.
    name : str or path-like
        What the error is to name.

    Returns
    -------
    AudioError or None
        None where its embedding has a direction.

    Example
    -------
    >>> fault_of(Voice(torch.zeros(2), 1.0), "a.wav")
    AudioError('a.wav: expected an embedding with a direction; its norm is 0')
    """
    if 0 < voice.magnitude < math.inf:
        return None
    return AudioError(
        f"{name}: expected an embedding with a direction; its norm is "
        f"{voice.magnitude:g}"
    )


def pair_quality(calibration, durations, magnitudes):
    """Quality measures of pairs, those that a calibration was fitted with.

    Arguments
    ---------
    calibration : unispeech_sb.metrics.calibration.Calibration
        Names them.
    durations : sequence
        Seconds of the left and of the right side, each [N].
    magnitudes : sequence
        Norms of the embeddings of the left and of the right side, each [N].

    Returns
    -------
    dict or None
        Name -> values, [N]; None where the calibration takes none.

    Raises
    ------
    ValueError
        When it takes one that embeddings do not tell.

    Example
    -------
    >>> from unispeech_sb.metrics.calibration import Calibration
    >>> calibration = Calibration(quality={"magnitude_min": 0.1})
    >>> pair_quality(calibration, [[1.0], [2.0]], [[8.0], [9.0]])
    {'magnitude_min': array([8.])}
    """
    if not calibration.quality:
        return None
    measures = quality_measures(tuple(durations), tuple(magnitudes))
    unknown = calibration.quality.keys() - measures.keys()
    if unknown:
        raise ValueError(
            "calibration: expected quality measures among "
            f"{', '.join(measures)}; got {', '.join(sorted(unknown))}"
        )
    return {name: measures[name] for name in calibration.quality}
