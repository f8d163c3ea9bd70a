"""Span masks over time and channels (SpecAugment; wav2vec 2.0, appendix A).

Two ways to count, transformers' and the authors'; either draw is one batched
operation on the mask's own device.
"""

from typing import NamedTuple

import torch


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
    ended = torch.nn.functional.pad(begun, (span, 0))[:, : begun.shape[1]]
    return begun > ended
