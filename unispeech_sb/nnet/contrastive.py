"""Contrastive losses of both pre-trainings, and the frames they draw.

wav2vec 2.0 (Baevski et al. 2020, section 3.2) draws negatives from the masked
frames of the utterance, UniSpeech (Wang et al. 2021, section 3) from all its
frames, UniSpeech-SAT (Chen et al. 2021, section 3) from the whole batch.

Anchors, positives and candidates are frames in flat lists, so that rows need
not have equal numbers of masked frames. Losses are in float32.
"""

import math
from typing import Any, NamedTuple

import torch
from torch.nn import functional as F

_LARGE = 2**62
"""Far above any number of frames: what is left of it by a modulus is
uniform."""


class Pool(NamedTuple):
    """The frames that may be drawn, in a list of all frames of a batch.

    Arguments
    ---------
    starts : torch.Tensor
        Place in the list of the first frame of each row, [B]; the others
        follow it.
    counts : torch.Tensor
        Number of frames of each row that may be drawn, [B].

    Example
    -------
    >>> Pool(torch.tensor([0, 10]), torch.tensor([10, 7])).counts
    tensor([10,  7])
    """

    starts: torch.Tensor
    counts: torch.Tensor


class NegativeSampler(NamedTuple):
    """Draws the candidates of every masked frame of a batch.

    Arguments
    ---------
    num_within : int
        Candidates from the same row.
    num_across : int
        Candidates from all rows.
    everywhere : bool
        From all valid frames; otherwise from masked ones.
    paper_code_compat : bool
        Draw as the authors' code does: padded frames too, and now and then
        the anchor itself. See ``authors_negatives``.
    by_sample : bool
        For that, the layout of UniSpeech-SAT.

    Example
    -------
    >>> mask = torch.tensor([[True, True, False], [True, True, True]])
    >>> NegativeSampler(4, 2)(mask, torch.tensor([2, 3])).shape
    torch.Size([5, 6])
    """

    num_within: int = 100
    num_across: int = 0
    everywhere: bool = False
    paper_code_compat: bool = False
    by_sample: bool = False

    def __call__(
        self,
        mask: torch.Tensor,
        counts: torch.Tensor,
        generator: torch.Generator | None = None,
    ) -> torch.Tensor:
        """Draws.

        Arguments
        ---------
        mask : torch.Tensor
            True at the S masked frames, bool, [B, T].
        counts : torch.Tensor
            Valid frames of each row, [B].
        generator : torch.Generator, optional
            Source of randomness, on the mask's device; torch's default one
            when omitted.

        Returns
        -------
        torch.Tensor
            Places in the list of all frames, row after row with padding,
            [B x T], where ``everywhere``; otherwise in that of the masked
            frames, [S]. One row for each masked frame, [S, N].

        Raises
        ------
        ValueError
            When there is nothing to draw from, or ``paper_code_compat``
            meets rows of unequal numbers of masked frames.
        """
        masked = mask.sum(1)
        if self.paper_code_compat:
            return self._authors(mask, masked, generator)
        rows, places = mask.nonzero(as_tuple=True)
        firsts = masked.cumsum(0) - masked
        pool = Pool(firsts, masked)
        if self.everywhere:
            numbers = torch.arange(len(mask), device=mask.device)
            pool = Pool(mask.shape[1] * numbers, counts)
        else:
            numbers = torch.arange(len(rows), device=mask.device)
            places = numbers - firsts[rows]
        return draw_negatives(
            pool, rows, places, self.num_within, self.num_across, generator
        )

    def _authors(self, mask, masked, generator):
        """The authors' draw."""
        batch, frames = mask.shape
        fewest, anchors = torch.stack(masked.aminmax()).tolist()
        if fewest < anchors:
            raise ValueError(
                "paper_code_compat: expected as many masked frames in every "
                f"row; got {fewest} to {anchors}"
            )
        frames = frames if self.everywhere else anchors
        if frames < 2:
            raise ValueError(
                "negatives: expected at least 2 frames to draw from; "
                f"got {frames}"
            )
        within, across = (
            torch.randint(
                end, (batch, anchors * count),
                generator=generator, device=mask.device,
            )
            for end, count in (
                (frames - 1, self.num_within),
                (batch * frames - 1, self.num_across),
            )
        )  # fmt: skip
        return authors_negatives(
            within, across, anchors, frames, self.by_sample
        )


def draw_negatives(
    pool: Pool,
    rows: torch.Tensor,
    places: torch.Tensor,
    num_within: int,
    num_across: int = 0,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Draws frames for each anchor, never its own.

    Arguments
    ---------
    pool : Pool
        What may be drawn.
    rows : torch.Tensor
        Row of each anchor, [S].
    places : torch.Tensor
        Which frame of its row it is, counted as in the pool, [S].
    num_within : int
        Frames from the same row.
    num_across : int
        Frames from all rows, the anchor's own row among them.
    generator : torch.Generator, optional
        Source of randomness, on the anchors' device; torch's default one
        when omitted.

    Returns
    -------
    torch.Tensor
        Places in the list, those within the row first, [S, N].

    Raises
    ------
    ValueError
        When an anchor has no other frame to be compared with.

    Example
    -------
    >>> pool = Pool(torch.tensor([0, 3]), torch.tensor([2, 2]))
    >>> rows, places = torch.tensor([0, 1]), torch.tensor([1, 0])
    >>> draw_negatives(pool, rows, places, num_within=3)
    tensor([[0, 0, 0],
            [4, 4, 4]])
    """
    draw: dict[str, Any] = {"generator": generator, "device": rows.device}
    drawn = [rows.new_empty(len(rows), 0)]
    if num_within:
        ranks = _others(
            pool.counts[rows], places, (len(rows), num_within), draw
        )
        drawn.append(pool.starts[rows, None] + ranks)
    if num_across:
        ends = pool.counts.cumsum(0)
        before = ends - pool.counts  # frames in earlier rows, [B]
        ranks = _others(
            ends[-1:].expand(len(rows)), before[rows] + places,
            (len(rows), num_across), draw,
        )  # fmt: skip
        chosen = torch.searchsorted(ends, ranks, right=True)
        drawn.append(pool.starts[chosen] + ranks - before[chosen])
    return torch.cat(drawn, 1)


def authors_negatives(
    within: torch.Tensor,
    across: torch.Tensor,
    num_anchors: int,
    num_frames: int,
    by_sample: bool = False,
) -> torch.Tensor:
    """Frames that the authors' code makes of its integers, bugs and all.

    An integer that reaches the number of its anchor moves up by one, so that
    no anchor is drawn as its own negative. But it is: that number counts the
    masked frames of the row, while the integers may count all its frames, or
    those of the whole batch; and by the layouts below an integer is compared
    with the number of another anchor. Padded frames are drawn like any.

    Arguments
    ---------
    within : torch.Tensor
        Integers for frames of the same row, [B, A x count] for A anchors in
        each row.
    across : torch.Tensor
        Integers for frames of all rows, [B, A x count].
    num_anchors : int
        Anchors of each row, A.
    num_frames : int
        Frames of each row in the pool.
    by_sample : bool
        All anchors' first samples come first, then all second ones, as in
        UniSpeech-SAT; otherwise all samples of the first anchor, as in
        UniSpeech. Both compare integers as if it were UniSpeech, with one
        kind of samples only.

    Returns
    -------
    torch.Tensor
        Places in the list of the batch's frames, row after row,
        [B x A, N].

    Example
    -------
    >>> within = torch.tensor([[0, 2, 0, 2], [0, 1, 1, 1]])
    >>> across = within.new_zeros(2, 0)
    >>> authors_negatives(within, across, num_anchors=2, num_frames=4)
    tensor([[1, 3],
            [0, 3],
            [5, 6],
            [6, 6]])
    """
    batch = len(within)
    firsts = num_frames * torch.arange(batch, device=within.device)
    indices = torch.cat(
        [
            _moved_up(within, num_anchors) + firsts[:, None],
            _moved_up(across, num_anchors),
        ],
        dim=1,
    )
    if by_sample:
        indices = indices.view(batch, -1, num_anchors).transpose(1, 2)
    return indices.reshape(batch * num_anchors, -1)


def _moved_up(integers, num_anchors):
    """Adds one to the integers from their anchor's number on."""
    count = integers.shape[1] // max(num_anchors, 1)
    numbers = torch.arange(num_anchors, device=integers.device)
    return integers + (integers >= numbers.repeat_interleave(count))


def _others(counts, own, shape, draw):
    """Draws from 0 to each count, exclusively, but for one number."""
    most = counts - 1
    if len(most) and most.min() < 1:
        raise ValueError(
            "negatives: expected at least 2 frames to draw from; got "
            f"{int(counts.min())}"
        )
    ranks = torch.randint(_LARGE, shape, **draw) % most[:, None]
    return ranks + (ranks >= own[:, None])


def candidate_cosines(
    anchors: torch.Tensor,
    positives: torch.Tensor,
    pool: torch.Tensor,
    indices: torch.Tensor,
) -> torch.Tensor:
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


def contrastive_loss(
    cosines: torch.Tensor,
    equal: torch.Tensor | None = None,
    logit_temp: float = 0.1,
) -> tuple[torch.Tensor, torch.Tensor]:
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


def utterance_contrastive_loss(
    cosines: torch.Tensor, same: torch.Tensor, logit_temp: float = 0.1
) -> tuple[torch.Tensor, torch.Tensor]:
    """Classifies each candidate as of the anchor's utterance or of another
    (UniSpeech-SAT, section 3).

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


def diversity_loss(perplexity: torch.Tensor, num_vars: int) -> torch.Tensor:
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


def feature_penalty(
    feats: torch.Tensor, mask: torch.Tensor | None = None
) -> torch.Tensor:
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
