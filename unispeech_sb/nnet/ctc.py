"""Connectionist temporal classification (Graves et al. 2006): its loss, and
what is worth knowing of a batch before and after it.
"""

import torch
from torch.nn import functional as F

from unispeech_sb.nnet.lengths import length_mask

REDUCTIONS = ("mean", "sum", "none", "batchmean")
"""What transformers calls ``ctc_loss_reduction``; the last is SpeechBrain's
name for what fairseq calls ``--sentence-avg``."""

IGNORED = -100
"""Label that stands for none, as in transformers and in torch's losses."""


def ctc_loss(
    logits: torch.Tensor,
    targets: torch.Tensor,
    frames: torch.Tensor,
    target_lengths: torch.Tensor | None = None,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> torch.Tensor:
    """Loss of transformers' ``ForCTC``, in float32.

    Labels of -100 and labels equal to the blank count for nothing, wherever
    they stand.

    Arguments
    ---------
    logits : torch.Tensor
        Scores, [B, T, V]; or log-posteriors, which the log-softmax leaves
        as they are.
    targets : torch.Tensor
        Labels, padded, [B, U].
    frames : torch.Tensor
        Valid frames of each row, [B].
    target_lengths : torch.Tensor, optional
        Labels of each row that are no padding, [B]. All of them when omitted:
        the padding is then -100 or the blank.
    blank : int
        Index of the blank.
    reduction : str
        ``mean``: each row's loss over its number of labels, then the mean of
        the rows; ``sum`` of the rows; ``batchmean``, the sum over the number
        of rows; or ``none``.
    zero_infinity : bool
        Let rows that are too short for their labels count as zero.

    Returns
    -------
    torch.Tensor
        The loss, a scalar; for ``none`` that of each row, [B].

    Raises
    ------
    ValueError
        When rows are too short for their labels, unless ``zero_infinity``;
        names them all. Also for what is out of range.

    Example
    -------
    >>> import torch
    >>> logits, frames = torch.zeros(1, 2, 4), torch.tensor([2])
    >>> ctc_loss(logits, torch.tensor([[3, -100]]), frames)  # -log(3 / 16)
    tensor(1.6740)
    """
    if reduction not in REDUCTIONS:
        raise ValueError(
            f"ctc_loss: reduction: expected one of {', '.join(REDUCTIONS)}; "
            f"got {reduction!r}"
        )
    kept = _kept(targets, target_lengths, blank)
    _check_ranges(logits, targets[kept], frames, blank)
    if not zero_infinity:
        _check_frames(targets, frames, target_lengths, blank)
    log_probs = logits.float().log_softmax(-1).transpose(0, 1)
    loss = F.ctc_loss(
        log_probs,
        targets[kept].to(logits.device),
        frames,
        kept.sum(1),
        blank,
        "sum" if reduction == "batchmean" else reduction,
        zero_infinity,
    )
    return loss / len(targets) if reduction == "batchmean" else loss


def frames_needed(
    targets: torch.Tensor,
    target_lengths: torch.Tensor | None = None,
    blank: int = 0,
) -> torch.Tensor:
    """Counts the frames without which a row of labels has no alignment: one
    for each label, and a blank between two that are equal.

    Arguments
    ---------
    targets : torch.Tensor
        As for ``ctc_loss``, [B, U].
    target_lengths : torch.Tensor, optional
        As for ``ctc_loss``, [B].
    blank : int
        Index of the blank.

    Returns
    -------
    torch.Tensor
        Number of frames, int64, [B].

    Example
    -------
    >>> import torch
    >>> frames_needed(torch.tensor([[3, 3, 2, -100], [1, 2, 3, 1]]))
    tensor([4, 4])
    """
    kept = _kept(targets, target_lengths, blank)
    # The kept labels of each row move to its front, in their order
    order = kept.logical_not().long().argsort(dim=1, stable=True)
    labels, kept = targets.gather(1, order), kept.gather(1, order)
    repeated = (labels[:, 1:] == labels[:, :-1]) & kept[:, 1:]
    return kept.sum(1) + repeated.sum(1)


def blank_share(
    log_probs: torch.Tensor, frames: torch.Tensor, blank: int = 0
) -> torch.Tensor:
    """Share of the valid frames where the blank scores highest.

    Near 1 the model has learnt no label yet, or no more.

    Arguments
    ---------
    log_probs : torch.Tensor
        Log-posteriors or logits, [B, T, V].
    frames : torch.Tensor
        Valid frames of each row, [B].
    blank : int
        Index of the blank.

    Returns
    -------
    torch.Tensor
        The share of the whole batch, in [0, 1], a scalar.

    Example
    -------
    >>> import torch
    >>> log_probs = torch.tensor([[[0.9, 0.1], [0.2, 0.8], [0.9, 0.1]]]).log()
    >>> blank_share(log_probs, torch.tensor([2]))
    tensor(0.5000)
    """
    mask = length_mask(frames.to(log_probs.device), log_probs.shape[1])
    return (log_probs.argmax(-1) == blank)[mask].float().mean()


def _kept(targets, target_lengths, blank):
    """Marks the labels that count, [B, U]."""
    kept = (targets != IGNORED) & (targets != blank)
    if target_lengths is not None:
        lengths = target_lengths.to(targets.device)
        kept &= length_mask(lengths, targets.shape[1])
    return kept


def _check_ranges(logits, labels, frames, blank):
    """Refuses what torch would read from beyond its tensors."""
    total, entries = logits.shape[1:]
    if not 0 <= blank < entries:
        raise ValueError(
            f"ctc_loss: blank: expected 0 to {entries - 1}; got {blank}"
        )
    for what, values, most in (
        ("labels", labels, entries - 1),
        ("frames", frames, total),
    ):
        if len(values) and not 0 <= values.min() <= values.max() <= most:
            raise ValueError(
                f"ctc_loss: {what}: expected 0 to {most}; "
                f"got {values.min().item()} to {values.max().item()}"
            )


def _check_frames(targets, frames, target_lengths, blank):
    """Names the rows that are too short for their labels."""
    needed = frames_needed(targets, target_lengths, blank).to(frames.device)
    rows = (frames < needed).nonzero()[:, 0].tolist()
    if rows:
        found = ", ".join(
            f"row {row} has {int(frames[row])} and needs {int(needed[row])}"
            for row in rows
        )
        raise ValueError(
            f"ctc_loss: expected frames enough for all labels; {found}"
        )
