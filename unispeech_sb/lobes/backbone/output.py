"""What one pass of the backbone computes."""

from typing import NamedTuple

import torch


class BackboneOutput(NamedTuple):
    """Everything that one pass computes.

    Arguments
    ---------
    last_hidden_state : torch.Tensor
        Features, [B, T, D].
    extract_features : torch.Tensor
        Convolutional features after LayerNorm, [B, T, C].
    lengths : torch.Tensor or None
        Valid frames of each row, [B]; None when there is no padding.
    hidden_states : tuple of torch.Tensor
        The encoder's input and the output of each block, L+1 of [B, T, D].
        Empty unless asked for.
    attentions : tuple of torch.Tensor
        Attention maps, L of [B, H, T, T]. Empty unless asked for.

    Example
    -------
    >>> from unispeech_sb.lobes.backbone import Backbone
    >>> out = Backbone.from_preset("tiny").encode(torch.randn(1, 800))
    >>> out.extract_features.shape
    torch.Size([1, 2, 8])
    """

    last_hidden_state: torch.Tensor
    extract_features: torch.Tensor
    lengths: torch.Tensor | None
    hidden_states: tuple
    attentions: tuple
