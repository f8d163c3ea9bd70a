"""From frames to one vector: layer mix, masked mean and statistics."""

import torch
from torch import nn
from torch.nn import functional as F

from unispeech_sb.nnet.lengths import absolute_lengths, length_mask


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

    def __init__(self, num_states):
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(num_states))

    def forward(self, states):
        """Sums the states.

        They are added up one by one as they come: where no gradient is
        needed, a state that its producer drops is freed at once.

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
        mixed, count = 0.0, 0
        for state in states:
            if count < len(weights):
                mixed = mixed + weights[count] * state
            count += 1
        if count != len(weights):
            raise ValueError(
                f"layer mix: expected {len(weights)} hidden states; got {count}"
            )
        return mixed


def masked_mean(feats, lengths=None):
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


def masked_statistics(feats, counts=None):
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


def batch_normalized(norm, vectors):
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
