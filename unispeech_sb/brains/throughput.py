"""How fast a training goes, and how much of its batches is padding.

Model FLOPs utilisation (MFU; Chowdhery et al. 2022, appendix B): operations
that a step needs by its shapes, to what the machine does in products of large
matrices in the same time. Needed are, for n valid samples,

    convolutions    2 t_l C_l C_(l-1) k_l each, for t_l frames of layer l
    projection      2 T C D
    positions       2 T D (D / groups) k
    a block         2 T (4 D^2 + 2 D I) + 4 T^2 D

where a multiplication and an addition count as two, and three times that with
the backward pass. Norms, activations, softmax, the head, and what gradient
checkpointing computes again count nothing; padding does not, either.
"""

import statistics
import time
from collections.abc import Mapping
from typing import Any

import torch

from unispeech_sb.nnet.lengths import absolute_lengths, conv_lengths

_SAMPLE_RATE = 16000
_SIZES = {"cpu": 1024, "cuda": 8192}
"""Rows of matrices that keep a device busy."""


def forward_flops(config: Mapping[str, Any], num_samples: int) -> int:
    """Operations that a backbone needs for one waveform, without gradients.

    Arguments
    ---------
    config : dict
        Options of the ``Backbone``.
    num_samples : int
        Samples at 16 kHz.

    Returns
    -------
    int
        Multiplications and additions.

    Example
    -------
    >>> from unispeech_sb.lobes.backbone import Backbone
    >>> forward_flops(Backbone.from_preset("tiny").config, 16000) // 10**6
    2
    """
    total, channels, frames = 0, 1, num_samples
    for dim, kernel, stride in zip(
        config["conv_dim"], config["conv_kernel"], config["conv_stride"]
    ):
        frames = conv_lengths(frames, [kernel], [stride])
        total += 2 * frames * dim * channels * kernel
        channels = dim
    dim, inner = config["hidden_size"], config["intermediate_size"]
    positions = dim * dim * config["num_conv_pos_embeddings"]
    positions //= config["num_conv_pos_embedding_groups"]
    block = 4 * dim * dim + 2 * dim * inner + 2 * frames * dim
    frame = channels * dim + positions + config["num_hidden_layers"] * block
    return total + 2 * frames * frame


def matrix_product_rate(
    device: str | torch.device, dtype: torch.dtype = torch.float32
) -> float:
    """Measures what a device does in products of large matrices.

    Arguments
    ---------
    device : str or torch.device
        The device.
    dtype : torch.dtype
        Of the matrices.

    Returns
    -------
    float
        Multiplications and additions in a second, the median of five.

    Example
    -------
    >>> matrix_product_rate("cpu") > 1e8
    True
    """
    device = torch.device(device)
    size = _SIZES.get(device.type, _SIZES["cpu"])
    # Not of the global generator, on whose state a training depends
    generator = torch.Generator(device).manual_seed(0)
    left, right = torch.randn(
        2, size, size, generator=generator, device=device, dtype=dtype
    )
    seconds = []
    for _ in range(6):
        start = time.perf_counter()
        left @ right
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / statistics.median(seconds[1:])


class Throughput:
    """Counts what the batches of an epoch hold, from ``clear`` on.

    Example
    -------
    >>> throughput = Throughput()
    >>> throughput.add(torch.zeros(2, 16000), torch.tensor([1.0, 0.5]))
    >>> throughput.padding
    0.25
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self, num_samples: int = 0, num_valid: int = 0) -> None:
        """Forgets all batches, but for samples of a run that goes on; the time
        runs from now on."""
        self.num_samples, self.num_valid = num_samples, num_valid
        self.timed = self.flops = 0
        self.start = time.perf_counter()

    def add(
        self,
        wavs: torch.Tensor,
        wav_lens: torch.Tensor,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        """Counts a batch.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms at 16 kHz, [B, N].
        wav_lens : torch.Tensor
            Valid share of each waveform, in (0, 1], [B]. On the CPU, as
            batches come, there is no wait for a device.
        config : dict, optional
            Options of the ``Backbone``, to count its operations.
        """
        counts = absolute_lengths(wav_lens, wavs.shape[1]).tolist()
        self.num_samples += wavs.numel()
        self.num_valid += sum(counts)
        self.timed += sum(counts)
        if config is not None:
            self.flops += 3 * sum(forward_flops(config, n) for n in counts)

    @property
    def samples(self) -> tuple[int, int]:
        """Samples, and those of them that are valid."""
        return self.num_samples, self.num_valid

    @property
    def padding(self) -> float:
        """Share of padding in all samples."""
        return 1 - self.num_valid / max(self.num_samples, 1)

    def speed(self, rate: float) -> tuple[float, float]:
        """Seconds of audio in a second, and MFU beside a rate of operations,
        both over all the time since ``clear``."""
        seconds = time.perf_counter() - self.start
        audio_s = self.timed / _SAMPLE_RATE
        return audio_s / seconds, self.flops / seconds / rate
