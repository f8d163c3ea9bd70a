"""Hugging Face folders of both families, read without transformers."""

import json
from pathlib import Path
from typing import NamedTuple

import torch

from unispeech_sb.checkpoints.files import read_tensors
from unispeech_sb.checkpoints.keys import FAMILIES, split_backbone

WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
WAV_NORM_EPS = 1e-7
"""Epsilon that transformers' feature extractor adds to the variance."""


class HuggingFaceCheckpoint(NamedTuple):
    """What a folder holds.

    Arguments
    ---------
    config : dict
        ``config.json``.
    backbone : dict
        Name in ``Backbone`` -> tensor.
    top : dict
        Name in the file -> tensor, for what stands on the backbone.
    normalize_wav : bool
        ``do_normalize`` of ``preprocessor_config.json``.
    notes : list of str
        What was added or changed on the way.

    Example
    -------
    >>> HuggingFaceCheckpoint({}, {}, {}, False, []).notes
    []
    """

    config: dict
    backbone: dict
    top: dict
    normalize_wav: bool
    notes: list


def is_huggingface(folder):
    """Tells whether a folder has a ``config.json``.

    Arguments
    ---------
    folder : str or pathlib.Path
        The folder.

    Returns
    -------
    bool
        Whether it looks like a Hugging Face folder.

    Example
    -------
    >>> is_huggingface(getfixture("tmp_path"))
    False
    """
    return (Path(folder) / "config.json").is_file()


def read_huggingface(folder):
    """Reads configuration and weights of a UniSpeech(-SAT) checkpoint.

    Arguments
    ---------
    folder : str or pathlib.Path
        With ``config.json``, ``preprocessor_config.json`` and
        ``model.safetensors`` or ``pytorch_model.bin``, whole or in shards.

    Returns
    -------
    HuggingFaceCheckpoint
        Its content under this package's names.

    Raises
    ------
    ValueError
        When a file is missing, damaged, or of another model.

    Example
    -------
    >>> read_huggingface(getfixture("tmp_path"))
    Traceback (most recent call last):
    ...
    ValueError: ...: expected config.json of a Hugging Face checkpoint
    """
    folder = Path(folder)
    if not is_huggingface(folder):
        raise ValueError(
            f"{folder}: expected config.json of a Hugging Face checkpoint"
        )
    config = _read_json(folder / "config.json")
    model_type = config.get("model_type")
    if model_type not in FAMILIES:
        raise ValueError(
            f"{folder / 'config.json'}: expected model_type "
            f"{' or '.join(FAMILIES)}; got {model_type!r}"
        )
    preprocessor = folder / "preprocessor_config.json"
    if not preprocessor.is_file():
        raise ValueError(
            f"{folder}: expected preprocessor_config.json, whose "
            "do_normalize says whether waveforms are normalised"
        )
    normalize_wav = _read_json(preprocessor).get("do_normalize")
    if not isinstance(normalize_wav, bool):
        raise ValueError(
            f"{preprocessor}: expected do_normalize to be true or false; "
            f"got {normalize_wav!r}"
        )
    backbone, top = split_backbone(_read_weights(folder), model_type)
    notes = []
    if "masked_spec_embed" not in backbone and "hidden_size" in config:
        backbone["masked_spec_embed"] = torch.rand(config["hidden_size"])
        notes.append(
            "masked_spec_embed: not in the file (masking was off when it "
            "was saved); drawn anew"
        )
    return HuggingFaceCheckpoint(config, backbone, top, normalize_wav, notes)


def _read_weights(folder):
    """All tensors of the first kind of weight file that is there."""
    for name in WEIGHT_FILES:
        path = folder / name
        if not path.is_file():
            continue
        if path.suffix != ".json":
            return read_tensors(path)
        shards = sorted(set(_read_json(path).get("weight_map", {}).values()))
        tensors = {}
        for shard in shards:
            if Path(shard).name != shard:
                raise ValueError(
                    f"{path}: expected plain names of shards; got {shard!r}"
                )
            tensors.update(read_tensors(folder / shard))
        return tensors
    raise ValueError(
        f"{folder}: expected one of {', '.join(WEIGHT_FILES)}; there is none"
    )


def _read_json(path):
    """Reads a JSON object, or says what is wrong with the file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected JSON ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a JSON object")
    return content
