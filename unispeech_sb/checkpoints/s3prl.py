"""Heads that s3prl trained: SUPERB's KS, SID, IC, ER, SD, ASV, ASR, and PR.

A file of s3prl holds ``Downstream`` and ``Featurizer``, and ``Upstream`` only
where that was trained too.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unispeech_sb.checkpoints.checkpoint import (
    TENSORS,
    Checkpoint,
    Fact,
    check_agreement,
    measured,
    named_tensors,
    settle,
    shape_of,
)
from unispeech_sb.checkpoints.fairseq.tensors import read_upstream
from unispeech_sb.checkpoints.huggingface import rename
from unispeech_sb.checkpoints.options import HEADS as DEFAULTS
from unispeech_sb.checkpoints.options import (
    WAV_NORM_EPS,
    check_config,
    shown,
)
from unispeech_sb.checkpoints.safety.stubs import plain

PREFIX = "model."
TDNN = "model.framelevel_feature_extractor.module."
UTTERANCE = "model.utterancelevel_feature_extractor."
HEADS = {
    "ForXVector": {
        "connector.": "projector.",
        TDNN: "tdnn.",
        UTTERANCE + "linear1.": "feature_extractor.",
        UTTERANCE + "linear2.": "classifier.",
        "objective.W": "objective.weight",
    },
    "ForSequenceClassification": {
        "projector.": "projector.",
        "model.post_net.linear.": "classifier.",
    },
    "ForRecurrentCTC": {
        "projector.": "projector.",
        "model.rnns.": "layers.",
        "model.linear.": "classifier.",
    },
    "ForProjectedCTC": {
        "projector.": "projector.",
        "model.linear.": "classifier.",
    },
    "ForLSTMDiarization": {
        "model.rnn.": "layers.",
        "model.linear.": "activities.",
    },
    "ForAudioFrameClassification": {"model.linear.": "classifier."},
}
"""Task -> s3prl's name, or its start up to a dot -> transformers', or of a head
that transformers lacks, ours. A file is of the first task whose names it has
all."""

LAST = {"ForLSTMDiarization": "activities"}
"""Task -> its last layer, where it is not ``classifier``."""
STACKS = {
    "ForRecurrentCTC": r"layers\.(\d+)\.layer\.(\w+)",
    "ForLSTMDiarization": r"layers\.(\w+?)_l(\d+)",
}
"""Task -> pattern of a tensor of its LSTMs: the number and the name."""
VOCABULARIES = {
    "ForRecurrentCTC": (
        *("superb_letters", "asr", 32, "datarc", "dict_path", "char.dict"),
    ),
    "ForProjectedCTC": (
        *("superb_phones", "ctc", 74, "text", "vocab_file", "phoneme.txt"),
    ),
}
"""CTC's task -> SUPERB's vocabulary for it, s3prl's name of the task, number of
tokens, and where in the configuration is said in which file they are."""

DROPPED = {"best_score": "the best score of the training run"}
DESCRIBED = ("family", "task", "upstream", "downstream")
"""Facts that are no options."""
RUN = ("Optimizer", "Scheduler")
SLOTS = (
    "the outputs are the three slots of an intent one after the other, each "
    "a softmax of its own"
)
RELU = (
    "relu: assumed false, as transformers maps these heads; s3prl has had a "
    "ReLU after both layers of the utterance, which no tensor tells, and "
    "--set relu=true gives that"
)
UNNAMED = "labels: the file has no names of classes"
SPELT = "vocabulary: SUPERB's in s3prl's order, which the file does not hold"
UNSPELT = (
    "vocabulary: not in the file, and not of the size of SUPERB's; scores of "
    "frames alone"
)
UNNAMED_SLOTS = (
    "vocabulary: letters and slots, whose names are in the slots.txt of the "
    "corpus and not in the file; scores of frames alone"
)
UPSTREAMS = {
    "unispeech_sat": "unispeech-sat",
    "wavlm": "wavlm",
    "hubert": "hubert",
    "wav2vec2": "wav2vec2",
    "xls_r": "wav2vec2",
    "xlsr": "wav2vec2",
}
"""Part of s3prl's name of an upstream -> family."""
HOP = 320  # samples of a frame
RATES = (None, -1, HOP)
"""Values of s3prl's ``total_rate`` that keep every frame."""


def is_s3prl(objects: Any) -> bool:
    """Whether a file's content is of s3prl's downstream runner."""
    return isinstance(objects, dict) and "Downstream" in objects


def read_s3prl(
    objects: dict[str, Any], path: str | Path, overrides: Mapping[str, Any]
) -> Checkpoint:
    """Reads a head that s3prl trained: without a backbone, unless the file
    holds one.

    A head of another kind is a ``ValueError``, and so is a tensor that is
    missing or unknown. What the user overrides wins.
    """
    head = named_tensors(objects["Downstream"], "Downstream", path)
    args = _arguments(objects, path)
    upstream = _upstream(objects, path, overrides)
    task = _task(head, path)
    top = _renamed(head, task)
    dropped = {name: DROPPED[name] for name in head if name in DROPPED}
    dropped |= {n: "state of the training run" for n in RUN if n in objects}
    _check_names(head, top, task, path)
    sizes = _sizes(top, task, path)
    mixing, notes = _mixing(objects.get("Featurizer", {}), args, path)
    if mixing is not None:
        ours = task in STACKS or task in VOCABULARIES
        name = "layer_mix.weights" if ours else "layer_weights"
        top[name] = mixing
        layers = shape_of(top, name, 1, path)[0] - 1
        sizes |= measured(num_hidden_layers=layers)
    check_agreement(sizes, upstream.facts, path)
    facts = _facts(task, args) | upstream.facts | sizes
    facts["use_weighted_layer_sum"] = Fact(mixing is not None, "Featurizer")
    if str(args.get("upstream")).startswith("hf_"):
        facts["normalize_eps"] = Fact(WAV_NORM_EPS, "Args: an upstream of HF")
    classes = facts.pop("num_labels").value
    vocabulary = None
    if task == "ForLSTMDiarization":
        _check_frames(objects, path)
    if task in VOCABULARIES:
        if "blank" in overrides:
            raise ValueError(f"{path}: expected no blank: s3prl's is number 0")
        _check_rates(objects, path)
        facts["vocab_size"] = Fact(classes, TENSORS)
        expert = _expert(objects, path)
        vocabulary = _vocabulary(task, classes, args, expert)
        notes.append(_spelling(vocabulary, expert))
    else:
        notes.append(UNNAMED)
    facts = settle(facts, overrides, path)
    if task == "ForXVector" and "relu" not in overrides:
        notes.append(RELU)
    if args.get("downstream") == "fluent_commands":
        notes.append(SLOTS)
    config = {k: f.value for k, f in facts.items() if k not in DESCRIBED}
    check_config(config, path)
    return Checkpoint(
        origin="s3prl",
        family=facts["family"].value,
        task=task,
        config=config,
        backbone=upstream.backbone,
        top=top,
        labels=_labels(task, classes),
        blank_index=0 if task in VOCABULARIES else None,
        vocabulary=vocabulary,
        facts=facts,
        dropped=dropped | upstream.dropped,
        notes=[*upstream.notes, *notes],
    )


def _labels(task, classes):
    """Names of the classes; None where there are tokens."""
    if task in VOCABULARIES:
        return None
    return [f"LABEL_{index}" for index in range(classes)]


def _renamed(head, task):
    """The tensors of a task under their new names."""
    top = {}
    for name, tensor in head.items():
        new = rename(name, HEADS[task])
        stack = new and re.fullmatch(STACKS.get(task, "-"), new)
        if stack and task == "ForRecurrentCTC":
            new = f"layers.{stack[1]}.{stack[2]}"
        elif stack:
            new = f"layers.{stack[2]}.{stack[1]}_l0"
        if new:
            top[new] = tensor
    return top


def _vocabulary(task, classes, args, expert):
    """What a CTC model spells, if that is SUPERB's: of the right size, and
    nothing in the file says otherwise."""
    name, downstream, size, *place = VOCABULARIES[task]
    file = _inner(expert, *place[:-1])
    known = args.get("downstream", downstream) == downstream
    known &= file is None or str(file).endswith(place[-1])
    return name if known and classes == size else None


def _spelling(vocabulary, expert):
    """The note of what a CTC model spells."""
    if vocabulary is not None:
        return SPELT
    has_slots = _inner(expert, "text", "slots_file") is not None
    return UNNAMED_SLOTS if has_slots else UNSPELT


def _expert(objects, path):
    """s3prl's configuration of a head; empty where the file has none."""
    try:
        config = plain(objects.get("Config", {}))
    except ValueError as error:
        raise ValueError(f"{path}: Config: {error}") from error
    expert = config.get("downstream_expert") if isinstance(config, dict) else {}
    return expert if isinstance(expert, dict) else {}


def _inner(options, *names):
    """An option inside others, None where it is not there."""
    for name in names:
        options = options.get(name) if isinstance(options, dict) else None
    return options


def _check_rates(objects, path):
    """Refuses recognition at a lower rate of frames, which no tensor shows."""
    expert = _expert(objects, path)
    for section in ("modelrc", "model"):
        found = _inner(expert, section, "RNNs") or {}
        rates = _inner(found, "sample_rate")
        total = _inner(found, "total_rate")
        if rates is not None and set(rates) != {1} or total not in RATES:
            raise ValueError(
                f"{path}: expected a head on every frame; this one leaves "
                f"frames out (sample_rate {rates}, total_rate {total})"
            )


def _check_frames(objects, path):
    """Refuses diarization of features that were repeated."""
    shift = _inner(_expert(objects, path), "datarc", "frame_shift")
    if shift not in (None, HOP):
        raise ValueError(
            f"{path}: expected a head on frames of {HOP} samples; this one was "
            f"trained on repeated ones, for labels of {shown(shift)} samples"
        )


def _arguments(objects, path):
    """s3prl's command line; empty where the file does not keep it."""
    try:
        args = plain(objects.get("Args", {}))
    except ValueError as error:
        raise ValueError(f"{path}: Args: {error}") from error
    return args if isinstance(args, dict) else {}


def _upstream(objects, path, overrides):
    """The backbone, where it was trained too."""
    tensors = named_tensors(objects.get("Upstream", {}), "Upstream", path)
    upstream = read_upstream(tensors, PREFIX, path, overrides)
    if upstream.rest:
        raise ValueError(
            f"{path}: unexpected {', '.join(sorted(upstream.rest)[:5])} in "
            "Upstream, which UniSpeech(-SAT) does not have"
        )
    return upstream


def _task(head, path):
    """The task that the head belongs to."""
    for task, table in HEADS.items():
        if all(any(rename(n, {old: ""}) is not None for n in head)
               for old in table):  # fmt: skip
            return task
    raise ValueError(
        f"{path}: expected a head of keyword spotting, speaker "
        "identification, intents, emotions, diarization, speech or phoneme "
        "recognition, or an x-vector with AM-softmax; got "
        f"{', '.join(sorted(head)[:5])}"
    )


def _check_names(head, top, task, path):
    """Compares the names with those of the task."""
    modules = {new.rstrip(".") for new in HEADS[task].values()}
    modules = modules - {"tdnn", "objective.weight"}
    if task == "ForXVector":
        layers = {name.split(".")[1] for name in top if name[:5] == "tdnn."}
        numbers = {str(number) for number in range(len(layers))}
        modules |= {f"tdnn.{layer}.kernel" for layer in layers | numbers}
    modules -= {"layers"}
    expected = {f"{m}.{leaf}" for m in modules for leaf in ("weight", "bias")}
    expected |= {"objective.weight"} & top.keys()
    expected |= _of_stack(top, task)
    unknown = {name for name in head if not rename(name, HEADS[task])}
    unknown = (unknown - DROPPED.keys()) | (top.keys() - expected)
    for kind, names in (
        ("missing", expected - top.keys()), ("unexpected", unknown)
    ):  # fmt: skip
        if names:
            raise ValueError(
                f"{path}: does not fit a head of {task}: {kind} "
                f"{', '.join(sorted(names)[:5])}"
            )


def _of_stack(top, task):
    """Names of the tensors of a task's LSTMs, as many as there are."""
    if task not in STACKS:
        return set()
    ends = ("", "_reverse") if task == "ForRecurrentCTC" else ("",)
    return {
        f"layers.{layer}.{kind}_l0{end}"
        for layer in range(_num_layers(top))
        for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        for end in ends
    }


def _num_layers(top):
    """Number of LSTMs, one after the other."""
    return sum(bool(re.fullmatch(r"layers\.\d+\.weight_hh_l0", n)) for n in top)


def _facts(task, args):
    """What is known without a look at the tensors."""
    facts = {"task": Fact(task, "names of the tensors in Downstream")}
    for name in ("upstream", "downstream"):
        if isinstance(args.get(name), str):
            facts[name] = Fact(args[name], "Args")
    upstream = facts["upstream"].value if "upstream" in facts else ""
    named = [family for mark, family in UPSTREAMS.items() if mark in upstream]
    facts["family"] = Fact("unispeech-sat", "assumed")
    if named:
        facts["family"] = Fact(named[0], "Args")
    facts["sampling_rate"] = Fact(16000, "s3prl")
    if task == "ForSequenceClassification":
        facts["problem_type"] = Fact("single_label_classification", "s3prl")
    if task == "ForXVector":
        facts["tdnn_lengths"] = Fact("exact", "s3prl")
        facts["relu"] = Fact(False, "assumed: as transformers")
    return facts


def _sizes(top, task, path):
    """Options of the head, read off its tensors."""
    name = LAST.get(task, "classifier")
    out, last = shape_of(top, f"{name}.weight", 2, path)
    if task == "ForAudioFrameClassification":
        return measured(hidden_size=last, num_labels=out)
    stack = {}
    if task in STACKS:
        rows, size = shape_of(top, "layers.0.weight_hh_l0", 2, path)
        _, inputs = shape_of(top, "layers.0.weight_ih_l0", 2, path)
        if rows != 4 * size:
            raise ValueError(
                f"{path}: expected LSTMs, with 4 x {size} rows in weight_hh; "
                f"got {rows}, as of another recurrent layer"
            )
        stack = measured(rnn_size=size, num_layers=_num_layers(top))
    if task == "ForLSTMDiarization":
        return measured(hidden_size=inputs, num_labels=out) | stack
    size, dim = shape_of(top, "projector.weight", 2, path)
    if task == "ForSequenceClassification" or task in VOCABULARIES:
        return stack | measured(
            hidden_size=dim, num_labels=out, classifier_proj_size=size
        )
    _, speakers = shape_of(top, "objective.weight", 2, path)
    facts = measured(
        hidden_size=dim, num_labels=speakers, xvector_output_dim=out
    )
    return facts | _tdnn_sizes(top, size, path)


def _tdnn_sizes(top, size, path):
    """Channels and kernels of the x-vector's layers."""
    dims, kernels = [], []
    layers = sum(n.endswith(".kernel.weight") for n in top if n[:5] == "tdnn.")
    for layer in range(layers):
        name = f"tdnn.{layer}.kernel.weight"
        out, inputs = shape_of(top, name, 2, path)
        if inputs % size:
            raise ValueError(
                f"{path}: expected {name} to see whole frames of {size}; "
                f"got {inputs} inputs"
            )
        dims, kernels, size = [*dims, out], [*kernels, inputs // size], out
    pooled = shape_of(top, "feature_extractor.weight", 2, path)[1]
    if pooled != 2 * size:
        raise ValueError(
            f"{path}: expected statistics of {2 * size}, mean and deviation "
            f"of {size} channels; got a pooling of {pooled}"
        )
    dilations = DEFAULTS["tdnn_dilation"]
    if kernels != DEFAULTS["tdnn_kernel"]:
        raise ValueError(
            f"{path}: expected kernels {DEFAULTS['tdnn_kernel']} of s3prl's "
            f"x-vector, whose dilations are known; got {kernels}"
        )
    facts = measured(tdnn_dim=dims, tdnn_kernel=kernels)
    return facts | {"tdnn_dilation": Fact(list(dilations), "s3prl")}


def _mixing(featurizer, args, path):
    """The weights of the hidden states, or None for the last one alone."""
    weights = named_tensors(featurizer, "Featurizer", path)
    if set(weights) - {"weights"}:
        raise ValueError(
            f"{path}: expected weights alone in Featurizer; got "
            f"{', '.join(sorted(weights)[:5])}"
        )
    normalized = args.get("upstream_feature_normalize")
    if normalized is not None and normalized is not False:
        raise ValueError(
            f"{path}: expected hidden states as they are; this head was "
            "trained on normalised ones (upstream_feature_normalize)"
        )
    layer = args.get("upstream_layer_selection")
    if layer is not None:
        raise ValueError(
            f"{path}: expected a head on all hidden states or on the last; "
            f"this one was trained on number {shown(layer)}"
        )
    if weights:
        return weights["weights"], []
    return None, ["no weights in Featurizer: the last hidden state alone"]
