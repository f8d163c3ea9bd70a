"""Builds the backbone's parts from its options."""

from torch import nn

from unispeech_sb.nnet.frontend import FeatureExtractor, FeatureProjection
from unispeech_sb.nnet.transformer import (
    Attention,
    AttentionAdapter,
    Encoder,
    EncoderLayer,
    FeedForward,
    PositionalConv,
)


def build_front_end(options):
    """Convolutions, and the projection of what they give.

    Arguments
    ---------
    options : dict
        The arguments of ``Backbone``.

    Returns
    -------
    extractor : FeatureExtractor
        Waveforms to convolutional features.
    projection : FeatureProjection
        Those to the encoder's input.

    Example
    -------
    >>> from unispeech_sb.lobes.backbone import Backbone
    >>> extractor, _ = build_front_end(Backbone.from_preset("tiny").config)
    >>> len(extractor.conv_layers)
    7
    """
    extractor = FeatureExtractor(
        options["conv_dim"],
        options["conv_kernel"],
        options["conv_stride"],
        options["conv_bias"],
        options["feat_extract_norm"],
        options["feat_extract_activation"],
    )
    projection = FeatureProjection(
        options["conv_dim"][-1],
        options["hidden_size"],
        options["layer_norm_eps"],
        options["feat_proj_dropout"],
    )
    return extractor, projection


def build_encoder(options):
    """Positions and blocks of a backbone, with their initial weights.

    Arguments
    ---------
    options : dict
        The arguments of ``Backbone``.

    Returns
    -------
    Encoder
        With the blocks' weights drawn as transformers draws them.

    Raises
    ------
    ValueError
        When adapters are asked for in post-norm blocks.

    Example
    -------
    >>> from unispeech_sb.lobes.backbone import Backbone
    >>> options = Backbone.from_preset("tiny").config
    >>> len(build_encoder(options).layers)
    2
    """
    dim, eps = options["hidden_size"], options["layer_norm_eps"]
    stable, inner = options["do_stable_layer_norm"], options["adapter_attn_dim"]
    if inner is not None and not stable:
        raise ValueError(
            "adapter_attn_dim: expected None without do_stable_layer_norm, as "
            f"only pre-norm blocks have adapters; got {inner}"
        )
    dropout = options["hidden_dropout"]
    blocks = [
        EncoderLayer(
            Attention(
                dim, options["num_attention_heads"],
                options["attention_dropout"],
            ),
            FeedForward(
                dim, options["intermediate_size"], options["hidden_act"],
                options["activation_dropout"], dropout,
            ),
            dim, dropout, eps, stable,
            None if inner is None else AttentionAdapter(dim, inner),
        )
        for _ in range(options["num_hidden_layers"])
    ]  # fmt: skip
    for block in blocks:
        for layer in block.modules():
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=options["initializer_range"])
                nn.init.zeros_(layer.bias)
    positions = PositionalConv(
        dim,
        options["num_conv_pos_embeddings"],
        options["num_conv_pos_embedding_groups"],
        options["feat_extract_activation"],
        options["pos_conv_weight_norm"],
    )
    return Encoder(positions, blocks, dim, dropout, eps, options["layerdrop"])
