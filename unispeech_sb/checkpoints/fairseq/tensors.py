"""fairseq's tensors: their names, and the backbone that they make up.

One literal table of names for the backbone and one for what stands on it.
``*`` is the number of a layer; an entry names a module, or one tensor of it in
full. CTC models that the authors fine-tuned name no architecture in their
files, and their downstream models have no options at all: the shapes tell it.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from unispeech_sb.checkpoints.checkpoint import Fact, measured
from unispeech_sb.checkpoints.huggingface import WEIGHT_NORM

POSITION_CONV = "encoder.pos_conv_embed.conv"
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
    "encoder.pos_conv.0": POSITION_CONV,
    "encoder.pos_conv.0.weight_g": WEIGHT_NORM[POSITION_CONV + ".weight_g"],
    "encoder.pos_conv.0.weight_v": WEIGHT_NORM[POSITION_CONV + ".weight_v"],
    "encoder.layers.*.self_attn.k_proj": "encoder.layers.*.attention.k_proj",
    "encoder.layers.*.self_attn.v_proj": "encoder.layers.*.attention.v_proj",
    "encoder.layers.*.self_attn.q_proj": "encoder.layers.*.attention.q_proj",
    "encoder.layers.*.self_attn.out_proj": (
        "encoder.layers.*.attention.out_proj"
    ),
    "encoder.layers.*.self_attn.grep_linear": (
        "encoder.layers.*.attention.gru_rel_pos_linear"
    ),
    "encoder.layers.*.self_attn.grep_a": (
        "encoder.layers.*.attention.gru_rel_pos_const"
    ),
    "encoder.layers.*.self_attn.relative_attention_bias": (
        "encoder.layers.*.attention.rel_attn_embed"
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

FAMILY_MARKS = {
    "relative positions": "wavlm",
    "spk_proj": "unispeech-sat",
    "layer_norm_for_extract": "unispeech-sat",
    "quantizer": "wav2vec2",
    "label_embs_concat": "hubert",
}
"""Part of a model or of its objective -> family, by the first that is there."""

LAYER = re.compile(r"(?<=layers\.)\d+(?=\.)")


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
OBJECTIVE = "part of the pre-training objective, which this model does not use"
HOOKED = {
    "last_state": Fact("normed", f"{AUTHORS}: it hooks the output"),
    "mask_rule": Fact("hf", f"{AUTHORS}: it never pads"),
    "normalize_eps": Fact(
        CONSTANTS["normalize_eps"], f"{AUTHORS}: layer_norm of the waveform"
    ),
}
"""What the code of downstream models does."""
NORMALIZED = (
    "assumed: Large models, with a norm in each convolution, were trained "
    "on normalised waveforms, Base models were not"
)
ASSUMED_NORM = (
    "normalize_wav: assumed {}, by the backbone's size; no tensor tells, and "
    "--set normalize_wav={} gives the other"
)

CONV = "feature_extractor.conv_layers.{}.{}"
PROJECTION = "feature_projection.projection."
BIASES = "encoder.layers.0.attention.rel_attn_embed.weight"
POSITIONS = tuple(WEIGHT_NORM.values()) + (POSITION_CONV + ".weight",)
SHAPES = {
    "num_hidden_layers": r"encoder\.layers\.(\d+)\.",
    "convolutions": r"feature_extractor\.conv_layers\.(\d+)\.",
}


class Upstream(NamedTuple):
    """The backbone in a downstream file, and what is left of the file.

    Arguments
    ---------
    backbone : dict
        Name in ``Backbone`` -> tensor; empty where the file has none.
    rest : dict
        Name in the file -> tensor, for all that is neither backbone nor
        dropped.
    facts : dict
        Option of ``Backbone`` -> ``Fact``.
    dropped : dict
        Name in the file -> why it is left out.
    notes : list of str
        What was added or assumed.
    """

    backbone: dict[str, torch.Tensor]
    rest: dict[str, torch.Tensor]
    facts: dict[str, Fact]
    dropped: dict[str, str]
    notes: list[str]


def read_upstream(tensors, prefix, path, overrides):
    """Takes the backbone, whose names start with a prefix, out of a
    downstream model, name -> tensor, as an ``Upstream``."""
    backbone, others = rename_backbone(tensors, prefix)
    dropped = {
        name: OBJECTIVE
        for name in others
        if name.startswith(prefix) and rename(name.removeprefix(prefix), TOP)
    }
    rest = {name: t for name, t in others.items() if name not in dropped}
    if not backbone:
        return Upstream({}, rest, dict(HOOKED), dropped, [])
    notes = complete_backbone(backbone)
    asked = {k: v for k, v in overrides.items() if k not in HOOKED}
    _, facts, assumed = backbone_options(backbone, path, asked)
    facts = facts | HOOKED
    facts |= _family(backbone, dropped)
    normalized = facts["feat_extract_norm"].value == "layer"
    facts["normalize_wav"] = Fact(normalized, NORMALIZED)
    if "normalize_wav" not in overrides:
        texts = ["true", "false"] if normalized else ["false", "true"]
        assumed = [*assumed, ASSUMED_NORM.format(*texts)]
    return Upstream(backbone, rest, facts, dropped, notes + assumed)


def rename(name, table):
    """Another name of a tensor, which comes without the prefix of its model,
    by ``BACKBONE`` or ``TOP``; None where the table has none."""
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


def rename_backbone(
    tensors: Mapping[str, torch.Tensor], prefix: str = ""
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Parts a model, name -> tensor, into the backbone, whose names start with
    a prefix such as ``w2v_encoder.w2v_model.`` and become those in
    ``Backbone``, and all others under the names that they had."""
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


def backbone_options(
    backbone: Mapping[str, torch.Tensor],
    path: str | Path,
    overrides: Mapping[str, Any] | None = None,
    known: Mapping[str, Fact] | None = None,
) -> tuple[dict[str, Any], dict[str, Fact], list[str]]:
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


def complete_backbone(backbone: dict[str, torch.Tensor]) -> list[str]:
    """Adds what fairseq leaves out where it would do nothing, an identity in
    place of a projection between equal sizes; the notes on that."""
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
    if BIASES in backbone:
        buckets, heads = _shape(backbone, BIASES, 2, path)
        sizes |= {"num_buckets": buckets, "num_attention_heads": heads}
    return measured(**sizes)


def _family(backbone, dropped):
    """The family of a backbone, as a fact, by the tensors that only one has:
    of its own, or of an objective; no fact where none tells."""
    parts = " ".join(dropped)
    parts += "relative positions" if BIASES in backbone else ""
    for name, family in FAMILY_MARKS.items():
        if name in parts:
            return {"family": Fact(family, f"names of the tensors: {name}")}
    return {}


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
        "max_bucket_distance": Fact(800, "assumed: as in published models"),
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
