"""Span masks over time and channels (SpecAugment; wav2vec 2.0, appendix A).

The counting follows transformers' ``_compute_mask_indices``; the draw is one
batched operation on the mask's own device.
"""

import torch


def span_mask(lengths, max_length, prob, span, min_spans=0, generator=None):
    """Draws spans of ``span`` positions in every row.

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
    if not 0 <= prob <= 1 or span < 1:
        raise ValueError(
            "span mask: expected prob in [0, 1] and span of at least 1; "
            f"got {prob} and {span}"
        )
    device = lengths.device
    draw = {"generator": generator, "device": device}
    candidates = (lengths - span + 1).clamp(min=0)  # places to start, [B]
    spans = torch.floor(prob * lengths / span + torch.rand(1, **draw))
    spans = spans.clamp(min=min_spans).minimum(lengths // span)
    spans = spans.minimum(candidates)
    # The best-scored candidates of a row are a draw without replacement.
    scores = torch.rand(len(lengths), max_length, **draw)
    positions = torch.arange(max_length, device=device)
    scores = scores.masked_fill(positions >= candidates[:, None], -1.0)
    ranks = scores.argsort(dim=1, descending=True).argsort(dim=1)
    starts = (ranks < spans[:, None]).long()
    # A position is masked if a span started within the last `span` ones.
    begun = starts.cumsum(1)
    ended = torch.nn.functional.pad(begun, (span, 0))[:, :max_length]
    return begun > ended
