"""SpecAugment (Park et al. 2019) as SUPERB applies it to the mix of layers.

SpeechBrain's ``Warping`` and ``SpectrogramDrop`` differ from s3prl's: they
warp all rows at one place, padding included, interpolate between corners, let
masks run over the end, and write into what they are given.
"""

import torch
from torch import nn
from torch.nn import functional as F


class SpecAugment(nn.Module):
    """Warps time, then masks channels and frames with zeros, in training.

    Each row is warped within its valid frames, at a place and by a distance
    of its own; a row that is too short for it stays. Masks are of random
    widths at random places, the same for all channels or frames, and the
    places of frames are drawn over the padded length, as in s3prl.

    Arguments
    ---------
    warp_window : int
        Farthest that a frame moves, in frames; 0 for no warp.
    num_time_masks : int
        Number of masks over frames.
    time_mask_width : int
        Their widths are below this, in frames.
    num_channel_masks : int
        Number of masks over channels.
    channel_mask_width : int
        Their widths are below this, in channels.

    Example
    -------
    >>> augment = SpecAugment()
    >>> augment(torch.randn(2, 50, 80), torch.tensor([50, 20])).shape
    torch.Size([2, 50, 80])
    """

    def __init__(
        self,
        warp_window: int = 5,
        num_time_masks: int = 2,
        time_mask_width: int = 40,
        num_channel_masks: int = 4,
        channel_mask_width: int = 50,
    ) -> None:
        super().__init__()
        self.warp_window = warp_window
        self.time_masks = num_time_masks, time_mask_width
        self.channel_masks = num_channel_masks, channel_mask_width

    def forward(
        self, feats: torch.Tensor, frames: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Augments features; in evaluation they stay as they are.

        Arguments
        ---------
        feats : torch.Tensor
            Features, [B, T, D].
        frames : torch.Tensor, optional
            Valid frames of each row, [B]. All of them when omitted.

        Returns
        -------
        torch.Tensor
            Features, [B, T, D], zero in the padding; a new tensor in
            training.

        Raises
        ------
        ValueError
            When there is not one number of frames for each row.
        """
        if not self.training:
            return feats
        rows, length, channels = feats.shape
        counts = [length] * rows if frames is None else frames.tolist()
        if len(counts) != rows:
            raise ValueError(
                f"SpecAugment: expected frames of {rows} rows; got "
                f"{len(counts)}"
            )
        warped = [
            F.pad(self._warp(row[:count]), (0, 0, 0, length - count))
            for row, count in zip(feats, counts)
        ]
        feats = torch.stack(warped)
        over_channels = _masks(rows, channels, *self.channel_masks)
        over_time = _masks(rows, length, *self.time_masks)
        mask = over_channels[:, None] | over_time[..., None]  # [B, T, D]
        return feats.masked_fill(mask.to(feats.device), 0.0)

    def _warp(self, row):
        """Moves a frame and stretches both sides to fit, [T, D]."""
        length, window = len(row), self.warp_window
        if not window or length <= 2 * window:
            return row
        centre = int(torch.randint(window, length - window, ()))
        moved = int(torch.randint(centre - window, centre + window, ())) + 1
        return torch.cat(
            [
                _resize(row[:centre], moved),
                _resize(row[centre:], length - moved),
            ]
        )


def _resize(feats, length):
    """Bicubic interpolation over time, [T, D] to [length, D]."""
    image = feats[None, None]
    size = (length, feats.shape[1])
    return F.interpolate(image, size, mode="bicubic", align_corners=False)[0, 0]


def _masks(rows, length, number, width):
    """True where one of a row's spans lies, [B, length]."""
    if not number:
        return torch.zeros(rows, length, dtype=torch.bool)
    widths = torch.randint(0, width, (rows, number, 1))
    last = max(1, length - int(widths.max()))
    starts = torch.randint(0, last, (rows, number, 1))
    places = torch.arange(length)
    return ((starts <= places) & (places < starts + widths)).any(1)
