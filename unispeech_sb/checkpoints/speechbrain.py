"""Training checkpoints of SpeechBrain's recipes: the backbone in them.

A lobe of this package says in its file how it was built. SpeechBrain's own
lobes save tensors alone, so that the sizes come from the model that the
recipe began with: the yaml of the run names it, or the user does.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from unispeech_sb.checkpoints.checkpoint import Checkpoint, Fact
from unispeech_sb.checkpoints.file_types import what_file, what_tensors
from unispeech_sb.checkpoints.files import is_safetensors, read_tensors
from unispeech_sb.checkpoints.huggingface import WEIGHT_NORM
from unispeech_sb.checkpoints.options import FAMILIES, default_family
from unispeech_sb.checkpoints.pretrained_folder import (
    is_lobe_file,
    read_lobes,
)
from unispeech_sb.checkpoints.recipe_yaml import RecipeYaml, run_yaml
from unispeech_sb.checkpoints.safety.pickles import is_torch_file, read_objects

_MARK = "feature_extractor.conv_layers.0.conv.weight"
"""A tensor of every backbone, after the prefix of the lobe that has it."""
_ASK = (
    "the folder or hub name of the model that the training began with has to "
    "be given: --config FOLDER, or config= in Python"
)
_HEADS = {"UniSpeechHead": "unispeech", "UniSpeechSATHead": "unispeech-sat"}
"""Head of a pre-training -> its family."""
SPEECHBRAIN_EPS = 1e-5
"""What SpeechBrain's lobes add to the variance of a waveform."""


class Saved(NamedTuple):
    """A backbone in a training checkpoint.

    Arguments
    ---------
    path : pathlib.Path
        The file that has it.
    prefix : str
        What precedes its names there.
    tensors : dict
        Name in ``Backbone`` -> tensor.
    others : list of str
        Names of the file's other tensors.
    config : dict or None
        Arguments of ``Backbone``; None where the file does not say.
    family : str or None
        That of the head beside it, or of its names; None where neither tells.
    """

    path: Path
    prefix: str
    tensors: dict[str, torch.Tensor]
    others: list[str]
    config: dict[str, Any] | None
    family: str | None = None


def find_saved(path: str | Path) -> Saved | None:
    """Finds the backbone in a training checkpoint, or in a file of one; None
    where there is none. Several are a ``ValueError``, and so is a file that
    cannot be read, where no other has one."""
    path = Path(path)
    files = sorted(path.glob("*.ckpt")) if path.is_dir() else [path]
    named = [file for file in files if file.name == "backbone.ckpt"]
    found, faults = [], []
    for file in named or files:
        try:
            found += _saved_in(file)
        except ValueError as error:  # of a file that is not read
            faults.append(error)
    if faults and not found:
        raise faults[0]
    if len(found) > 1:
        places = ", ".join(f"{s.path.name}: {s.prefix}*" for s in found[:5])
        raise ValueError(
            f"{path}: expected one backbone; got {len(found)} ({places}): "
            "give the file that has the one"
        )
    return found[0] if found else None


def _saved_in(path):
    """The backbones of a file: none of one that is no model."""
    if is_lobe_file(path):
        if what_file(path) is not None:
            return []  # the state of a counter, a sampler, ... is a text
        lobes = read_lobes(path)
        names = {f"{k}.{n}" for k, lobe in lobes.items() for n in lobe.tensors}
        heads = [_HEADS.get(lobe.name) for lobe in lobes.values()]
        family = next(filter(None, heads), None)
        return [
            Saved(
                path,
                f"{name}." if name else "",
                lobe.tensors,
                sorted(n for n in names if not n.startswith(f"{name}.")),
                lobe.config,
                family,
            )
            for name, lobe in lobes.items()
            if lobe.name == "Backbone"
        ]
    tensors = state_of(path)
    prefixes = [n[: -len(_MARK)] for n in tensors if n.endswith(_MARK)]
    return [_with_prefix(path, tensors, p) for p in prefixes]


def state_of(path: str | Path) -> dict[str, torch.Tensor]:
    """The tensors of a file that is a state dict; none of any other."""
    if is_safetensors(path):
        return read_tensors(path)
    if not is_torch_file(path):
        return {}
    objects = read_objects(path)
    if not isinstance(objects, dict) or not all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor)
        for name, tensor in objects.items()
    ):
        return {}
    return {name: tensor.detach() for name, tensor in objects.items()}


def _with_prefix(path, tensors, prefix):
    """What of a state dict is a backbone's."""
    own = {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
    parts = r"(feature_extractor|feature_projection|encoder)\.|masked_spec_emb"
    backbone = {
        WEIGHT_NORM.get(name, name): tensor
        for name, tensor in own.items()
        if re.match(parts, name)
    }
    kept = {name for name in own if re.match(parts, name)}
    others = [n for n in tensors if n.removeprefix(prefix) not in kept]
    return Saved(path, prefix, backbone, others, None, _family(prefix))


class Beginning(NamedTuple):
    """What a lobe without a note was built from: the source of its sizes,
    where downloads are, and options of the lobe itself."""

    source: str
    downloads: str | None = None
    options: Mapping[str, Any] = {}


def beginning_of(saved: Saved) -> Beginning:
    """What the yaml of the run says of the lobe that was saved; a
    ``ValueError``, which asks for its source, where there is none."""
    what = what_tensors(saved.tensors)
    if what is not None:
        raise ValueError(
            f"{saved.path}: expected one of {', '.join(FAMILIES)}; it is {what}"
        )
    yaml_file = run_yaml(saved.path)
    if yaml_file is None:
        raise ValueError(
            f"{saved.path}: the file has tensors alone, and no "
            f"hyperparams.yaml of its run is near; {_ASK}"
        )
    recipe = RecipeYaml(yaml_file)
    found = recipe.lobes()
    entry = recipe.recoverables().get(saved.path.stem)
    if entry not in found and len(found) != 1:
        raise ValueError(
            f"{saved.path}: the file has tensors alone, and {yaml_file} does "
            f"not say of which model; {_ASK}"
        )
    return beginning_by(found[entry if entry in found else next(iter(found))])


def beginning_by(call: Any) -> Beginning:
    """What a yaml's call of a lobe says."""
    given = call.arguments
    downloads = given.get("save_path")
    if not isinstance(downloads, str) or not Path(downloads).is_dir():
        downloads = None
    options: dict[str, Any] = {
        name: given[name]
        for name in ("output_norm", "normalize_wav")
        if isinstance(given.get(name), bool)
    }
    if not call.name.startswith("unispeech_sb."):
        options["normalize_eps"] = SPEECHBRAIN_EPS
        if call.name.endswith("WeightedSSLModel"):
            options["normalize_wav"] = False  # it passes over that
    source = str(given.get("source") or given.get("hub"))
    return Beginning(source, downloads, options)


def as_checkpoint(
    saved: Saved,
    facts: Mapping[str, Fact],
    overrides: Mapping[str, Any],
) -> Checkpoint:
    """The ``Checkpoint`` of a backbone that was found. Its options are those
    of its file, else ``facts`` of the model that it began with."""
    facts = dict(facts)
    if saved.config is not None:
        note = f"note in {saved.path.name}"
        facts = {
            name: Fact(value, note) for name, value in saved.config.items()
        }
    elif "model." in saved.prefix:  # of one of SpeechBrain's lobes
        facts["normalize_eps"] = Fact(SPEECHBRAIN_EPS, "SpeechBrain's lobe")
    notes, begun = [], facts.pop("family", Fact(None, ""))
    family = begun.value or saved.family
    if family not in FAMILIES:
        config = {name: fact.value for name, fact in facts.items()}
        family = default_family(config)
        notes.append(
            f"family: not recorded; {family} is assumed, whose backbone is the "
            "same"
        )
    facts["family"] = Fact(family, begun.source or "SpeechBrain's checkpoint")
    facts["sampling_rate"] = Fact(16000, "all families")
    facts |= {name: Fact(value, "given") for name, value in overrides.items()}
    return Checkpoint(
        "SpeechBrain",
        family,
        "Model",
        {name: fact.value for name, fact in facts.items()},
        dict(saved.tensors),
        facts=facts,
        dropped=dict.fromkeys(saved.others, "not part of the backbone"),
        notes=notes,
    )


def _family(prefix):
    """The family that a prefix names; None where it names none."""
    named = (f for f, start in FAMILIES.items() if prefix.endswith(start))
    return next(named, None)
