"""Where a model comes from: a folder, a file, or the hub."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError

from unispeech_sb.checkpoints.authors import (
    is_diarization,
    is_speaker_verification,
    read_diarization,
    read_speaker_verification,
)
from unispeech_sb.checkpoints.checkpoint import Checkpoint, Fact
from unispeech_sb.checkpoints.fairseq import is_fairseq, read_fairseq
from unispeech_sb.checkpoints.file_types import (
    check_file,
    what_folder,
    what_objects,
)
from unispeech_sb.checkpoints.files import read_tensors
from unispeech_sb.checkpoints.huggingface import (
    WEIGHT_FILES,
    is_huggingface,
    read_huggingface,
    read_options,
)
from unispeech_sb.checkpoints.interfaces import (
    BACKBONE_FILE,
    INTERFACES,
    OTHERS,
    folder_kind,
    is_training_checkpoint,
    purpose,
)
from unispeech_sb.checkpoints.options import (
    check_overrides,
    default_family,
    shown,
)
from unispeech_sb.checkpoints.pretrained_folder import (
    family_of,
    is_lobe_file,
    read_lobe,
)
from unispeech_sb.checkpoints.recipe_yaml import Part, RecipeYaml, run_yaml
from unispeech_sb.checkpoints.s3prl import is_s3prl, read_s3prl
from unispeech_sb.checkpoints.safety.pickles import read_objects
from unispeech_sb.checkpoints.speechbrain import (
    Beginning,
    as_checkpoint,
    beginning_by,
    beginning_of,
    find_saved,
)
from unispeech_sb.text import absent

SMALL_FILES = ["*.json", "hyperparams.yaml", "*.txt", "*.ckpt", "adapter.*"]
WEIGHTS = (["model*.safetensors"], ["pytorch_model*.bin"])
READ_HERE = ("Hugging Face", "file")
"""Kinds of what is no folder of this package."""
READERS = (
    (is_fairseq, read_fairseq),
    (is_s3prl, read_s3prl),
    (is_speaker_verification, read_speaker_verification),
    (is_diarization, read_diarization),
)
"""Kinds of single files: how to tell one, how to read it."""


def find_source(source: str | Path, save_path: str | None = None) -> Path:
    """Finds the local folder or file of a source, downloading it from the
    Hugging Face hub if need be, to ``save_path`` or the hub's own cache.

    A weight file of a Hugging Face folder stands for the folder. What is
    neither here nor there is a ``ValueError``.
    """
    path = Path(source)
    if path.name in WEIGHT_FILES and is_huggingface(path.parent):
        path = path.parent
    if path.exists():
        return path
    name = str(source)
    if name[:1] in "./~" or name.count("/") != 1:
        raise ValueError(
            f"{source}: expected a folder, a checkpoint file, or the hub "
            "name of a model, like microsoft/unispeech-sat-base; "
            + absent(path, "folder or file")
        )
    return _download(name, save_path)


def _download(name, save_path):
    """Fetches a model from the hub: safetensors, else PyTorch files."""
    try:
        for weights in WEIGHTS:
            folder = snapshot_download(
                name,
                cache_dir=save_path,
                allow_patterns=[*SMALL_FILES, "README.md", *weights],
            )
            if any(Path(folder).glob(weights[0])):
                break
    except (HfHubHTTPError, OSError) as error:
        raise ValueError(
            f"{name}: there is no such folder, and the Hugging Face hub "
            "gave no model of that name (offline, or no such model: "
            f"{type(error).__name__}); a folder on this machine needs no "
            "network, nor does a recipe with --model=small, a preset with "
            "random weights"
        ) from error
    return Path(folder)


def read_checkpoint(
    source: str | Path,
    save_path: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    config: str | Path | None = None,
) -> Checkpoint:
    """Reads a checkpoint: a Hugging Face folder or hub name, a file of the
    authors' fairseq, of their speaker verification or diarization, or of
    s3prl; the backbone of a training checkpoint of SpeechBrain, a folder or a
    file in it. Overrides replace what the files say or leave open; ``config``
    is the source of the sizes of a file with tensors alone."""
    path, overrides = find_source(source, save_path), overrides or {}
    check_overrides(overrides)
    _refuse_ours(path, "a checkpoint of another framework")
    if is_training_checkpoint(path) or is_lobe_file(path):
        check_file(path)
        found = _read_saved(path, config, overrides)
        if found is not None:
            return found
    if is_training_checkpoint(path):
        raise ValueError(
            f"{path}: expected a backbone in one of its files; it is a "
            f"training checkpoint that {_contents(path)}"
        )
    if path.is_dir():
        if not is_huggingface(path):
            raise ValueError(
                f"{path}: expected a checkpoint, with {BACKBONE_FILE} (a "
                "pretrained folder) or config.json (a Hugging Face folder); "
                f"it {what_folder(path) or _contents(path)}"
            )
        return _checked(read_huggingface(path, overrides), path, overrides)
    check_file(path)
    if is_lobe_file(path):
        raise ValueError(
            f"{path}: expected a checkpoint of another framework; it is a "
            f"module of this package, {shown(read_lobe(path).name)}"
        )
    objects = _read_file(path)
    for recognises, read in READERS:
        if recognises(objects):
            return _checked(read(objects, path, overrides), path, overrides)
    what = what_objects(objects)
    if what is None or config is not None:
        found = _read_saved(path, config, overrides)
        if found is not None:
            return found
    raise ValueError(
        f"{path}: expected a checkpoint of fairseq, of the authors' speaker "
        "verification or diarization, or of s3prl; it "
        + (f"is {what}" if what else f"holds {_names(objects)}")
    )


def _read_saved(path, config, overrides):
    """The backbone that a recipe of SpeechBrain saved; None where there is
    none."""
    saved = find_saved(path)
    if saved is None:
        return None
    facts = {}
    if saved.config is None:
        begun = beginning_of(saved) if config is None else Beginning(config)
        facts = _facts_of(begun, saved.path)
    elif saved.family is None:
        saved = saved._replace(family=_family_begun(saved, config))
    return as_checkpoint(saved, facts, overrides)


def _family_begun(saved, config):
    """The family of the model that a training began with, where that is on
    this machine and what was saved may be of it; None elsewhere."""
    if config is None and run_yaml(saved.path) is None:
        return None
    try:
        begun = beginning_of(saved) if config is None else Beginning(config)
        place = Path(begun.source)
        if not place.exists():
            return None
        if is_huggingface(place):
            family = read_options(place)["family"].value
        else:
            family = family_of(place if place.is_dir() else place.parent)
    except ValueError:  # its sizes are known without it
        return None
    has_buckets = bool(saved.config.get("num_buckets"))
    return family if has_buckets == (family == "wavlm") else None


def _facts_of(begun, path):
    """The options of the model that a training began with."""
    try:
        place = find_source(begun.source, begun.downloads)
        if place.is_dir() and is_huggingface(place):
            facts = read_options(place)
        else:
            options, _, _ = read_backbone(place)
            facts = {k: Fact(v, str(place)) for k, v in options.items()}
    except ValueError as error:
        raise ValueError(
            f"{path}: its training began with {begun.source}, which is needed "
            f"for its sizes and cannot be read ({error}); give a copy: "
            "--config FOLDER, or config= in Python"
        ) from error
    given = {k: Fact(v, "yaml of the run") for k, v in begun.options.items()}
    return {**facts, **given}


def _checked(found, path, overrides):
    """The checkpoint; refuses a blank for a model without one."""
    if overrides.get("blank") is not None and found.blank_index is None:
        raise ValueError(
            f"{path}: expected a CTC model, whose tokens are known, for "
            f"blank; got {found.task}"
        )
    return found


def _read_file(path):
    """Everything in a file, whatever its format."""
    if path.suffix == ".safetensors":
        return read_tensors(path)
    return read_objects(path)


def read_backbone(
    source: str | Path,
    save_path: str | None = None,
    config: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], dict[str, torch.Tensor], Path]:
    """Reads what it takes to build a backbone, from a pretrained folder, its
    ``backbone.ckpt``, or any source of ``read_checkpoint``, with overrides of
    what that may lack: arguments of ``Backbone``, among possibly others; name
    -> tensor; and the file or folder they are from."""
    path = find_source(source, save_path)
    if (path / BACKBONE_FILE).is_file():
        path /= BACKBONE_FILE
    _refuse_ours(path, "a model, as a folder or a file")
    check_file(path)
    if is_lobe_file(path):
        saved = None if path.name == BACKBONE_FILE else find_saved(path)
        if saved is not None and saved.config is not None:
            return saved.config, saved.tensors, path
        lobe = read_lobe(path)
        if path.name != BACKBONE_FILE:
            raise ValueError(
                f"{path}: expected a backbone; it is another module of this "
                f"package, {shown(lobe.name)}"
            )
        return lobe.config, lobe.tensors, path
    found = read_checkpoint(path, None, overrides, config)
    if not found.backbone:
        raise ValueError(
            f"{path}: expected a backbone; it holds a head of "
            f"{found.origin} only"
        )
    return found.config, found.backbone, path


def read_trained(
    recipe: RecipeYaml, ckpt: Path, config: str | Path | None = None
) -> tuple[Checkpoint, str | None, Part | None]:
    """The backbone that a recipe trained, the entry of its lobe, and where the
    lobe's tensors are; None where nothing tells, or where it was frozen and so
    is not in the checkpoint."""
    saved = find_saved(ckpt)
    if saved is None:
        found, entry = _read_frozen(recipe, ckpt, config)
        return found, entry, None
    parts = {
        entry: part
        for entry, part in recipe.parts(ckpt).items()
        if part.file == saved.path and saved.prefix.startswith(part.prefix)
    }
    found = read_checkpoint(saved.path, config=config)
    if not parts:
        return found, None, Part(saved.path, saved.prefix)
    entry = max(parts, key=lambda name: len(parts[name].prefix))
    return found, entry, parts[entry]


def _read_frozen(recipe, ckpt, config):
    """The backbone that a recipe began with, and the entry of its lobe."""
    modules, found = recipe.modules().values(), recipe.lobes()
    lobes = {n: call for n, call in found.items() if n in modules} or found
    if len(lobes) != 1:
        raise ValueError(
            f"{ckpt}: expected a backbone in one of its files, or one among "
            f"the modules of {recipe.path}; got {len(lobes)}"
        )
    ((entry, call),) = lobes.items()
    if call.arguments.get("freeze") is not True:
        raise ValueError(
            f"{ckpt}: expected the backbone {entry} among the recoverables of "
            "the recipe, or freeze: True; it was trained and not saved"
        )
    begun = beginning_by(call)
    options, tensors, _ = read_backbone(config or begun.source, begun.downloads)
    family = options.get("family", default_family(options))
    options = {**options, **begun.options}
    return Checkpoint("SpeechBrain", family, "Model", options, tensors), entry


def _refuse_ours(path, expected):
    """Refuses a folder of this package that is for something else."""
    kind = folder_kind(path)
    if is_training_checkpoint(path):
        return
    if kind in INTERFACES or kind in OTHERS and kind not in READ_HERE:
        raise ValueError(f"{path}: expected {expected}; {purpose(path, kind)}")


def _contents(folder):
    """Says in a few words what a folder holds."""
    names = sorted(path.name for path in folder.iterdir())
    return f"holds {_names(names)}" if names else "is empty"


def _names(objects, most=5):
    """Names for a sentence: the first few."""
    if not isinstance(objects, (dict, list)):
        return f"one {type(objects).__name__}"
    names = [str(name)[:40] for name in list(objects)[:most]]
    return ", ".join(names) + (", ..." if len(objects) > most else "")
