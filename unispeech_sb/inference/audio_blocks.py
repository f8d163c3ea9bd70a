"""Recordings of any length: read block by block, run in batches, normalised
as a whole.

A window's own mean and variance differ from the whole recording's, so what a
model that normalises gives would depend on the cuts. Under global
normalisation a first pass over the samples gathers what both normalisations
need, in constant memory: mean and variance of the waveform, and those of the
first convolution's outputs. As that convolution is linear, its mean is
``w . m`` and its variance ``w' C w`` for the mean m and covariance C of the
patches it sees, 10 x 10 for the published models.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import soundfile
import torch
from speechbrain.dataio.preprocess import AudioNormalizer
from torch import nn

from unispeech_sb.dataio.audio import AudioError, read_header
from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.nnet.frontend import FeatureExtractor, TimeNorm

Source = str | Path | torch.Tensor
"""A file that soundfile reads, or a waveform at the model's rate, [N]."""

_Item = TypeVar("_Item")

_BLOCK_S = 30.0
"""Seconds that are decoded at a time."""

_FILTER_REACH = 64
"""Samples of the lower rate that a block shares with its neighbours when it
is resampled: ten times the reach of torchaudio's filter."""


def read_blocks(
    source: Source, normalizer: AudioNormalizer, block_s: float = _BLOCK_S
) -> Iterator[torch.Tensor]:
    """Yields a file, or a waveform at the model's rate, in blocks, [N] each.

    As if it were read at once: channels are averaged and rates converted as
    SpeechBrain's interfaces do; neighbouring blocks share what the resampling
    filter reaches over.
    """
    if isinstance(source, torch.Tensor):
        if source.dim() != 1:
            raise ValueError(
                f"waveform: expected shape [N]; got {list(source.shape)}"
            )
        size = math.ceil(block_s * normalizer.sample_rate)
        yield from source.float().cpu().split(size)
        return
    read_header(source)
    with soundfile.SoundFile(source) as file:
        blocks = _converted(source, file, normalizer, block_s)
        yield from check_blocks(blocks, source)


def check_blocks(
    blocks: Iterable[torch.Tensor], name: str | Path
) -> Iterator[torch.Tensor]:
    """Passes blocks on, [N] each, float32; raises where one is not finite."""
    for block in blocks:
        if block.dim() != 1:
            raise ValueError(
                f"{name}: expected shape [N]; got {list(block.shape)}"
            )
        if not block.isfinite().all():
            raise AudioError(f"{name}: some samples are NaN or infinite")
        yield block.float().cpu()


def duration_s(path: str | Path) -> float:
    """Reads how many seconds a file has, by its header."""
    num_samples, rate = read_header(path)
    return num_samples / rate


def padded_batches(
    items: Iterable[_Item], length: Callable[[_Item], float], most: float
) -> Iterator[list[_Item]]:
    """Groups items so that a batch, padded to its longest, is ``most`` long.

    A longer item goes alone. Items are read no further than the next batch
    needs.
    """
    batch: list[_Item] = []
    longest = 0.0
    for item in items:
        longest = max(longest, length(item))
        if batch and longest * (len(batch) + 1) > most:
            yield batch
            batch = []  # this item is the longest so far
        batch.append(item)
        if longest * (len(batch) + 1) > most:
            yield batch
            batch, longest = [], 0.0
    if batch:
        yield batch


def run_files(
    paths: Iterable[str | Path],
    read: Callable[[str | Path], torch.Tensor],
    run_batch: Callable[[list[tuple[str | Path, torch.Tensor]]], Iterable[Any]],
    run_long: Callable[[list[str | Path]], Iterable[tuple[str | Path, Any]]],
    whole_s: float,
    batch_seconds: float,
    on_progress: Callable[[float], object] | None = None,
) -> Iterator[tuple[str | Path, Any]]:
    """Yields each path with the model's result or an ``AudioError``.

    ``run_batch`` takes (path, waveform) pairs of up to ``batch_seconds``,
    padding included, the shortest first; ``run_long`` takes the paths of files
    above ``whole_s`` seconds and yields (path, result).
    """
    lengths = []
    for path in paths:
        try:
            lengths.append((duration_s(path), path))
        except AudioError as error:
            yield path, error
    lengths.sort(key=_seconds)
    short = [pair for pair in lengths if pair[0] <= whole_s]
    for batch in padded_batches(short, _seconds, batch_seconds):
        pairs = []
        for _, path in batch:
            try:
                pairs.append((path, read(path)))
            except AudioError as error:
                yield path, error
        results = run_batch(pairs) if pairs else []
        for (path, _), result in zip(pairs, results, strict=True):
            yield path, result
        if on_progress is not None:
            on_progress(sum(map(_seconds, batch)))
    yield from run_long([path for _, path in lengths[len(short) :]])


def _seconds(pair):
    """Length of a pair of length and path."""
    return pair[0]


def _converted(path, file, normalizer, block_s):
    """Blocks of an open file at the normalizer's rate.

    Blocks and overlaps hold whole periods of both rates, so that the filter's
    phases are those of the whole.
    """
    divisor = math.gcd(file.samplerate, normalizer.sample_rate)
    period, new_period = (
        rate // divisor for rate in (file.samplerate, normalizer.sample_rate)
    )
    reach = _FILTER_REACH * max(1, period / new_period)
    shared = period * math.ceil(reach / period) if period != new_period else 0
    size = period * math.ceil(block_s * file.samplerate / period)
    size = max(size, shared)
    buffer, before, more = torch.zeros(0), 0, True
    while more:
        block = _decoded(path, file, size)
        more = len(block) == size
        buffer = torch.cat([buffer, block]) if len(buffer) else block
        if len(buffer) <= before:
            return
        converted = normalizer(buffer, file.samplerate)
        end = len(buffer) - shared if more else len(buffer)
        skipped = before // period * new_period
        stop = end // period * new_period if more else len(converted)
        yield converted[skipped:stop]
        kept_from = max(end - shared, 0)
        buffer, before = buffer[kept_from:], end - kept_from


def _decoded(path, file, size):
    """The next samples of an open file, channels averaged, [N]."""
    declared = min(size, file.frames - file.tell())
    try:
        samples = file.read(size, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        reason = error.error_string.rstrip(".")
        raise AudioError(f"{path}: truncated or damaged: {reason}") from error
    if len(samples) < declared:
        raise AudioError(
            f"{path}: truncated, its header says {declared - len(samples)} "
            "more samples than can be decoded"
        )
    return torch.from_numpy(samples).mean(1)


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
