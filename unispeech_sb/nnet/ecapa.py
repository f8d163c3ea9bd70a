"""Parts of ECAPA-TDNN (Desplanques et al. 2020, section 3), padding masked.

Every module takes a mask and gives the valid frames of a padded batch what
each utterance would get alone. Masks are bool, True at valid frames,
[B, 1, T]; None stands for no padding.
"""

import torch
from torch import nn


def mask_padding(
    feats: torch.Tensor, mask: torch.Tensor | None
) -> torch.Tensor:
    """Sets the padding to zero, as convolutions pad at the edges.

    Arguments
    ---------
    feats : torch.Tensor
        Features, [B, C, T].
    mask : torch.Tensor or None
        True at valid frames, [B, 1, T].

    Returns
    -------
    torch.Tensor
        Features, [B, C, T].

    Example
    -------
    >>> mask_padding(torch.ones(1, 1, 3), torch.tensor([[[True, True, False]]]))
    tensor([[[1., 1., 0.]]])
    """
    return feats if mask is None else feats.masked_fill(~mask, 0.0)


class MaskedBatchNorm(nn.BatchNorm1d):
    """BatchNorm whose statistics are of valid frames only.

    Example
    -------
    >>> norm, feats = MaskedBatchNorm(2), torch.randn(1, 2, 4)
    >>> mask = torch.tensor([[[True, True, True, False]]])
    >>> bool(norm(feats, mask)[..., :3].mean().abs() < 1e-6)
    True
    """

    def forward(
        self, feats: torch.Tensor, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Normalises each channel over batch and time.

        Arguments
        ---------
        feats : torch.Tensor
            Features, [B, C, T].
        mask : torch.Tensor, optional
            True at valid frames, [B, 1, T].

        Returns
        -------
        torch.Tensor
            Features, [B, C, T].
        """
        if mask is None or not self.training:
            return super().forward(feats)
        rows, valid = feats.transpose(1, 2), mask[:, 0]  # [B, T, C], [B, T]
        normed = torch.zeros_like(rows)
        normed[valid] = super().forward(rows[valid])
        return normed.transpose(1, 2)


class ConvReluNorm(nn.Module):
    """Convolution over time, ReLU, BatchNorm.

    Arguments
    ---------
    in_channels : int
        Input channels.
    out_channels : int
        Output channels.
    kernel : int
        Kernel size, odd: the number of frames stays.
    dilation : int
        Frames from one tap of the kernel to the next.

    Example
    -------
    >>> ConvReluNorm(4, 8, kernel=5)(torch.randn(2, 4, 10)).shape
    torch.Size([2, 8, 10])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 1,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv1d(
            in_channels,
            out_channels,
            kernel,
            dilation=dilation,
            padding=dilation * (kernel // 2),
        )
        self.bn = MaskedBatchNorm(out_channels)

    def forward(
        self, feats: torch.Tensor, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Runs the layer.

        Arguments
        ---------
        feats : torch.Tensor
            Features, [B, C, T].
        mask : torch.Tensor, optional
            True at valid frames, [B, 1, T].

        Returns
        -------
        torch.Tensor
            Features, [B, C', T].
        """
        return self.bn(self.conv(mask_padding(feats, mask)).relu(), mask)


class Res2Conv(nn.Module):
    """Convolutions that run through groups of channels one after the other.

    Each group is added to the result of the one before; the last group is
    passed through (section 3.2).

    Arguments
    ---------
    channels : int
        Number of channels C; divisible by ``scale``.
    kernel : int
        Kernel size.
    dilation : int
        Frames from one tap of the kernel to the next.
    scale : int
        Number of groups.

    Example
    -------
    >>> Res2Conv(8, kernel=3, dilation=2, scale=4)(torch.randn(2, 8, 10)).shape
    torch.Size([2, 8, 10])
    """

    def __init__(
        self, channels: int, kernel: int, dilation: int, scale: int
    ) -> None:
        super().__init__()
        if scale < 2 or channels % scale:
            raise ValueError(
                "Res2Conv: expected channels divisible by a scale of 2 or "
                f"more; got {channels} and {scale}"
            )
        self.width = channels // scale
        padding = dilation * (kernel // 2)
        self.convs = nn.ModuleList(
            nn.Conv1d(
                self.width,
                self.width,
                kernel,
                dilation=dilation,
                padding=padding,
            )
            for _ in range(scale - 1)
        )
        self.bns = nn.ModuleList(
            MaskedBatchNorm(self.width) for _ in range(scale - 1)
        )

    def forward(
        self, feats: torch.Tensor, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Runs the layer.

        Arguments
        ---------
        feats : torch.Tensor
            Features, [B, C, T].
        mask : torch.Tensor, optional
            True at valid frames, [B, 1, T].

        Returns
        -------
        torch.Tensor
            Features, [B, C, T].
        """
        *groups, last = feats.split(self.width, 1)
        results, running = [], 0.0
        for group, conv, norm in zip(groups, self.convs, self.bns):
            running = conv(mask_padding(running + group, mask)).relu()
            running = norm(running, mask)
            results.append(running)
        return torch.cat([*results, last], 1)


class ChannelGate(nn.Module):
    """Scales each channel by what the whole utterance holds (SE block).

    Arguments
    ---------
    channels : int
        Number of channels C.
    bottleneck : int
        Size of the layer between.

    Example
    -------
    >>> ChannelGate(8, bottleneck=4)(torch.randn(2, 8, 10)).shape
    torch.Size([2, 8, 10])
    """

    def __init__(self, channels: int, bottleneck: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(channels, bottleneck)
        self.linear2 = nn.Linear(bottleneck, channels)

    def forward(
        self, feats: torch.Tensor, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Scales the channels.

        Arguments
        ---------
        feats : torch.Tensor
            Features, [B, C, T].
        mask : torch.Tensor, optional
            True at valid frames, [B, 1, T].

        Returns
        -------
        torch.Tensor
            Features, [B, C, T].
        """
        mean = mask_padding(feats, mask).sum(2)
        mean = mean / (feats.shape[2] if mask is None else mask.sum(2))
        gate = self.linear2(self.linear1(mean).relu()).sigmoid()
        return feats * gate[:, :, None]


class SERes2Block(nn.Module):
    """Squeeze-excitation Res2 block (section 3.2, figure 2).

    Arguments
    ---------
    channels : int
        Number of channels C.
    dilation : int
        Frames from one tap of the kernel of three to the next.
    scale : int
        Number of groups of channels.
    bottleneck : int
        Size of the layer between in the channel gate.

    Example
    -------
    >>> block = SERes2Block(8, dilation=2, scale=4, bottleneck=4)
    >>> block(torch.randn(2, 8, 10)).shape
    torch.Size([2, 8, 10])
    """

    def __init__(
        self, channels: int, dilation: int, scale: int, bottleneck: int
    ) -> None:
        super().__init__()
        self.conv_in = ConvReluNorm(channels, channels)
        self.res2 = Res2Conv(channels, 3, dilation, scale)
        self.conv_out = ConvReluNorm(channels, channels)
        self.gate = ChannelGate(channels, bottleneck)

    def forward(
        self, feats: torch.Tensor, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Runs the block.

        Arguments
        ---------
        feats : torch.Tensor
            Features, [B, C, T].
        mask : torch.Tensor, optional
            True at valid frames, [B, 1, T].

        Returns
        -------
        torch.Tensor
            Features, [B, C, T].
        """
        inner = self.res2(self.conv_in(feats, mask), mask)
        return feats + self.gate(self.conv_out(inner, mask), mask)


class AttentiveStatistics(nn.Module):
    """Mean and standard deviation under attention, one map per channel
    (section 3.1, without the global context).

    Arguments
    ---------
    channels : int
        Number of channels C.
    bottleneck : int
        Size of the attention's inner layer.

    Example
    -------
    >>> AttentiveStatistics(8, bottleneck=4)(torch.randn(2, 8, 10)).shape
    torch.Size([2, 16])
    """

    def __init__(self, channels: int, bottleneck: int) -> None:
        super().__init__()
        self.linear1 = nn.Conv1d(channels, bottleneck, 1)
        self.linear2 = nn.Conv1d(bottleneck, channels, 1)

    def forward(
        self, feats: torch.Tensor, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Pools each utterance.

        Arguments
        ---------
        feats : torch.Tensor
            Features, [B, C, T].
        mask : torch.Tensor, optional
            True at valid frames, [B, 1, T].

        Returns
        -------
        torch.Tensor
            Means, then standard deviations, [B, 2C].
        """
        scores = self.linear2(self.linear1(feats).tanh())
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        shares = scores.softmax(2)
        mean = (shares * feats).sum(2)
        variance = (shares * feats.square()).sum(2) - mean.square()
        return torch.cat([mean, variance.clamp(min=1e-9).sqrt()], 1)
