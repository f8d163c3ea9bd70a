"""Builds the backbone's encoder from its options."""

from torch import nn

from unispeech_sb.nnet.transformer import (
    Attention,
    Encoder,
    EncoderLayer,
    FeedForward,
    PositionalConv,
)


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

    Example
    -------
    >>> from unispeech_sb.lobes.backbone import Backbone
    >>> options = Backbone.from_preset("tiny").config
    >>> len(build_encoder(options).layers)
    2
    """
    dim, eps = options["hidden_size"], options["layer_norm_eps"]
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
            dim, dropout, eps, options["do_stable_layer_norm"],
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
