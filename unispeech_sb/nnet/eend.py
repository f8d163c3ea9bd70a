"""Parts of end-to-end diarization with vector clustering (Kinoshita et al.
2021, section 3): encoder, time grid, speaker vectors and their loss.
"""

import torch
from torch import nn
from torch.nn import functional as F

from unispeech_sb.nnet.frontend import LayerNorm
from unispeech_sb.nnet.lengths import length_mask
from unispeech_sb.nnet.transformer import Attention, FeedForward


class EENDLayer(nn.Module):
    """A transformer block that adds to its *normalised* input.

    Neither post-norm nor pre-norm: the residual starts after the LayerNorm,
    as in the authors' code.

    Arguments
    ---------
    dim : int
        Model size.
    num_heads : int
        Number of attention heads; divides the model size.
    inner_size : int
        Inner size of the feed-forward layer.
    dropout : float
        Dropout on both sub-layers, inside and after.

    Example
    -------
    >>> EENDLayer(8, 2, inner_size=16, dropout=0.0)(torch.ones(2, 5, 8)).shape
    torch.Size([2, 5, 8])
    """

    def __init__(
        self, dim: int, num_heads: int, inner_size: int, dropout: float
    ) -> None:
        super().__init__()
        self.norm1 = LayerNorm(dim)
        self.attention = Attention(dim, num_heads, dropout)
        self.norm2 = LayerNorm(dim)
        self.feed_forward = FeedForward(
            dim, inner_size, "relu", dropout, dropout
        )
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, feats: torch.Tensor, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Runs the block.

        Arguments
        ---------
        feats : torch.Tensor
            Features, [B, T, D].
        mask : torch.Tensor, optional
            Bool, True at frames that may be attended to, [B, 1, 1, T].

        Returns
        -------
        torch.Tensor
            Features, [B, T, D].
        """
        feats = self.norm1(feats)
        feats = self.norm2(feats + self.dropout(self.attention(feats, mask)[0]))
        return feats + self.feed_forward(feats)


def interpolate_frames(
    feats: torch.Tensor,
    counts: torch.Tensor,
    wanted: torch.Tensor,
    most: int | None = None,
) -> torch.Tensor:
    """Brings each utterance from one number of frames to another, linearly.

    Arguments
    ---------
    feats : torch.Tensor
        Features, [B, T, D].
    counts : torch.Tensor
        Number of valid frames of each, [B].
    wanted : torch.Tensor
        Number of frames to make of them, [B].
    most : int, optional
        Padded length T'; the most wanted when omitted.

    Returns
    -------
    torch.Tensor
        Features, zero in the padding, [B, T', D].

    Example
    -------
    >>> feats = torch.tensor([[[1.0], [3.0], [5.0], [7.0]]])
    >>> counts, wanted = torch.tensor([4]), torch.tensor([2])
    >>> interpolate_frames(feats, counts, wanted)[0, :, 0]
    tensor([2., 6.])
    """
    most = int(wanted.max()) if most is None else most
    counts, wanted = counts[:, None], wanted[:, None]
    # Frame j is at (j + 1/2) counts / wanted - 1/2: which one it follows in
    # whole numbers, and by how much as F.interpolate rounds it
    steps = 2 * torch.arange(most, device=feats.device) + 1
    first = (steps * counts - wanted).clamp(min=0) // (2 * wanted)  # [B, T']
    places = (counts / wanted) * (0.5 * steps) - 0.5
    share = (places - first).clamp(0.0, 1.0)[..., None]
    left, right = (
        feats.gather(
            1,
            place.minimum(counts - 1)[..., None].expand(-1, -1, feats.shape[2]),
        )
        for place in (first, first + 1)
    )
    mixed = (1 - share) * left + share * right
    mask = length_mask(wanted[:, 0], most)[..., None]
    return mixed.masked_fill(~mask, 0.0)


def speaker_means(
    logits: torch.Tensor,
    vectors: torch.Tensor,
    num_frames: torch.Tensor | None = None,
) -> torch.Tensor:
    """One unit vector for each local speaker of a chunk.

    The mean of the speaker's vectors, each of unit length, weighted by the
    speaker's activity.

    Arguments
    ---------
    logits : torch.Tensor
        Activities before the sigmoid, [B, T, S].
    vectors : torch.Tensor
        Speaker vectors, [B, T, S, E].
    num_frames : torch.Tensor, optional
        Number of valid frames of each chunk, [B]. All when omitted.

    Returns
    -------
    torch.Tensor
        Unit vectors, [B, S, E].

    Example
    -------
    >>> logits = torch.zeros(1, 2, 1)
    >>> speaker_means(logits, torch.tensor([[[[3.0, 0.0]], [[0.0, 2.0]]]]))
    tensor([[[0.7071, 0.7071]]])
    """
    weights = logits.sigmoid()
    if num_frames is not None:
        mask = length_mask(num_frames, logits.shape[1])
        weights = weights.masked_fill(~mask[..., None], 0.0)
    directions = F.normalize(vectors, dim=-1)
    return F.normalize(
        torch.einsum("bts,btse->bse", weights, directions), dim=-1
    )


def speaker_loss(
    speakers: torch.Tensor,
    targets: torch.Tensor,
    known: torch.Tensor,
    scale: torch.Tensor | float,
    offset: torch.Tensor | float,
) -> torch.Tensor:
    """Cross-entropy of the local speakers against all speakers of a corpus.

    Arguments
    ---------
    speakers : torch.Tensor
        Unit vectors of the local speakers, [B, S, E].
    targets : torch.Tensor
        Index of each among the known speakers, -1 where nobody speaks,
        [B, S].
    known : torch.Tensor
        Vectors of all known speakers, [K, E].
    scale : torch.Tensor or float
        Factor of the squared distance, a scalar.
    offset : torch.Tensor or float
        Added to it, a scalar.

    Returns
    -------
    torch.Tensor
        Mean over the local speakers who speak, a scalar; zero without any.

    Example
    -------
    >>> known = torch.eye(2)
    >>> speaker_loss(known[None], torch.tensor([[0, -1]]), known, 1.0, 0.0)
    tensor(0.1269)
    """
    distances = torch.cdist(speakers, F.normalize(known, dim=-1)[None])
    logits = -(scale * distances.square() + offset)  # [B, S, K]
    total = F.cross_entropy(
        logits.flatten(0, 1), targets.flatten(),
        ignore_index=-1, reduction="sum",
    )  # fmt: skip
    return total / (targets >= 0).sum().clamp(min=1)
