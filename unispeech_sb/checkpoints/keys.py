"""Names of classes and tensors: transformers' and this package's.

The backbone keeps transformers' names, so only prefixes and the two spellings
of weight normalisation differ; of the heads a few do. The tables are literal
and invertible.
"""

FAMILIES = {"unispeech": "unispeech.", "unispeech-sat": "unispeech_sat."}
"""Model type of ``config.json`` -> prefix of the backbone's tensors."""

CLASSES = {
    "UniSpeechModel": ("unispeech", "Model"),
    "UniSpeechForPreTraining": ("unispeech", "ForPreTraining"),
    "UniSpeechForCTC": ("unispeech", "ForCTC"),
    "UniSpeechForSequenceClassification": (
        "unispeech",
        "ForSequenceClassification",
    ),
    "UniSpeechSatModel": ("unispeech-sat", "Model"),
    "UniSpeechSatForPreTraining": ("unispeech-sat", "ForPreTraining"),
    "UniSpeechSatForCTC": ("unispeech-sat", "ForCTC"),
    "UniSpeechSatForSequenceClassification": (
        "unispeech-sat",
        "ForSequenceClassification",
    ),
    "UniSpeechSatForAudioFrameClassification": (
        "unispeech-sat",
        "ForAudioFrameClassification",
    ),
    "UniSpeechSatForXVector": ("unispeech-sat", "ForXVector"),
}
"""transformers' class -> family and task."""

CONV = "encoder.pos_conv_embed.conv."
WEIGHT_NORM = {
    CONV + "weight_g": CONV + "parametrizations.weight.original0",
    CONV + "weight_v": CONV + "parametrizations.weight.original1",
}
"""Spelling before torch 2.1 -> today's."""

HEADS = {
    "Model": {},
    "ForPreTraining": {
        "head": {
            name: name
            for name in (
                "quantizer.",
                "project_q.",
                "project_hid.",
                "ctc_proj.",
                "speaker_proj.",
                "label_embeddings_concat",
                "layer_norm_for_extract.",
            )
        }
    },
    "ForCTC": {"head": {"lm_head.": "classifier."}},
    "ForSequenceClassification": {
        "head": {
            "layer_weights": "layer_mix.weights",
            "projector.": "projector.",
            "classifier.": "classifier.",
        }
    },
    "ForAudioFrameClassification": {
        "head": {
            "layer_weights": "layer_mix.weights",
            "classifier.": "classifier.",
        }
    },
    "ForXVector": {
        "head": {
            "layer_weights": "layer_mix.weights",
            "projector.": "projector.",
            "tdnn.": "tdnn.",
            "feature_extractor.": "embedding.",
            "classifier.": "classifier.",
        },
        "objective": {"objective.": ""},
    },
}
"""Task -> lobe -> transformers' name, or its start up to a dot -> ours."""


def rename(name, table):
    """Renames a tensor by a table of names and of their starts.

    Arguments
    ---------
    name : str
        The name.
    table : dict
        Name -> new name; one that ends in a dot stands for all that start
        with it.

    Returns
    -------
    str or None
        The new name; None where the table has none.

    Example
    -------
    >>> rename("lm_head.bias", HEADS["ForCTC"]["head"])
    'classifier.bias'
    """
    for old, new in table.items():
        if name == old and not old.endswith("."):
            return new
        if old.endswith(".") and name.startswith(old):
            return new + name[len(old) :]
    return None


def split_heads(top, task):
    """Parts what stands on the backbone into lobes.

    Arguments
    ---------
    top : dict
        transformers' name -> tensor.
    task : str
        A key of ``HEADS``.

    Returns
    -------
    lobes : dict
        Lobe -> name in it -> tensor; a lobe may be empty.
    unknown : list of str
        Names that the task does not have.

    Example
    -------
    >>> split_heads({"lm_head.bias": 1, "a": 2}, "ForCTC")
    ({'head': {'classifier.bias': 1}}, ['a'])
    """
    lobes = {lobe: {} for lobe in HEADS[task]}
    unknown = []
    for name, tensor in top.items():
        for lobe, table in HEADS[task].items():
            new = rename(name, table)
            if new is not None:
                lobes[lobe][new] = tensor
                break
        else:
            unknown.append(name)
    return lobes, unknown


def join_heads(lobes, task):
    """The way back from ``split_heads``.

    Arguments
    ---------
    lobes : dict
        Lobe -> name in it -> tensor.
    task : str
        A key of ``HEADS``.

    Returns
    -------
    dict
        transformers' name -> tensor.

    Example
    -------
    >>> join_heads({"objective": {"weight": 1}}, "ForXVector")
    {'objective.weight': 1}
    """
    top = {}
    for lobe, tensors in lobes.items():
        back = {new: old for old, new in HEADS[task][lobe].items()}
        for name, tensor in tensors.items():
            prefix = back.get("")  # the lobe has a prefix of its own
            top[rename(name, back) or f"{prefix}{name}"] = tensor
    return top


def split_backbone(tensors, family):
    """Parts the backbone's tensors from those on top of it.

    Arguments
    ---------
    tensors : dict
        Name in a Hugging Face file -> tensor.
    family : str
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
    prefix = FAMILIES[family]
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
