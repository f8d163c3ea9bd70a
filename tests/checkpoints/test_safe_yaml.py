"""Of a folder's yaml nothing is built but what the lists name, in bounds."""

import re
import sys
import time
import tracemalloc

import pytest
import yaml
from hyperpyyaml import load_hyperpyyaml

from tests.checkpoints import plants
from unispeech_sb.checkpoints.safe_yaml import (
    CLASSES,
    FUNCTIONS,
    LOBES,
    New,
    Ref,
    read_folder_yaml,
    read_plain,
)
from unispeech_sb.checkpoints.yaml_nodes import MOST_BYTES, compose_file
from unispeech_sb.convert.lobes import KINDS
from unispeech_sb.lobes import heads
from unispeech_sb.lobes.lobe import Lobe

ASR = """\
sample_rate: 16000
backbone: !new:unispeech_sb.lobes.backbone.Backbone
    hidden_size: 16
    num_hidden_layers: 2
    num_attention_heads: 2
    conv_dim: [8, 8]
    conv_stride: [5, 2]
    conv_kernel: [10, 3]
    conv_bias: false
    layer_norm_eps: 1e-05
head: !new:unispeech_sb.lobes.heads.FrameHead
    input_size: 16
    num_classes: 12
    num_states: null
tokenizer: !new:unispeech_sb.dataio.tokenizers.CTCTokenizer
blank_index: 0
decoding_function: !name:speechbrain.decoders.ctc_greedy_decode
    blank_id: !ref <blank_index>
modules:
    encoder: !new:unispeech_sb.lobes.heads.FramePosteriors
        backbone: !ref <backbone>
        head: !ref <head>
        blank_index: !ref <blank_index>
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
    loadables:
        backbone: !ref <backbone>
        head: !ref <head>
        tokenizer: !ref <tokenizer>
"""
BEAM = (
    ASR.replace(
        """\
decoding_function: !name:speechbrain.decoders.ctc_greedy_decode
    blank_id: !ref <blank_index>
""",
        """\
language_model: !new:unispeech_sb.decoding.LanguageModel
    alpha: 0.5
decoding_function: !name:unispeech_sb.decoding.PrefixBeamSearcher
test_beam_search:
    tokenizer: !ref <tokenizer>
    language_model: !ref <language_model>
    beam_size: 5
""",
    )
    + "        language_model: !ref <language_model>\n"
)
KINDS_OF_PLANTS = [*plants.TAGS, *plants.ARGUMENTS]


@pytest.fixture
def write(tmp_path):
    """Writes a yaml; its path."""

    def write(text):
        path = tmp_path / "hyperparams.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


@pytest.fixture
def ran(tmp_path, monkeypatch):
    """What planted code makes."""
    plants.plant_module(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "ran"
    sys.modules.pop(plants.MODULE, None)


def refusal(path, read=read_folder_yaml):
    """The sentence with which a yaml is refused, in little time and memory."""
    tracemalloc.start()
    start = time.process_time()
    try:
        with pytest.raises(ValueError) as caught:
            read(path)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()
    assert time.process_time() - start < 2  # 0.02 s without the tracing
    sentence = str(caught.value)
    assert sentence.startswith(str(path)) and sentence.isprintable()
    assert len(sentence) - len(str(path)) < 400
    return sentence.removeprefix(str(path))


def test_plain_data_references_and_listed_names_are_read(write):
    found = read_folder_yaml(write(BEAM))
    backbone = found["backbone"]
    assert backbone.name == "unispeech_sb.lobes.backbone.Backbone"
    assert backbone.arguments["conv_dim"] == [8, 8]
    assert backbone.arguments["conv_bias"] is False
    assert backbone.arguments["layer_norm_eps"] == 1e-5
    assert found["head"].arguments["num_states"] is None
    assert found["test_beam_search"]["beam_size"] == 5
    assert isinstance(found["test_beam_search"]["tokenizer"], Ref)
    assert isinstance(found["modules"]["encoder"], New)


@pytest.mark.parametrize("kind", KINDS_OF_PLANTS)
def test_what_would_run_is_refused(kind, write, ran, tmp_path):
    text = plants.planted(ASR, tmp_path)[kind]
    sentence = refusal(write(text))
    assert not ran.exists()
    if kind in plants.LIVE:
        number = re.match(r", line (\d+): expected ", sentence)
        line = text.splitlines()[int(number.group(1)) - 1]
        assert "!" in line and line not in ASR
        assert "--trust" in sentence and "trust=True" in sentence


@pytest.mark.parametrize("kind", sorted(plants.LIVE))
def test_the_plants_are_live(kind, write, ran, tmp_path):
    load_hyperpyyaml(plants.planted(ASR, tmp_path)[kind])
    for _ in range(100):  # Popen
        if ran.exists():
            return
        time.sleep(0.02)
    raise AssertionError("nothing ran")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("hidden_size: 16", "hidden_size: 1000000", "hidden_size to be"),
        ("hidden_size: 16", "hidden_size: 1e9", "hidden_size to be a whole"),
        ("hidden_size: 16", f"hidden_size: {'9' * 10**5}", "hidden_size to be"),
        ("num_hidden_layers: 2", "num_hidden_layers: 100000", "from 1 to 256"),
        ("[8, 8]", f"[{'8, ' * 2000}8]", "conv_dim to be a list of 1 to 32"),
        ("[8, 8]", "[[[8]]]", "conv_dim to be a list of 1 to 32"),
        ("[10, 3]", "[10, 1000000000]", "conv_kernel to be a list of 1 to 32"),
        ("num_classes: 12", "num_classes: 1000000000", "at most 1000000"),
        ("num_classes: 12", "num_classes: -1000000000", "at most 1000000"),
        ("num_states: null", "num_states: 100000", "num_states to be a whole"),
        ("num_states: null", "num_layers: 100000", "num_layers to be a whole"),
        ("num_states: null", "labels: {a: b}", "labels to be a short text"),
        ("blank_index: 0", "blank_index: 100000000", "blank_index to be a"),
        ("sample_rate: 16000", "sample_rate: 1000000000", "sample_rate to be"),
        ("sample_rate: 16000", "chunk_s: 1e12", "chunk_s to be a number from"),
        ("sample_rate: 16000", "median_filter: 10000000", "median_filter to"),
        ("sample_rate: 16000", "threshold: .nan", "threshold to be a number"),
    ],
)  # fmt: skip
def test_sizes_have_the_limits_of_checkpoints(old, new, expected, write):
    assert ASR.count(old) == 1
    assert expected in refusal(write(ASR.replace(old, new)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (ASR + "x: " + "[" * 10**5, "24 inside one another"),
        (ASR + "x: " + "{a: " * 50, "24 inside one another"),
        (ASR + "".join(f"{' ' * i}a:\n" for i in range(300)), "24 inside one"),
        (ASR + "x: [" + "1," * 60_000 + "]", "at most 5000 values"),
        (ASR + "x: " + "a" * 2**20, "at most 262144 bytes"),
        (ASR + "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n", "anchors and"),
        (ASR + "---\na: 1\n", "more than one document"),
        (ASR + "x: {<<: {a: 1}}\n", "a name as a key; got '<<'"),
        (ASR + "head: 1\n", "each name once; got 'head'"),
        (ASR + "x: '\\x00\0'\n", "expected yaml"),
        (ASR.encode() + b"x: \xff\n", "expected yaml"),
        (ASR + "x: [\n", "expected yaml"),
        (ASR + "? [a]\n: 1\n", "a plain name as a key"),
        ("", "expected names and values"),
        ("[1]", "expected names and values"),
    ],
)  # fmt: skip
def test_texts_are_bounded(text, expected, write):
    assert expected in refusal(write(text))


def test_a_huge_file_is_not_read(tmp_path):
    path = tmp_path / "hyperparams.yaml"
    with open(path, "wb") as file:
        file.truncate(2**30)
    for read in (read_folder_yaml, read_plain, compose_file):
        assert f"at most {MOST_BYTES} bytes" in refusal(path, read)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("    loadables:", "    paths: {backbone: http://a/b.ckpt}\n"
         "    loadables:", "but loadables; got 'paths'"),
        ("    loadables:", "    paths: {backbone: /etc/passwd}\n"
         "    loadables:", "but loadables; got 'paths'"),
        ("    loadables:", "    collect_in: /etc\n    loadables:",
         "got 'collect_in'"),
        ("    loadables:", "    custom_hooks: {}\n    loadables:",
         "got 'custom_hooks'"),
        ("        head: !ref <head>\n        tok", "        tok",
         "expected head among the loadables"),
        ("        head: !ref <head>\n        tok",
         "        other: !ref <head>\n        tok", "!ref to the entry of its"),
        ("        head: !ref <head>\n        tok",
         "        ../head: !ref <head>\n        tok", "a name as a key"),
        ("    alpha: 0.5", "    path: /etc/passwd", "got 'path'"),
        ("    beam_size: 5", "    kenlm_model_path: http://a/b.bin",
         "got 'kenlm_model_path'"),
        ("!new:unispeech_sb.dataio.tokenizers.CTCTokenizer",
         "!new:speechbrain.dataio.encoder.CTCTextEncoder", "CTCTextEncoder"),
        ("!new:unispeech_sb.dataio.tokenizers.CTCTokenizer",
         "a text", "expected tokenizer to be CTCTokenizer"),
        ("!new:unispeech_sb.lobes.backbone.Backbone",
         "!new:unispeech_sb.lobes.backbone.Backbone.from_pretrained",
         "Backbone.from_pretrained"),
        ("!new:unispeech_sb.lobes.backbone.Backbone",
         "!name:unispeech_sb.lobes.backbone.Backbone", "!name:unispeech_sb"),
        ("Posteriors\n        backbone: !ref <backbone>\n        head",
         "Posteriors\n"
         "        backbone: !new:unispeech_sb.lobes.backbone.Backbone\n"
         "        head", "!ref to an entry with its own file"),
        ("Posteriors\n        backbone: !ref <backbone>\n        head",
         "Posteriors\n        backbone: !ref <head>\n        head",
         "expected backbone to be Backbone"),
        ("sample_rate: 16000", "audio_normalizer: 1", "to be left out"),
        ("sample_rate: 16000", "x: !ref <y>\ny: !ref <x>", "an entry y, of x"),
        ("sample_rate: 16000", "x: !ref <y>", "an entry y, of x"),
        ("sample_rate: 16000", "x: !ref <blank_index> * 2", "!ref <name of"),
        ("sample_rate: 16000", "x: !copy <head>", "got !copy"),
        ("modules:", "x:", "expected an entry modules"),
        ("modules:", "modules: 3\nx:", "expected modules by name"),
        ("    beam_size: 5", "    beam_size: 5.5", "beam_size to be a whole"),
        ("test_beam_search:", "x:", "expected test_beam_search with a tok"),
        ("modules:", "x: !name:speechbrain.decoders.ctc_greedy_decode\n"
         "modules:", "expected the arguments blank_id; got fewer"),
        ("        tokenizer: !ref <tokenizer>\n", "",
         "expected tokenizer among the loadables"),
        ("modules:", "modules: {x: !ref <tokenizer>}\nx:",
         "expected the module x to be one of this package"),
        ("modules:", "modules: {x: !ref <blank_index>}\nx:",
         "expected the module x to be one of this package"),
        ("pretrainer:", "x:", "expected an entry pretrainer"),
    ],
)  # fmt: skip
def test_arguments_reach_nothing_outside(old, new, expected, write):
    assert BEAM.count(old) == 1
    assert expected in refusal(write(BEAM.replace(old, new)))


def test_the_lists_have_every_lobe_and_what_makes_it_an_interface():
    no_yaml = {"Chain", "FrameActivities"}  # not of one that we write
    names = set(heads.__all__) - no_yaml
    assert {f"unispeech_sb.lobes.heads.{name}" for name in names} | {
        "unispeech_sb.lobes.backbone.Backbone"
    } == {name for name in CLASSES if ".lobes." in name}
    assert {path.rpartition(".")[2] for path in LOBES} >= {
        kind.cls.__name__ for kind in KINDS
    }
    for path in (*CLASSES, *FUNCTIONS):
        module, _, name = path.rpartition(".")
        found = getattr(__import__(module, fromlist=[name]), name)
        assert (path in LOBES) == (
            isinstance(found, type) and issubclass(found, Lobe)
        )


@pytest.mark.parametrize(
    "old",
    [
        "unispeech_sb.lobes.heads.frame.FrameHead",
        "unispeech_sb.lobes.heads.classification.FrameHead",
        "unispeech_sb.lobes.unispeech.FrameHead",
        "speechbrain.lobes.models.unispeech.FrameHead",
    ],
)
def test_old_names_are_read(old, write):
    text = ASR.replace("unispeech_sb.lobes.heads.FrameHead", old)
    found = read_folder_yaml(write(text))
    assert found["head"].name == "unispeech_sb.lobes.heads.FrameHead"


@pytest.mark.parametrize(
    "overrides",
    [
        {"sample_rate": 8000, "head": {"dropout": 0.5}},
        "sample_rate: 8000\nhead: {dropout: 0.5}",
    ],
)
def test_overrides_are_merged(overrides, write):
    found = read_folder_yaml(write(ASR), overrides)
    assert found["sample_rate"] == 8000
    assert found["head"].arguments["dropout"] == 0.5
    assert found["head"].arguments["num_classes"] == 12


def test_overrides_are_checked_and_hide_nothing(write):
    path = write(ASR)
    with pytest.raises(ValueError, match="got 'sample_rat'"):
        read_folder_yaml(path, {"sample_rat": 1})
    assert read_folder_yaml(path, {"new": 1}, False)["new"] == 1
    with pytest.raises(ValueError, match="hidden_size to be"):
        read_folder_yaml(path, {"backbone": {"hidden_size": 10**6}})
    planted = write(ASR.replace("16000", "!apply:os.getpid []", 1))
    with pytest.raises(ValueError, match="!apply:os.getpid"):
        read_folder_yaml(planted, {"sample_rate": 8000})


def test_plain_files_have_no_tags(write):
    path = write("loss: 1.5\nend-of-epoch: true\nn: [1, a, null, 1e3]\n")
    assert read_plain(path) == {
        "loss": 1.5, "end-of-epoch": True, "n": [1, "a", None, 1000.0],
    }  # fmt: skip
    for tag in ("!new:unispeech_sb.lobes.heads.PassThrough", "!ref <loss>"):
        path = write(f"loss: 1\nx: {tag}\n")
        assert "line 2: expected plain data" in refusal(path, read_plain)


def test_what_we_write_is_read_as_yaml_itself_reads_it(write):
    for text in ("a: true", "a: 1.0e-05", "a: '1'", "a: -3", "a: ~", "a: b c"):
        assert read_plain(write(text)) == yaml.safe_load(text)
