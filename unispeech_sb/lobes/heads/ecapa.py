"""The head of the authors' speaker verification models: ECAPA-TDNN."""

import torch
from torch import nn

from unispeech_sb.lobes.lobe import Lobe
from unispeech_sb.nnet.ecapa import (
    AttentiveStatistics,
    ConvReluNorm,
    SERes2Block,
)
from unispeech_sb.nnet.lengths import absolute_lengths, length_mask
from unispeech_sb.nnet.pooling import (
    LayerMix,
    batch_normalized,
    instance_norm,
)

DILATIONS = (2, 3, 4)
"""Of the three blocks (Desplanques et al. 2020, table 1)."""


class ECAPAHead(Lobe):
    """Hidden states in, a speaker embedding out.

    Layer mix, normalisation over time, ECAPA-TDNN (the authors'
    ``ECAPA_TDNN_SMALL``). Two utterances are compared by the cosine of
    their embeddings.

    Arguments
    ---------
    input_size : int
        Size of the features D.
    num_states : int
        Number of hidden states: one more than the backbone has blocks.
    channels : int
        Channels of the convolutions.
    embedding_size : int
        Size of the embedding E.
    pooled_channels : int
        Channels before the pooling.
    scale : int
        Groups of channels in each block.
    se_channels : int
        Size of the channel gates' inner layer.
    attention_channels : int
        Size of the inner layer of the pooling's attention.

    Example
    -------
    >>> import torch
    >>> from unispeech_sb.lobes.heads import ECAPAHead
    >>> head = ECAPAHead(16, num_states=4, channels=32, pooled_channels=48)
    >>> head(torch.randn(4, 2, 10, 16), torch.tensor([1.0, 0.5])).shape
    torch.Size([2, 256])
    """

    __module__ = "unispeech_sb.lobes.heads"  # pretrained folders name it

    def __init__(
        self,
        input_size,
        num_states,
        channels=512,
        embedding_size=256,
        pooled_channels=1536,
        scale=8,
        se_channels=128,
        attention_channels=128,
    ):
        super().__init__(
            {
                "input_size": input_size,
                "num_states": num_states,
                "channels": channels,
                "embedding_size": embedding_size,
                "pooled_channels": pooled_channels,
                "scale": scale,
                "se_channels": se_channels,
                "attention_channels": attention_channels,
            }
        )
        self.layer_mix = LayerMix(num_states)
        self.layer1 = ConvReluNorm(input_size, channels, kernel=5)
        self.layer2, self.layer3, self.layer4 = (
            SERes2Block(channels, dilation, scale, se_channels)
            for dilation in DILATIONS
        )
        self.conv = nn.Conv1d(
            len(DILATIONS) * channels, pooled_channels, kernel_size=1
        )
        self.pooling = AttentiveStatistics(pooled_channels, attention_channels)
        self.bn = nn.BatchNorm1d(2 * pooled_channels)
        self.linear = nn.Linear(2 * pooled_channels, embedding_size)

    def forward(self, feats, lengths=None):
        """Embeds each utterance.

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
            Embeddings, [B, E].
        """
        return self.project(self.embed(feats, lengths))

    def project(self, embeddings):
        """Returns its input: what is compared is what trains.

        Arguments
        ---------
        embeddings : torch.Tensor
            From ``embed``, [B, E].

        Returns
        -------
        torch.Tensor
            The embeddings, [B, E].
        """
        return embeddings

    def embed(self, feats, lengths=None):
        """Embeds each utterance: the same as ``forward``.

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
        # The authors add 1e-6 to every feature; the norm takes it off again.
        feats = instance_norm(self.layer_mix(feats), lengths).transpose(1, 2)
        mask = None
        if lengths is not None:
            frames = feats.shape[2]
            counts = absolute_lengths(lengths, frames)
            mask = length_mask(counts, frames)[:, None]  # [B, 1, T]
        outputs = [self.layer1(feats, mask)]
        for block in (self.layer2, self.layer3, self.layer4):
            outputs.append(block(outputs[-1], mask))
        joined = self.conv(torch.cat(outputs[1:], 1)).relu()
        pooled = self.pooling(joined, mask)
        return self.linear(batch_normalized(self.bn, pooled))
