"""Losses of the activities of a few speakers: binary cross-entropy under the
best assignment of outputs to speakers (Fujita et al. 2019, section 2.2), and
the cross-entropy that transformers has in its place.
"""

from itertools import permutations

import torch
from torch.nn import functional as F

from unispeech_sb.nnet.lengths import length_mask

REDUCTIONS = ("chunks", "frames")


def pit_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    num_frames: torch.Tensor | None = None,
    reduction: str = "chunks",
) -> tuple[torch.Tensor, torch.Tensor]:
    """Permutation-invariant loss of the activities of a few speakers.

    All S! assignments are compared at once, each chunk by itself; meant for
    four speakers or fewer.

    Arguments
    ---------
    logits : torch.Tensor
        Activities before the sigmoid, [B, T, S].
    labels : torch.Tensor
        1 where a speaker is active, else 0, [B, T, S].
    num_frames : torch.Tensor, optional
        Number of valid frames of each chunk, [B]. All when omitted.
    reduction : str
        ``chunks``: mean over the speakers and frames of a chunk, then over
        chunks (the authors' EEND). ``frames``: mean over the speakers, then
        over the frames of all chunks together (s3prl).

    Returns
    -------
    loss : torch.Tensor
        A float32 scalar.
    order : torch.Tensor
        Which speaker of the labels each output was taken for, [B, S].

    Raises
    ------
    ValueError
        When the shapes differ, or on another reduction.

    Example
    -------
    >>> labels = torch.tensor([[[1.0, 0.0], [1.0, 1.0]]])
    >>> logits = 2 * labels.flip(2) - 1
    >>> pit_loss(logits, labels)
    (tensor(0.3133), tensor([[1, 0]]))
    """
    if logits.shape != labels.shape:
        raise ValueError(
            f"activities: expected labels of shape {list(logits.shape)}; got "
            f"{list(labels.shape)}"
        )
    if reduction not in REDUCTIONS:
        raise ValueError(
            f"reduction: expected one of {', '.join(REDUCTIONS)}; got "
            f"{reduction!r}"
        )
    batch, frames, speakers = logits.shape
    if num_frames is None:
        num_frames = torch.full((batch,), frames, device=logits.device)
    costs = _costs(logits.float(), labels.float(), num_frames)
    orders = torch.tensor(
        list(permutations(range(speakers))), device=logits.device
    )  # [S!, S]
    outputs = torch.arange(speakers, device=logits.device)
    least = costs[:, outputs, orders].mean(2).min(1)  # of [B, S!]
    if reduction == "chunks":
        loss = (least.values / num_frames.clamp(min=1)).mean()
    else:
        loss = least.values.sum() / num_frames.sum().clamp(min=1)
    return loss, orders[least.indices]


def argmax_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    num_frames: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy with the first active speaker of each frame as its class:
    the loss of transformers' ``ForAudioFrameClassification``.

    It is here for models that were trained by it. ``pit_loss`` is the default
    of the recipes, for three reasons: here the outputs have to come in the
    order of the labels, which no recording determines; of speakers that talk
    at once all but one count as silent; and a silent frame counts as the first
    speaker.

    Arguments
    ---------
    logits : torch.Tensor
        Scores, [B, T, S].
    labels : torch.Tensor
        1 where a speaker is active, else 0, [B, T, S].
    num_frames : torch.Tensor, optional
        Number of valid frames of each row, [B]. All when omitted, as in
        transformers, which counts the padding.

    Returns
    -------
    loss : torch.Tensor
        Mean over the frames, a float32 scalar.
    order : torch.Tensor
        As of ``pit_loss``: each output is taken for its own speaker, [B, S].

    Example
    -------
    >>> labels = torch.tensor([[[0.0, 1.0], [1.0, 1.0], [0.0, 0.0]]])
    >>> logits = torch.tensor([[[0.0, 9.0], [9.0, 0.0], [9.0, 0.0]]])
    >>> argmax_loss(logits, labels)
    (tensor(0.0001), tensor([[0, 1]]))
    """
    speakers = torch.arange(logits.shape[2], device=logits.device)
    order = speakers.expand(len(logits), -1)
    classes = labels.argmax(2)
    if num_frames is not None:
        mask = length_mask(num_frames, logits.shape[1])
        logits, classes = logits[mask], classes[mask]
    logits = logits.float().reshape(-1, logits.shape[-1])
    return F.cross_entropy(logits, classes.reshape(-1)), order


def _costs(logits, labels, num_frames):
    """Cross-entropy of output i with speaker j over a chunk, [B, S, S]."""
    shape = (*logits.shape, logits.shape[2])
    costs = F.binary_cross_entropy_with_logits(
        logits[..., None].expand(shape),
        labels[:, :, None].expand(shape),
        reduction="none",
    )  # [B, T, S, S]
    mask = length_mask(num_frames, logits.shape[1])
    return costs.masked_fill(~mask[..., None, None], 0.0).sum(1)
