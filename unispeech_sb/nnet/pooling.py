"""Means and statistics of valid frames: over layers, whole utterances, and
windows around each frame.
"""

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn import functional as F

from unispeech_sb.nnet.ecapa import MaskedBatchNorm
from unispeech_sb.nnet.lengths import absolute_lengths, length_mask

_FLOOR = 1e-5
"""Least variance over a window, for the root's slope."""


States = torch.Tensor | Iterable[torch.Tensor]
"""Hidden states, [L+1, B, T, D] or each of them, [B, T, D]; or features, [B, T,
D], where there is nothing to mix."""


class LayerMix(nn.Module):
    """Softmax-weighted sum of hidden states (SUPERB; transformers'
    ``use_weighted_layer_sum``): of the encoder's input and of its L layers."""

    def __init__(self, num_states: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(num_states))

    def forward(self, states: States) -> torch.Tensor:
        """Sums the states to [B, T, D], one by one as they come: where no
        gradient is needed, a state that its producer drops is freed at once."""
        weights = torch.softmax(self.weights, 0)
        mixed, count = weights.new_zeros(()), 0
        for state in states:
            if count < len(weights):
                mixed = mixed + weights[count] * state
            count += 1
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
    """Mean over valid frames, [B, T, D] -> [B, D]; relative lengths, [B]."""
    if lengths is None:
        return feats.mean(1)
    frames = absolute_lengths(lengths, feats.shape[1])
    mask = length_mask(frames, feats.shape[1])[..., None]
    return feats.masked_fill(~mask, 0.0).sum(1) / frames[:, None]


def masked_statistics(
    feats: torch.Tensor, counts: torch.Tensor | None = None
) -> torch.Tensor:
    """Mean and standard deviation over the valid frames (Snyder et al. 2018),
    [B, T, D] -> [B, 2 * D], in float32 at least; counts of frames, [B].

    The deviation is the unbiased one; of a single frame it is zero.
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
    """Gives each channel of [B, T, D] zero mean and unit variance over the
    valid frames, in float32; relative lengths, [B]. The padding holds anything.
    """
    feats = feats.float()  # the squares of a Large model overflow in float16
    centred = feats - masked_mean(feats, lengths)[:, None]
    variance = masked_mean(centred.square(), lengths)
    return centred * torch.rsqrt(variance + eps)[:, None]


def batch_normalized(
    norm: nn.BatchNorm1d, vectors: torch.Tensor
) -> torch.Tensor:
    """Normalises the vectors of utterances, [B, D], over a batch.

    A batch of one has no deviation to train by: it is normalised by the running
    statistics, as in evaluation.
    """
    if len(vectors) > 1:
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
    """Projected frames, and their mean and deviation over a window of an odd
    number of frames around each, normalised over the batch.

    Statistics pooling (Snyder et al. 2018) for every frame: how a second of
    frames is spread identifies a speaker, which a recurrent layer takes long to
    learn.
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
        """Joins frames, [B, T, D], with the statistics around them,
        [B, T, 3 * P]; the window ends where the valid frames, [B], do."""
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
