"""The authors' downstream models: speaker verification and diarization.

Either file is ``{"model": tensors}``, with the backbone inside as
``feature_extract.model``; the tensors alone are read as well.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torchaudio.transforms import Resample

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
from unispeech_sb.checkpoints.options import check_config

PREFIX = "feature_extract.model."
FAMILY = Fact("unispeech-sat", "assumed")
LOSS = "loss_calculator.projection.weight"
"""The weights of the training's classifier, which the published fine-tuned
models have and the authors' own code passes over."""

VERIFICATION_MARKS = {"layer1.conv.weight", "pooling.linear1.weight"}
VERIFICATION_MODULES = {
    "layer1", "layer2", "layer3", "layer4", "conv", "pooling", "bn", "linear",
}  # fmt: skip
VERIFICATION_PARTS = {
    "Conv1dReluBn1": "conv_in",
    "Res2Conv1dReluBn": "res2",
    "Conv1dReluBn2": "conv_out",
    "SE_Connect": "gate",
}
"""Part of a name in the authors' ECAPA-TDNN -> in ``ECAPAHead``."""

DIARIZATION_MARKS = {"enc.linear_in.weight", "linear0.weight"}
DIARIZATION = (
    (r"enc\.linear_in\.(\w+)", r"projection.\1"),
    (r"enc\.lnorm_out\.(\w+)", r"norm.\1"),
    (r"enc\.lnorm([12])_(\d+)\.(\w+)", r"layers.\2.norm\1.\3"),
    (r"enc\.self_att_(\d+)\.linearQ\.(\w+)", r"layers.\1.attention.q_proj.\2"),
    (r"enc\.self_att_(\d+)\.linearK\.(\w+)", r"layers.\1.attention.k_proj.\2"),
    (r"enc\.self_att_(\d+)\.linearV\.(\w+)", r"layers.\1.attention.v_proj.\2"),
    (
        r"enc\.self_att_(\d+)\.linearO\.(\w+)",
        r"layers.\1.attention.out_proj.\2",
    ),
    (
        r"enc\.ff_(\d+)\.linear1\.(\w+)",
        r"layers.\1.feed_forward.intermediate_dense.\2",
    ),
    (
        r"enc\.ff_(\d+)\.linear2\.(\w+)",
        r"layers.\1.feed_forward.output_dense.\2",
    ),
    (r"linear\.(\w+)", r"activities.\1"),
    (r"linear(\d+)\.(\w+)", r"voices.\1.\2"),
    (r"(embed\.weight|alpha|beta)", r"\1"),
)
"""Pattern of a name in the authors' EEND -> name in ``EENDVCHead``."""

KERNEL = "resample.kernel"
RATES = (8000, 16000)
"""Sampling rates of a diarization model with a resampler, in and out."""

TELEPHONE = (
    "sampling_rate: trained on 8000 Hz, brought to 16000 Hz by "
    "torchaudio.transforms.Resample(8000, 16000); give it such speech"
)

NUM_HEADS = Fact(8, "assumed: the authors' configuration")
ASSUMED_HEADS = (
    "num_heads: assumed 8, as the authors configure the diarization encoder; "
    "no tensor tells, and --set num_heads=N gives another"
)


def is_speaker_verification(objects: Any) -> bool:
    """Whether a file's content has the tensors of the authors' ECAPA-TDNN."""
    return VERIFICATION_MARKS <= _names(objects)


def is_diarization(objects: Any) -> bool:
    """Whether a file's content has those of their EEND with vector
    clustering."""
    return DIARIZATION_MARKS <= _names(objects)


def read_speaker_verification(
    objects: dict[str, Any], path: str | Path, overrides: Mapping[str, Any]
) -> Checkpoint:
    """Reads the authors' speaker verification model, ``{"model": tensors}`` or
    the tensors, for ``ECAPAHead``: its arguments are in the configuration, and
    the tensors in ``top`` have its names. What the user overrides wins."""
    facts = {"sampling_rate": Fact(RATES[1], "the authors' code")}
    return _read(
        objects, path, overrides, "ForECAPA", _verification_name,
        _verification_sizes, facts,
    )  # fmt: skip


def read_diarization(
    objects: dict[str, Any], path: str | Path, overrides: Mapping[str, Any]
) -> Checkpoint:
    """Reads the authors' diarization model, as the other, for ``EENDVCHead``.

    A model of 8 kHz speech has its resampler in the file. It is
    ``torchaudio.transforms.Resample(8000, 16000)``, checked bit for bit, so
    only the sampling rate is kept.
    """
    tensors = dict(named_tensors(_state(objects), "model", path))
    kernel = tensors.pop(KERNEL, None)
    rate = Fact(RATES[1], f"no {KERNEL} in the file")
    if kernel is not None:
        expected = Resample(*RATES).kernel
        if not torch.equal(kernel.float(), expected):
            raise ValueError(
                f"{path}: expected {KERNEL} of torchaudio's resampling from "
                f"{RATES[0]} to {RATES[1]} Hz; got another"
            )
        rate = Fact(RATES[0], f"{KERNEL}: from {RATES[0]} to {RATES[1]} Hz")
    found = _read(
        tensors, path, overrides, "ForEENDVC", _diarization_name,
        _diarization_sizes, {"sampling_rate": rate, "num_heads": NUM_HEADS},
    )  # fmt: skip
    if kernel is not None:
        found.dropped[KERNEL] = "torchaudio.transforms.Resample computes it"
        found.notes.append(TELEPHONE)
    heads, size = found.config["num_heads"], found.config["model_size"]
    if heads < 1 or size % heads:
        raise ValueError(
            f"{path}: expected num_heads to divide the encoder's size of "
            f"{size}; got {heads}"
        )
    if "num_heads" not in overrides:
        found.notes.append(ASSUMED_HEADS)
    return found


def _read(objects, path, overrides, task, rename, measure, facts):
    """What both models have in common."""
    tensors = named_tensors(_state(objects), "model", path)
    upstream = read_upstream(tensors, PREFIX, path, overrides)
    top, dropped, unknown = {}, dict(upstream.dropped), []
    for name, tensor in upstream.rest.items():
        new = rename(name)
        if new and new not in top:
            top[new] = tensor
        elif name == LOSS:
            dropped[name] = "classifier of the speakers of the training"
        else:
            unknown.append(name)
    if unknown:
        raise ValueError(
            f"{path}: unexpected {', '.join(sorted(unknown)[:5])}, which the "
            f"authors' {MODELS[task]} model does not have"
        )
    sizes = measure(top, path)
    dim, states = sizes["input_size"].value, sizes["num_states"].value
    sizes |= measured(hidden_size=dim, num_hidden_layers=states - 1)
    check_agreement(sizes, upstream.facts, path)
    facts = {"family": FAMILY} | upstream.facts | facts | sizes
    facts = settle(facts, overrides, path)
    config = {name: fact.value for name, fact in facts.items()}
    check_config(config, path)
    return Checkpoint(
        origin=f"the authors' {MODELS[task]}",
        family=facts["family"].value,
        task=task,
        config=config,
        backbone=upstream.backbone,
        top=top,
        facts={"task": Fact(task, "names of the tensors")} | facts,
        dropped=dropped,
        notes=upstream.notes,
    )


MODELS = {"ForECAPA": "speaker verification", "ForEENDVC": "diarization"}


def _state(objects):
    """The model's part of a file."""
    inner = isinstance(objects, dict) and isinstance(objects.get("model"), dict)
    return objects["model"] if inner else objects


def _names(objects):
    """Names of the model's tensors; none where it is another file."""
    state = _state(objects)
    return set(state) if isinstance(state, dict) else set()


def _verification_name(name):
    """Name in ``ECAPAHead``; None for what it does not have."""
    if name == "feature_weight":
        return "layer_mix.weights"
    parts = name.split(".")
    if parts[0] not in VERIFICATION_MODULES:
        return None
    return ".".join(VERIFICATION_PARTS.get(part, part) for part in parts)


def _diarization_name(name):
    """Name in ``EENDVCHead``; None for what it does not have."""
    if name == "feature_weight":
        return "layer_mix.weights"
    for pattern, new in DIARIZATION:
        match = re.fullmatch(pattern, name)
        if match:
            return match.expand(new)
    return None


def _verification_sizes(top, path):
    """Arguments of ``ECAPAHead``, read off its tensors."""
    channels, dim, _ = shape_of(top, "layer1.conv.weight", 3, path)
    width = shape_of(top, "layer2.res2.convs.0.weight", 3, path)[0]
    if width == channels or channels % width:
        raise ValueError(
            f"{path}: expected layer2.res2.convs.0.weight to see a share of "
            f"{channels} channels; got {width}"
        )
    return measured(
        input_size=dim,
        num_states=shape_of(top, "layer_mix.weights", 1, path)[0],
        channels=channels,
        embedding_size=shape_of(top, "linear.weight", 2, path)[0],
        pooled_channels=shape_of(top, "conv.weight", 3, path)[0],
        scale=channels // width,
        se_channels=shape_of(top, "layer2.gate.linear1.weight", 2, path)[0],
        attention_channels=shape_of(top, "pooling.linear1.weight", 3, path)[0],
    )


def _diarization_sizes(top, path):
    """Arguments of ``EENDVCHead``, read off its tensors."""
    model_size, dim = shape_of(top, "projection.weight", 2, path)
    known, speaker_size = shape_of(top, "embed.weight", 2, path)
    pattern = re.compile(r"layers\.\d+\.norm1\.weight")
    return measured(
        input_size=dim,
        num_states=shape_of(top, "layer_mix.weights", 1, path)[0],
        num_speakers=shape_of(top, "activities.weight", 2, path)[0],
        num_known_speakers=known,
        model_size=model_size,
        num_layers=sum(bool(pattern.fullmatch(name)) for name in top),
        speaker_size=speaker_size,
    )
