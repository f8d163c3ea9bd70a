"""What an option of a checkpoint may be, checked before anything is built.

A configuration decides what is allocated, so each number has a range, many
times wider than that of the published models, and each text a choice.
"""

from collections.abc import Callable
from difflib import get_close_matches
from itertools import pairwise
from typing import NamedTuple

MOST_PARAMETERS = 20_000_000_000
"""Sixty times the Large models."""
SHOWN = 60
"""Characters of a wrong value that an error shows."""


class Rule(NamedTuple):
    """What a value may be.

    Arguments
    ---------
    expected : str
        In words.
    holds : callable
        Tells whether a value is right.

    Example
    -------
    >>> Rule("text", lambda value: isinstance(value, str)).holds(3)
    False
    """

    expected: str
    holds: Callable


def _number(least, most, kinds=(int,)):
    """A number in a range, both ends included."""
    kind = "a number" if float in kinds else "a whole number"
    return Rule(
        f"{kind} from {least} to {most}",
        lambda value: type(value) in kinds and least <= value <= most,
    )


def _real(least, most):
    """A number that needs not be whole."""
    return _number(least, most, (int, float))


def _numbers(each, most):
    """A list of numbers."""
    return Rule(
        f"a list of 1 to {most} items, each {each.expected}",
        lambda value: (
            type(value) in (list, tuple)
            and 0 < len(value) <= most
            and all(each.holds(item) for item in value)
        ),
    )


def _choice(*values):
    """One of a few texts."""
    return Rule(
        " or ".join(map(repr, values)),
        lambda value: type(value) is str and value in values,
    )


def _names(most):
    """Names by number, or numbers by name."""
    return Rule(
        f"names of at most {most} classes",
        lambda value: (
            type(value) is dict
            and len(value) <= most
            and all(type(x) in (str, int) for x in [*value, *value.values()])
        ),
    )


FLAG = Rule("true or false", lambda value: type(value) is bool)
TEXT = Rule("a text", lambda value: isinstance(value, str))
SHARE = _real(0, 1)
SIZE, COUNT, KERNEL = (
    _number(1, 16_384),
    _number(1, 1_000_000),
    _number(1, 1024),
)
TOKEN = _number(0, 1_000_000)
ACTIVATION = _choice("gelu", "gelu_new", "relu", "selu")
OPTIONS = {
    "hidden_size": SIZE,
    "num_hidden_layers": _number(1, 256),
    "num_attention_heads": _number(1, 1024),
    "intermediate_size": _number(1, 65_536),
    "hidden_act": ACTIVATION,
    "feat_extract_activation": ACTIVATION,
    "initializer_range": _real(0, 10),
    "layer_norm_eps": SHARE,
    "normalize_eps": SHARE,
    "feat_extract_norm": _choice("group", "layer"),
    "conv_dim": _numbers(SIZE, 32),
    "conv_stride": _numbers(KERNEL, 32),
    "conv_kernel": _numbers(KERNEL, 32),
    "num_conv_pos_embeddings": _number(1, 4096),
    "num_conv_pos_embedding_groups": _number(1, 4096),
    "last_state": _choice("normed", "raw"),
    "mask_rule": _choice("hf", "fairseq"),
    "tdnn_lengths": _choice("exact", "hf"),
    "ctc_loss_reduction": _choice("mean", "sum", "none"),
    "contrastive_logits_temperature": _real(0, 1000),
    "num_negatives": _number(0, 100_000),
    "gumbel_temperature": _real(0, 1000),
    "tdnn_dim": _numbers(SIZE, 32),
    "tdnn_kernel": _numbers(KERNEL, 32),
    "tdnn_dilation": _numbers(KERNEL, 32),
    "num_codevector_groups": KERNEL,
    "id2label": _names(1_000_000),
    "label2id": _names(1_000_000),
    **dict.fromkeys(
        ("hidden_dropout", "activation_dropout", "attention_dropout",
         "feat_proj_dropout", "feat_quantizer_dropout", "final_dropout",
         "layerdrop", "mask_time_prob", "mask_feature_prob", "replace_prob"),
        SHARE,
    ),
    **dict.fromkeys(
        ("conv_bias", "pos_conv_weight_norm", "do_stable_layer_norm",
         "apply_spec_augment", "normalize_wav", "output_norm", "freeze",
         "freeze_feature_extractor", "output_all_hiddens",
         "gradient_checkpointing", "use_weighted_layer_sum",
         "ctc_zero_infinity"),
        FLAG,
    ),
    **dict.fromkeys(
        ("mask_time_length", "mask_feature_length"), _number(1, 100_000)
    ),
    **dict.fromkeys(
        ("mask_time_min_masks", "mask_feature_min_masks"), _number(0, 100_000)
    ),
    **dict.fromkeys(
        ("classifier_proj_size", "xvector_output_dim", "codevector_dim",
         "proj_codevector_dim"), SIZE,
    ),
    **dict.fromkeys(
        ("vocab_size", "num_labels", "num_ctc_classes", "num_clusters",
         "num_codevectors_per_group"), COUNT,
    ),
    **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), TOKEN),
    "adapter_attn_dim": SIZE,
    "num_layers": _number(1, 256),
    "num_heads": _number(1, 1024),
    "relu": FLAG,
    "dictionary": TEXT,
    "target_lang": TEXT,
}  # fmt: skip
"""Option, by transformers' name where it has one -> what it may be."""

MAY_BE_NONE = {
    "adapter_attn_dim", "pad_token_id", "bos_token_id", "eos_token_id",
    "id2label", "label2id", "num_labels", "target_lang",
}  # fmt: skip
SAME_LENGTH = (
    ("conv_dim", "conv_stride", "conv_kernel"),
    ("tdnn_dim", "tdnn_kernel", "tdnn_dilation"),
)
MULTIPLES = (
    ("hidden_size", "num_attention_heads"),
    ("hidden_size", "num_conv_pos_embedding_groups"),
    ("codevector_dim", "num_codevector_groups"),
)


def check_config(config, path):
    """Checks every known option of a configuration.

    Arguments
    ---------
    config : dict
        Options of ``Backbone`` and of heads, under transformers' names.
        Others are left alone.
    path : str or pathlib.Path
        Where they are from, for the error.

    Raises
    ------
    ValueError
        Names the first option that is wrong, and what was expected.

    Example
    -------
    >>> check_config({"hidden_size": 768, "torch_dtype": "float32"}, "c.json")
    >>> check_config({"hidden_size": "768"}, "c.json")
    Traceback (most recent call last):
    ...
    ValueError: c.json: expected hidden_size to be a whole number from 1 ...
    """
    for name, rule in OPTIONS.items():
        if name not in config:
            continue
        value = config[name]
        if value is None and name in MAY_BE_NONE:
            continue
        if not rule.holds(value):
            raise ValueError(
                f"{path}: expected {name} to be {rule.expected}; "
                f"got {shown(value)}"
            )
    for names in SAME_LENGTH:
        lengths = {len(config[name]) for name in names if name in config}
        if len(lengths) > 1:
            raise ValueError(
                f"{path}: expected {', '.join(names)} of one length; got "
                f"{sorted(lengths)}"
            )
    for whole, part in MULTIPLES:
        if whole in config and part in config and config[whole] % config[part]:
            raise ValueError(
                f"{path}: expected {whole} to be a multiple of {part}; got "
                f"{config[whole]} and {config[part]}"
            )
    parameters = _least_parameters(config)
    if parameters > MOST_PARAMETERS:
        raise ValueError(
            f"{path}: expected a model of at most {MOST_PARAMETERS} "
            f"parameters; its sizes make {parameters}"
        )


def check_overrides(overrides):
    """Checks the options that a user gives by hand.

    Arguments
    ---------
    overrides : dict
        Name -> value.

    Raises
    ------
    ValueError
        Names the first one that does not exist or cannot be.

    Example
    -------
    >>> check_overrides({"num_atention_heads": 4})
    Traceback (most recent call last):
    ...
    ValueError: --set: expected an option ...; got 'num_atention_heads' (did ...
    """
    for name in overrides:
        if name not in OPTIONS:
            close = get_close_matches(name, OPTIONS, 1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise ValueError(
                "--set: expected an option of the backbone or of a head; "
                f"got {shown(name)}{hint}"
            )
    check_config(overrides, "--set")


def shown(value):
    """Writes a wrong value in one short line.

    Arguments
    ---------
    value : object
        Anything from a file.

    Returns
    -------
    str
        At most some sixty characters.

    Example
    -------
    >>> shown("a" * 1000)[-9:]
    'aaaaaa...'
    """
    if not isinstance(value, (str, int, float, type(None))):
        return f"a {type(value).__name__}"
    if isinstance(value, str):
        value = value[: 2 * SHOWN]  # repr of a long text takes long
    if isinstance(value, int) and value.bit_length() > 8 * SHOWN:
        return f"a number of {value.bit_length()} bits"
    text = ascii(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


def _least_parameters(config):
    """Parameters of what is large, where a configuration says its sizes."""
    dim, layers = (
        config.get("hidden_size", 1),
        config.get("num_hidden_layers", 1),
    )
    inner = config.get("intermediate_size", 1)
    total = layers * (4 * dim * dim + 2 * dim * inner)
    kernel = config.get("num_conv_pos_embeddings", 1)
    groups = config.get("num_conv_pos_embedding_groups", 1)
    total += dim * dim // groups * kernel
    for name in ("conv", "tdnn"):
        sizes = pairwise([1, *config.get(f"{name}_dim", [])])
        kernels = config.get(f"{name}_kernel", [])
        total += sum(i * o * k for (i, o), k in zip(sizes, kernels))
    classes = max(
        config.get(name) or 1
        for name in ("vocab_size", "num_labels", "num_ctc_classes")
    )
    return total + classes * dim
