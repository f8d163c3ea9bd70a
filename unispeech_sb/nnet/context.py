"""What a frame's surroundings are like, beside the frame itself."""

import torch
from torch import nn
from torch.nn import functional as F

from unispeech_sb.nnet.ecapa import MaskedBatchNorm
from unispeech_sb.nnet.lengths import length_mask

FLOOR = 1e-5
"""Least variance, for the root's slope."""


class WindowStatistics(nn.Module):
    """Projected frames, and their mean and deviation over a window around
    each, normalised over the batch.

    Statistics pooling (Snyder et al. 2018) for every frame: a voice is told by
    how a second of frames is spread, which a recurrent layer takes long to
    learn.

    Arguments
    ---------
    input_size : int
        Size of the features D.
    size : int
        Size of the projected features P.
    frames : int
        Frames of the window, odd.

    Raises
    ------
    ValueError
        When their number is even.

    Example
    -------
    >>> WindowStatistics(4, 6, frames=51)(torch.randn(2, 100, 4)).shape
    torch.Size([2, 100, 18])
    """

    def __init__(self, input_size, size, frames):
        super().__init__()
        if frames % 2 != 1:
            raise ValueError(
                f"context: expected an odd number of frames; got {frames}"
            )
        self.frames = frames
        self.projector = nn.Linear(input_size, size)
        self.norm = MaskedBatchNorm(3 * size)

    def forward(self, feats, counts=None):
        """Joins frames with their surroundings.

        Arguments
        ---------
        feats : torch.Tensor
            Features, [B, T, D].
        counts : torch.Tensor, optional
            Valid frames of each row, [B]. All of them when omitted.

        Returns
        -------
        torch.Tensor
            Frames, means and deviations, [B, T, 3 * P]. The window ends where
            the valid frames do.
        """
        # Squares and their differences need the digits of float32
        feats = F.relu(self.projector(feats).float()).transpose(1, 2)
        mask = torch.ones_like(feats[:, :1], dtype=torch.bool)
        if counts is not None:
            mask = length_mask(counts, feats.shape[2])[:, None]
            mask = mask.to(feats.device)
            feats = feats.masked_fill(~mask, 0.0)
        share = self._smooth(mask.to(feats.dtype)).clamp(min=FLOOR)
        mean = self._smooth(feats) / share
        variance = self._smooth(feats.square()) / share - mean.square()
        deviation = variance.clamp(min=FLOOR).sqrt()
        joined = torch.cat([feats, mean, deviation], 1)
        return self.norm(joined, mask).transpose(1, 2)

    def _smooth(self, feats):
        """Means over the window, zeros beyond the ends, [B, P, T]."""
        return F.avg_pool1d(feats, self.frames, 1, self.frames // 2)
