"""fairseq's names of tensors and transformers'.

One literal table for the backbone and one for what stands on it. ``*`` is the
number of a layer; an entry names a module, or one tensor of it in full.
"""

import re

from unispeech_sb.checkpoints.keys import WEIGHT_NORM

POSITIONS = "encoder.pos_conv_embed.conv"
BACKBONE = {
    "mask_emb": "masked_spec_embed",
    "feature_extractor.conv_layers.*.0": "feature_extractor.conv_layers.*.conv",
    "feature_extractor.conv_layers.*.2.1": (
        "feature_extractor.conv_layers.*.layer_norm"
    ),
    # Without ".1": the norm over time, of the first layer of Base models.
    "feature_extractor.conv_layers.*.2": (
        "feature_extractor.conv_layers.*.layer_norm"
    ),
    "layer_norm": "feature_projection.layer_norm",
    "post_extract_proj": "feature_projection.projection",
    "encoder.pos_conv.0": POSITIONS,
    "encoder.pos_conv.0.weight_g": WEIGHT_NORM[POSITIONS + ".weight_g"],
    "encoder.pos_conv.0.weight_v": WEIGHT_NORM[POSITIONS + ".weight_v"],
    "encoder.layers.*.self_attn.k_proj": "encoder.layers.*.attention.k_proj",
    "encoder.layers.*.self_attn.v_proj": "encoder.layers.*.attention.v_proj",
    "encoder.layers.*.self_attn.q_proj": "encoder.layers.*.attention.q_proj",
    "encoder.layers.*.self_attn.out_proj": (
        "encoder.layers.*.attention.out_proj"
    ),
    "encoder.layers.*.self_attn_layer_norm": "encoder.layers.*.layer_norm",
    "encoder.layers.*.fc1": "encoder.layers.*.feed_forward.intermediate_dense",
    "encoder.layers.*.fc2": "encoder.layers.*.feed_forward.output_dense",
    "encoder.layers.*.final_layer_norm": "encoder.layers.*.final_layer_norm",
    "encoder.layer_norm": "encoder.layer_norm",
}
"""fairseq -> ``Backbone``."""

TOP = {
    "quantizer.vars": "quantizer.codevectors",
    "quantizer.weight_proj": "quantizer.weight_proj",
    "project_q": "project_q",
    "final_proj": "project_hid",
    "label_embs_concat": "label_embeddings_concat",
    "spk_proj": "speaker_proj",
    "encoder.layer_norm_for_extract": "layer_norm_for_extract",
}
"""fairseq -> transformers, for the pre-training objectives."""

LAYER = re.compile(r"(?<=layers\.)\d+(?=\.)")


def rename(name, table):
    """Translates one name.

    Arguments
    ---------
    name : str
        Name of a tensor, without the prefix of its model.
    table : dict
        ``BACKBONE`` or ``TOP``.

    Returns
    -------
    str or None
        Its other name; None where the table has none.

    Example
    -------
    >>> rename("encoder.layers.3.fc1.bias", BACKBONE)
    'encoder.layers.3.feed_forward.intermediate_dense.bias'
    >>> rename("encoder.layers.3.fc9.bias", BACKBONE)
    """
    number = LAYER.search(name)
    general = LAYER.sub("*", name, count=1)
    module, _, leaf = general.rpartition(".")
    if general in table:
        found = table[general]
    elif module in table and leaf in ("weight", "bias"):
        found = f"{table[module]}.{leaf}"
    else:
        return None
    return found.replace("*", number.group()) if number else found


def rename_backbone(tensors, prefix=""):
    """Parts the backbone's tensors from all others.

    Arguments
    ---------
    tensors : dict
        Name in a fairseq model -> tensor.
    prefix : str
        What the names of the backbone's tensors start with, such as
        ``w2v_encoder.w2v_model.`` or ``feature_extract.model.``.

    Returns
    -------
    backbone : dict
        Name in ``Backbone`` -> tensor.
    rest : dict
        Name in the file, prefix included -> tensor, for all the others.

    Example
    -------
    >>> rename_backbone({"a.mask_emb": 1, "a.vars": 2, "b": 3}, "a.")
    ({'masked_spec_embed': 1}, {'a.vars': 2, 'b': 3})
    """
    backbone, rest = {}, {}
    for name, tensor in tensors.items():
        bare = name.removeprefix(prefix)
        own = bare if name.startswith(prefix) else ""
        renamed = rename(own, BACKBONE)
        if renamed is None or renamed in backbone:
            rest[name] = tensor
        else:
            backbone[renamed] = tensor
    return backbone, rest
