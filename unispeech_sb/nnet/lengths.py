"""Samples to frames, relative to absolute lengths, padding masks.

The only place that knows how the three are related. SpeechBrain passes
lengths relative to the longest row of a batch; the convolutional front end
turns samples into frames by the formula below, which ``round(rel * T)``
misses by one frame in a third of all cases.
"""

from collections.abc import Sequence
from typing import TypeVar

import torch

Lengths = TypeVar("Lengths", int, torch.Tensor)


def absolute_lengths(wav_lens: torch.Tensor, max_length: int) -> torch.Tensor:
    """Turns relative lengths into counts.

    Arguments
    ---------
    wav_lens : torch.Tensor
        Valid share of each row, in (0, 1], [B]. Integers are counts already.
    max_length : int
        Number of samples (or frames) of the padded batch.

    Returns
    -------
    torch.Tensor
        Counts, int64, [B].

    Example
    -------
    >>> absolute_lengths(torch.tensor([1.0, 0.5]), 16000)
    tensor([16000,  8000])
    """
    if not wav_lens.is_floating_point():
        return wav_lens
    return torch.round(wav_lens.double() * max_length).long()


def conv_lengths(
    lengths: Lengths, kernels: Sequence[int], strides: Sequence[int]
) -> Lengths:
    """Counts what a stack of unpadded convolutions leaves of each length.

    One layer maps ``n`` to ``floor((n - kernel) / stride) + 1``.

    Arguments
    ---------
    lengths : torch.Tensor or int
        Number of samples, [B] or a single one.
    kernels : list of int
        Kernel size of each layer.
    strides : list of int
        Stride of each layer.

    Returns
    -------
    torch.Tensor or int
        Number of frames, of the input's type and shape. Zero or less where
        the input is shorter than one frame.

    Example
    -------
    >>> conv_lengths(16000, [10, 3, 3, 3, 3, 2, 2], [5, 2, 2, 2, 2, 2, 2])
    49
    """
    for kernel, stride in zip(kernels, strides):
        lengths = (lengths - kernel) // stride + 1
    return lengths


def chunk_lengths(
    lengths: torch.Tensor, max_length: int, num_frames: int
) -> torch.Tensor:
    """Counts the valid frames of each row by fairseq's rule.

    A row of N samples is cut into T chunks of ``N // T`` samples, its tail
    dropped, and a frame is valid if any sample of its chunk is: the count
    depends on the batch's longest row. For the published convolutions it is
    mostly one or two above that of ``conv_lengths``.

    Arguments
    ---------
    lengths : torch.Tensor
        Number of valid samples of each row, [B].
    max_length : int
        Padded length N.
    num_frames : int
        Frames T that the convolutions leave of it.

    Returns
    -------
    torch.Tensor
        Number of frames, [B].

    Example
    -------
    >>> chunk_lengths(torch.tensor([16000, 12345, 9000]), 16000, 49)
    tensor([49, 38, 28])
    """
    chunk = max_length // num_frames
    return ((lengths + chunk - 1) // chunk).clamp(max=num_frames)


def receptive_field(kernels: Sequence[int], strides: Sequence[int]) -> int:
    """Samples that one frame sees: the shortest input that gives a frame.

    Arguments
    ---------
    kernels : list of int
        Kernel size of each layer.
    strides : list of int
        Stride of each layer.

    Returns
    -------
    int
        Number of samples.

    Example
    -------
    >>> receptive_field([10, 3, 3, 3, 3, 2, 2], [5, 2, 2, 2, 2, 2, 2])
    400
    """
    samples = 1
    for kernel, stride in zip(reversed(kernels), reversed(strides)):
        samples = (samples - 1) * stride + kernel
    return samples


def length_mask(lengths: torch.Tensor, max_length: int) -> torch.Tensor:
    """Marks the valid positions of a padded batch.

    Arguments
    ---------
    lengths : torch.Tensor
        Counts, [B].
    max_length : int
        Padded length T.

    Returns
    -------
    torch.Tensor
        Bool, True at valid positions, [B, T].

    Example
    -------
    >>> length_mask(torch.tensor([1, 3]), 3)
    tensor([[ True, False, False],
            [ True,  True,  True]])
    """
    positions = torch.arange(max_length, device=lengths.device)
    return positions < lengths[:, None]


def makes_graph() -> bool:
    """Whether a graph is being recorded, which has to serve any lengths."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def is_exported() -> bool:
    """Whether that graph is for another runtime: no value of its example may
    decide anything, and integer counts take the place of relative lengths,
    which a runtime may round to bfloat16."""
    return torch.compiler.is_exporting() or torch.jit.is_tracing()


def sample_lengths(
    wavs: torch.Tensor, wav_lens: torch.Tensor | None, least: int
) -> torch.Tensor | None:
    """Checks a padded batch and counts the samples of each row.

    Arguments
    ---------
    wavs : torch.Tensor
        Waveforms, [B, N].
    wav_lens : torch.Tensor or None
        Valid share of each, in (0, 1], [B]; None for all of it.
    least : int
        Fewest samples that a row must have.

    Returns
    -------
    torch.Tensor or None
        Number of samples, [B]; None when no row is padded. Where a graph is
        exported, that of all rows, unchecked: others may be padded.

    Raises
    ------
    ValueError
        When a shape is wrong or a row is too short.

    Example
    -------
    >>> sample_lengths(torch.zeros(2, 800), torch.tensor([1.0, 0.6]), 400)
    tensor([800, 480])
    """
    if wavs.dim() != 2:
        raise ValueError(
            f"waveforms: expected shape [B, N]; got {list(wavs.shape)}"
        )
    batch, samples = wavs.shape
    if is_exported():
        return None if wav_lens is None else absolute_lengths(wav_lens, samples)
    lengths = torch.full((1,), samples)
    if wav_lens is not None:
        if wav_lens.shape != (batch,):
            raise ValueError(
                f"wav_lens: expected shape [{batch}]; "
                f"got {list(wav_lens.shape)}"
            )
        lengths = absolute_lengths(wav_lens, samples).to(wavs.device)
    if makes_graph():  # which looks at shapes, not at values
        if samples < least:
            raise ValueError(
                f"waveforms: expected at least {least} samples, one frame; "
                f"got {samples}"
            )
        return None if wav_lens is None else lengths
    shortest, longest = torch.stack(lengths.aminmax()).tolist()
    if wav_lens is not None and (longest > samples or shortest <= 0):
        row = lengths.argmax() if longest > samples else lengths.argmin()
        share = wav_lens[row].item()  # NaN compares false
        if longest > samples or not share > 0:
            raise ValueError(
                "wav_lens: expected shares of the longest row, in (0, 1]; "
                f"got {share:g}"
            )
    if shortest < least:
        raise ValueError(
            f"waveform {int(lengths.argmin())} of the batch: expected at "
            f"least {least} samples, one frame; got {shortest}"
        )
    return None if shortest == samples else lengths
