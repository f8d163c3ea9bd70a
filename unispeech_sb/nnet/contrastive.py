"""Contrastive losses of both pre-trainings, and what goes with them.

Anchors, positives and candidates are frames in flat lists, so that rows need
not have equal numbers of masked frames. All in float32.
"""

import math

import torch
from torch.nn import functional as F


def candidate_cosines(anchors, positives, pool, indices):
    """Cosines of each anchor with its positive and its candidates.

    All anchors meet the whole pool in one product, which takes less memory
    than copies of every anchor's candidates.

    Arguments
    ---------
    anchors : torch.Tensor
        Context vectors, [S, P].
    positives : torch.Tensor
        What belongs to them, [S, P].
    pool : torch.Tensor
        All frames that candidates are from, [K, P].
    indices : torch.Tensor
        Each anchor's candidates, as places in the pool, [S, N].

    Returns
    -------
    torch.Tensor
        Those with the positives first, float32, [S, 1 + N].

    Example
    -------
    >>> anchors, pool = torch.eye(2), torch.ones(3, 2)
    >>> indices = torch.tensor([[0, 2], [1, 1]])
    >>> candidate_cosines(anchors, anchors, pool, indices)
    tensor([[1.0000, 0.7071, 0.7071],
            [1.0000, 0.7071, 0.7071]])
    """
    with torch.autocast(anchors.device.type, enabled=False):
        anchors, positives, pool = (
            F.normalize(vectors.float(), dim=-1)
            for vectors in (anchors, positives, pool)
        )
        right = (anchors * positives).sum(-1, keepdim=True)
        return torch.cat([right, (anchors @ pool.T).gather(1, indices)], 1)


def contrastive_loss(cosines, equal=None, logit_temp=0.1):
    """Finds the positive among the candidates (wav2vec 2.0, equation 3).

    Arguments
    ---------
    cosines : torch.Tensor
        As ``candidate_cosines`` gives them, [S, 1 + N].
    equal : torch.Tensor, optional
        True for candidates that equal the positive and do not count, bool,
        [S, N].
    logit_temp : float
        Divides the cosines.

    Returns
    -------
    loss : torch.Tensor
        Sum over the anchors, a scalar.
    accuracy : torch.Tensor
        Share of anchors that are nearer to their positive than to any
        candidate, a scalar.

    Example
    -------
    >>> contrastive_loss(torch.zeros(2, 4))[0] / 2
    tensor(1.3863)
    """
    logits = cosines / logit_temp
    if equal is not None:
        right, others = logits.split([1, logits.shape[1] - 1], dim=1)
        logits = torch.cat([right, others.masked_fill(equal, -math.inf)], 1)
    wanted = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
    nearer = (logits[:, :1] > logits[:, 1:]).all(1)
    loss = F.cross_entropy(logits, wanted, reduction="sum")
    return loss, nearer.float().mean()


def utterance_contrastive_loss(cosines, same, logit_temp=0.1):
    """Tells frames of the anchor's utterance from those of others, each by
    itself (UniSpeech-SAT, section 3).

    Arguments
    ---------
    cosines : torch.Tensor
        As ``candidate_cosines`` gives them, [S, 1 + N].
    same : torch.Tensor
        True for candidates from the anchor's utterance, bool, [S, N].
    logit_temp : float
        Divides the cosines.

    Returns
    -------
    loss : torch.Tensor
        Binary cross-entropy, its mean over anchors and candidates, a scalar.
    accuracy : torch.Tensor
        Share of right decisions at a cosine of 0, a scalar.

    Example
    -------
    >>> utterance_contrastive_loss(torch.zeros(2, 3), torch.ones(2, 2).bool())
    (tensor(0.6931), tensor(1.))
    """
    labels = F.pad(same, (1, 0), value=True)
    logits = cosines / logit_temp
    loss = F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))
    return loss, ((logits >= 0) == labels).float().mean()


def diversity_loss(perplexity, num_vars):
    """How far the codebooks are from being used evenly (wav2vec 2.0,
    equation 4).

    Arguments
    ---------
    perplexity : torch.Tensor
        Sum of the codebooks' perplexities, a scalar.
    num_vars : int
        Number of all their entries.

    Returns
    -------
    torch.Tensor
        From 0 to 1, a scalar.

    Example
    -------
    >>> diversity_loss(torch.tensor(160.0), num_vars=640)
    tensor(0.7500)
    """
    return (num_vars - perplexity) / num_vars


def feature_penalty(feats, mask=None):
    """Mean square of the convolutional features, before any norm.

    Arguments
    ---------
    feats : torch.Tensor
        Convolutional features, [B, T, C].
    mask : torch.Tensor, optional
        Frames that count, bool, [B, T]. All of them when omitted.

    Returns
    -------
    torch.Tensor
        A float32 scalar.

    Example
    -------
    >>> feature_penalty(torch.full((2, 5, 4), 3.0))
    tensor(9.)
    """
    squares = feats.float().square()
    if mask is None:
        return squares.mean()
    return squares.masked_fill(~mask[..., None], 0.0).sum() / (
        mask.sum() * feats.shape[2]
    )
