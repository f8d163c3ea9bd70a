"""The convolutional feature extractor: waveforms to 20 ms frames.

Seven unpadded convolutions (wav2vec 2.0, section 2), normalised over time in
the first layer only (``group``, the Base models) or over channels in every
layer (``layer``, the Large models).

The first convolution is linear in the patches of samples that it sees, so its
outputs have the mean ``w . m`` and the variance ``w' C w`` over time, for the
mean m and the covariance C of the patches, 10 x 10 for the published models.
With these from the waveform, a piece of it is normalised as in the whole, and
the convolutions run piece by piece, each of a size that stays in the cache.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from unispeech_sb.nnet.lengths import (
    conv_lengths,
    is_exported,
    length_mask,
    makes_graph,
    receptive_field,
)
from unispeech_sb.nnet.packing import padded

Activation = Callable[[torch.Tensor], torch.Tensor]

ACTIVATIONS: dict[str, Activation] = {
    "gelu": F.gelu,
    "gelu_new": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "selu": F.selu,
}
"""The activations that checkpoints of both families name."""

FUSED: dict[Activation | None, tuple[str, list[float], str]] = {
    None: ("none", [], ""),
    ACTIVATIONS["gelu"]: ("gelu", [], "none"),
    ACTIVATIONS["gelu_new"]: ("gelu", [], "tanh"),
    ACTIVATIONS["relu"]: ("relu", [], ""),
}
"""Activations that oneDNN computes with a product -> its names of them."""

CPU_PIECE_SAMPLES = 32_000
"""Two seconds keep two cores busy and mostly stay in their cache."""
PIECE_SAMPLES = 640_000
"""Forty seconds keep another device's launches few."""
_BLOCK_PATCHES = 100_000
"""Patches whose products are summed at once."""


def activation(name: str) -> Activation:
    """Finds an activation by the name that transformers gives it.

    Arguments
    ---------
    name : str
        One of ``gelu``, ``gelu_new``, ``relu``, ``selu``.

    Returns
    -------
    callable
        A function from tensor to tensor.

    Raises
    ------
    ValueError
        When the name is none of them.

    Example
    -------
    >>> activation("relu")(torch.tensor([-1.0, 2.0]))
    tensor([0., 2.])
    """
    if name not in ACTIVATIONS:
        raise ValueError(
            f"activation: expected one of {', '.join(ACTIVATIONS)}; "
            f"got {name!r}"
        )
    return ACTIVATIONS[name]


def plain_on_cpu(feats: torch.Tensor) -> bool:
    """Whether float32 is to be computed on a CPU, step by step."""
    return (
        feats.device.type == "cpu"
        and feats.dtype == torch.float32
        and not makes_graph()
        and not torch.is_autocast_enabled("cpu")
    )


def normalize_wavs(
    wavs: torch.Tensor, lengths: torch.Tensor | None = None, eps: float = 1e-5
) -> torch.Tensor:
    """Gives each waveform zero mean and unit variance over its own samples.

    Arguments
    ---------
    wavs : torch.Tensor
        Waveforms, [B, N].
    lengths : torch.Tensor, optional
        Number of valid samples of each, [B]. All of them when omitted.
    eps : float
        Added to the variance: 1e-5 in the authors' code, 1e-7 in
        transformers' feature extractor.

    Returns
    -------
    torch.Tensor
        Normalised waveforms, zero in the padding, [B, N].

    Example
    -------
    >>> wavs = normalize_wavs(3 + 2 * torch.randn(2, 1000))
    >>> bool(wavs.mean().abs() < 1e-5)
    True
    """
    if lengths is None:
        centred = wavs - wavs.mean(1, keepdim=True)
        return F.layer_norm(centred, wavs.shape[1:], eps=eps)
    mask = length_mask(lengths, wavs.shape[1])
    centred = wavs * mask
    for _ in range(2):  # as the mean of a large offset is rounded
        mean = centred.sum(1) / lengths  # [B]
        centred = (centred - mean[:, None]) * mask
    variance = centred.square().sum(1) / lengths
    return centred * torch.rsqrt(variance + eps)[:, None]


class TimeNorm(nn.GroupNorm):
    """GroupNorm with one group per channel: over time.

    Arguments
    ---------
    num_channels : int
        Number of channels C.

    Example
    -------
    >>> norm, feats = TimeNorm(4), torch.randn(2, 4, 10)
    >>> mean, variance = feats.mean(2), feats.var(2, correction=0)
    >>> torch.allclose(norm(feats, (mean, variance)), norm(feats), atol=1e-6)
    True
    """

    def __init__(self, num_channels: int) -> None:
        super().__init__(num_channels, num_channels)

    def forward(
        self,
        feats: torch.Tensor,
        moments: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Normalises each channel over time.

        Arguments
        ---------
        feats : torch.Tensor
            Features, [B, C, T].
        moments : tuple of torch.Tensor, optional
            Mean and variance of each channel to normalise by, [B, C]: those
            of the features when omitted.

        Returns
        -------
        torch.Tensor
            Features of the same shape.
        """
        if moments is None:
            return super().forward(feats)
        scale, shift = self.scale_and_shift(moments)
        # Large means cancel, for which half of the digits are too few
        wide = feats.to(shift.dtype)
        wide = torch.addcmul(shift[..., None], wide, scale[..., None])
        return wide.to(feats.dtype)

    def scale_and_shift(
        self, moments: tuple[torch.Tensor, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What each channel is multiplied by, then what is added, [B, C]."""
        mean, variance = moments
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return scale, self.bias - mean * scale


class LayerNorm(nn.LayerNorm):
    """Torch's, with gradients of its parameters that are summed in float32.

    Of bfloat16 features, as under autocast, torch sums them in bfloat16 on a
    CPU: that of a bias is off by half of its size after 8,000 frames.

    Example
    -------
    >>> LayerNorm(4)(torch.randn(2, 10, 4)).shape
    torch.Size([2, 10, 4])
    """

    def forward(self, feats: torch.Tensor) -> torch.Tensor:
        """Normalises every frame by itself.

        Arguments
        ---------
        feats : torch.Tensor
            Features, [..., C].

        Returns
        -------
        torch.Tensor
            Features of the same shape and type.
        """
        if (
            feats.dtype == torch.float32
            or feats.dtype == self.weight.dtype
            or not torch.is_grad_enabled()
            or feats.device.type != "cpu"
        ):
            return super().forward(feats)
        return super().forward(feats.float()).to(feats.dtype)


class ChannelNorm(LayerNorm):
    """LayerNorm over the channels of ``[B, C, T]``.

    Example
    -------
    >>> ChannelNorm(4)(torch.randn(2, 4, 10)).shape
    torch.Size([2, 4, 10])
    """

    def forward(self, feats: torch.Tensor) -> torch.Tensor:
        """Normalises every frame by itself.

        Arguments
        ---------
        feats : torch.Tensor
            Features, [B, C, T].

        Returns
        -------
        torch.Tensor
            Features of the same shape.
        """
        return super().forward(feats.transpose(1, 2)).transpose(1, 2)


class ConvLayer(nn.Module):
    """Convolution, optional normalisation, activation.

    Arguments
    ---------
    in_channels : int
        Input channels.
    out_channels : int
        Output channels.
    kernel : int
        Kernel size.
    stride : int
        Stride.
    bias : bool
        Whether the convolution has a bias.
    norm : nn.Module, optional
        ``TimeNorm`` or ``ChannelNorm``; none when omitted.
    act : str
        Name of the activation.

    Example
    -------
    >>> layer = ConvLayer(1, 4, kernel=10, stride=5, norm=TimeNorm(4))
    >>> layer(torch.randn(2, 1, 100)).shape
    torch.Size([2, 4, 19])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int,
        bias: bool = False,
        norm: nn.Module | None = None,
        act: str = "gelu",
    ) -> None:
        super().__init__()
        self.conv = nn.Conv1d(
            in_channels, out_channels, kernel, stride, bias=bias
        )
        nn.init.kaiming_normal_(self.conv.weight)
        self.layer_norm = norm
        self.activation = activation(act)

    def forward(
        self,
        feats: torch.Tensor,
        moments: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Runs the layer.

        Arguments
        ---------
        feats : torch.Tensor
            Features, [B, C, T].
        moments : tuple of torch.Tensor, optional
            What a ``TimeNorm`` is to normalise by.

        Returns
        -------
        torch.Tensor
            Features, [B, C', T'].
        """
        if self.conv.in_channels == 1 and plain_on_cpu(feats):
            feats = self.as_product(feats, moments)
            if moments is None and self.layer_norm is not None:
                feats = self.layer_norm(feats)
        elif self.layer_norm is None:
            feats = self.conv(feats)
        elif moments is None:
            feats = self.layer_norm(self.conv(feats))
        else:
            feats = F.conv1d(feats, self.conv.weight, stride=self.conv.stride)
            feats = self.layer_norm(feats, moments)
        return self.activation(feats)

    def as_product(
        self,
        wavs: torch.Tensor,
        moments: tuple[torch.Tensor, torch.Tensor] | None = None,
        frames_first: bool = False,
    ) -> torch.Tensor:
        """A first convolution as a product of matrices, with its norm over
        time in the weights: several times as fast on a CPU.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms, [B, 1, N].
        moments : tuple of torch.Tensor, optional
            As for ``forward``; no norm when omitted.
        frames_first : bool
            Put the channels of a frame side by side in memory.

        Returns
        -------
        torch.Tensor
            Features before the activation, [B, C', T'].
        """
        conv, norm = self.conv, cast(Any, self.layer_norm)
        patches = wavs[:, 0].unfold(1, conv.kernel_size[0], conv.stride[0])
        weight = conv.weight[:, 0].expand(len(wavs), -1, -1)  # [B, C, K]
        shift = wavs.new_zeros(1, 1) if conv.bias is None else conv.bias[None]
        if moments is not None:
            scale, shift = norm.scale_and_shift(moments)
            weight = weight * scale[..., None]
        if frames_first:
            found = torch.baddbmm(
                shift[:, None], patches, weight.transpose(1, 2)
            )
            return found.transpose(1, 2)
        return torch.baddbmm(shift[..., None], weight, patches.transpose(1, 2))

    def output_moments(
        self, mean: torch.Tensor, covariance: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and variance of what a first convolution gives over time,
        without its bias, which the norm cancels.

        Arguments
        ---------
        mean, covariance : torch.Tensor
            Those of the patches that it sees, float64, [B, K], [B, K, K].

        Returns
        -------
        tuple of torch.Tensor
            Mean and variance of each channel, float32 at least, [B, C] each.
        """
        weight = self.conv.weight[:, 0].double()  # [C, K]
        means = mean @ weight.T
        if self.conv.bias is not None:
            means = means + 0.0 * self.conv.bias  # a gradient of zero
        variances = ((weight @ covariance) * weight).sum(2).clamp(min=0)
        kind = torch.promote_types(self.conv.weight.dtype, torch.float32)
        return means.to(kind), variances.to(kind)

    def masked_moments(
        self, wavs: torch.Tensor, lengths: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The same from the outputs themselves, in float32, for runtimes that
        have no wider numbers.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms, [B, N].
        lengths : torch.Tensor or None
            Number of valid samples of each, [B]; None for all of them.

        Returns
        -------
        tuple of torch.Tensor
            Mean and variance of each channel, [B, C] each.
        """
        conv = self.conv
        feats = F.conv1d(wavs[:, None], conv.weight, stride=conv.stride)
        if lengths is None:
            return feats.mean(2), feats.var(2, correction=0)
        counts = conv_lengths(lengths, conv.kernel_size, conv.stride)
        padding = ~length_mask(counts, feats.shape[2])[:, None]  # [B, 1, T]
        mean = feats.masked_fill(padding, 0.0).sum(2) / counts[:, None]
        centred = (feats - mean[..., None]).masked_fill(padding, 0.0)
        return mean, centred.square().sum(2) / counts[:, None]


class FeatureExtractor(nn.Module):
    """A stack of convolutions from waveform to frames.

    Arguments
    ---------
    dims : list of int
        Output channels of each layer.
    kernels : list of int
        Kernel size of each layer.
    strides : list of int
        Stride of each layer.
    bias : bool
        Whether the convolutions have a bias.
    norm : str
        ``group``: over time after the first layer only; ``layer``: over
        channels after every layer.
    act : str
        Name of the activation.

    Example
    -------
    >>> extractor = FeatureExtractor([8, 8], [10, 3], [5, 2], norm="layer")
    >>> extractor(torch.randn(2, 1000)).shape
    torch.Size([2, 99, 8])
    """

    def __init__(
        self,
        dims: Sequence[int],
        kernels: Sequence[int],
        strides: Sequence[int],
        bias: bool = False,
        norm: str = "group",
        act: str = "gelu",
    ) -> None:
        super().__init__()
        if not len(dims) == len(kernels) == len(strides) > 0:
            raise ValueError(
                "feature extractor: expected as many dims as kernels and "
                f"strides; got {len(dims)}, {len(kernels)}, {len(strides)}"
            )
        if norm not in ("group", "layer"):
            raise ValueError(
                "feature extractor: expected norm 'group' or 'layer'; "
                f"got {norm!r}"
            )
        self.patch_statistics: tuple[torch.Tensor, torch.Tensor] | None = None
        self.moments: tuple[torch.Tensor, torch.Tensor] | None = None
        self.kernels = list(kernels)
        self.strides = list(strides)
        self.hop = math.prod(strides)
        self.field = receptive_field(kernels, strides)
        norms: list[nn.Module | None] = [ChannelNorm(dim) for dim in dims]
        if norm == "group":
            norms = [TimeNorm(dims[0]), *[None] * (len(dims) - 1)]
        shapes = zip([1, *dims[:-1]], dims, kernels, strides)
        self.conv_layers = nn.ModuleList(
            ConvLayer(*shape, bias=bias, norm=layer_norm, act=act)
            for shape, layer_norm in zip(shapes, norms)
        )

    def _freeze_parameters(self):
        """Stops training them, as transformers' module of that name does."""
        self.requires_grad_(False)

    def forward(
        self,
        wavs: torch.Tensor,
        lengths: torch.Tensor | None = None,
        checkpointing: bool = False,
    ) -> torch.Tensor:
        """Turns waveforms into frames.

        Short rows of similar lengths go through together, so that little time
        is spent on padding, and long ones piece by piece. Waveforms that are
        parts of longer ones are normalised over time by ``patch_statistics``,
        mean [B, K] and covariance [B, K, K], where they are set, or by the
        ``moments`` of the first layer's outputs, mean and variance [B, C].

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms, [B, N].
        lengths : torch.Tensor, optional
            Number of valid samples of each, [B]. All when omitted: then
            frames and norms take padding for speech.
        checkpointing : bool
            Recompute activations in the backward pass to save memory.

        Returns
        -------
        torch.Tensor
            Frames, [B, T, C].
        """
        moments = self.first_moments(wavs, lengths)
        run = partial(self._frames, checkpointing=checkpointing)
        if makes_graph():
            return run(wavs, moments)
        counts = [wavs.shape[1]] * len(wavs)
        if lengths is not None:
            counts = lengths.tolist()
        frames: list[torch.Tensor] = [wavs] * len(wavs)
        on_cpu = wavs.device.type == "cpu"
        most = CPU_PIECE_SAMPLES if on_cpu else PIECE_SAMPLES
        for rows in groups_of_similar_length(counts, most):
            own = None if moments is None else [m[rows] for m in moments]
            group = wavs[:, : counts[rows[-1]]]
            if len(wavs) > 1:
                group = group[rows]
            found = self._in_pieces(group, own, run, most)
            for row, feats in zip(rows, found):
                valid = conv_lengths(counts[row], self.kernels, self.strides)
                frames[row] = feats[:valid]
        total = conv_lengths(wavs.shape[1], self.kernels, self.strides)
        return padded(frames, total)

    def first_moments(
        self, wavs: torch.Tensor, lengths: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """What the first layer normalises by, where it does so over time: mean
        and variance of its outputs, [B, C] each; None elsewhere."""
        first = cast(ConvLayer, self.conv_layers[0])
        if not isinstance(first.layer_norm, TimeNorm):
            return None
        if self.moments is not None:
            return self.moments
        statistics = self.patch_statistics
        if statistics is None and is_exported():
            return first.masked_moments(wavs, lengths)
        if statistics is None:
            statistics = patch_statistics(
                wavs, lengths, self.kernels[0], self.strides[0]
            )
        return first.output_moments(*statistics)

    def _in_pieces(self, wavs, moments, run, most):
        """Frames of a group of waveforms, piece by piece."""
        field, hop = self.field, self.hop
        total = conv_lengths(wavs.shape[1], self.kernels, self.strides)
        size = max(1, most // hop)
        pieces = [
            run(wavs[:, start * hop : (stop - 1) * hop + field], moments)
            for start in range(0, total, size)
            for stop in [min(start + size, total)]
        ]
        return torch.cat(pieces, 1) if len(pieces) > 1 else pieces[0]

    def _frames(self, wavs, moments, checkpointing):
        """Frames of waveforms of one length, [B, T, C]."""
        feats = wavs[:, None]
        for layer in self.conv_layers:
            if checkpointing:
                feats = checkpoint(layer, feats, moments, use_reentrant=False)
            else:
                feats = layer(feats, moments)
            moments = None
        return feats.transpose(1, 2)


def patch_statistics(
    wavs: torch.Tensor,
    lengths: torch.Tensor | None,
    kernel: int,
    stride: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and covariance of what a first convolution sees of waveforms.

    Arguments
    ---------
    wavs : torch.Tensor
        Waveforms, [B, N].
    lengths : torch.Tensor or None
        Number of valid samples of each, [B]; None for all of them.
    kernel, stride : int
        A patch has ``kernel`` samples and begins ``stride`` after the last.

    Returns
    -------
    mean : torch.Tensor
        Float64, [B, K].
    covariance : torch.Tensor
        Float64, [B, K, K].

    Example
    -------
    >>> mean, covariance = patch_statistics(torch.ones(2, 100), None, 10, 5)
    >>> mean.shape, covariance.abs().max().item()
    (torch.Size([2, 10]), 0.0)
    """
    patches = wavs.unfold(1, kernel, stride)  # [B, P, K], a view
    total = products = wavs.new_zeros((), dtype=torch.float64)
    counts = total + patches.shape[1]
    if lengths is not None:
        counts = conv_lengths(lengths, [kernel], [stride])[:, None, None]
    starts: Sequence[int] = [0]
    size = patches.shape[1]
    if not makes_graph():  # which would be of one number of blocks
        starts, size = range(0, size, _BLOCK_PATCHES), _BLOCK_PATCHES
    for start in starts:
        block = patches[:, start : start + size].double()
        if lengths is not None:
            mask = length_mask(counts[:, 0, 0] - start, block.shape[1])
            block = block.masked_fill(~mask[..., None], 0.0)
        total = total + block.sum(1, keepdim=True)
        products = products + block.transpose(1, 2) @ block
    mean = total / counts  # [B, 1, K]
    covariance = products / counts - mean.transpose(1, 2) @ mean
    return mean[:, 0], covariance


def groups_of_similar_length(
    lengths: Sequence[int], most: int
) -> list[list[int]]:
    """Sorts the rows of a batch into groups that need little padding.

    Arguments
    ---------
    lengths : list of int
        Number of samples of each row.
    most : int
        Samples of a group, padding included, unless it is a single row.

    Returns
    -------
    list of list of int
        Rows of each group, by growing length.

    Example
    -------
    >>> groups_of_similar_length([300, 100, 301, 200], most=400)
    [[1, 3], [0], [2]]
    """
    groups: list[list[int]] = [[]]
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if groups[-1] and (len(groups[-1]) + 1) * lengths[row] > most:
            groups.append([])
        groups[-1].append(row)
    return groups


class FeatureProjection(nn.Module):
    """LayerNorm and projection of the frames to the model size.

    Arguments
    ---------
    conv_dim : int
        Size of the convolutional features C.
    dim : int
        Model size D.
    eps : float
        Epsilon of the norm.
    dropout : float
        Dropout on the projected features.
    has_norm : bool
        Whether there is a norm: distilled models have none.

    Example
    -------
    >>> projected, normed = FeatureProjection(4, 8)(torch.randn(2, 10, 4))
    >>> projected.shape, normed.shape
    (torch.Size([2, 10, 8]), torch.Size([2, 10, 4]))
    """

    def __init__(
        self,
        conv_dim: int,
        dim: int,
        eps: float = 1e-5,
        dropout: float = 0.0,
        has_norm: bool = True,
    ) -> None:
        super().__init__()
        self.layer_norm = (
            LayerNorm(conv_dim, eps=eps) if has_norm else nn.Identity()
        )
        self.projection = nn.Linear(conv_dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, feats: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Projects the frames.

        Arguments
        ---------
        feats : torch.Tensor
            Convolutional features, [B, T, C].

        Returns
        -------
        projected : torch.Tensor
            Input of the encoder, [B, T, D].
        normed : torch.Tensor
            The features after LayerNorm, which the quantizers of the
            pre-training objectives take, [B, T, C].
        """
        normed = self.layer_norm(feats)
        return self.dropout(self.projection(normed)), normed
