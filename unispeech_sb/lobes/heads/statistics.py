"""A head that tells utterances apart by how their frames are spread."""

from torch import nn
from torch.nn import functional as F

from unispeech_sb.lobes.lobe import Lobe
from unispeech_sb.nnet.lengths import absolute_lengths
from unispeech_sb.nnet.pooling import (
    LayerMix,
    batch_normalized,
    masked_statistics,
)


class StatisticsHead(Lobe):
    """Layer mix, projector, mean and deviation over time, embedding, and a
    classifier (after the statistics pooling of Snyder et al. 2018).

    For models that are trained from scratch: deviations tell voices apart
    that means do not, and batch normalisation of both makes training fast
    where the backbone knows nothing yet. transformers has no such head.

    Arguments
    ---------
    input_size : int
        Size of the features D.
    num_states : int
        Number of hidden states to mix.
    num_classes : int, optional
        Number of classes C. Without it the head gives the embedding, for
        ``AMSoftmax`` or ``AAMSoftmax``.
    proj_size : int
        Size of the projected features.
    embedding_size : int
        Size of the embedding E.

    Example
    -------
    >>> import torch
    >>> from unispeech_sb.lobes.heads import StatisticsHead
    >>> head = StatisticsHead(input_size=16, num_states=3, num_classes=4)
    >>> head(torch.randn(3, 2, 10, 16), torch.tensor([1.0, 0.5])).shape
    torch.Size([2, 4])
    """

    __module__ = "unispeech_sb.lobes.heads"  # pretrained folders name it

    def __init__(
        self,
        input_size,
        num_states,
        num_classes=None,
        proj_size=384,
        embedding_size=192,
    ):
        super().__init__(
            {
                "input_size": input_size,
                "num_states": num_states,
                "num_classes": num_classes,
                "proj_size": proj_size,
                "embedding_size": embedding_size,
            }
        )
        self.layer_mix = LayerMix(num_states)
        self.projector = nn.Linear(input_size, proj_size)
        self.norm = nn.BatchNorm1d(2 * proj_size)
        self.embedding = nn.Linear(2 * proj_size, embedding_size)
        self.classifier = None
        if num_classes is not None:
            self.classifier = nn.Linear(embedding_size, num_classes)

    def forward(self, feats, lengths=None):
        """Scores each utterance.

        Arguments
        ---------
        feats : torch.Tensor or iterable of torch.Tensor
            All hidden states, [L+1, B, T, D] or one by one.
        lengths : torch.Tensor, optional
            Valid share of each row of features, in (0, 1], [B]; exact if
            from ``Backbone.frame_lens``. All of it when omitted.

        Returns
        -------
        torch.Tensor
            Logits, [B, C]; embeddings, [B, E], where there are no classes.
        """
        return self.project(self.embed(feats, lengths))

    def embed(self, feats, lengths=None):
        """Pools each utterance to one vector.

        Arguments
        ---------
        feats : torch.Tensor or iterable of torch.Tensor
            As in ``forward``.
        lengths : torch.Tensor, optional
            As in ``forward``.

        Returns
        -------
        torch.Tensor
            Embeddings, [B, E].
        """
        feats = F.relu(self.projector(self.layer_mix(feats)))
        counts = None
        if lengths is not None:
            counts = absolute_lengths(lengths, feats.shape[1])
        pooled = masked_statistics(feats, counts)
        return self.embedding(batch_normalized(self.norm, pooled))

    def project(self, embeddings):
        """Embeddings to what trains.

        Arguments
        ---------
        embeddings : torch.Tensor
            From ``embed``, [B, E].

        Returns
        -------
        torch.Tensor
            As from ``forward``.
        """
        if self.classifier is None:
            return embeddings
        return self.classifier(embeddings)
