"""Hugging Face folders of all families, read without transformers.

The backbone keeps transformers' names of tensors, so only prefixes and the two
spellings of weight normalisation differ; of the heads a few do. The tables are
literal and invertible.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import Any

import torch

from unispeech_sb.checkpoints.checkpoint import Checkpoint, Fact
from unispeech_sb.checkpoints.file_types import check_file, what_folder
from unispeech_sb.checkpoints.files import read_tensors
from unispeech_sb.checkpoints.options import (
    BACKBONE,
    DEFAULTS,
    FAMILIES,
    HEADS,
    NUM_LABELS,
    OPTIONS,
    SWITCHES,
    WAV_NORM_EPS,
    check_config,
    shown,
)
from unispeech_sb.checkpoints.special_tokens import settle_tokens
from unispeech_sb.checkpoints.texts import read_json

_CLASSES = {
    "UniSpeech": ("unispeech", "ForPreTraining ForCTC"),
    "UniSpeechSat": (
        "unispeech-sat",
        "ForPreTraining ForCTC ForAudioFrameClassification ForXVector",
    ),
    "Wav2Vec2": (
        "wav2vec2",
        "ForPreTraining ForCTC ForAudioFrameClassification ForXVector",
    ),
    "Hubert": ("hubert", "ForCTC"),
    "WavLM": ("wavlm", "ForCTC ForAudioFrameClassification ForXVector"),
}
"""Start of transformers' names of classes -> family, and those tasks for which
not every family has a class."""
CLASSES = {
    start + task: (family, task)
    for start, (family, tasks) in _CLASSES.items()
    for task in ("Model", "ForSequenceClassification", *tasks.split())
}
"""transformers' class -> family and task."""

CONV = "encoder.pos_conv_embed.conv."
WEIGHT_NORM = {
    CONV + "weight_g": CONV + "parametrizations.weight.original0",
    CONV + "weight_v": CONV + "parametrizations.weight.original1",
}
"""Spelling before torch 2.1 -> today's."""

HEAD_TENSORS = {
    "Model": {},
    "ForPreTraining": {
        "head": {
            name: name
            for name in (
                "quantizer.",
                "project_q.",
                "project_hid.",
                "ctc_proj.",
                "speaker_proj.",
                "label_embeddings_concat",
                "layer_norm_for_extract.",
            )
        }
    },
    "ForCTC": {"head": {"lm_head.": "classifier."}},
    "ForSequenceClassification": {
        "head": {
            "layer_weights": "layer_mix.weights",
            "projector.": "projector.",
            "classifier.": "classifier.",
        }
    },
    "ForAudioFrameClassification": {
        "head": {
            "layer_weights": "layer_mix.weights",
            "classifier.": "classifier.",
        }
    },
    "ForXVector": {
        "head": {
            "layer_weights": "layer_mix.weights",
            "projector.": "projector.",
            "tdnn.": "tdnn.",
            "feature_extractor.": "embedding.",
            "classifier.": "classifier.",
        },
        "objective": {"objective.": ""},
    },
}
"""Task -> lobe -> transformers' name, or its start up to a dot -> ours."""

WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
EXTRACTOR_FILE = "preprocessor_config.json"
"""Settings of the feature extractor."""
PROCESSOR_FILE = "processor_config.json"
"""Holds them instead where transformers 5 saved them with a tokenizer."""
KEPT_FILES = (
    "config.json",
    EXTRACTOR_FILE,
    "vocab.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
"""Texts that go along, for the way back."""

LM_FOLDER = "language_model"
ALPHABET_FILE = "alphabet.json"
"""What a processor with a language model saves, by pyctcdecode."""

LONGEST_NAME = 200
"""Characters of a shard's name; file systems end at 255 bytes."""

MARKS = {
    "lm_head.": "ForCTC",
    "tdnn.": "ForXVector",
    "project_hid.": "ForPreTraining",
    "projector.": "ForSequenceClassification",
    "classifier.": "ForAudioFrameClassification",
}
"""Start of a tensor's name -> class, where the configuration names none."""


def rename(name, table):
    """Another name of a tensor, by a table of names and of their starts: one
    that ends in a dot stands for all that start with it. None where the table
    has none."""
    for old, new in table.items():
        if name == old and not old.endswith("."):
            return new
        if old.endswith(".") and name.startswith(old):
            return new + name[len(old) :]
    return None


def split_heads(top, task):
    """Parts what stands on the backbone, transformers' name -> tensor, into
    lobes, name in it -> tensor; and lists the names that the task does not
    have. A lobe may be empty."""
    lobes = {lobe: {} for lobe in HEAD_TENSORS[task]}
    unknown = []
    for name, tensor in top.items():
        for lobe, table in HEAD_TENSORS[task].items():
            new = rename(name, table)
            if new is not None:
                lobes[lobe][new] = tensor
                break
        else:
            unknown.append(name)
    return lobes, unknown


def join_heads(lobes, task):
    """The way back from ``split_heads``."""
    top = {}
    for lobe, tensors in lobes.items():
        back = {new: old for old, new in HEAD_TENSORS[task][lobe].items()}
        for name, tensor in tensors.items():
            prefix = back.get("")  # the lobe has a prefix of its own
            top[rename(name, back) or f"{prefix}{name}"] = tensor
    return top


def split_backbone(tensors, family):
    """Parts the tensors of a Hugging Face file into the backbone's, under
    their names in ``Backbone``, and all others."""
    prefix = FAMILIES[family]
    if not any(name.startswith(prefix) for name in tensors):
        prefix = ""  # a bare model is saved without its name
    backbone, top = {}, {}
    for name, tensor in tensors.items():
        if name.startswith(prefix):
            bare = name[len(prefix) :]
            backbone[WEIGHT_NORM.get(bare, bare)] = tensor
        else:
            top[name] = tensor
    return backbone, top


def is_huggingface(folder: str | Path) -> bool:
    """Whether a folder has a ``config.json``."""
    return (Path(folder) / "config.json").is_file()


def read_huggingface(
    folder: str | Path, overrides: Mapping[str, Any] | None = None
) -> Checkpoint:
    """Reads configuration and weights of a folder of one of ``FAMILIES``.

    It has ``config.json``, ``preprocessor_config.json`` or the
    ``processor_config.json`` of transformers 5, and ``model.safetensors`` or
    ``pytorch_model.bin``, whole or in shards. A file that is missing, damaged,
    or of another model is a ``ValueError``; overrides win.
    """
    folder, overrides = Path(folder), overrides or {}
    path = folder / "config.json"
    written, family = _read_config(folder, overrides)
    tensors = _read_weights(folder)
    backbone, top = split_backbone(tensors, family)
    task = _task(written, top, path)
    facts = _facts(written, family, overrides)
    facts["family"] = Fact(family, "config.json: model_type")
    facts["task"] = Fact(task, "config.json: architectures")
    facts["weight_norm"] = _weight_norm(tensors)
    if "normalize_wav" not in overrides:
        facts["normalize_wav"] = _normalizes(folder)
    facts["last_state"] = _last_state(written, task, overrides)
    config = {name: fact.value for name, fact in facts.items()}
    checkpoint = Checkpoint(
        "Hugging Face", family, task, config, backbone, top, facts=facts
    )
    _add_texts(checkpoint, folder, written)
    _complete(checkpoint)
    return checkpoint


def read_options(folder: str | Path) -> dict[str, Fact]:
    """The facts of a folder's configuration, whose weights are not looked at
    and may be missing."""
    folder = Path(folder)
    written, family = _read_config(folder, {})
    facts = _facts(written, family, {})
    facts["family"] = Fact(family, "config.json: model_type")
    facts["normalize_wav"] = _normalizes(folder)
    return facts


def _read_config(folder, overrides):
    """The configuration of a folder, checked, and its family."""
    path = folder / "config.json"
    if not is_huggingface(folder):
        raise ValueError(
            f"{folder}: expected config.json of a Hugging Face checkpoint"
        )
    written = read_json(path)
    family = written.get("model_type")
    if not isinstance(family, str) or family not in FAMILIES:
        raise ValueError(
            f"{path}: expected model_type {' or '.join(FAMILIES)}; "
            f"got {shown(family)}"
        )
    check_config({**BACKBONE, **HEADS, **written, **overrides}, path)
    return written, family


def _task(written, top, path):
    """The class of a checkpoint, without its family's name."""
    names = written.get("architectures")
    if not names:
        found = (MARKS[m] for m in MARKS if any(k.startswith(m) for k in top))
        return next(found, "Model")
    name = names[0] if isinstance(names, list) else names
    known = CLASSES.get(name) if isinstance(name, str) else None
    if known is None or known[0] != written["model_type"]:
        ours = [n for n, c in CLASSES.items() if c[0] == written["model_type"]]
        raise ValueError(
            f"{path}: expected architectures to name one of "
            f"{', '.join(ours)}; got {shown(name)}"
        )
    return known[1]


def _facts(written, family, overrides):
    """Every option and where it is from."""
    switches = {**SWITCHES, "normalize_eps": WAV_NORM_EPS}
    facts = {}
    defaults = {**BACKBONE, **HEADS, **switches, **DEFAULTS.get(family, {})}
    for name, default in defaults.items():
        has = OPTIONS[name].families.split()
        if name in written and (not has or family in has):
            facts[name] = Fact(written[name], f"config.json: {name}")
        else:
            source = "default of transformers"
            if name in switches:
                source = "as the publisher's code does"
            if name == "normalize_eps":
                source = "feature extractor of transformers"
            facts[name] = Fact(default, source)
    facts["sampling_rate"] = Fact(16000, "all families")
    if not facts["do_stable_layer_norm"].value:
        reason = "transformers builds adapters in pre-norm blocks alone"
        facts["adapter_attn_dim"] = Fact(None, reason)
    for name, value in overrides.items():
        facts[name] = Fact(value, "given")
    return facts


def _last_state(written, task, overrides):
    """Which last state a layer mix was trained with.

    transformers 5 hands the state before the final LayerNorm to a weighted
    sum; transformers 4, s3prl and the authors' code the one after it.
    """
    for place, values in (("given", overrides), ("config.json", written)):
        if "last_state" in values:
            return Fact(values["last_state"], place)
    version = str(written.get("transformers_version", ""))
    mixes = written.get("use_weighted_layer_sum") and task != "ForCTC"
    if mixes and version.split(".")[0].isdecimal():
        raw = int(version.split(".")[0]) >= 5
        return Fact(
            "raw" if raw else "normed",
            f"layer mix saved by transformers {version[:12]}",
        )
    return Fact(SWITCHES["last_state"], "as the publisher's code does")


def _weight_norm(tensors):
    """Which spelling of weight normalisation a file has."""
    old = any(name.endswith(tuple(WEIGHT_NORM)) for name in tensors)
    return Fact("old" if old else "new", "names of the tensors")


def _extractor_settings(folder):
    """The file with the settings of the feature extractor, and they, None
    where it is missing. As in transformers, those in a processor go first."""
    path = folder / PROCESSOR_FILE
    if path.is_file():
        settings = read_json(path).get("feature_extractor")
        if isinstance(settings, dict):
            return path, settings
        if settings is not None:
            raise ValueError(
                f"{path}: expected feature_extractor to hold settings; "
                f"got {shown(settings)}"
            )
    path = folder / EXTRACTOR_FILE
    return path, read_json(path) if path.is_file() else None


def _normalizes(folder):
    """Whether waveforms are normalised."""
    path, found = _extractor_settings(folder)
    if found is None:
        raise ValueError(
            f"{folder}: expected {EXTRACTOR_FILE}, whose do_normalize says "
            f"whether waveforms are normalised, or {PROCESSOR_FILE}; without "
            f"them say it: unispeech-sb convert {folder} NEW --set "
            "normalize_wav=true, or =false"
        )
    rate = found.get("sampling_rate", 16000)
    if rate != 16000:
        raise ValueError(
            f"{path}: expected a sampling_rate of 16000; got {shown(rate)}"
        )
    normalizes = found.get("do_normalize")
    if not isinstance(normalizes, bool):
        raise ValueError(
            f"{path}: expected do_normalize to be true or false; "
            f"got {shown(normalizes)}"
        )
    return Fact(normalizes, f"{path.name}: do_normalize")


def _add_texts(checkpoint, folder, written):
    """Adds labels, vocabulary and the files that go along."""
    facts, config = checkpoint.facts, checkpoint.config
    if checkpoint.task == "ForCTC":
        lang = config.get("target_lang", written.get("target_lang"))
        settle_tokens(checkpoint, folder, written, lang)
    elif checkpoint.task not in ("Model", "ForPreTraining"):
        checkpoint.labels = _labels(written, folder / "config.json")
        facts["num_labels"] = Fact(
            len(checkpoint.labels), "config.json: id2label"
        )
    for name in KEPT_FILES:
        if (folder / name).is_file():
            read_json(folder / name)
            checkpoint.files[name] = (folder / name).read_text("utf-8")
    path, settings = _extractor_settings(folder)
    if path.name == PROCESSOR_FILE:
        text = json.dumps(settings, indent=2)
        checkpoint.files[EXTRACTOR_FILE] = f"{text}\n"
    checkpoint.dropped |= _language_model(folder)


def _language_model(folder):
    """What a processor with a language model has besides: name -> why it is
    left out, and how it is used."""
    found, dropped = Path(folder, LM_FOLDER), {}
    files = sorted(found.iterdir()) if found.is_dir() else []
    weights = [p for p in files if p.suffix in (".arpa", ".bin", ".gz")]
    attributes = found / "attrs.json"
    options = read_json(attributes) if attributes.is_file() else {}
    given = "".join(
        f" --{name} {options[name]}"
        for name in ("alpha", "beta")
        if type(options.get(name)) in (int, float)
    )
    for path in files:
        dropped[f"{LM_FOLDER}/{path.name}"] = (
            f"a language model stays where it is: unispeech-sb transcribe "
            f"FOLDER FILES --lm {quote(str(path))}{given}"
            if path in weights
            else "belongs to the language model"
            + ("" if weights else ", which is not here: get it for --lm")
        )
    if Path(folder, ALPHABET_FILE).is_file():
        dropped[ALPHABET_FILE] = (
            "of pyctcdecode's decoder with a language model; the tokens are "
            "those of the tokenizer"
        )
    return dropped


def _labels(written, path):
    """Names of the classes by index."""
    names = written.get("id2label")
    if not names:
        count = written.get("num_labels", NUM_LABELS)
        return [f"LABEL_{index}" for index in range(count)]
    if not isinstance(names, dict) or set(names) != {
        str(index) for index in range(len(names))
    }:
        raise ValueError(
            f"{path}: expected id2label to map 0, 1, ... to names; "
            f"got {shown(names)}"
        )
    return [str(names[str(index)]) for index in range(len(names))]


def _complete(checkpoint):
    """Adds the mask embedding, which a file may leave out."""
    if "masked_spec_embed" in checkpoint.backbone:
        return
    checkpoint.backbone["masked_spec_embed"] = torch.rand(
        checkpoint.config["hidden_size"]
    )
    checkpoint.notes.append(
        "masked_spec_embed: not in the file (masking was off when it was "
        "saved); drawn anew"
    )


def _read_weights(folder):
    """All tensors of the first kind of weight file that is there."""
    for name in WEIGHT_FILES:
        path = folder / name
        if not path.is_file():
            continue
        if path.suffix != ".json":
            check_file(path)
            return read_tensors(path)
        weight_map = read_json(path).get("weight_map")
        if not isinstance(weight_map, dict):
            raise ValueError(
                f"{path}: expected weight_map to map tensors to shards; "
                f"got {shown(weight_map)}"
            )
        return _read_shards(folder, weight_map.values(), path)
    what = what_folder(folder)
    raise ValueError(
        f"{folder}: expected one of {', '.join(WEIGHT_FILES)}; there is none"
        + (f", it {what}" if what else "")
    )


def _read_shards(folder, shards, path):
    """All tensors of a checkpoint in several files."""
    for shard in shards:
        plain = isinstance(shard, str) and Path(shard).name == shard
        if not plain or len(shard) > LONGEST_NAME:
            raise ValueError(
                f"{path}: expected plain names of shards; got {shown(shard)}"
            )
    tensors = {}
    for shard in sorted(set(shards)):
        check_file(folder / shard)
        tensors.update(read_tensors(folder / shard))
    return tensors
