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
    """Counts, int64, [B], of relative lengths in (0, 1], [B]."""
    return torch.round(wav_lens.double() * max_length).long()


def conv_lengths(
    lengths: Lengths, kernels: Sequence[int], strides: Sequence[int]
) -> Lengths:
    """Counts what a stack of unpadded convolutions leaves of each length.

    One layer maps ``n`` to ``floor((n - kernel) / stride) + 1``: zero or less
    where the input is shorter than one frame.
    """
    for kernel, stride in zip(kernels, strides):
        lengths = (lengths - kernel) // stride + 1
    return lengths


def chunk_lengths(
    lengths: torch.Tensor, max_length: int, num_frames: int
) -> torch.Tensor:
    """Counts the valid frames of each row, [B], by fairseq's rule.

    A row of N samples is cut into T chunks of ``N // T`` samples, its tail
    dropped, and a frame is valid if any sample of its chunk is: the count
    depends on the batch's longest row. For the published convolutions it is
    mostly one or two above that of ``conv_lengths``.
    """
    chunk = max_length // num_frames
    return ((lengths + chunk - 1) // chunk).clamp(max=num_frames)


def receptive_field(kernels: Sequence[int], strides: Sequence[int]) -> int:
    """Samples that one frame sees: the shortest input that gives a frame."""
    samples = 1
    for kernel, stride in zip(reversed(kernels), reversed(strides)):
        samples = (samples - 1) * stride + kernel
    return samples


def length_mask(lengths: torch.Tensor, max_length: int) -> torch.Tensor:
    """Marks the valid positions of a padded batch: [B] -> bool, [B, T]."""
    positions = torch.arange(max_length, device=lengths.device)
    return positions < lengths[:, None]


def sample_lengths(
    wavs: torch.Tensor, wav_lens: torch.Tensor | None, least: int
) -> torch.Tensor | None:
    """Checks a padded batch, [B, N], and counts the samples of each row, [B];
    None when no row is padded.

    Raises when a shape is wrong or a row has fewer than ``least`` samples.
    """
    if wavs.dim() != 2:
        raise ValueError(
            f"waveforms: expected shape [B, N]; got {list(wavs.shape)}"
        )
    batch, samples = wavs.shape
    lengths = torch.full((1,), samples)
    if wav_lens is not None:
        if wav_lens.shape != (batch,):
            raise ValueError(
                f"wav_lens: expected shape [{batch}]; "
                f"got {list(wav_lens.shape)}"
            )
        lengths = absolute_lengths(wav_lens, samples).to(wavs.device)
    shortest, longest = torch.stack(lengths.aminmax()).tolist()
    if wav_lens is not None and longest > samples:
        raise ValueError(
            "wav_lens: expected shares of the longest row, in (0, 1]; "
            f"got {wav_lens.max().item():g}"
        )
    if shortest < least:
        raise ValueError(
            f"waveform {int(lengths.argmin())} of the batch: expected at "
            f"least {least} samples, one frame; got {shortest}"
        )
    return None if shortest == samples else lengths
