"""Rooms for artificial conversations: impulse responses, and what is heard."""

import torch
from scipy.signal import fftconvolve

from unispeech_sb.dataio.turns import uniform

_DIRECT_DB = (0.0, 10.0)  # energy of the direct sound over that of the rest
_FIRST_REFLECTION_S = 0.002
_DECAY = 6.9078  # ln(1000): 60 dB


def room_response(rt60_s, generator, sample_rate=16000):
    """Draws an impulse response: the direct sound, then decaying noise.

    The noise is Gaussian and begins 2 ms behind the direct sound, which has
    0 to 10 dB more energy. A response from a speaker to a microphone in a
    diffuse field looks like that (Lehmann and Johansson 2008).

    Arguments
    ---------
    rt60_s : float
        Seconds in which the noise decays by 60 dB; above 0.
    generator : torch.Generator
        What it is drawn from.
    sample_rate : int
        Its rate in Hz.

    Returns
    -------
    torch.Tensor
        The response, 1 at its first sample, float32, [N] of ``rt60_s``.

    Example
    -------
    >>> response = room_response(0.25, torch.Generator())
    >>> response.shape, response[0]
    (torch.Size([4000]), tensor(1.))
    """
    size = max(1, round(rt60_s * sample_rate))
    first = round(_FIRST_REFLECTION_S * sample_rate)
    times = torch.arange(size) / sample_rate
    tail = torch.randn(size, generator=generator)
    tail *= torch.exp(-_DECAY * times / rt60_s)
    tail[:first] = 0.0
    direct = 10 ** (uniform(_DIRECT_DB, generator) / 10)
    energy = tail.square().sum()
    if energy > 0:
        tail *= (direct * energy).rsqrt()
    tail[0] = 1.0
    return tail


def heard_in_room(wav, response):
    """What a microphone hears of a waveform.

    The direct sound, taken for the response's largest sample, keeps its place
    and its level; what is behind the end of the waveform is cut off.

    Arguments
    ---------
    wav : torch.Tensor
        Waveform, [N].
    response : torch.Tensor
        Impulse response at its rate, [M].

    Returns
    -------
    torch.Tensor
        Waveform, [N].

    Example
    -------
    >>> echo = torch.tensor([0.0, 2.0, 0.0, 1.0])
    >>> heard = heard_in_room(torch.tensor([1.0, 0.0, 0.0, 0.0]), echo)
    >>> heard.mul(1000).round().div(1000)
    tensor([1.0000, 0.0000, 0.5000, 0.0000])
    """
    peak = int(response.abs().argmax())
    # SciPy's transform is of a length that is fast, torchaudio's of any
    heard = fftconvolve(wav.numpy(), (response / response[peak]).numpy())
    return torch.from_numpy(heard[peak : peak + len(wav)])
