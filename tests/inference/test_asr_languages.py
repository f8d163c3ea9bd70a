"""A language brings its adapter, head and vocabulary, or changes nothing."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.inference.models import VOCABULARIES, save_arpa, save_languages
from unispeech_sb.convert import convert_checkpoint
from unispeech_sb.inference.asr import (
    LongFormASR,
    folder_languages,
    language_tokenizer,
)

WAV = torch.randn(1, 8000, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def multilingual(tmp_path_factory):
    """A model of several languages, as transformers has it."""
    return save_languages(tmp_path_factory.mktemp("languages") / "hf")


@pytest.fixture
def folder(multilingual, tmp_path):
    """The same, converted."""
    convert_checkpoint(multilingual, tmp_path / "sb")
    return tmp_path / "sb"


@pytest.fixture
def asr(folder):
    """It, loaded."""
    return LongFormASR.from_hparams(str(folder))


def state_of(asr):
    """All that a language changes."""
    return (
        copy.deepcopy(asr.mods.encoder.state_dict()),
        asr.mods.encoder.head.config["num_classes"],
        asr.tokenizer,
        asr.hparams.tokenizer,
    )


def assert_same(found, expected):
    """Compares two results of ``state_of``."""
    assert all(torch.equal(found[0][n], t) for n, t in expected[0].items())
    assert found[1] == expected[1]
    assert found[2] is found[3] is expected[2]


def test_languages_have_an_adapter_and_a_vocabulary(folder, asr):
    assert asr.languages == folder_languages(folder) == ["eng", "fra"]
    (folder / "adapter.xx.bin").touch()
    assert asr.languages == ["eng", "fra"]
    assert folder_languages(folder / "transformers") == []


@pytest.mark.parametrize("lang", ["eng", "fra"])
def test_a_language_is_that_of_a_conversion_to_it(
    lang, multilingual, asr, tmp_path
):
    convert_checkpoint(multilingual, tmp_path / lang, target_lang=lang)
    expected = LongFormASR.from_hparams(str(tmp_path / lang))
    for other in ("fra", "eng", lang):
        asr.set_language(other)
    assert asr.tokenizer.lab2ind == expected.tokenizer.lab2ind
    for name in ("specials", "word_delimiter", "lowercase", "separator"):
        ours, theirs = (getattr(one.tokenizer, name) for one in (asr, expected))
        assert ours == theirs
    lens = torch.ones(1)
    assert torch.equal(
        asr.encode_batch(WAV, lens), expected.encode_batch(WAV, lens)
    )
    transcript = asr.transcribe_long(WAV[0])
    assert transcript == expected.transcribe_long(WAV[0])
    assert set(transcript.text) & set("".join(VOCABULARIES[lang]))
    texts, _ = asr.transcribe_batch(WAV, lens)
    assert texts == expected.transcribe_batch(WAV, lens)[0]


def without_bias(folder):
    """Changes what the adapter file holds."""
    path = folder / "adapter.fra.safetensors"
    tensors = load_file(path)
    del tensors["unispeech.encoder.layers.0.adapter_layer.linear_1.bias"]
    save_file(tensors, path)


def without_classifier(folder):
    """Leaves the classifier out."""
    path = folder / "adapter.fra.safetensors"
    tensors = load_file(path)
    del tensors["lm_head.weight"]
    save_file(tensors, path)


def other_blank(folder):
    """Moves the blank."""
    vocabulary = {"a": 0, "<pad>": 1, "é": 2, "b": 3, "|": 4}
    write_vocabulary(folder, {**VOCABULARIES, "fra": vocabulary})


def index_twice(folder):
    """Gives an index twice."""
    vocabulary = {"<pad>": 0, "a": 1, "é": 1, "b": 3, "|": 4}
    write_vocabulary(folder, {**VOCABULARIES, "fra": vocabulary})


def one_vocabulary(folder):
    """One vocabulary for all."""
    write_vocabulary(folder, VOCABULARIES["eng"])


def write_vocabulary(folder, vocabulary):
    """Writes the vocabulary of a converted folder."""
    (folder / "transformers" / "vocab.json").write_text(json.dumps(vocabulary))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without_bias, "missing .*linear_1.bias"),
        (without_classifier, r"expected lm_head.weight, \[V, D\]"),
        (
            other_blank,
            "expected '<pad>', the blank, at index 0 of 'fra'; got .'a'",
        ),
        (index_twice, "one token for each index"),
        (one_vocabulary, r"one of the languages \(none there\); got 'fra'"),
    ],
)
def test_a_language_that_does_not_fit_changes_nothing(
    change, said, folder, asr
):
    asr.set_language("eng")
    before = state_of(asr)
    change(folder)
    with pytest.raises(ValueError, match=said):
        asr.set_language("fra")
    assert_same(state_of(asr), before)


@pytest.mark.parametrize("lang", ["zho", "xx", "../eng", ""])
def test_an_unknown_language_gets_the_list_of_those_there(lang, asr, folder):
    before = state_of(asr)
    with pytest.raises(ValueError, match="of the languages eng, fra; got"):
        asr.set_language(lang)
    assert_same(state_of(asr), before)
    with pytest.raises(ValueError, match="of the languages eng, fra; got"):
        language_tokenizer(folder, lang, asr.tokenizer)


def test_without_a_folder_there_are_no_languages(asr):
    alone = LongFormASR(dict(asr.mods), vars(asr.hparams))
    assert alone.languages == []
    with pytest.raises(ValueError, match="loaded from a folder; got None"):
        alone.set_language("eng")


def test_beam_search_and_hot_words_go_along(asr):
    asr.use_hot_words(["ab"], weight=3.0)
    asr.use_beam_search(beam_size=7)
    for lang in ("fra", "eng"):
        asr.set_language(lang)
        search = asr.decoding_function.search
        assert search.tokenizer is asr.tokenizer
        assert search.hot_words.words == ["ab"]
        assert search.beam_size == 7
        text = asr.transcribe_long(WAV[0]).text
        assert text
        assert asr.transcribe_batch(WAV, torch.ones(1))[0] == [text]


def test_a_language_model_does_not_go_along(asr, tmp_path):
    pytest.importorskip("kenlm")
    asr.use_language_model(save_arpa(tmp_path / "ab.arpa", ab=-0.1))
    before = state_of(asr)
    with pytest.raises(ValueError, match="language model in use"):
        asr.set_language("fra")
    assert_same(state_of(asr), before)
    asr.use_language_model(None)
    asr.set_language("fra")
    assert asr.tokenizer.decode([2]) == "é"
