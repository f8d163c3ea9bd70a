"""Batches without padding: the valid frames of whole utterances side by side.

Layers that look at one frame at a time compute on the rows as they are; those
that look at several take the frames of each utterance, ``counts``, too::

    [B, T, D]        [1, P, D] each

    a a a .          a a a b b      (counts 3, 2)
    b b . .    <->   c c c c        (counts 4)
    c c c c
"""

from collections.abc import Sequence

import torch
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence


class Packing:
    """Where the valid frames of a padded batch are.

    Arguments
    ---------
    counts : list of int
        Valid frames of each utterance, at least one.
    num_frames : int
        Padded length T.
    row_frames : int
        A row ends with the utterance by which it has so many.

    Example
    -------
    >>> packing = Packing([3, 2, 4], num_frames=4, row_frames=5)
    >>> packing.counts
    [[3, 2], [4]]
    >>> feats = torch.ones(3, 4, 8)
    >>> [list(row.shape) for row in packing.pack(feats)]
    [[1, 5, 8], [1, 4, 8]]
    >>> packing.unpack(packing.pack(feats))[..., 0]
    tensor([[1., 1., 1., 0.],
            [1., 1., 0., 0.],
            [1., 1., 1., 1.]])
    """

    def __init__(
        self, counts: Sequence[int], num_frames: int, row_frames: int
    ) -> None:
        self.num_frames = num_frames
        self.counts: list[list[int]] = [[]]
        for count in counts:
            if sum(self.counts[-1]) >= row_frames:
                self.counts.append([])
            self.counts[-1].append(count)

    def pack(self, feats: torch.Tensor) -> list[torch.Tensor]:
        """Takes the valid frames of a batch, [B, T, D], as rows, [1, P, D]."""
        utterances, rows = iter(feats), []
        for counts in self.counts:
            own = [next(utterances)[:count] for count in counts]
            rows.append(torch.cat(own)[None])
        return rows

    def unpack(self, rows: Sequence[torch.Tensor]) -> torch.Tensor:
        """Puts rows back into a batch, [B, T, D], zeros in the padding."""
        utterances = [
            utterance
            for row, counts in zip(rows, self.counts, strict=True)
            for utterance in row[0].split(counts)
        ]
        padded = pad_sequence(utterances, batch_first=True)
        return F.pad(padded, (0, 0, 0, self.num_frames - padded.shape[1]))
