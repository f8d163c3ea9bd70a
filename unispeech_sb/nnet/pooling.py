"""Means and statistics of valid frames: over layers, whole utterances, and
windows around each frame.
"""

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn import functional as F

from unispeech_sb.nnet.ecapa import MaskedBatchNorm
from unispeech_sb.nnet.lengths import (
    absolute_lengths,
    length_mask,
    makes_graph,
)

_FLOOR = 1e-5
"""Least variance over a window, for the root's slope."""


States = torch.Tensor | Iterable[torch.Tensor]
"""Hidden states, [L+1, B, T, D] or each of them, [B, T, D]; or features, [B, T,
D], where there is nothing to mix."""


class LayerMix(nn.Module):
    """Softmax-weighted sum of hidden states (SUPERB; transformers'
    ``use_weighted_layer_sum``).

    Arguments
    ---------
    num_states : int
        Number of hidden states: one more than there are layers.

    Example
    -------
    >>> mix, states = LayerMix(3), torch.randn(3, 2, 10, 4)
    >>> torch.allclose(mix(states), states.mean(0), atol=1e-6)
    True
    """

    def __init__(self, num_states: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(num_states))

    def forward(self, states: States) -> torch.Tensor:
        """Sums the states.

        They are added up one by one as they come: where no gradient is
        needed, a state that its producer drops is freed at once, and none is
        asked for above the last whose weight is not zero.

        Arguments
        ---------
        states : torch.Tensor or iterable of torch.Tensor
            Hidden states, [L+1, B, T, D], or each of them, [B, T, D].

        Returns
        -------
        torch.Tensor
            Their weighted sum, [B, T, D].
        """
        weights = torch.softmax(self.weights, 0)
        if isinstance(states, torch.Tensor) and len(states) == len(weights):
            # One product: in training a sum of its own for each state
            # takes as long as all else that a small head does.
            return torch.tensordot(weights.to(states.dtype), states, 1)
        needed = [*range(len(weights))]
        if not torch.is_grad_enabled() and not makes_graph():
            needed = weights.nonzero()[:, 0].tolist()
        mixed, count = weights.new_zeros(()), 0
        for state in states:
            if count in needed:
                mixed = mixed + weights[count] * state
            count += 1
            if count > needed[-1] and needed[-1] < len(weights) - 1:
                return mixed  # the states above are not even computed
        if count != len(weights):
            raise ValueError(
                f"layer mix: expected {len(weights)} hidden states; got {count}"
            )
        return mixed


def mix_states(states: States, layer_mix: LayerMix | None) -> torch.Tensor:
    """The sum of hidden states; without a layer mix, features as they are."""
    if layer_mix is not None:
        return layer_mix(states)
    if not isinstance(states, torch.Tensor):
        raise ValueError(
            "head without num_states: expected features [B, T, D]; got "
            "hidden states one by one"
        )
    return states


def masked_mean(
    feats: torch.Tensor, lengths: torch.Tensor | None = None
) -> torch.Tensor:
    """Mean over the valid frames.

    Arguments
    ---------
    feats : torch.Tensor
        Features, [B, T, D].
    lengths : torch.Tensor, optional
        Valid share of each row, in (0, 1], [B]. All of it when omitted.

    Returns
    -------
    torch.Tensor
        Means, [B, D].

    Example
    -------
    >>> feats = torch.tensor([[[1.0], [3.0], [9.0], [9.0]]])
    >>> masked_mean(feats, torch.tensor([0.5]))
    tensor([[2.]])
    """
    if lengths is None:
        return feats.mean(1)
    frames = absolute_lengths(lengths, feats.shape[1])
    mask = length_mask(frames, feats.shape[1])[..., None]
    return feats.masked_fill(~mask, 0.0).sum(1) / frames[:, None]


def masked_statistics(
    feats: torch.Tensor, counts: torch.Tensor | None = None
) -> torch.Tensor:
    """Mean and standard deviation over the valid frames (Snyder et al. 2018).

    The deviation is the unbiased one; of a single frame it is zero. They are
    computed in float32 at least.

    Arguments
    ---------
    feats : torch.Tensor
        Features, [B, T, D].
    counts : torch.Tensor, optional
        Valid frames of each row, [B]. All of them when omitted.

    Returns
    -------
    torch.Tensor
        Means, then deviations, [B, 2 * D].

    Example
    -------
    >>> feats = torch.tensor([[[1.0], [3.0], [9.0], [9.0]]])
    >>> masked_statistics(feats, torch.tensor([2]))
    tensor([[2.0000, 1.4142]])
    """
    feats = feats.to(torch.promote_types(feats.dtype, torch.float32))
    batch, frames, _ = feats.shape
    if counts is None:
        counts = torch.full((batch,), frames, device=feats.device)
    mask = length_mask(counts, frames)[..., None]
    counts = counts[:, None]
    mean = feats.masked_fill(~mask, 0.0).sum(1) / counts
    centred = (feats - mean[:, None]).masked_fill(~mask, 0.0)
    variance = centred.square().sum(1) / (counts - 1).clamp(min=1)
    # The root has no slope at zero, where a channel that ReLU shut stands
    still = variance == 0
    deviation = variance.masked_fill(still, 1.0).sqrt().masked_fill(still, 0.0)
    return torch.cat([mean, deviation], 1)


def instance_norm(
    feats: torch.Tensor, lengths: torch.Tensor | None = None, eps: float = 1e-5
) -> torch.Tensor:
    """Gives each channel zero mean and unit variance over the valid frames.

    Arguments
    ---------
    feats : torch.Tensor
        Features, [B, T, D].
    lengths : torch.Tensor, optional
        Valid share of each row, in (0, 1], [B]. All of it when omitted.
    eps : float
        Added to the variance.

    Returns
    -------
    torch.Tensor
        Features, float32, [B, T, D]. Frames in the padding hold anything.

    Example
    -------
    >>> feats = torch.tensor([[[1.0], [3.0], [9.0], [9.0]]])
    >>> instance_norm(feats, torch.tensor([0.5]))[0, :2, 0]
    tensor([-1.0000,  1.0000])
    """
    feats = feats.float()  # the squares of a Large model overflow in float16
    centred = feats - masked_mean(feats, lengths)[:, None]
    variance = masked_mean(centred.square(), lengths)
    return centred * torch.rsqrt(variance + eps)[:, None]


def batch_normalized(
    norm: nn.BatchNorm1d, vectors: torch.Tensor
) -> torch.Tensor:
    """Normalises the vectors of utterances over a batch.

    A batch of one has no deviation to train by: it is normalised by the
    running statistics, as in evaluation.

    Arguments
    ---------
    norm : torch.nn.BatchNorm1d
        The layer.
    vectors : torch.Tensor
        One for each utterance, [B, D].

    Returns
    -------
    torch.Tensor
        Normalised vectors, [B, D].

    Example
    -------
    >>> batch_normalized(torch.nn.BatchNorm1d(3), torch.ones(1, 3)).shape
    torch.Size([1, 3])
    """
    if not norm.training or len(vectors) > 1:
        return norm(vectors)
    return F.batch_norm(
        vectors,
        norm.running_mean,
        norm.running_var,
        norm.weight,
        norm.bias,
        eps=norm.eps,
    )


class WindowStatistics(nn.Module):
    """Projected frames, and their mean and deviation over a window around
    each, normalised over the batch.

    Statistics pooling (Snyder et al. 2018) for every frame: how a second of
    frames is spread identifies a speaker, which a recurrent layer takes long
    to learn.

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

    def __init__(self, input_size: int, size: int, frames: int) -> None:
        super().__init__()
        if frames % 2 != 1:
            raise ValueError(
                f"context: expected an odd number of frames; got {frames}"
            )
        self.frames = frames
        self.projector = nn.Linear(input_size, size)
        self.norm = MaskedBatchNorm(3 * size)

    def forward(
        self, feats: torch.Tensor, counts: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Joins frames with the statistics around them.

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
        share = self._smooth(mask.to(feats.dtype)).clamp(min=_FLOOR)
        mean = self._smooth(feats) / share
        variance = self._smooth(feats.square()) / share - mean.square()
        deviation = variance.clamp(min=_FLOOR).sqrt()
        joined = torch.cat([feats, mean, deviation], 1)
        return self.norm(joined, mask).transpose(1, 2)

    def _smooth(self, feats):
        """Means over the window, zeros beyond the ends, [B, P, T]."""
        return F.avg_pool1d(feats, self.frames, 1, self.frames // 2)
