"""Options of the backbone and of heads: one table, and its check.

Names and defaults are those of transformers' configurations, where it has the
option. A configuration decides what is allocated: so each number has a range,
many times wider than that of the published models, and each text a choice.
"""

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

FAMILIES = {
    "unispeech": "unispeech.",
    "unispeech-sat": "unispeech_sat.",
    "wav2vec2": "wav2vec2.",
    "hubert": "hubert.",
    "wavlm": "wavlm.",
}
"""Model type of transformers -> prefix of the backbone's tensors there."""
DEFAULTS: dict[str, dict[str, Any]] = {
    "wav2vec2": {"ctc_loss_reduction": "sum"},
    "hubert": {"ctc_loss_reduction": "sum"},
    "wavlm": {"num_buckets": 320},
}
"""Family -> what its configurations mean by a missing option, where that is
not the default below."""

MOST_PARAMETERS = 20_000_000_000
"""Sixty times the Large models."""
SHOWN = 60
"""Characters of a wrong value that an error shows."""


class Rule(NamedTuple):
    """What a value may be: in words, as a function that says whether, and
    the texts to choose from."""

    expected: str
    holds: Callable[[Any], bool]
    choices: tuple[str, ...] = ()


class Option(NamedTuple):
    """One option.

    Arguments
    ---------
    rule : Rule or None
        What its value may be; None where that is checked elsewhere.
    default : object
        What is meant by a configuration without it.
    shape, training : str
        Its names in fairseq, after one another, where it is one of those that
        give the backbone its shape, or that steer training.
    may_be_none : bool
        Whether None is a value too.
    shown : bool
        Whether ``info`` shows it of every backbone.
    only_here : bool
        Whether transformers has no such step, so that ``to-hf`` refuses any
        value but the default.
    families : str
        The families that transformers has it in, after one another; all of
        them where empty.
    """

    rule: Rule | None
    default: object = None
    shape: str = ""
    training: str = ""
    may_be_none: bool = False
    shown: bool = False
    only_here: bool = False
    families: str = ""


def _number(least, most, kinds=(int,)):
    """A number in a range, both ends included."""
    kind = "a number" if float in kinds else "a whole number"
    return Rule(
        f"{kind} from {least} to {most}",
        lambda value: type(value) in kinds and least <= value <= most,
    )


def real(least, most):
    """A number that needs not be whole."""
    return _number(least, most, (int, float))


def _numbers(each, most=32):
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
        values,
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
ABSENT = Rule("false, as no backbone here has it", lambda value: value is False)
TEXT = Rule("a text", lambda value: isinstance(value, str))
SHARE = real(0, 1)
SIZE, COUNT, KERNEL = (
    _number(1, 16_384),
    _number(1, 1_000_000),
    _number(1, 1024),
)
TOKEN, LAYERS = _number(0, 1_000_000), _number(1, 256)
BLANK = Rule(
    "a token, or its index from 0 to 1000000",
    lambda value: isinstance(value, str) or TOKEN.holds(value),
)
SPAN, SPANS = _number(1, 100_000), _number(0, 100_000)
MOST_NUMBER, MOST_ITEMS = 10**6, 32
"""Largest number among a lobe's arguments, and most of them in a list."""
LOOPS = {"num_layers": LAYERS, "num_states": KERNEL, "scale": KERNEL}
"""Arguments of heads that are numbers of modules or of tensors."""

ACTIVATION = _choice("gelu", "gelu_new", "relu", "selu")

SHARED = {
    "hidden_size": Option(SIZE, 768, "encoder_embed_dim", shown=True),
    "num_hidden_layers": Option(LAYERS, 12, "encoder_layers", shown=True),
    "num_attention_heads": Option(
        KERNEL, 12, "encoder_attention_heads", shown=True
    ),
    "intermediate_size": Option(
        _number(1, 65_536), 3072, "encoder_ffn_embed_dim", shown=True
    ),
    "hidden_act": Option(ACTIVATION, "gelu", "activation_fn"),
    "hidden_dropout": Option(SHARE, 0.1, training="dropout"),
    "activation_dropout": Option(SHARE, 0.1, training="activation_dropout"),
    "attention_dropout": Option(SHARE, 0.1, training="attention_dropout"),
    "feat_proj_dropout": Option(SHARE, 0.0, training="dropout_input"),
    "layerdrop": Option(SHARE, 0.1, training="encoder_layerdrop layerdrop"),
    "initializer_range": Option(real(0, 10), 0.02),
    "layer_norm_eps": Option(SHARE, 1e-5),
    "feat_extract_norm": Option(
        _choice("group", "layer"), "group", "extractor_mode", shown=True
    ),
    "feat_extract_activation": Option(ACTIVATION, "gelu"),
    "conv_dim": Option(
        _numbers(SIZE), [512] * 7, "conv_feature_layers", shown=True
    ),
    "conv_stride": Option(
        _numbers(KERNEL), [5, 2, 2, 2, 2, 2, 2], "conv_feature_layers"
    ),
    "conv_kernel": Option(
        _numbers(KERNEL), [10, 3, 3, 3, 3, 2, 2], "conv_feature_layers"
    ),
    "conv_bias": Option(FLAG, False, shown=True),
    "num_conv_pos_embeddings": Option(_number(1, 4096), 128, "conv_pos"),
    "num_conv_pos_embedding_groups": Option(
        _number(1, 4096), 16, "conv_pos_groups"
    ),
    "do_stable_layer_norm": Option(FLAG, False, "layer_norm_first", shown=True),
    "mask_time_prob": Option(SHARE, 0.05, training="mask_prob"),
    "mask_time_length": Option(SPAN, 10, training="mask_length"),
    "mask_time_min_masks": Option(SPANS, 2),
    "mask_feature_prob": Option(SHARE, 0.0, training="mask_channel_prob"),
    "mask_feature_length": Option(SPAN, 10, training="mask_channel_length"),
    "mask_feature_min_masks": Option(SPANS, 0),
    "adapter_attn_dim": Option(
        SIZE,
        None,
        may_be_none=True,
        shown=True,
        families="unispeech unispeech-sat wav2vec2 hubert",
    ),
    "feat_proj_layer_norm": Option(FLAG, True, families="hubert"),
    "num_buckets": Option(
        _number(4, 100_000),
        None,
        "num_buckets",
        may_be_none=True,
        shown=True,
        families="wavlm",
    ),
    "max_bucket_distance": Option(
        _number(2, 1_000_000), 800, "max_distance", families="wavlm"
    ),
}
"""Options of ``Backbone`` that transformers has too."""

OURS = {
    "pos_conv_weight_norm": Option(FLAG, True),
    "apply_spec_augment": Option(FLAG, False),
    "normalize_wav": Option(FLAG, False, shown=True),
    "normalize_eps": Option(real(1e-12, 1), 1e-5, shown=True),
    "output_norm": Option(FLAG, False, only_here=True),
    "freeze": Option(FLAG, False),
    "freeze_feature_extractor": Option(FLAG, False),
    "output_all_hiddens": Option(FLAG, False),
    "gradient_checkpointing": Option(FLAG, False),
    "last_state": Option(_choice("normed", "raw"), "normed", shown=True),
    "mask_rule": Option(_choice("hf", "fairseq"), "hf", shown=True),
    "window_s": Option(real(4, 86_400), None, may_be_none=True, only_here=True),
}
"""Those that only ``Backbone`` has, or has another default for."""

TOP = {
    "vocab_size": Option(COUNT, 32),
    "final_dropout": Option(SHARE, 0.1, training="final_dropout"),
    "ctc_loss_reduction": Option(_choice("mean", "sum", "none"), "mean"),
    "ctc_zero_infinity": Option(FLAG, False),
    "pad_token_id": Option(TOKEN, 0, may_be_none=True),
    "bos_token_id": Option(TOKEN, 1, may_be_none=True),
    "eos_token_id": Option(TOKEN, 2, may_be_none=True),
    "problem_type": Option(None),
    "use_weighted_layer_sum": Option(FLAG, False),
    "classifier_proj_size": Option(SIZE, 256),
    "tdnn_dim": Option(_numbers(SIZE), [512, 512, 512, 512, 1500]),
    "tdnn_kernel": Option(_numbers(KERNEL), [5, 3, 3, 1, 1]),
    "tdnn_dilation": Option(_numbers(KERNEL), [1, 2, 3, 1, 1]),
    "xvector_output_dim": Option(SIZE, 512),
    "num_codevectors_per_group": Option(COUNT, 320),
    "num_codevector_groups": Option(KERNEL, 2),
    "codevector_dim": Option(SIZE, 256),
    "proj_codevector_dim": Option(SIZE, 256),
    "feat_quantizer_dropout": Option(SHARE, 0.0, training="dropout_features"),
    "num_ctc_classes": Option(TOKEN, 80),
    "replace_prob": Option(SHARE, 0.5, training="replace_prob"),
    "num_clusters": Option(COUNT, 504),
}
"""Options of transformers' heads."""

MORE = {
    "tdnn_lengths": Option(_choice("exact", "hf"), "exact"),
    "contrastive_logits_temperature": Option(
        real(0, 1000), training="logit_temp"
    ),
    "num_negatives": Option(SPANS, training="num_negatives"),
    "feature_grad_mult": Option(None, training="feature_grad_mult"),
    "gumbel_temperature": Option(real(0, 1000)),
    "id2label": Option(_names(1_000_000), may_be_none=True),
    "label2id": Option(_names(1_000_000), may_be_none=True),
    "num_labels": Option(COUNT, may_be_none=True),
    "num_layers": Option(LAYERS),
    "num_heads": Option(KERNEL),
    "rnn_size": Option(SIZE),
    "relu": Option(FLAG),
    "dictionary": Option(TEXT),
    "blank": Option(BLANK),
    "target_lang": Option(TEXT, may_be_none=True),
    "add_adapter": Option(ABSENT, False),
    "conv_pos_batch_norm": Option(ABSENT, False),
}
"""What else a checkpoint, or who converts it, may say."""

OPTIONS = {**SHARED, **OURS, **TOP, **MORE}
"""Name -> option. A new option of the backbone is one row of a table above."""

BACKBONE = {name: option.default for name, option in SHARED.items()}
HEADS = {name: option.default for name, option in TOP.items()}
SWITCHES = {
    name: OPTIONS[name].default
    for name in ("last_state", "mask_rule", "tdnn_lengths")
}
"""Where publishers' codes differ: options of this package, with the values
that an unpadded utterance cannot tell from the publisher's."""

WAV_NORM_EPS = 1e-7
"""Epsilon that transformers' feature extractor adds to the variance."""

NUM_LABELS = 2
"""Number of classes of a configuration without ``id2label``."""

SAME_LENGTH = (
    ("conv_dim", "conv_stride", "conv_kernel"),
    ("tdnn_dim", "tdnn_kernel", "tdnn_dilation"),
)
MULTIPLES = (
    ("hidden_size", "num_attention_heads"),
    ("hidden_size", "num_conv_pos_embedding_groups"),
    ("codevector_dim", "num_codevector_groups"),
)


def check_config(config: Mapping[str, Any], path: str | Path) -> None:
    """Checks every known option of a configuration; others are left alone.

    The ``ValueError`` names the path, the first option that is wrong, and
    what was expected.
    """
    for name, option in OPTIONS.items():
        if option.rule is None or name not in config:
            continue
        value = config[name]
        if value is None and option.may_be_none:
            continue
        if not option.rule.holds(value):
            raise ValueError(
                f"{path}: expected {name} to be {option.rule.expected}; "
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


_ELSEWHERE = {
    **dict.fromkeys(("cache_dir", "local_dir"), "save_path"),
    **dict.fromkeys(
        ("dtype", "torch_dtype"), "run_opts' precision, or .to(dtype) after it"
    ),
    **dict.fromkeys(
        ("device", "device_map"), "run_opts' device, or .to(device) after it"
    ),
    "pretrained_path": "source",
    "input_norm": "normalize_wav",
    "dropout": "hidden_dropout",
    "attention_dropout_prob": "attention_dropout",
    "pretrain": "Backbone.from_preset, for random weights",
    "output_hidden_states": "output_all_hiddens",
    "for_pretraining": "unispeech_sb.lobes.Wav2Vec2Pretrain",
    **dict.fromkeys(
        ("seq2seqlm", "with_casual_lm", "with_lm_head"),
        "nothing, as it is no language model",
    ),
    "quantizer": "the recipe make_units, for units of frames",
    **dict.fromkeys(
        ("quantization_config", "load_in_8bit"), "none; weights are as saved"
    ),
}
"""Keyword of transformers or of SpeechBrain's lobes -> what does it here."""

_WITHOUT_EFFECT = {
    "attn_implementation": ("sdpa", "eager", None),
    "trust_remote_code": (True, False, None),
    "use_safetensors": (True, False, None),
    "low_cpu_mem_usage": (True, False, None),
    **dict.fromkeys(
        ("for_pretraining", "with_lm_head", "with_casual_lm", "seq2seqlm"),
        (False,),
    ),
    **dict.fromkeys(
        ("quantization_config", "device", "device_map", "cache_dir"), (None,)
    ),
}
"""Keyword of transformers or of SpeechBrain's lobes -> values that change no
result here."""


def check_arguments(config: Mapping[str, Any], path: str | Path) -> None:
    """Checks the arguments of any lobe, as ``check_config`` does: numbers,
    short texts and short lists of them; those that it loops over are few."""
    check_config(config, path)
    for name, value in config.items():
        items = value if isinstance(value, (list, tuple)) else [value]
        if len(items) > MOST_ITEMS or not all(map(_is_small, items)):
            raise ValueError(
                f"{path}: expected {name} to be a short text, a list of at "
                f"most {MOST_ITEMS} items, or a number of at most "
                f"{MOST_NUMBER}; got {shown(_largest(items))}"
            )
        loop = LOOPS.get(name)
        if loop and type(value) is int and not loop.holds(value):
            raise ValueError(
                f"{path}: expected {name} to be {loop.expected}; got {value}"
            )


def _is_small(value):
    """Whether a value is a number, flag or text of usual size."""
    if isinstance(value, str):
        return len(value) <= 2 * SHOWN
    if isinstance(value, float):
        return abs(value) <= MOST_NUMBER
    return value is None or (
        isinstance(value, int) and abs(value) <= MOST_NUMBER
    )


def _largest(items):
    """The first of some items that is not small, else all."""
    return next((item for item in items if not _is_small(item)), items)


def default_family(config: Mapping[str, Any]) -> str:
    """The family of a backbone that does not say its own: one that has every
    class of transformers for it."""
    return "wavlm" if config.get("num_buckets") else "unispeech-sat"


def missing_in(family: str, config: Mapping[str, Any]) -> str | None:
    """What transformers' models of a family lack of a backbone, in words; None
    where they have all of it."""
    for name, option in SHARED.items():
        known = not option.families or family in option.families.split()
        value = config.get(name, option.default)
        if not known and value != option.default:
            return f"{name} {shown(value)}"
    if family == "wavlm" and not config.get("num_buckets"):
        return "num_buckets null"
    return None


def check_overrides(overrides: Mapping[str, Any]) -> None:
    """Checks the options that a user gives by hand: they have to exist."""
    known = [name for name, option in OPTIONS.items() if option.rule]
    for name in overrides:
        if name not in known:
            close = get_close_matches(name, known, 1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise ValueError(
                "--set: expected an option of the backbone or of a head; "
                f"got {shown(name)}{hint}"
            )
    check_config(overrides, "--set")


def options_of(
    given: Mapping[str, Any], known: Sequence[str]
) -> dict[str, Any]:
    """The options among keywords of a user. Those that change no result are
    left out; others that the backbone does not have are an error, which names
    what does the same here, if anything does."""
    kept = {}
    for name, value in given.items():
        if name in known:
            kept[name] = value
        elif value in _WITHOUT_EFFECT.get(name, ()):
            continue
        elif name in _ELSEWHERE:
            raise ValueError(
                f"Backbone: expected an option of its own; got {name!r}, for "
                f"which it has {_ELSEWHERE[name]}"
            )
        else:
            close = get_close_matches(name, known, 1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise ValueError(
                f"Backbone: expected an option of its own; got {name!r}{hint}"
            )
    return kept


def shown(value: object) -> str:
    """Writes a wrong value, anything from a file, in one short line."""
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
    dim = config.get("hidden_size", 1)
    layers = config.get("num_hidden_layers", 1)
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
