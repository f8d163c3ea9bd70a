"""Adds noise to a clip at a drawn signal-to-noise ratio, and sets its peak."""

from typing import NamedTuple

import torch


class Noise(NamedTuple):
    """Noise to add: for each clip one kind, at one signal-to-noise ratio.

    Arguments
    ---------
    kinds : tuple of str
        Drawn from with equal chances: "white", "pink" (power falls as 1/f),
        "babble" (other voices, all at once).
    snr_db : tuple of float
        Lowest and highest ratio in dB, over the whole clip.

    Example
    -------
    >>> Noise(kinds=("pink",)).snr_db
    (5.0, 25.0)
    """

    kinds: tuple[str, ...] = ("white", "pink", "babble")
    snr_db: tuple[float, float] = (5.0, 25.0)


def add_noise(samples, noise, generator, babble=None):
    """Adds one kind of noise at one signal-to-noise ratio, both drawn.

    Arguments
    ---------
    samples : torch.Tensor
        Waveform, [N].
    noise : Noise
        What to draw from.
    generator : torch.Generator
        What to draw with.
    babble : torch.Tensor, optional
        Recording that noise of the kind "babble" is cut from, [M]. It starts
        again where it is too short.

    Returns
    -------
    torch.Tensor
        Noisy waveform, [N].

    Raises
    ------
    ValueError
        If the kind drawn is unknown, or is babble and there is none.

    Example
    -------
    >>> generator = torch.Generator().manual_seed(0)
    >>> add_noise(torch.ones(16000), Noise(("pink",)), generator).shape
    torch.Size([16000])
    """
    kind = noise.kinds[draw_below(len(noise.kinds), generator)]
    low, high = noise.snr_db
    snr_db = low + (high - low) * torch.rand((), generator=generator).item()
    added = _make(kind, len(samples), generator, babble)
    ratio = samples.square().mean() / added.square().mean()
    return samples + added * (ratio * 10 ** (-snr_db / 10)).sqrt()


def set_peak(samples, peak=0.7):
    """Scales a waveform to a peak.

    Arguments
    ---------
    samples : torch.Tensor
        Waveform that is not silent, [N].
    peak : float, optional
        Largest magnitude of the result.

    Returns
    -------
    torch.Tensor
        Scaled waveform, [N].

    Example
    -------
    >>> set_peak(torch.tensor([1.0, -2.0]), peak=0.5)
    tensor([ 0.2500, -0.5000])
    """
    return samples * (peak / samples.abs().max())


def draw_below(high, generator):
    """Draws a whole number from 0 to high - 1.

    Arguments
    ---------
    high : int
        The first number that is too large.
    generator : torch.Generator
        What to draw with.

    Returns
    -------
    int
        The number.

    Example
    -------
    >>> draw_below(1, torch.Generator())
    0
    """
    return torch.randint(high, (), generator=generator).item()


def _make(kind, num_samples, generator, babble):
    if kind == "babble" and babble is not None:
        start = draw_below(len(babble), generator)
        return babble[(start + torch.arange(num_samples)) % len(babble)]
    if kind not in ("white", "pink"):
        raise ValueError(f"expected white, pink or babble noise, got {kind!r}")
    white = torch.randn(num_samples, generator=generator)
    if kind == "white":
        return white
    # Power falls as 1/f where the magnitude falls as 1/sqrt(f).
    spectrum = torch.fft.rfft(white)
    bins = torch.arange(len(spectrum)).clamp_min(1)
    return torch.fft.irfft(spectrum / bins.sqrt(), n=num_samples)
