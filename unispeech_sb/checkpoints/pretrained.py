"""Pretrained folders of this package, read without building a module."""

import json
from pathlib import Path
from typing import NamedTuple

from unispeech_sb.checkpoints.files import read_metadata, read_tensors
from unispeech_sb.checkpoints.interfaces import (
    BACKBONE_FILE,
    OTHERS,
    folder_kind,
    purpose,
)
from unispeech_sb.checkpoints.safety.limits import check_config, shown
from unispeech_sb.checkpoints.safety.pickles import is_torch_file
from unispeech_sb.checkpoints.texts import read_json

TOKENIZER_FILE = "tokenizer.ckpt"
LABEL_FILES = ("label_encoder.ckpt", TOKENIZER_FILE)
NO_LOBES = (*LABEL_FILES, "calibration.ckpt", "language_model.ckpt")
"""Files of other things that SpeechBrain's Pretrainer loads."""
ORIGIN_FILE = "origin.json"
TRAINING_FILE = "training.json"
TEXTS_FOLDER = "transformers"
"""Sub-folder with the texts of a Hugging Face checkpoint, as they were."""


ORIGIN_KINDS = {
    "origin": str,
    "source": str,
    "family": str,
    "task": str,
    "weight_norm": str,
    "blank_index": int,
    "labels": bool,
    "facts": dict,
}
"""Entries of ``origin.json``; any may be missing or null."""
TRAINING_KINDS = {
    "scores": dict,
    "scored_on": str,
    "training": dict,
    "family": str,
}
"""Those of ``training.json``."""


class LobeFile(NamedTuple):
    """What the file of one lobe holds.

    Arguments
    ---------
    cls : str
        Name of the class, with its module.
    config : dict
        Arguments of its constructor.
    tensors : dict
        Name -> tensor.

    Example
    -------
    >>> LobeFile("unispeech_sb.lobes.heads.FrameHead", {}, {}).config
    {}
    """

    cls: str
    config: dict
    tensors: dict

    @property
    def name(self):
        """Name of the class, without its module."""
        return self.cls.rpartition(".")[2]


class Pretrained(NamedTuple):
    """What a pretrained folder holds.

    Arguments
    ---------
    folder : pathlib.Path
        The folder.
    lobes : dict
        Name -> ``LobeFile``.
    origin : dict
        ``origin.json``: what it was converted from; empty where it was
        trained here.
    texts : dict
        Name -> text of the files in ``transformers/``.
    training : dict
        ``training.json``: how it was trained; empty where that was not
        written.

    Example
    -------
    >>> Pretrained(Path("a"), {}, {}, {}).lobes
    {}
    """

    folder: Path
    lobes: dict
    origin: dict
    texts: dict
    training: dict = {}


def is_pretrained(folder):
    """Tells whether a folder is one that this package wrote.

    Arguments
    ---------
    folder : str or pathlib.Path
        The folder.

    Returns
    -------
    bool
        Whether it has a backbone of ours.

    Example
    -------
    >>> is_pretrained(getfixture("tmp_path"))
    False
    """
    return (Path(folder) / BACKBONE_FILE).is_file()


def is_lobe_file(path):
    """Whether a path is a ``.ckpt`` that is no PyTorch file, as ours are."""
    path = Path(path)
    return path.is_file() and path.suffix == ".ckpt" and not is_torch_file(path)


def read_lobe(path):
    """Reads the file of one lobe.

    Arguments
    ---------
    path : str or pathlib.Path
        A ``.ckpt`` that ``Lobe.save`` wrote.

    Returns
    -------
    LobeFile
        Class, arguments, and tensors.

    Raises
    ------
    ValueError
        When the file is damaged, or another one, or an argument cannot be.

    Example
    -------
    >>> from unispeech_sb.lobes.backbone import Backbone
    >>> path = getfixture("tmp_path") / "backbone.ckpt"
    >>> Backbone.from_preset("tiny").save(path)
    >>> read_lobe(path).cls
    'unispeech_sb.lobes.backbone.Backbone'
    """
    try:
        note = json.loads(read_metadata(path)["lobe"])
        cls, config = str(note["class"]), dict(note["config"])
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        if isinstance(error, ValueError) and str(path) in str(error):
            raise  # the file itself is damaged
        raise ValueError(
            f"{path}: expected a file that this package wrote, with the "
            "module's class and arguments in it"
        ) from error
    check_config(config, path)
    return LobeFile(cls, config, read_tensors(path))


def read_pretrained(folder):
    """Reads all lobes of a pretrained folder.

    Arguments
    ---------
    folder : str or pathlib.Path
        A folder that a recipe exported or ``convert`` wrote.

    Returns
    -------
    Pretrained
        What it holds.

    Raises
    ------
    ValueError
        When it is no such folder, or damaged.

    Example
    -------
    >>> read_pretrained(getfixture("tmp_path"))
    Traceback (most recent call last):
    ...
    ValueError: ...: expected a pretrained folder, with backbone.ckpt
    """
    folder, kind = Path(folder), folder_kind(folder)
    if kind in OTHERS and kind != "modules":
        raise ValueError(
            f"{folder}: expected a pretrained folder; {purpose(folder, kind)}"
        )
    if not is_pretrained(folder):
        raise ValueError(
            f"{folder}: expected a pretrained folder, with {BACKBONE_FILE}"
        )
    lobes = {
        path.stem: read_lobe(path)
        for path in sorted(folder.glob("*.ckpt"))
        if path.name not in NO_LOBES
    }
    texts = (folder / TEXTS_FOLDER).glob("*.json")
    return Pretrained(
        folder,
        lobes,
        _read_origin(folder / ORIGIN_FILE),
        {path.name: path.read_text("utf-8") for path in sorted(texts)},
        _read_notes(folder / TRAINING_FILE, TRAINING_KINDS),
    )


def _read_notes(path, kinds):
    """A JSON file beside the modules; empty where there is none."""
    notes = read_json(path) if path.is_file() else {}
    for name, kind in kinds.items():
        value = notes.get(name)
        if value is not None and type(value) is not kind:
            raise ValueError(
                f"{path}: expected {name} to be of the type {kind.__name__}; "
                f"got {shown(value)}"
            )
    return notes


def _read_origin(path):
    """What a folder was converted from; empty where it was trained here."""
    origin = _read_notes(path, ORIGIN_KINDS)
    check_config(
        {"pad_token_id": origin.get("blank_index")}, f"{path}: blank_index"
    )
    facts = origin.get("facts") or {}
    if not all(
        isinstance(fact, dict) and {"value", "source"} <= fact.keys()
        for fact in facts.values()
    ):
        raise ValueError(f"{path}: expected facts with a value and a source")
    return origin
