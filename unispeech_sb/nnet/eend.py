"""Parts of end-to-end diarization with vector clustering (Kinoshita et al.
2021, section 3): encoder, time grid, speaker vectors and their loss.
"""

import torch
from torch import nn
from torch.nn import functional as F

from unispeech_sb.nnet.lengths import length_mask
from unispeech_sb.nnet.transformer import Attention, FeedForward


class EENDLayer(nn.Module):
    """A transformer block that adds to its *normalised* input.

    Neither post-norm nor pre-norm: the residual starts after the LayerNorm, as
    in the authors' code.
    """

    def __init__(
        self, dim: int, num_heads: int, inner_size: int, dropout: float
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attention = Attention(dim, num_heads, dropout)
        self.norm2 = nn.LayerNorm(dim)
        self.feed_forward = FeedForward(
            dim, inner_size, "relu", dropout, dropout
        )
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, feats: torch.Tensor, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Runs the block, [B, T, D]; the mask is that of ``Attention``."""
        feats = self.norm1(feats)
        feats = self.norm2(feats + self.dropout(self.attention(feats, mask)[0]))
        return feats + self.feed_forward(feats)


def interpolate_frames(
    feats: torch.Tensor, counts: torch.Tensor, wanted: torch.Tensor
) -> torch.Tensor:
    """Brings each utterance, [B, T, D], from its number of valid frames, [B],
    to another, [B], linearly; the padding is zero."""
    feats, most = feats.transpose(1, 2), int(wanted.max())
    # Row by row: each has its own step, and its own last frame to stop at.
    rows = [
        F.interpolate(row[..., :count], size=size, mode="linear")
        for row, count, size in zip(
            feats.split(1), counts.tolist(), wanted.tolist()
        )
    ]
    rows = [F.pad(row, (0, most - row.shape[2])) for row in rows]
    return torch.cat(rows).transpose(1, 2)


def speaker_means(
    logits: torch.Tensor,
    vectors: torch.Tensor,
    num_frames: torch.Tensor | None = None,
) -> torch.Tensor:
    """One unit vector for each local speaker of a chunk, [B, S, E].

    The mean of the speaker's vectors, [B, T, S, E], each of unit length,
    weighted by the speaker's activity, [B, T, S] before the sigmoid.
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
    """Cross-entropy of the local speakers, [B, S, E], against all K speakers of
    a corpus by ``scale`` times squared distance plus ``offset``.

    Targets are -1 where nobody speaks, [B, S]; the mean is over those who do,
    zero without any.
    """
    distances = torch.cdist(speakers, F.normalize(known, dim=-1)[None])
    logits = -(scale * distances.square() + offset)  # [B, S, K]
    total = F.cross_entropy(
        logits.flatten(0, 1), targets.flatten(),
        ignore_index=-1, reduction="sum",
    )  # fmt: skip
    return total / (targets >= 0).sum().clamp(min=1)
