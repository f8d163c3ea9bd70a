"""Files that contradict themselves are refused in one sentence."""

import pytest
import torch

from unispeech_sb.checkpoints.fairseq import (
    read_fairseq,
)

WRONG = [
    (lambda c: c["cfg"]["model"].update(_name="data2vec"), "got 'data2vec'"),
    (lambda c: c["cfg"]["model"].update(_name=["a"]), "got a list"),
    (lambda c: c.update(cfg=None), "there are none"),
    (lambda c: c.pop("model"), "with a model; it has args, cfg"),
    (lambda c: c["model"].update(x="y"), "named tensors in its model"),
    (lambda c: c["model"].update({"x.y": torch.ones(1)}), "unexpected x.y"),
    (
        lambda c: c["cfg"]["model"].update(encoder_layers=24),
        "expected num_hidden_layers 2 .*; got 24",
    ),
    (
        lambda c: c["cfg"]["model"].update(conv_feature_layers="exit()"),
        r"conv_feature_layers: expected .*; got 'exit\(\)'",
    ),
    (
        lambda c: c["cfg"]["model"].update(encoder_attention_heads=10**9),
        "num_attention_heads to be a whole number",
    ),
    (
        lambda c: c["cfg"]["model"].update(encoder_attention_heads=5),
        "hidden_size to be a multiple of num_attention_heads",
    ),
    (
        lambda c: c["cfg"]["model"].update(activation_fn="tanh"),
        "activation_fn: expected gelu or .*; got 'tanh'",
    ),
    (
        lambda c: c["cfg"]["model"].update(conv_bias=False),
        "convolutions without a bias",
    ),
    (
        lambda c: c["cfg"]["model"].update(latent_temp="open('x')"),
        "latent_temp: expected lists and numbers",
    ),
    (
        lambda c: c["cfg"]["task"].update(normalize="yes"),
        "normalize_wav to be true or false; got 'yes'",
    ),
    (
        lambda c: c["cfg"]["task"].pop("normalize"),
        "--set normalize_wav=true",
    ),
    (
        lambda c: c["cfg"]["task"].update(sample_rate=8000),
        "a sample_rate of 16000; got 8000",
    ),
    (
        lambda c: c["task_state"]["target_dictionary"].state["symbols"].pop(),
        "as the first four symbols",
    ),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_files_that_contradict_themselves_are_refused(change, message, stage1):
    change(stage1)
    with pytest.raises(ValueError, match=message) as caught:
        read_fairseq(stage1, "x.pt")
    text = str(caught.value)
    assert text.startswith("x.pt: ") and "\n" not in text and len(text) < 400
