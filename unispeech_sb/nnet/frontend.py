"""The convolutional feature extractor: waveforms to 20 ms frames.

Seven unpadded convolutions (wav2vec 2.0, section 2), normalised over time in
the first layer only (``group``, the Base models) or over channels in every
layer (``layer``, the Large models).
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from unispeech_sb.nnet.lengths import conv_lengths, length_mask

Activation = Callable[[torch.Tensor], torch.Tensor]

ACTIVATIONS: dict[str, Activation] = {
    "gelu": F.gelu,
    "gelu_new": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "selu": F.selu,
}
"""The activations that checkpoints of both families name."""

GROUP_SAMPLES = 160_000
"""Ten seconds keep two cores busy, and a GPU's launches few."""


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
        return F.layer_norm(wavs, wavs.shape[1:], eps=eps)
    mask = length_mask(lengths, wavs.shape[1])
    mean = (wavs * mask).sum(1) / lengths  # [B]
    centred = (wavs - mean[:, None]) * mask
    variance = centred.square().sum(1) / lengths
    return centred * torch.rsqrt(variance + eps)[:, None]


class TimeNorm(nn.GroupNorm):
    """GroupNorm with one group per channel, over the valid frames only.

    Arguments
    ---------
    num_channels : int
        Number of channels C.

    Example
    -------
    >>> norm, feats = TimeNorm(4), torch.randn(2, 4, 10)
    >>> padded = norm(feats, torch.tensor([10, 6]))
    >>> torch.allclose(padded[1:, :, :6], norm(feats[1:, :, :6]), atol=1e-6)
    True
    """

    def __init__(self, num_channels: int) -> None:
        super().__init__(num_channels, num_channels)

    def forward(
        self, feats: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Normalises each channel over time.

        Arguments
        ---------
        feats : torch.Tensor
            Features, [B, C, T].
        lengths : torch.Tensor, optional
            Number of valid frames of each, [B]. All when omitted.

        Returns
        -------
        torch.Tensor
            Features of the same shape, zero in the padding.
        """
        if lengths is None:
            return super().forward(feats)
        # Row by row: four times as fast as masked sums, and as exact.
        frames = feats.shape[-1]
        rows = [
            F.pad(super(TimeNorm, self).forward(row[..., :n]), (0, frames - n))
            for row, n in zip(feats.split(1), lengths.tolist())
        ]
        return torch.cat(rows)


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of ``[B, C, T]``.

    Example
    -------
    >>> ChannelNorm(4)(torch.randn(2, 4, 10)).shape
    torch.Size([2, 4, 10])
    """

    def forward(
        self, feats: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Normalises every frame by itself, so lengths do not matter.

        Arguments
        ---------
        feats : torch.Tensor
            Features, [B, C, T].
        lengths : torch.Tensor, optional
            Not used; taken so that both norms are called alike.

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
        self, feats: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Runs the layer.

        Arguments
        ---------
        feats : torch.Tensor
            Features, [B, C, T].
        lengths : torch.Tensor, optional
            Valid frames *after* this layer, [B]. All when omitted.

        Returns
        -------
        torch.Tensor
            Features, [B, C', T'].
        """
        feats = self.conv(feats)
        if self.layer_norm is not None:
            feats = self.layer_norm(feats, lengths)
        return self.activation(feats)


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
        self.channels = dims[-1]
        self.kernels = list(kernels)
        self.strides = list(strides)
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

        Rows of similar lengths go through together, so that little time is
        spent on padding.

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
        if lengths is None:
            return self._frames(wavs, None, checkpointing)
        total = conv_lengths(wavs.shape[1], self.kernels, self.strides)
        feats = wavs.new_zeros(len(wavs), total, self.channels)
        counts = lengths.tolist()
        for rows in groups_of_similar_length(counts, GROUP_SAMPLES):
            shortest, longest = counts[rows[0]], counts[rows[-1]]
            own = lengths[rows] if shortest < longest else None
            frames = self._frames(wavs[rows, :longest], own, checkpointing)
            feats[rows, : frames.shape[1]] = frames.to(feats.dtype)
        return feats

    def _frames(self, wavs, lengths, checkpointing):
        """Frames of one group of waveforms, [B, T, C]."""
        feats = wavs[:, None]
        for layer, kernel, stride in zip(
            self.conv_layers, self.kernels, self.strides
        ):
            if lengths is not None:
                lengths = conv_lengths(lengths, [kernel], [stride])
            if checkpointing:
                feats = checkpoint(layer, feats, lengths, use_reentrant=False)
            else:
                feats = layer(feats, lengths)
        return feats.transpose(1, 2)


def groups_of_similar_length(
    lengths: Sequence[int], least: int
) -> list[list[int]]:
    """Sorts the rows of a batch into groups that need little padding.

    Arguments
    ---------
    lengths : list of int
        Number of samples of each row.
    least : int
        Samples that make a group large enough to use the machine well.

    Returns
    -------
    list of list of int
        Rows of each group, by growing length.

    Example
    -------
    >>> groups_of_similar_length([300, 100, 301, 200], least=300)
    [[1, 3], [0], [2]]
    """
    groups: list[list[int]] = [[]]
    samples = 0
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if samples >= least:
            groups, samples = [*groups, []], 0
        groups[-1].append(row)
        samples += lengths[row]
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

    Example
    -------
    >>> projected, normed = FeatureProjection(4, 8)(torch.randn(2, 10, 4))
    >>> projected.shape, normed.shape
    (torch.Size([2, 10, 8]), torch.Size([2, 10, 4]))
    """

    def __init__(
        self, conv_dim: int, dim: int, eps: float = 1e-5, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.layer_norm = nn.LayerNorm(conv_dim, eps=eps)
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
