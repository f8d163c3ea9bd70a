"""Gumbel product quantizer: features to entries of a few codebooks.

wav2vec 2.0 (Baevski et al. 2020, section 2), with the straight-through
Gumbel softmax of Jang et al. 2016.
"""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

LOG_EPS = 1e-7
"""Inside the logarithm of the authors' perplexities."""


class Quantized(NamedTuple):
    """What the quantizer makes of a batch.

    Arguments
    ---------
    codevectors : torch.Tensor
        The chosen entries of all codebooks, side by side, [B, T, D].
    codes : torch.Tensor
        Their indices, [B, T, G].
    prob_perplexity : torch.Tensor
        Perplexity of the mean probabilities, without noise, summed over the
        codebooks; what the diversity loss raises. A scalar.
    code_perplexity : torch.Tensor
        The same for the likeliest entries; no gradient. A scalar.
    codevector_perplexity : torch.Tensor
        transformers' figure, without the term in the logarithm: of the
        probabilities in training, of the likeliest entries otherwise.

    Example
    -------
    >>> quantizer = GumbelQuantizer(8, codevector_dim=6, num_entries=4)
    >>> quantizer(torch.randn(2, 5, 8)).codes.shape
    torch.Size([2, 5, 2])
    """

    codevectors: torch.Tensor
    codes: torch.Tensor
    prob_perplexity: torch.Tensor
    code_perplexity: torch.Tensor
    codevector_perplexity: torch.Tensor


class GumbelQuantizer(nn.Module):
    """Chooses one entry of each of G codebooks for every frame.

    In training the choice is drawn, and gradients pass straight through to
    the probabilities; in evaluation it is the likeliest entry.

    Arguments
    ---------
    input_size : int
        Size of the features.
    codevector_dim : int
        Size D of the result; each codebook gives D / G of it.
    num_groups : int
        Number of codebooks G.
    num_entries : int
        Number of entries V of each.

    Raises
    ------
    ValueError
        When the codebooks cannot share ``codevector_dim`` evenly.

    Example
    -------
    >>> quantizer = GumbelQuantizer(8, codevector_dim=6, num_entries=4)
    >>> quantizer(torch.randn(2, 5, 8)).codevectors.shape
    torch.Size([2, 5, 6])
    """

    def __init__(
        self,
        input_size: int,
        codevector_dim: int,
        num_groups: int = 2,
        num_entries: int = 320,
    ) -> None:
        super().__init__()
        if codevector_dim % num_groups:
            raise ValueError(
                "quantizer: expected codevector_dim to be a multiple of the "
                f"{num_groups} codebooks; got {codevector_dim}"
            )
        self.num_groups = num_groups
        rows = num_groups * num_entries
        self.codevectors = nn.Parameter(
            torch.empty(1, rows, codevector_dim // num_groups).uniform_()
        )
        self.weight_proj = nn.Linear(input_size, rows)
        nn.init.normal_(self.weight_proj.weight)
        nn.init.zeros_(self.weight_proj.bias)

    def forward(
        self,
        feats: torch.Tensor,
        mask: torch.Tensor | None = None,
        temperature: float = 2.0,
        generator: torch.Generator | None = None,
        one_hots: torch.Tensor | None = None,
        noise: torch.Tensor | None = None,
    ) -> Quantized:
        """Quantizes each frame.

        Arguments
        ---------
        feats : torch.Tensor
            Features, [B, T, input_size].
        mask : torch.Tensor, optional
            Frames that count in the perplexities, bool, [B, T]. All of them
            when omitted. Every frame is quantized.
        temperature : float
            Of the Gumbel softmax; see ``gumbel_temperature``.
        generator : torch.Generator, optional
            Source of the noise, on the features' device; torch's default one
            when omitted.
        one_hots : torch.Tensor, optional
            The choices, instead of drawing them, [B, T, G, V]. Without noise
            beside them gradients pass through the bare probabilities.
        noise : torch.Tensor, optional
            Gumbel noise, instead of drawing it, [B, T, G, V]; in any mode.

        Returns
        -------
        Quantized
            Code vectors and perplexities.
        """
        logits = self.weight_proj(feats).float()
        logits = logits.unflatten(-1, (self.num_groups, -1))  # [B, T, G, V]
        likeliest = _one_hots_like(logits, logits.argmax(-1))
        if noise is None and one_hots is None and self.training:
            noise = gumbel_noise(logits, generator)
        noisy = logits if noise is None else logits + noise
        if noise is not None and one_hots is None:
            one_hots = _one_hots_like(noisy, noisy.argmax(-1))
        picked = likeliest
        if one_hots is not None:
            picked = _straight_through(one_hots, noisy, temperature)
        books = self.codevectors.view(*logits.shape[2:], -1)  # [G, V, D / G]
        vectors = torch.einsum(
            "btgv,gvd->btgd", picked.to(books.dtype), books
        ).flatten(2)
        probs = logits.softmax(-1)
        return Quantized(
            vectors,
            picked.detach().argmax(-1),
            codebook_perplexity(probs, mask, LOG_EPS),
            codebook_perplexity(likeliest, mask, LOG_EPS),
            codebook_perplexity(probs if self.training else likeliest, mask),
        )


def codebook_perplexity(
    probs: torch.Tensor, mask: torch.Tensor | None = None, eps: float = 0.0
) -> torch.Tensor:
    """How many entries are in use: the exponential of the entropy of the
    mean probabilities, summed over the codebooks.

    Arguments
    ---------
    probs : torch.Tensor
        Probabilities of the entries, [B, T, G, V].
    mask : torch.Tensor, optional
        Frames to average over, bool, [B, T]. All of them when omitted.
    eps : float
        Added inside the logarithm.

    Returns
    -------
    torch.Tensor
        A scalar between G and G * V.

    Example
    -------
    >>> codebook_perplexity(torch.full((1, 5, 2, 4), 0.25))
    tensor(8.)
    """
    if mask is None:
        mean = probs.mean((0, 1))
    else:
        weights = mask.to(probs.dtype)
        mean = torch.einsum("bt,btgv->gv", weights, probs) / weights.sum()
    entropy = -torch.xlogy(mean, mean + eps).sum(-1)
    return entropy.exp().sum()


def gumbel_temperature(
    num_updates: int,
    start: float = 2.0,
    end: float = 0.5,
    decay: float = 0.999995,
) -> float:
    """Temperature after a number of updates.

    Arguments
    ---------
    num_updates : int
        Number of optimizer updates so far.
    start : float
        Temperature before the first.
    end : float
        Lowest temperature (UniSpeech 0.1, UniSpeech-SAT 0.5).
    decay : float
        Factor of each update.

    Returns
    -------
    float
        The temperature.

    Example
    -------
    >>> gumbel_temperature(0), gumbel_temperature(10**6)
    (2.0, 0.5)
    """
    return max(start * decay**num_updates, end)


def gumbel_noise(
    logits: torch.Tensor, generator: torch.Generator | None = None
) -> torch.Tensor:
    """One sample of the Gumbel distribution for each entry.

    The same as ``torch.nn.functional.gumbel_softmax`` draws.

    Arguments
    ---------
    logits : torch.Tensor
        Anything of the wanted shape, type and device.
    generator : torch.Generator, optional
        Source of the noise; torch's default one when omitted.

    Returns
    -------
    torch.Tensor
        Noise of that shape.

    Example
    -------
    >>> gumbel_noise(torch.zeros(2, 3)).shape
    torch.Size([2, 3])
    """
    noise = torch.empty_like(logits, memory_format=torch.contiguous_format)
    return -noise.exponential_(generator=generator).log()


def _one_hots_like(probs, codes):
    """One for the chosen entry and zero for the others, [B, T, G, V]."""
    return F.one_hot(codes, probs.shape[-1]).to(probs.dtype)


def _straight_through(one_hots, logits, temperature):
    """The choice forward, its probabilities backward (Jang et al., 2.2)."""
    soft = (logits / temperature).softmax(-1)
    return one_hots.to(soft.dtype) - soft.detach() + soft
