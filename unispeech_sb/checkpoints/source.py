"""Where a model comes from: a folder of ours, of Hugging Face, or the hub."""

import json
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError

from unispeech_sb.checkpoints.files import read_metadata, read_tensors
from unispeech_sb.checkpoints.huggingface import (
    WAV_NORM_EPS,
    is_huggingface,
    read_huggingface,
)

BACKBONE_FILE = "backbone.ckpt"
SMALL_FILES = ["*.json", "hyperparams.yaml", "*.txt", "*.ckpt"]
WEIGHTS = (["model*.safetensors"], ["pytorch_model*.bin"])


def find_folder(source, save_path=None):
    """Finds the local folder of a source, downloading it if need be.

    Arguments
    ---------
    source : str or pathlib.Path
        A folder, or the name of a model on the Hugging Face hub.
    save_path : str, optional
        Where downloads are kept; the hub's own cache when omitted.

    Returns
    -------
    pathlib.Path
        A folder that exists.

    Raises
    ------
    ValueError
        When there is no such folder and the hub has no such model, or
        cannot be reached.

    Example
    -------
    >>> find_folder(getfixture("tmp_path")).is_dir()
    True
    """
    path = Path(source)
    if path.is_dir():
        return path
    name = str(source)
    if path.exists() or name[:1] in "./~" or name.count("/") != 1:
        raise ValueError(
            f"{source}: expected a folder or the hub name of a model, like "
            "microsoft/unispeech-sat-base; there is no such folder"
        )
    return _download(name, save_path)


def _download(name, save_path):
    """Fetches a model from the hub: safetensors, else PyTorch files."""
    try:
        for weights in WEIGHTS:
            folder = snapshot_download(
                name,
                cache_dir=save_path,
                allow_patterns=SMALL_FILES + weights,
            )
            if any(Path(folder).glob(weights[0])):
                break
    except (HfHubHTTPError, OSError) as error:
        raise ValueError(
            f"{name}: there is no such folder, and the Hugging Face hub "
            "gave no model of that name (offline, or no such model: "
            f"{type(error).__name__})"
        ) from error
    return Path(folder)


def read_backbone(source, save_path=None):
    """Reads what it takes to build a backbone.

    Arguments
    ---------
    source : str or pathlib.Path
        A pretrained folder, a Hugging Face folder, or a hub name.
    save_path : str, optional
        Where downloads are kept.

    Returns
    -------
    options : dict
        Arguments of ``Backbone``, among possibly others.
    tensors : dict
        Name -> tensor.
    path : pathlib.Path
        The file or folder they are from.

    Raises
    ------
    ValueError
        When it is no checkpoint, or a damaged one.

    Example
    -------
    >>> read_backbone(getfixture("tmp_path"))
    Traceback (most recent call last):
    ...
    ValueError: ...: expected a checkpoint, ...; it is empty
    """
    folder = find_folder(source, save_path)
    path = folder / BACKBONE_FILE
    if path.is_file():
        notes = read_metadata(path)
        if "lobe" not in notes:
            raise ValueError(
                f"{path}: expected a file that this package wrote, with the "
                "backbone's arguments in it"
            )
        options = json.loads(notes["lobe"])["config"]
        return options, read_tensors(path), path
    if is_huggingface(folder):
        found = read_huggingface(folder)
        options = dict(
            found.config,
            normalize_wav=found.normalize_wav,
            normalize_eps=WAV_NORM_EPS,
        )
        return options, found.backbone, folder
    raise ValueError(
        f"{folder}: expected a checkpoint, with {BACKBONE_FILE} (a pretrained "
        "folder) or config.json (a Hugging Face folder); it "
        f"{_contents(folder)}"
    )


def _contents(folder, most=5):
    """Says in a few words what a folder holds."""
    names = sorted(path.name for path in folder.iterdir())
    if not names:
        return "is empty"
    more = ", ..." if len(names) > most else ""
    return f"holds {', '.join(names[:most])}{more}"
