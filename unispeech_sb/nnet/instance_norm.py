"""Normalisation of each channel over the frames of its own utterance."""

import torch

from unispeech_sb.nnet.pooling import masked_mean


def instance_norm(feats, lengths=None, eps=1e-5):
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
