"""Masks of spans over time and channels.

Those of pre-training and fine-tuning (wav2vec 2.0, appendix A) count spans in
two ways, transformers' and the authors'; either draw is one batched operation
on the mask's own device. ``SpecAugment`` (Park et al. 2019) is SUPERB's, on the
mix of layers. SpeechBrain's ``Warping`` and ``SpectrogramDrop`` differ from
s3prl's: they warp all rows at one place, padding included, interpolate between
corners, let masks run over the end, and write into what they are given.
"""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F


class SpanMasks(NamedTuple):
    """How a pre-training objective draws its masks.

    Arguments
    ---------
    prob : float
        Share of frames to mask if spans did not overlap, in [0, 1] (the
        authors' ``mask_prob``).
    span : int
        Length of a span, in frames.
    min_spans : int
        Fewest spans of an utterance.
    equal_counts : bool
        The authors' way, ``equal_span_mask``; otherwise transformers',
        ``span_mask``.

    Example
    -------
    >>> masks = SpanMasks(prob=0.5, span=5)
    >>> masks(torch.tensor([50, 40]), 50).sum(1).diff()
    tensor([0])
    """

    prob: float = 0.65
    span: int = 10
    min_spans: int = 2
    equal_counts: bool = True

    def __call__(
        self,
        lengths: torch.Tensor,
        max_length: int,
        generator: torch.Generator | None = None,
    ) -> torch.Tensor:
        """Draws the masks of a batch.

        Arguments
        ---------
        lengths : torch.Tensor
            Valid frames of each row, [B].
        max_length : int
            Padded length T.
        generator : torch.Generator, optional
            Source of randomness; torch's default one when omitted.

        Returns
        -------
        torch.Tensor
            Bool, True where masked, [B, T].
        """
        draw = equal_span_mask if self.equal_counts else span_mask
        return draw(
            lengths, max_length, self.prob, self.span, self.min_spans, generator
        )


def span_mask(
    lengths: torch.Tensor,
    max_length: int,
    prob: float,
    span: int,
    min_spans: int = 0,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Draws spans of ``span`` positions in every row, as transformers does.

    A row of n valid positions gets ``floor(prob * n / span + u)`` spans, u
    uniform and shared by the batch, at least ``min_spans``, and no more than
    fit side by side. Their starts are distinct; spans may overlap. A row that
    is shorter than one span stays unmasked.

    Arguments
    ---------
    lengths : torch.Tensor
        Valid positions of each row, [B].
    max_length : int
        Padded length T.
    prob : float
        Share of positions to mask if spans did not overlap, in [0, 1].
    span : int
        Length of a span, in positions.
    min_spans : int
        Fewest spans a row gets.
    generator : torch.Generator, optional
        Source of randomness; torch's default one when omitted.

    Returns
    -------
    torch.Tensor
        Bool, True where masked, [B, T].

    Example
    -------
    >>> mask = span_mask(torch.tensor([50, 20]), 50, 0.5, span=5, min_spans=1)
    >>> mask.shape, bool(mask[1, 20:].any())
    (torch.Size([2, 50]), False)
    """
    _check_spans(prob, span)
    draw = _source(generator, lengths.device)
    candidates = (lengths - span + 1).clamp(min=0)  # places to start, [B]
    spans = torch.floor(prob * lengths / span + torch.rand(1, **draw))
    spans = spans.clamp(min=min_spans).minimum(lengths // span)
    spans = spans.minimum(candidates)
    starts = _draw_places(_below(candidates, max_length), spans, draw)
    return _covered(starts, span)


def equal_span_mask(
    lengths: torch.Tensor,
    max_length: int,
    prob: float,
    span: int,
    min_spans: int = 2,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Draws spans by the authors' rule: as many masked frames in every row.

    A row of n valid positions gets ``floor(prob * n / span + u)`` spans, u
    uniform and its own, at least ``min_spans``. Their starts are distinct and
    never the last that would fit; spans may overlap, and in a row that is too
    short for them they end with it. Then each row loses masked positions, at
    random, until it has as many as the row with the fewest.

    Arguments
    ---------
    lengths : torch.Tensor
        Valid positions of each row, [B].
    max_length : int
        Padded length T.
    prob : float
        Share of positions to mask if spans did not overlap, in [0, 1].
    span : int
        Length of a span, in positions.
    min_spans : int
        Fewest spans a row gets.
    generator : torch.Generator, optional
        Source of randomness; torch's default one when omitted.

    Returns
    -------
    torch.Tensor
        Bool, True where masked, [B, T].

    Example
    -------
    >>> mask = equal_span_mask(torch.tensor([50, 20]), 50, 0.5, span=5)
    >>> mask.sum(1).diff(), bool(mask[1, 20:].any())
    (tensor([0]), False)
    """
    _check_spans(prob, span)
    draw = _source(generator, lengths.device)
    shares = torch.rand(len(lengths), **draw)
    spans = torch.floor(prob * lengths / span + shares).clamp(min=min_spans)
    candidates = (lengths - span).maximum(spans.long() + 1)
    starts = _draw_places(_below(candidates, max_length), spans, draw)
    mask = _covered(starts, span) & _below(lengths, max_length)
    return _draw_places(mask, mask.sum(1).min().expand(len(mask)), draw)


def _check_spans(prob, span):
    """Refuses senseless options."""
    if not 0 <= prob <= 1 or span < 1:
        raise ValueError(
            "span mask: expected prob in [0, 1] and span of at least 1; "
            f"got {prob} and {span}"
        )


def _below(counts, max_length):
    """Marks the first positions of each row, [B, T]."""
    positions = torch.arange(max_length, device=counts.device)
    return positions < counts[:, None]


def _source(generator, device):
    """Where random numbers are from; without a generator none is named, as
    torch.compile takes none beside sizes that it does not know."""
    named = {} if generator is None else {"generator": generator}
    return {"device": device, **named}


def _draw_places(allowed, counts, draw):
    """Chooses some of the allowed places of each row, [B, T].

    The best-scored ones of a row are a draw without replacement.
    """
    scores = torch.rand(allowed.shape, **draw).masked_fill(~allowed, -1.0)
    ranks = scores.argsort(dim=1, descending=True).argsort(dim=1)
    return (ranks < counts[:, None]) & allowed


def _covered(starts, span):
    """Marks what is within a span of a start, [B, T]."""
    begun = starts.long().cumsum(1)
    ended = F.pad(begun, (span, 0))[:, : begun.shape[1]]
    return begun > ended


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
