"""Masks on the encoder's input: SpecAugment, or the ones that are given."""

import torch

from unispeech_sb.nnet.masking import span_mask
from unispeech_sb.nnet.transformer import keep_in_graph


def masked(backbone, feats, lengths=None, mask_time_indices=None):
    """Writes the mask embedding over frames, and zeros over channels.

    Arguments
    ---------
    backbone : Backbone
        Its ``mask_*`` options and its ``masked_spec_embed`` are used.
    feats : torch.Tensor
        Projected features, [B, T, D].
    lengths : torch.Tensor, optional
        Valid frames of each row, [B]. All when omitted.
    mask_time_indices : torch.Tensor, optional
        Bool, True at frames to replace, [B, T], instead of drawn ones.

    Returns
    -------
    torch.Tensor
        Masked features, [B, T, D].

    Example
    -------
    >>> from unispeech_sb.lobes.backbone import Backbone
    >>> backbone, everything = Backbone.from_preset("tiny"), torch.ones(1, 5)
    >>> feats = masked(backbone, torch.zeros(1, 5, 16), None, everything.bool())
    >>> torch.equal(feats[0, 4], backbone.masked_spec_embed)
    True
    """
    batch, frames, dim = feats.shape
    augment = backbone.apply_spec_augment and backbone.training
    if mask_time_indices is None and augment and backbone.mask_time_prob > 0:
        mask_time_indices = span_mask(
            lengths if lengths is not None
            else torch.full((batch,), frames, device=feats.device),
            frames, backbone.mask_time_prob, backbone.mask_time_length,
            backbone.mask_time_min_masks,
        )  # fmt: skip
    if mask_time_indices is not None:
        embedding = backbone.masked_spec_embed.to(feats.dtype)
        feats = torch.where(mask_time_indices[..., None], embedding, feats)
    elif backbone.training and torch.is_grad_enabled():
        feats = keep_in_graph(feats, [backbone.masked_spec_embed])
    if augment and backbone.mask_feature_prob > 0:
        channels = span_mask(
            torch.full((batch,), dim, device=feats.device),
            dim, backbone.mask_feature_prob, backbone.mask_feature_length,
            backbone.mask_feature_min_masks,
        )  # fmt: skip
        feats = feats.masked_fill(channels[:, None], 0.0)
    return feats
