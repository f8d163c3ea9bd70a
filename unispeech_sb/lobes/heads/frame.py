"""Heads that score every frame."""

from torch import nn

from unispeech_sb.lobes.lobe import Lobe
from unispeech_sb.nnet.pooling import LayerMix


class FrameHead(Lobe):
    """Layer mix (optional), dropout, classifier.

    That is transformers' ``ForCTC``, where the classifier is called
    ``lm_head``, and ``ForAudioFrameClassification``.

    Arguments
    ---------
    input_size : int
        Size of the features D (``hidden_size``).
    num_classes : int
        Number of classes C (``vocab_size``, ``num_labels``).
    dropout : float
        Dropout on the features (``final_dropout``; frame classification has
        none).
    num_states : int, optional
        Number of hidden states to mix; without it the head takes one.

    Example
    -------
    >>> import torch
    >>> from unispeech_sb.lobes.heads import FrameHead
    >>> head = FrameHead(input_size=16, num_classes=4)
    >>> head(torch.randn(2, 10, 16)).shape
    torch.Size([2, 10, 4])
    """

    __module__ = "unispeech_sb.lobes.heads"  # pretrained folders name it

    def __init__(self, input_size, num_classes, dropout=0.0, num_states=None):
        super().__init__(
            {
                "input_size": input_size,
                "num_classes": num_classes,
                "dropout": dropout,
                "num_states": num_states,
            }
        )
        self.layer_mix = None if num_states is None else LayerMix(num_states)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(input_size, num_classes)

    def forward(self, feats, lengths=None):
        """Scores each frame.

        Arguments
        ---------
        feats : torch.Tensor or iterable of torch.Tensor
            Features, [B, T, D]; with the layer mix all hidden states,
            [L+1, B, T, D] or one by one.
        lengths : torch.Tensor, optional
            Not used: frames are scored one by one, padding like the others.

        Returns
        -------
        torch.Tensor
            Logits, [B, T, C].
        """
        if self.layer_mix is not None:
            feats = self.layer_mix(feats)
        return self.classifier(self.dropout(feats))
