"""Everything that SpeechBrain's recipes touch on its lobes works on ours."""

import os
import re

import pytest
import torch

from tests.huggingface import save_folder, tiny_model
from tests.speechbrain_recipes.run_recipes import CLONES
from tests.speechbrain_recipes.surface import read_table, surface
from unispeech_sb import lobes

TABLE = sorted(read_table())
OURS = {
    "Wav2Vec2": "Wav2Vec2",
    "FairseqWav2Vec2": "Wav2Vec2",
    "HFTransformersInterface": "Wav2Vec2",
    "Wav2Vec2Pretrain": "Wav2Vec2Pretrain",
    "WeightedSSLModel": "WeightedSSLModel",
}
"""Class of SpeechBrain's -> ours."""

VALUES = {
    **dict.fromkeys(("freeze", "freeze_feature_extractor"), True),
    **dict.fromkeys(("output_norm", "output_all_hiddens"), True),
    **dict.fromkeys(("apply_spec_augment", "layernorm"), True),
    "normalize_wav": False,
    "mask_prob": 0.5,
    "mask_length": 2,
    **dict.fromkeys(("device", "device_map"), "cpu"),
}
"""Keyword that ours takes -> a value that is not its default; what is built
has an attribute of that name and value, where SpeechBrain's has one."""

ELSEWHERE = {
    "cache_dir": "save_path",
    "dropout": "hidden_dropout",
    "layer_drop": "layerdrop",
    "input_norm": "normalize_wav",
    "pretrain": "from_preset",
    "pretrained_path": "source",
    "quantization_config": "as saved",
    "for_pretraining": "Wav2Vec2Pretrain",
    "seq2seqlm": "language model",
    "with_casual_lm": "language model",
    "with_lm_head": "language model",
}
"""Keyword that is refused -> what the error names."""

ARGUMENTS = {
    "(*)": "(wavs)",
    "(*)[]": "(wavs)[0]",
    "(*, *)": "(wavs, wav_lens)",
    "(*, *)[].flatten(end_dim=)": "(wavs, wav_lens)[0].flatten(end_dim=-2)",
    ".extract_features(*, *)": ".extract_features(wavs, wav_lens)",
    ".model.encoder.layers[]": ".model.encoder.layers[:2]",
    ".to(*)": ".to('cpu')",
    ".to(*).eval()": ".to('cpu').eval()",
    ".to(device=)": ".to(device='cpu')",
    ".model.encoder.layer_norm =": "torch.nn.Identity()",
    ".model.encoder.layers =": "lobe.model.encoder.layers[:2]",
    ".output_all_hiddens =": "True",
}
"""Use with arguments, or that sets something -> with values for them."""

INTERNAL = {
    *("auto_class", "for_pretraining", "quantization_config", "normalize"),
    *("decode", "forward_decoder", "forward_encoder"),
    *("load_feature_extractor", "load_tokenizer", "override_config"),
    *("make_masks", "remove_pretraining_modules", "reset_layer"),
    *("mask_prob", "mask_length", "Wav2Vec2Pretrain.normalize_wav"),
}
"""Attributes and methods that SpeechBrain's classes have for their own
constructors, for models of text or for fairseq, and that no recipe uses."""


@pytest.fixture(scope="module")
def hubs(tmp_path_factory):
    """Class of ours -> a folder of transformers'."""
    families = {"Wav2Vec2": "unispeech-sat", "WeightedSSLModel": "unispeech"}
    families["Wav2Vec2Pretrain"] = "unispeech"
    return {
        name: save_folder(
            tiny_model(family), tmp_path_factory.mktemp(name), True
        )
        for name, family in families.items()
    }


def build(name, hubs, tmp_path, **keywords):
    """A lobe of ours in place of one of SpeechBrain's, by a recipe's line."""
    cls = getattr(lobes, OURS[name])
    source = {"hub" if name == "WeightedSSLModel" else "source"}
    given = dict.fromkeys(source, str(hubs[OURS[name]]))
    return cls(**given, save_path=str(tmp_path), **keywords)


def of_kind(is_kind):
    """Rows of the table: class and use."""
    return [(name, use) for name, use in TABLE if is_kind(use)]


@pytest.mark.parametrize(
    "name, use", of_kind(lambda use: use.endswith("=") and use[0].isalpha())
)
def test_a_keyword_is_taken_or_refused_with_its_name_here(
    name, use, hubs, tmp_path
):
    keyword = use[:-1]
    if keyword in ("source", "hub", "save_path"):
        build(name, hubs, tmp_path)
    elif keyword in ELSEWHERE:
        with pytest.raises(ValueError, match=ELSEWHERE[keyword]):
            build(name, hubs, tmp_path, **{keyword: "given"})
    else:
        value = VALUES[keyword]
        lobe = build(name, hubs, tmp_path, **{keyword: value})
        if not INTERNAL & {keyword, f"{name}.{keyword}"} and (
            (name, f"has {keyword}") in TABLE
        ):
            assert getattr(lobe, keyword) == value


@pytest.mark.parametrize(
    "name, use", of_kind(lambda use: use.startswith(("has ", "def ")))
)
def test_attributes_and_methods_are_there_but_for_internal_ones(
    name, use, hubs, tmp_path
):
    attribute = use[4:]
    if INTERNAL & {attribute, f"{name}.{attribute}"}:
        used = re.compile(rf"\.{attribute}\b")
        assert not any(used.match(other) for _, other in TABLE)
    else:
        assert hasattr(build(name, hubs, tmp_path), attribute)


@pytest.mark.parametrize(
    "name, use", of_kind(lambda use: use.startswith((".", "(")))
)
def test_what_recipes_do_works(name, use, hubs, tmp_path):
    lobe = build(name, hubs, tmp_path)
    wavs, wav_lens = torch.randn(2, 4000), torch.tensor([1.0, 0.5])
    given = {"lobe": lobe, "wavs": wavs, "wav_lens": wav_lens, "torch": torch}
    if use.endswith(" ="):
        exec(f"lobe{use} {ARGUMENTS[use]}", given)
        assert torch.isfinite(lobe.eval()(wavs, wav_lens)).all()
        return
    has_arguments = any(mark in use for mark in "*=[")
    result = eval(f"lobe{ARGUMENTS[use] if has_arguments else use}", given)
    if use.startswith("(") and name != "Wav2Vec2Pretrain":
        assert torch.isfinite(result).all()


def test_the_table_is_that_of_the_clones():
    clones = [os.environ.get(variable) for variable in CLONES.values()]
    if None in clones:
        pytest.skip(f"no clones: set {' and '.join(CLONES.values())}")
    assert read_table() == surface(*clones)


def test_there_are_rows_of_each_kind():
    assert len(TABLE) > 100
    assert {name for name, _ in TABLE} == set(OURS)
