"""Heads that s3prl trained: SUPERB's KS, SID, IC, ER, SD, and ASV.

A file of s3prl holds ``Downstream`` and ``Featurizer``, and ``Upstream`` only
where that was trained too. The heads are those that transformers has.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unispeech_sb.checkpoints.checkpoint import (
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
    "ForAudioFrameClassification": {"model.linear.": "classifier."},
}
"""Task -> s3prl's name, or its start up to a dot -> transformers'. A file is
of the first task whose names it has all."""

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


def is_s3prl(objects: Any) -> bool:
    """Whether a file's content is of s3prl's downstream runner."""
    return isinstance(objects, dict) and "Downstream" in objects


def read_s3prl(
    objects: dict[str, Any], path: str | Path, overrides: Mapping[str, Any]
) -> Checkpoint:
    """Reads a head that s3prl trained: without a backbone, unless the file
    holds one.

    A head of a kind that transformers does not have is a ``ValueError``, and so
    is a tensor that is missing or unknown. What the user overrides wins.
    """
    head = named_tensors(objects["Downstream"], "Downstream", path)
    args = _arguments(objects, path)
    upstream = _upstream(objects, path, overrides)
    task = _task(head, path)
    top = {
        new: tensor
        for name, tensor in head.items()
        if (new := rename(name, HEADS[task]))
    }
    dropped = {name: DROPPED[name] for name in head if name in DROPPED}
    _check_names(head, top, task, path)
    sizes = _sizes(top, task, path)
    mixing, notes = _mixing(objects.get("Featurizer", {}), args, path)
    if mixing is not None:
        top["layer_weights"] = mixing
        layers = shape_of(top, "layer_weights", 1, path)[0] - 1
        sizes |= measured(num_hidden_layers=layers)
    check_agreement(sizes, upstream.facts, path)
    facts = _facts(task, args) | upstream.facts | sizes
    facts["use_weighted_layer_sum"] = Fact(mixing is not None, "Featurizer")
    if str(args.get("upstream")).startswith("hf_"):
        facts["normalize_eps"] = Fact(WAV_NORM_EPS, "Args: an upstream of HF")
    classes = facts.pop("num_labels").value
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
        labels=[f"LABEL_{index}" for index in range(classes)],
        facts=facts,
        dropped=dropped
        | upstream.dropped
        | {
            name: "state of the training run" for name in RUN if name in objects
        },
        notes=[*upstream.notes, *notes, UNNAMED],
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
    """The class of transformers that the head belongs to."""
    if any(name.startswith("model.rnn") for name in head):
        raise ValueError(
            f"{path}: holds an LSTM (model.rnn), which no class of "
            "transformers has: of s3prl's diarization heads only those with "
            "rnn_layers 0 convert, of its ASR heads none"
        )
    for task, table in HEADS.items():
        if all(any(rename(n, {old: ""}) is not None for n in head)
               for old in table):  # fmt: skip
            return task
    raise ValueError(
        f"{path}: expected a head of keyword spotting, speaker "
        "identification, intents, emotions, diarization, or an x-vector with "
        f"AM-softmax; got {', '.join(sorted(head)[:5])}"
    )


def _check_names(head, top, task, path):
    """Compares the names with those of the task."""
    modules = {new.rstrip(".") for new in HEADS[task].values()}
    modules = modules - {"tdnn", "objective.weight"}
    if task == "ForXVector":
        layers = {name.split(".")[1] for name in top if name[:5] == "tdnn."}
        numbers = {str(number) for number in range(len(layers))}
        modules |= {f"tdnn.{layer}.kernel" for layer in layers | numbers}
    expected = {f"{m}.{leaf}" for m in modules for leaf in ("weight", "bias")}
    expected |= {"objective.weight"} & top.keys()
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


def _facts(task, args):
    """What is known without a look at the tensors."""
    facts = {"task": Fact(task, "names of the tensors in Downstream")}
    for name in ("upstream", "downstream"):
        if isinstance(args.get(name), str):
            facts[name] = Fact(args[name], "Args")
    named = "upstream" in facts and "unispeech_sat" in facts["upstream"].value
    facts["family"] = Fact("unispeech-sat", "Args" if named else "assumed")
    facts["sampling_rate"] = Fact(16000, "s3prl")
    if task == "ForSequenceClassification":
        facts["problem_type"] = Fact("single_label_classification", "s3prl")
    if task == "ForXVector":
        facts["tdnn_lengths"] = Fact("exact", "s3prl")
        facts["relu"] = Fact(False, "assumed: as transformers")
    return facts


def _sizes(top, task, path):
    """Options of the head, read off its tensors."""
    out, last = shape_of(top, "classifier.weight", 2, path)
    if task == "ForAudioFrameClassification":
        return measured(hidden_size=last, num_labels=out)
    size, dim = shape_of(top, "projector.weight", 2, path)
    if task == "ForSequenceClassification":
        return measured(
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
