"""Heads that give one answer for an utterance."""

from torch import nn

from unispeech_sb.lobes.lobe import Lobe
from unispeech_sb.nnet.pooling import LayerMix, masked_mean


class UtteranceHead(Lobe):
    """Layer mix (optional), projector, mean over frames, classifier.

    That is transformers' ``ForSequenceClassification`` and SUPERB's head for
    keyword spotting, intents, speakers and emotions.

    Arguments
    ---------
    input_size : int
        Size of the features D.
    num_classes : int
        Number of classes C.
    proj_size : int
        Size of the projected features.
    use_weighted_layer_sum : bool
        Take all hidden states and learn how to mix them.
    num_states : int, optional
        Number of hidden states; needed for the layer mix only.

    Example
    -------
    >>> import torch
    >>> head = UtteranceHead(input_size=16, num_classes=4)
    >>> head(torch.randn(2, 10, 16), torch.tensor([1.0, 0.5])).shape
    torch.Size([2, 4])
    """

    __module__ = "unispeech_sb.lobes.heads"  # pretrained folders name it

    def __init__(
        self,
        input_size,
        num_classes,
        proj_size=256,
        use_weighted_layer_sum=False,
        num_states=None,
    ):
        super().__init__(
            {
                "input_size": input_size,
                "num_classes": num_classes,
                "proj_size": proj_size,
                "use_weighted_layer_sum": use_weighted_layer_sum,
                "num_states": num_states,
            }
        )
        if use_weighted_layer_sum and num_states is None:
            raise ValueError(
                "UtteranceHead: expected num_states, which "
                "use_weighted_layer_sum needs; got None"
            )
        self.layer_mix = (
            LayerMix(num_states) if use_weighted_layer_sum else None
        )
        self.projector = nn.Linear(input_size, proj_size)
        self.classifier = nn.Linear(proj_size, num_classes)

    def forward(self, feats, lengths=None):
        """Scores each utterance.

        Arguments
        ---------
        feats : torch.Tensor or iterable of torch.Tensor
            Features, [B, T, D]; with the layer mix all hidden states,
            [L+1, B, T, D] or one by one.
        lengths : torch.Tensor, optional
            Valid share of each row of features, in (0, 1], [B]; exact if
            from ``Backbone.frame_lens``. All of it when omitted.

        Returns
        -------
        torch.Tensor
            Logits, [B, C].
        """
        return self.classifier(self.embed(feats, lengths))

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
            Embeddings, [B, proj_size].
        """
        if self.layer_mix is not None:
            feats = self.layer_mix(feats)
        # The projector is affine, so it may follow the mean: T times cheaper.
        return self.projector(masked_mean(feats, lengths))
