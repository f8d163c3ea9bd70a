"""Options are checked before anything is built or allocated."""

import inspect
import math

import pytest

from tests.huggingface import FAMILIES, full_config
from unispeech_sb.checkpoints.options import (
    BACKBONE,
    HEADS,
    OPTIONS,
    OURS,
    SHARED,
    SWITCHES,
    check_config,
    check_overrides,
)
from unispeech_sb.lobes.backbone import Backbone

LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "codevector_dim": 768,
    "proj_codevector_dim": 768,
    "vocab_size": 531,
    "id2label": {k: f"id{k}" for k in range(1211)},
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("options", [{}, LARGE], ids=["base", "large"])
def test_published_sizes_pass(family, options):
    check_config(full_config(family, **options).to_dict(), "config.json")


def test_every_option_of_a_reader_has_a_limit():
    assert {*BACKBONE, *HEADS, *SWITCHES} <= OPTIONS.keys()
    unlimited = {name for name, option in OPTIONS.items() if not option.rule}
    assert unlimited == {"problem_type", "feature_grad_mult"}
    check_config({**BACKBONE, **HEADS, **SWITCHES}, "x")


def test_the_table_has_the_backbones_options_and_defaults():
    taken = inspect.signature(Backbone).parameters
    assert taken.keys() == SHARED.keys() | OURS.keys()
    for name, parameter in taken.items():
        default = parameter.default
        plain = list(default) if isinstance(default, tuple) else default
        assert plain == OPTIONS[name].default, name


def test_names_of_fairseq_mean_one_option():
    names = [
        name for option in OPTIONS.values() for name in option.training.split()
    ]
    assert len(set(names)) == len(names) > 10


WRONG = [
    ("hidden_size", 10**9, "a whole number from 1 to 16384; got 1000000000"),
    ("hidden_size", 0, "got 0"),
    ("intermediate_size", 65_537, "a whole number from 1 to 65536; got 65537"),
    ("hidden_size", -768, "got -768"),
    ("hidden_size", "768", "got '768'"),
    ("hidden_size", True, "got True"),
    ("hidden_size", None, "got None"),
    ("hidden_size", 768.0, "got 768.0"),
    ("hidden_size", 10**400, "got a number of 1329 bits"),
    ("num_hidden_layers", "__import__('os').system('touch x')", "__import__"),
    ("num_hidden_layers", 10**6, "from 1 to 256"),
    ("layerdrop", math.nan, "got nan"),
    ("layerdrop", math.inf, "got inf"),
    ("mask_time_prob", 1.5, "a number from 0 to 1; got 1.5"),
    ("hidden_act", "eval", "'gelu' or 'gelu_new' or .*; got 'eval'"),
    ("hidden_act", ["gelu"], "got a list"),
    ("conv_dim", [512] * 100, "a list of 1 to 32 items"),
    ("conv_dim", [], "a list of 1 to 32 items"),
    ("conv_dim", "[512]*7", r"got '\[512\]\*7'"),
    ("conv_kernel", [10, "3"], "each a whole number from 1 to 1024"),
    ("conv_bias", "false", "true or false; got 'false'"),
    ("conv_bias", 1, "true or false; got 1"),
    ("vocab_size", 10**12, "from 1 to 1000000"),
    ("id2label", "yes, no", "names of at most 1000000 classes"),
    ("id2label", {"0": ["no"]}, "names of at most"),
    ("mask_rule", "mine", "'hf' or 'fairseq'; got 'mine'"),
]


@pytest.mark.parametrize(("name", "value", "message"), WRONG, ids=str)
def test_a_wrong_option_is_named_with_what_was_expected(name, value, message):
    expected = f"config.json: expected {name} to be .*{message}"
    with pytest.raises(ValueError, match=expected) as caught:
        check_config({name: value}, "config.json")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 250


def test_a_long_value_is_shortened():
    with pytest.raises(ValueError, match=r"\.\.\.$") as caught:
        check_config({"hidden_act": "a\n" * 10**6}, "config.json")
    assert len(str(caught.value)) < 200


def test_options_must_fit_together():
    for config, message in (
        ({"hidden_size": 768, "num_attention_heads": 7}, "a multiple of"),
        ({"conv_dim": [8, 8], "conv_kernel": [3]}, "of one length"),
        (
            {
                "hidden_size": 16_384,
                "intermediate_size": 65_536,
                "num_hidden_layers": 256,
            },
            "at most 20000000000 parameters",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            check_config(config, "config.json")


def test_options_given_by_hand_have_to_exist_and_to_be_right():
    check_overrides({"num_heads": 4, "mask_rule": "hf", "target_lang": "fra"})
    with pytest.raises(ValueError, match=r"--set: .*did you mean mask_rule\?"):
        check_overrides({"mask_rules": "hf"})
    with pytest.raises(ValueError, match="--set: expected mask_rule to be"):
        check_overrides({"mask_rule": "kaldi"})
