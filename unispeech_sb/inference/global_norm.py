"""Global normalisation: windows are normalised as their whole recordings.

A window's own mean and variance differ from the whole recording's, so what
such a model gives would depend on the cuts. A first pass over the samples
gathers what both normalisations need, in constant memory: mean and variance
of the waveform, and those of the first convolution's outputs. As that
convolution is linear, its mean is ``w . m`` and its variance ``w' C w`` for
the mean m and covariance C of the patches it sees, 10 x 10 for the published
models.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.nnet.frontend import FeatureExtractor, TimeNorm


class GlobalStatistics:
    """Running mean and covariance of a waveform's patches, in float64.

    A patch has ``kernel`` samples and begins ``stride``, at most ``kernel``,
    after the one before.
    """

    def __init__(self, kernel: int, stride: int) -> None:
        self.kernel, self.stride = kernel, stride
        self.num_samples = self._num_patches = 0
        self._sum = self._squares = 0.0
        self._patch_sum = torch.zeros(kernel, dtype=torch.float64)
        self._products = torch.zeros(kernel, kernel, dtype=torch.float64)
        self._rest = torch.zeros(0, dtype=torch.float64)

    def add(self, block: torch.Tensor) -> None:
        """Counts the samples, [N], that follow those of the last call."""
        block = block.double()
        self.num_samples += len(block)
        self._sum += block.sum().item()
        self._squares += block.square().sum().item()
        self._rest = torch.cat([self._rest, block])
        if len(self._rest) < self.kernel:
            return
        patches = self._rest.unfold(0, self.kernel, self.stride)
        self._num_patches += len(patches)
        self._patch_sum += patches.sum(0)
        self._products += patches.T @ patches
        self._rest = self._rest[len(patches) * self.stride :]

    @property
    def mean(self) -> float:
        """Mean of the samples."""
        return self._sum / self.num_samples

    @property
    def variance(self) -> float:
        """Variance of the samples."""
        return max(self._squares / self.num_samples - self.mean**2, 0.0)

    @property
    def patch_mean(self) -> torch.Tensor:
        """Mean of the patches, [kernel]."""
        return self._patch_sum / self._num_patches

    @property
    def patch_covariance(self) -> torch.Tensor:
        """Covariance of the patches, [kernel, kernel]."""
        mean = self.patch_mean
        return self._products / self._num_patches - torch.outer(mean, mean)


class _FixedNorm(nn.Module):
    """Stands for a ``TimeNorm`` whose mean and variance, [C], are known."""

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(
        self, norm: TimeNorm, mean: torch.Tensor, variance: torch.Tensor
    ) -> None:
        super().__init__()
        scale = norm.weight.double() * torch.rsqrt(variance + norm.eps)
        shift = norm.bias.double() - mean * scale
        self.register_buffer("scale", scale.to(norm.weight.dtype)[:, None])
        self.register_buffer("shift", shift.to(norm.weight.dtype)[:, None])

    def forward(
        self, feats: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Normalises features, [B, C, T]; padding has no share in it."""
        return torch.addcmul(self.shift, feats, self.scale)


class _RowFrontEnd(nn.Module):
    """Stands for a feature extractor whose first norm differs by row."""

    def __init__(
        self, extractor: FeatureExtractor, norms: Sequence[_FixedNorm]
    ) -> None:
        super().__init__()
        self.extractor, self.norms = extractor, norms
        self.kernels, self.strides = extractor.kernels, extractor.strides

    def forward(
        self,
        wavs: torch.Tensor,
        lengths: torch.Tensor | None = None,
        *options: bool,
    ) -> torch.Tensor:
        """Turns waveforms, [B, N], into frames, [B, T, C]."""
        first, frames = self.extractor.conv_layers[0], []
        counts = [None] * len(wavs) if lengths is None else lengths.split(1)
        for row, count, norm in zip(
            wavs.split(1), counts, self.norms, strict=True
        ):
            first.layer_norm = norm
            frames.append(self.extractor(row, count, *options))
        return torch.cat(frames)


@contextmanager
def global_norm(
    backbone: Backbone, statistics: Sequence[GlobalStatistics]
) -> Iterator[Callable[[list[torch.Tensor]], list[torch.Tensor]]]:
    """Makes a backbone normalise windows as it would whole recordings.

    ``statistics`` has the recording's of each row of the batch. Yields a
    function that prepares waveforms, [N] each. The backbone is as before when
    the block ends; others must not use it meanwhile.
    """
    extractor, normalizes = backbone.feature_extractor, backbone.normalize_wav
    first = extractor.conv_layers[0]
    norm = first.layer_norm
    shifts = [(0.0, 1.0)] * len(statistics)
    if normalizes:
        eps = backbone.normalize_eps
        shifts = [(s.mean, (s.variance + eps) ** -0.5) for s in statistics]
    if isinstance(norm, TimeNorm):
        norms = [_fixed(first, *row) for row in zip(statistics, shifts)]
        backbone.feature_extractor = _RowFrontEnd(extractor, norms)
    backbone.normalize_wav = False
    try:
        yield lambda wavs: [
            (wav - mean) * scale
            for wav, (mean, scale) in zip(wavs, shifts, strict=True)
        ]
    finally:
        first.layer_norm = norm
        backbone.feature_extractor, backbone.normalize_wav = (
            extractor,
            normalizes,
        )


def _fixed(layer, statistics, mean_and_scale):
    """The norm after the first convolution, by the statistics of the whole
    recording; the convolution's input will be ``(wav - mean) * scale``."""
    mean, scale = mean_and_scale
    weight = layer.conv.weight.detach()[:, 0].double()  # [C, kernel]
    patch_mean = scale * (statistics.patch_mean - mean).to(weight.device)
    covariance = scale**2 * statistics.patch_covariance.to(weight.device)
    means = weight @ patch_mean
    if layer.conv.bias is not None:
        means = means + layer.conv.bias.detach().double()
    variances = ((weight @ covariance) * weight).sum(1).clamp(min=0)
    return _FixedNorm(layer.layer_norm, means, variances)
