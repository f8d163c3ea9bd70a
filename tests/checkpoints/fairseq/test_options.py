"""fairseq's options and dictionaries: read, never run."""

import json

import pytest

from unispeech_sb.checkpoints.fairseq.options import (
    FIRST,
    LAST,
    SPECIALS,
    known_sizes,
    known_training,
    literal,
    read_dictionary,
    read_layers,
    read_options,
    read_vocabulary,
)
from unispeech_sb.checkpoints.safety.stubs import STUBS


def test_layers_as_fairseq_writes_them():
    text = "[(512, 10, 5)] + [(512, 3, 2)] * 4 + [(512,2,2)] * 2"
    assert read_layers(text, "x") == eval(text)
    assert read_layers([[512, 10, 5]], "x") == [(512, 10, 5)]
    assert literal("(2, 0.5, 0.999995)", "x") == (2, 0.5, 0.999995)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('touch canary')",
        "[(512, 10, 5)] * 10**9",
        "[(512, 10, 5)] * 1000",
        "[(512, 10, 5)] * 60 * 60",
        "[(512, 10)]",
        "[(512, 10, 5.5)]",
        "[(512, 10, True)]",
        "[x for x in (1, 2)]",
        "lambda: 0",
        "[]",
        "[" * 500,
        "(" * 200 + ")" * 200,
        "[(1,1,1)]+" * 300,
        "9" * 999,
        "\0",
        None,
        3,
    ],
)
def test_anything_else_is_refused(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="x: expected") as caught:
        read_layers(text, "x")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200
    assert list(tmp_path.iterdir()) == []


def pickled(symbols, **state):
    """A dictionary as a checkpoint holds it."""
    stub = STUBS["fairseq.data.dictionary.Dictionary"]()
    stub.__setstate__({"symbols": symbols, **state})
    return stub


def test_the_places_of_the_specials_tell_the_layout():
    units = ["a", "", "|", "(en)b"]
    found = read_dictionary(pickled(units + SPECIALS, bos_index=4), "x")
    assert found == (units + SPECIALS, 4, LAST)
    found = read_dictionary(pickled(SPECIALS + units, bos_index=0), "x")
    assert found == (SPECIALS + units, 0, FIRST)


@pytest.mark.parametrize(
    "stub",
    [
        None,
        pickled(None),
        pickled(["a", 3]),
        pickled(["a", *SPECIALS, "b"]),
        pickled(["a", *SPECIALS], bos_index=0),
        STUBS["argparse.Namespace"](),
    ],
)
def test_damaged_dictionaries_are_refused(stub):
    with pytest.raises(ValueError, match="x.pt: dictionary: expected"):
        read_dictionary(stub, "x.pt: dictionary")


def test_vocabulary_files_give_the_same_as_the_pickle(tmp_path):
    path = tmp_path / "vocab.json"
    path.write_text(json.dumps({"b": 1, "a": 0, "": 2}))
    assert read_vocabulary(path) == (["a", "b", "", *SPECIALS], 3, LAST)
    path = tmp_path / "dict.ltr.txt"
    path.write_text("| 94802\nE 51860 #fairseq:overwrite\n")
    assert read_vocabulary(path) == ([*SPECIALS, "|", "E"], 0, FIRST)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("v.json", '{"a": 0, "b": 5}'),
        ("v.json", '{"a": 0, "b": 0}'),
        ("v.json", '{"a": "0"}'),
        ("v.json", "[]"),
        ("v.txt", "no count\n"),
        ("v.txt", "a 1\n\nb 2\n"),
    ],
)
def test_other_files_are_refused(name, content, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=f"{name}: expected") as caught:
        read_vocabulary(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_only_options_with_a_name_there_are_read():
    facts = known_sizes({"encoder_layers": 3, "": 7}, "cfg.model", "x.pt")
    assert facts == {"num_hidden_layers": (3, "cfg.model.encoder_layers")}
    layers = "[(8, 10, 5)] + [(4, 3, 2)] * 2"
    facts = known_sizes({"conv_feature_layers": layers}, "args", "x.pt")
    assert {name: fact.value for name, fact in facts.items()} == {
        "conv_dim": [8, 4, 4],
        "conv_kernel": [10, 3, 3],
        "conv_stride": [5, 2, 2],
    }


@pytest.mark.parametrize("infinity", [None, False, True])
def test_options_of_training_are_those_of_fine_tuning_first(infinity):
    objects = {
        "cfg": {
            "model": {
                "_name": "wav2vec_ctc",
                "mask_prob": 0.75,
                "w2v_args": {"model": {"mask_prob": 0.5, "dropout": 0.25}},
            },
            "criterion": {"zero_infinity": infinity},
        }
    }
    facts = known_training(read_options(objects, "x.pt"))
    place = "cfg.model.w2v_args.dropout"
    assert facts["hidden_dropout"] == (0.25, place)
    assert facts["mask_time_prob"] == (0.75, "cfg.model.mask_prob")
    found = facts.get("ctc_zero_infinity")
    where = "cfg.criterion.zero_infinity"
    assert found == (None if infinity is None else (infinity, where))
