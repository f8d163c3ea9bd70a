"""A backbone's architecture, read off its tensors.

CTC models that the authors fine-tuned name no architecture in their files, and
their downstream models have no options at all: the shapes tell it.
"""

import re

import torch

from unispeech_sb.checkpoints.checkpoint import TENSORS, Fact
from unispeech_sb.checkpoints.keys import WEIGHT_NORM

STRIDES = (5, 2, 2, 2, 2, 2, 2)
HEAD_SIZE = 64
"""Of every published model."""

CONSTANTS = {
    "normalize_eps": 1e-5,
    "last_state": "normed",
    "mask_rule": "fairseq",
}
"""What the authors' code always does."""

AUTHORS = "the authors' code"
CONV = "feature_extractor.conv_layers.{}.{}"
PROJECTION = "feature_projection.projection."
POSITIONS = tuple(WEIGHT_NORM.values()) + (
    "encoder.pos_conv_embed.conv.weight",
)
SHAPES = {
    "num_hidden_layers": r"encoder\.layers\.(\d+)\.",
    "convolutions": r"feature_extractor\.conv_layers\.(\d+)\.",
}


def backbone_options(backbone, path, overrides=None, known=None):
    """Reads the options of ``Backbone`` off its tensors.

    Arguments
    ---------
    backbone : dict
        Name in ``Backbone`` -> tensor.
    path : str or pathlib.Path
        Where they are from, for errors.
    overrides : dict, optional
        Options that the user gave. They win; those that this does not read
        are left to the caller.
    known : dict, optional
        Name of an option -> ``Fact``, from the file's configuration. It
        wins over rules of thumb, and must agree with the shapes.

    Returns
    -------
    config : dict
        Options of ``Backbone`` that shapes and the authors' code fix.
    facts : dict
        The same, each as a ``Fact``.
    notes : list of str
        What was assumed.

    Raises
    ------
    ValueError
        When tensors are missing or misshapen, or contradict what is known.

    Example
    -------
    >>> backbone_options({}, "x.pt")
    Traceback (most recent call last):
    ...
    ValueError: x.pt: expected a backbone's tensors; there is no ...
    """
    overrides, known = overrides or {}, known or {}
    given = {key: Fact(value, "given") for key, value in overrides.items()}
    facts = _measured(backbone, path)
    for name, (value, source) in facts.items():
        for other in (known.get(name), given.get(name)):
            if other is not None and other.value != value:
                raise ValueError(
                    f"{path}: expected {name} {value} ({source}); "
                    f"got {str(other.value):.80} ({other.source})"
                )
    assumed, remarks = _assumed(facts)
    for name, fact in {**known, **assumed}.items():
        if name in facts:
            continue  # measured, and it agrees
        facts[name] = given.get(name) or known.get(name) or fact
    facts["conv_stride"] = _strides(facts, path)
    notes = [
        remark for name, remark in remarks.items()
        if facts[name] is assumed[name]
    ]  # fmt: skip
    return {key: fact.value for key, fact in facts.items()}, facts, notes


def complete_backbone(backbone):
    """Adds what fairseq leaves out where it would do nothing.

    Arguments
    ---------
    backbone : dict
        Name in ``Backbone`` -> tensor. Where it has no projection, an
        identity is added: fairseq has none between equal sizes.

    Returns
    -------
    list of str
        What was added.

    Example
    -------
    >>> backbone = {
    ...     "feature_projection.layer_norm.weight": torch.ones(2),
    ...     "masked_spec_embed": torch.ones(2),
    ... }
    >>> complete_backbone(backbone)
    ["feature_projection.projection: not in the file, ...]
    >>> backbone["feature_projection.projection.weight"]
    tensor([[1., 0.],
            [0., 1.]])
    """
    norm = backbone.get("feature_projection.layer_norm.weight")
    embedding = backbone.get("masked_spec_embed")
    if PROJECTION + "weight" in backbone or norm is None or embedding is None:
        return []
    if norm.shape != embedding.shape or norm.dim() != 1:
        return []
    backbone[PROJECTION + "weight"] = torch.eye(len(norm), dtype=norm.dtype)
    backbone[PROJECTION + "bias"] = torch.zeros_like(norm)
    return [
        "feature_projection.projection: not in the file, since features have "
        "the model's size already; an identity was added"
    ]


def _measured(backbone, path):
    """Facts that shapes leave no doubt about."""
    layers = _count(backbone, "num_hidden_layers", path)
    convs = _count(backbone, "convolutions", path)
    kernels = [
        _shape(backbone, CONV.format(i, "conv.weight"), 3, path)
        for i in range(convs)
    ]
    biases = _having(backbone, convs, "conv.bias")
    norms = _having(backbone, convs, "layer_norm.weight")
    if biases not in ([], list(range(convs))):
        raise ValueError(
            f"{path}: expected a bias in every convolution or in none; "
            f"layers {biases} have one"
        )
    if norms not in ([0], list(range(convs))):
        raise ValueError(
            f"{path}: expected a norm after the first convolution or after "
            f"each of {convs}; layers {norms} have one"
        )
    dim, _ = _shape(
        backbone, "encoder.layers.0.attention.q_proj.weight", 2, path
    )
    inner, _ = _shape(
        backbone,
        "encoder.layers.0.feed_forward.intermediate_dense.weight", 2, path,
    )  # fmt: skip
    positions = [name for name in POSITIONS[1:] if name in backbone]
    name = (positions or POSITIONS[1:])[0]
    out, per_group, kernel = _shape(backbone, name, 3, path)
    if not per_group or out != dim or out % per_group:
        raise ValueError(
            f"{path}: expected {name} to be [{dim}, {dim} / groups, kernel]; "
            f"got {[out, per_group, kernel]}"
        )
    sizes = {
        "hidden_size": dim,
        "num_hidden_layers": layers,
        "intermediate_size": inner,
        "feat_extract_norm": "group" if norms == [0] and convs > 1 else "layer",
        "conv_dim": [shape[0] for shape in kernels],
        "conv_kernel": [shape[2] for shape in kernels],
        "conv_bias": bool(biases),
        "num_conv_pos_embeddings": kernel,
        "num_conv_pos_embedding_groups": out // per_group,
        "pos_conv_weight_norm": name != POSITIONS[-1],
    }
    return {key: Fact(value, TENSORS) for key, value in sizes.items()}


def _assumed(facts):
    """Facts by rules that hold for published models, and remarks on them."""
    value = {name: fact.value for name, fact in facts.items()}
    dim, convs = value["hidden_size"], len(value["conv_dim"])
    remarks = {}
    heads, rule = dim // HEAD_SIZE, f"{HEAD_SIZE} channels per head"
    if dim % HEAD_SIZE:
        heads = value["num_conv_pos_embedding_groups"]
        rule = "groups of the positional convolution"
        remarks["num_attention_heads"] = (
            f"num_attention_heads: assumed {heads}, as many as the positional "
            f"convolution has groups, since hidden_size {dim} is no multiple "
            f"of {HEAD_SIZE}; --set num_attention_heads=N gives another"
        )
    strides = list(STRIDES[:1] + STRIDES[1:2] * (convs - 1))
    if convs != len(STRIDES):
        remarks["conv_stride"] = (
            f"conv_stride: assumed {strides}; published models have "
            f"{len(STRIDES)} convolutions, this one has {convs}"
        )
    stable = value["feat_extract_norm"] == "layer"
    return {
        **{name: Fact(value, AUTHORS) for name, value in CONSTANTS.items()},
        "num_attention_heads": Fact(heads, f"assumed: {rule}"),
        "do_stable_layer_norm": Fact(
            stable, "assumed: goes with the norms of the convolutions"
        ),
        "conv_stride": Fact(strides, "assumed: as in published models"),
    }, remarks


def _strides(facts, path):
    """The strides, as many as there are convolutions."""
    fact, convs = facts["conv_stride"], len(facts["conv_dim"].value)
    if not isinstance(fact.value, (list, tuple)) or len(fact.value) != convs:
        raise ValueError(
            f"{path}: expected {convs} strides in conv_stride; got "
            f"{str(fact.value):.80}"
        )
    return Fact(list(fact.value), fact.source)


def _count(backbone, what, path):
    """Number of layers, whose indices must have no gap."""
    pattern = re.compile(SHAPES[what])
    matches = [pattern.match(name) for name in backbone]
    found = {int(match.group(1)) for match in matches if match}
    if not found:
        raise ValueError(
            f"{path}: expected a backbone's tensors; there is no "
            f"{pattern.pattern.partition('(')[0]}0".replace("\\", "")
        )
    if max(found) != len(found) - 1:
        raise ValueError(
            f"{path}: expected {what.removeprefix('num_')} numbered 0 to "
            f"{len(found) - 1}; the last is {max(found)}"
        )
    return len(found)


def _having(backbone, convs, leaf):
    """Indices of the convolutions that have a tensor."""
    return [i for i in range(convs) if CONV.format(i, leaf) in backbone]


def _shape(backbone, name, dims, path):
    """Shape of a tensor that must be there."""
    if name not in backbone:
        raise ValueError(
            f"{path}: expected a backbone's tensors; there is no {name}"
        )
    shape = list(backbone[name].shape)
    if len(shape) != dims:
        raise ValueError(
            f"{path}: expected {name} with {dims} dimensions; got {shape}"
        )
    return shape
