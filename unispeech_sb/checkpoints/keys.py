"""Names of tensors and options: Hugging Face's and this package's.

The backbone keeps transformers' names, so only prefixes and the two spellings
of weight normalisation differ. Tables are literal and say why a tensor is
left out.
"""

FAMILIES = {"unispeech": "unispeech.", "unispeech-sat": "unispeech_sat."}
"""Model type of ``config.json`` -> prefix of the backbone's tensors."""

WEIGHT_NORM = {
    "encoder.pos_conv_embed.conv.weight_g": (
        "encoder.pos_conv_embed.conv.parametrizations.weight.original0"
    ),
    "encoder.pos_conv_embed.conv.weight_v": (
        "encoder.pos_conv_embed.conv.parametrizations.weight.original1"
    ),
}
"""Spelling before torch 2.1 -> today's."""

PRETRAINING = "part of the pre-training objective, not of the backbone"
UNCONVERTED = {
    "quantizer": PRETRAINING,
    "project_q": PRETRAINING,
    "project_hid": PRETRAINING,
    "ctc_proj": PRETRAINING,
    "speaker_proj": PRETRAINING,
    "label_embeddings_concat": PRETRAINING,
    "layer_norm_for_extract": PRETRAINING,
    "lm_head": "a CTC head: this release converts the backbone only",
    "tdnn": "an x-vector head: this release converts the backbone only",
    "feature_extractor": "an x-vector head: this release converts the "
    "backbone only",
    "objective": "an x-vector head: this release converts the backbone only",
    "classifier": "a head of another task: this release converts the "
    "backbone only",
    "projector": "a head of another task: this release converts the "
    "backbone only",
    "layer_weights": "a head of another task: this release converts the "
    "backbone only",
}
"""First part of a tensor's name, outside the backbone -> why it is left."""

SEQUENCE_CLASSIFICATION = {
    "layer_weights": "layer_mix.weights",
    "projector.weight": "projector.weight",
    "projector.bias": "projector.bias",
    "classifier.weight": "classifier.weight",
    "classifier.bias": "classifier.bias",
}
"""transformers' ``ForSequenceClassification`` -> ``UtteranceHead``."""


def split_backbone(tensors, model_type):
    """Parts the backbone's tensors from those on top of it.

    Arguments
    ---------
    tensors : dict
        Name in a Hugging Face file -> tensor.
    model_type : str
        ``unispeech`` or ``unispeech-sat``.

    Returns
    -------
    backbone : dict
        Name in ``Backbone`` -> tensor.
    top : dict
        Name in the Hugging Face file -> tensor, for all the others.

    Example
    -------
    >>> split_backbone({"unispeech.a": 1, "lm_head.b": 2}, "unispeech")
    ({'a': 1}, {'lm_head.b': 2})
    """
    prefix = FAMILIES[model_type]
    if not any(name.startswith(prefix) for name in tensors):
        prefix = ""  # a bare model is saved without its name
    backbone, top = {}, {}
    for name, tensor in tensors.items():
        if name.startswith(prefix):
            bare = name[len(prefix) :]
            backbone[WEIGHT_NORM.get(bare, bare)] = tensor
        else:
            top[name] = tensor
    return backbone, top
