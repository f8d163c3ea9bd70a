"""Pretrained folders of this package: what SpeechBrain's interfaces load.

A folder has ``hyperparams.yaml``, one ``<name>.ckpt`` per module, texts, and a
README. It names no path and no hub, so it can be moved and used offline. It is
read here without building a module.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml

from unispeech_sb.atomic import OneWriter, temporary_folder
from unispeech_sb.checkpoints.files import (
    public_path,
    read_metadata,
    read_tensors,
)
from unispeech_sb.checkpoints.interfaces import (
    BACKBONE_FILE,
    COMMENTS,
    INTERFACES,
    OTHERS,
    YAML_FILE,
    folder_kind,
    purpose,
)
from unispeech_sb.checkpoints.options import (
    check_arguments,
    check_config,
    shown,
)
from unispeech_sb.checkpoints.safe_yaml import Name, New, Ref
from unispeech_sb.checkpoints.safety.pickles import is_torch_file
from unispeech_sb.checkpoints.texts import read_json

TOKENIZER_FILE = "tokenizer.ckpt"
LABEL_FILES = ("label_encoder.ckpt", TOKENIZER_FILE)
NO_LOBES = (*LABEL_FILES, "calibration.ckpt", "language_model.ckpt")
"""Files of other things that SpeechBrain's Pretrainer loads."""
ORIGIN_FILE = "origin.json"
TRAINING_FILE = "training.json"
SUMS_FILE = "SHA256SUMS"
"""Digests of a folder's other files, as ``sha256sum -c`` reads them."""
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

HEADER = """\
# Needs the package unispeech_sb: without it, SpeechBrain says
# "There is no such class as unispeech_sb...."
# yamllint disable
sample_rate: 16000

"""


MOST_SUMS_BYTES = 2**20
SUM = re.compile(r"([0-9a-f]{64}) [ *](.+)")
"""Line of ``SHA256SUMS``."""


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
    """

    cls: str
    config: dict[str, Any]
    tensors: dict[str, torch.Tensor]

    @property
    def name(self) -> str:
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
    others : list of str
        Names of modules of other packages, from a recipe of SpeechBrain's.
    """

    folder: Path
    lobes: dict[str, LobeFile]
    origin: dict[str, Any]
    texts: dict[str, str]
    training: dict[str, Any] = {}
    others: Sequence[str] = ()


def is_pretrained(folder: str | Path) -> bool:
    """Whether a folder has a backbone of this package."""
    return (Path(folder) / BACKBONE_FILE).is_file()


def is_lobe_file(path: str | Path) -> bool:
    """Whether a path is a ``.ckpt`` that is no PyTorch file, as ours are."""
    path = Path(path)
    return path.is_file() and path.suffix == ".ckpt" and not is_torch_file(path)


def read_lobe(path: str | Path) -> LobeFile:
    """The ``LobeFile`` of a ``.ckpt`` that ``Lobe.save`` wrote; a
    ``ValueError`` where it is damaged, another one, or an argument cannot be.
    """
    found = read_lobes(path)
    if list(found) != [""]:
        raise ValueError(f"{path}: expected one module; got {', '.join(found)}")
    return found[""]


def read_lobes(path: str | Path) -> dict[str, LobeFile]:
    """Each ``LobeFile`` of a file of several, name -> lobe; the name is empty
    in that of one. See ``read_lobe``."""
    try:
        notes = read_metadata(path)
        single = {"": json.loads(notes["lobe"])} if "lobe" in notes else None
        own = single or dict(json.loads(notes["lobes"]))
        told = {
            name: (str(note["class"]), dict(note["config"]))
            for name, note in own.items()
        }
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        if isinstance(error, ValueError) and str(path) in str(error):
            raise  # the file itself is damaged
        raise ValueError(
            f"{path}: expected a file that this package wrote, with the "
            "module's class and arguments in it"
        ) from error
    tensors, found = read_tensors(path), {}
    for name, (cls, config) in told.items():
        check_arguments(config, path)
        prefix = f"{name}." if name else ""
        own = {
            key.removeprefix(prefix): tensor
            for key, tensor in tensors.items()
            if key.startswith(prefix)
        }
        found[name] = LobeFile(cls, config, own)
    return found


def read_pretrained(folder: str | Path) -> Pretrained:
    """What a folder has that a recipe exported or ``convert`` wrote, as
    ``Pretrained``; a ``ValueError`` where it is no such folder, or damaged."""
    folder, kind = Path(folder), folder_kind(folder)
    if kind in OTHERS and kind != "modules":
        raise ValueError(
            f"{folder}: expected a pretrained folder; {purpose(folder, kind)}"
        )
    if not is_pretrained(folder):
        raise ValueError(
            f"{folder}: expected a pretrained folder, with {BACKBONE_FILE}"
        )
    paths = [p for p in sorted(folder.glob("*.ckpt")) if p.name not in NO_LOBES]
    others = [path.stem for path in paths if is_torch_file(path)]
    lobes = {p.stem: read_lobe(p) for p in paths if p.stem not in others}
    texts = sorted((folder / TEXTS_FOLDER).glob("*.json"))
    for path in texts:
        read_json(path)
    return Pretrained(
        folder,
        lobes,
        _read_origin(folder / ORIGIN_FILE),
        {path.name: path.read_text("utf-8") for path in texts},
        _read_notes(folder / TRAINING_FILE, TRAINING_KINDS),
        others,
    )


def family_of(folder: Path) -> str | None:
    """The family that a pretrained folder says, by what it was converted from
    or by its training; None where it says none."""
    origin = _read_origin(folder / ORIGIN_FILE)
    training = _read_notes(folder / TRAINING_FILE, TRAINING_KINDS)
    return origin.get("family") or training.get("family")


@contextmanager
def new_folder(path: str | Path, replace: bool = False) -> Iterator[Path]:
    """Makes a folder that appears whole or not at all, with ``SHA256SUMS``.

    Arguments
    ---------
    path : str or pathlib.Path
        The folder to make; must not hold anything yet.
    replace : bool
        Take the place of a pretrained folder that is there.

    Yields
    ------
    pathlib.Path
        A temporary folder beside it, renamed when the block ends well.

    Raises
    ------
    ValueError
        When the path exists and is not an empty folder, or one to replace.
    OSError
        When another process is making it, or it cannot be written.
    """
    path = Path(path)
    old = replace and (path / YAML_FILE).is_file()
    free = not path.exists() or (path.is_dir() and not any(path.iterdir()))
    if not old and not free:
        raise ValueError(f"{path}: expected a new folder; it exists already")
    path.parent.mkdir(parents=True, exist_ok=True)
    with OneWriter(path), temporary_folder(path) as temporary:
        yield temporary
        _write(temporary / SUMS_FILE, _sums_text(temporary))
        if old:
            shutil.rmtree(path)
        os.replace(temporary, path)


def _sums_text(folder):
    """What ``sha256sum`` prints of a folder's files."""
    names = _names_in(folder)
    return "".join(f"{file_digest(folder / n)}  {n}\n" for n in names)


def _names_in(folder):
    """Names of a folder's files, those in folders of it too, but the sums."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    names = [path.relative_to(folder).as_posix() for path in files]
    return [name for name in names if name != SUMS_FILE]


def file_digest(path: str | Path) -> str:
    """The sha256 of a file."""
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            found.update(block)
    return found.hexdigest()


class SumsReport(NamedTuple):
    """Names of files by what became of them since ``SHA256SUMS``."""

    same: list[str]
    changed: list[str]
    missing: list[str]
    extra: list[str]

    @property
    def is_whole(self) -> bool:
        """Whether all files are as they were written, and no others there."""
        return not (self.changed or self.missing or self.extra)

    def __str__(self) -> str:
        """A line for each file that is not the same, and a sum."""
        lines = [
            f"{kind:<8} {name}"
            for kind in ("changed", "missing", "extra")
            for name in getattr(self, kind)
        ]
        lines.append(f"{len(self.same)} files as {SUMS_FILE} has them")
        return "\n".join(lines)


def check_sums(folder: str | Path) -> SumsReport:
    """Compares the files of a folder that this package wrote with its
    ``SHA256SUMS``; a ``ValueError`` where there is none, or another file."""
    folder = Path(folder)
    path, written = folder / SUMS_FILE, {}
    if not path.is_file():
        raise ValueError(
            f"{folder}: expected a folder with {SUMS_FILE}, as this version "
            "writes it; there is nothing to compare its files with"
        )
    if path.stat().st_size > MOST_SUMS_BYTES:
        raise ValueError(f"{path}: expected at most {MOST_SUMS_BYTES} bytes")
    lines = path.read_text("utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        found = SUM.fullmatch(line)
        if not found or Path(found[2]).is_absolute() or ".." in found[2]:
            raise ValueError(
                f"{path}, line {number}: expected a sha256 and the name of a "
                f"file in the folder; got {shown(line)}"
            )
        written[found[2]] = found[1]
    here = _names_in(folder)
    kept = [name for name in here if name in written]
    same = [
        name for name in kept if file_digest(folder / name) == written[name]
    ]
    return SumsReport(
        same,
        [name for name in kept if name not in same],
        [name for name in written if name not in here],
        [name for name in here if name not in written],
    )


def write_pretrained(
    path,
    lobes,
    interface,
    readme,
    labels=None,
    replace=False,
    files=None,
    calibration=None,
    **interface_options,
):
    """Writes a pretrained folder.

    Arguments
    ---------
    path : str or pathlib.Path
        The folder to make.
    lobes : dict
        Name in the yaml -> ``Lobe``.
    interface : str
        A name in ``INTERFACES``.
    readme : str
        Text of ``README.md``.
    labels : speechbrain.dataio.encoder.CategoricalEncoder, optional
        Written as ``label_encoder.ckpt``, or ``tokenizer.ckpt`` for
        ``EncoderASR``.
    replace : bool
        Take the place of a pretrained folder that is there.
    files : dict, optional
        Name in the folder -> text, path of a file to copy, or object to
        ``save``; such as ``training_record`` gives.
    calibration : unispeech_sb.metrics.calibration.Calibration, optional
        Written as ``calibration.ckpt``: what the scores of
        ``SpeakerRecognition`` mean.
    **interface_options
        What the interface's ``wire`` takes.
    """
    row = INTERFACES[interface]
    plain = {row.labels: labels} if labels else {}
    if calibration is not None:
        plain["calibration"] = calibration
    entries = {
        name: New(public_path(type(lobe)), lobe.config)
        for name, lobe in lobes.items()
    }
    for name, built in plain.items():
        entries[name] = New(public_path(type(built)))
    entries |= row.wire(list(lobes), bool(labels), **interface_options)
    entries["pretrainer"] = New(
        "speechbrain.utils.parameter_transfer.Pretrainer",
        {"loadables": {name: Ref(name) for name in (*lobes, *plain)}},
    )
    built = {**lobes, **plain}
    saved = {f"{name}.ckpt": module for name, module in built.items()}
    texts = {"README.md": readme, **(files or {})}
    with new_folder(path, replace) as folder:
        write_parts(folder, entries, {**saved, **texts})


def write_parts(
    folder: Path, entries: Mapping[str, Any], files: Mapping[str, Any]
) -> None:
    """Writes what a folder has: the entries of its yaml, with ``New``, ``Name``
    and ``Ref`` among them, and files, name -> text, path of a file to copy, or
    object to ``save``."""
    for name, content in files.items():
        _write(folder / name, content)
    _write(folder / YAML_FILE, HEADER + _yaml_text(entries))


def training_record(
    scores: Mapping[str, Any],
    scored_on: str,
    training: Mapping[str, Any],
    family: str | None = None,
) -> dict[str, str]:
    """Makes ``training.json``, by which ``info`` says how a folder was made.

    Arguments
    ---------
    scores : dict
        Name -> number.
    scored_on : str
        The split they are of.
    training : dict
        What was trained on and how: name -> number, text, or list of these.
    family : str, optional
        One of ``options.FAMILIES``, where it is known.

    Returns
    -------
    dict
        Name of the file -> text, for ``files`` of ``write_pretrained``.

    Example
    -------
    >>> files = training_record({"WER": 12.5}, "test", {"lr": 0.001})
    >>> json.loads(files["training.json"])["scores"]
    {'WER': 12.5}
    """
    record = {
        "scores": scores,
        "scored_on": scored_on,
        "training": training,
        "family": family,
    }
    # What is not finite becomes a text: JSON has no such numbers
    plain = json.loads(json.dumps(record, default=str), parse_constant=str)
    text = json.dumps(plain, indent=1, ensure_ascii=False)
    return {TRAINING_FILE: text + "\n"}


def write_beam_search(
    path: str | Path,
    source: str | Path,
    language_model: str | Path | None = None,
    model_options: Mapping[str, Any] | None = None,
    **search_options: Any,
) -> None:
    """Copies a pretrained folder for ``EncoderASR``, to decode by beam search.

    Arguments
    ---------
    path : str or pathlib.Path
        The folder to make.
    source : str or pathlib.Path
        A folder that ``write_pretrained`` or this function wrote; entries of
        its yaml that have nothing to do with decoding stay as they are.
    language_model : str or pathlib.Path, optional
        ARPA or KenLM file, which becomes ``language_model.ckpt``.
    model_options : dict, optional
        Arguments of ``LanguageModel``.
    **search_options
        Arguments of ``PrefixBeamSearch``.

    Raises
    ------
    ValueError
        When the source is another kind of folder, or the path exists.
    """
    yaml_file = Path(source, YAML_FILE)
    decoding: dict[str, Any] = {}
    if not yaml_file.is_file():
        raise ValueError(f"{source}: expected a folder with {yaml_file.name}")
    parts = _parts(yaml_file.read_text(encoding="utf-8"))
    if not {"tokenizer", "decoding_function", "pretrainer"} <= set(parts):
        raise ValueError(
            f"{yaml_file}: expected a tokenizer, a decoding_function and a "
            "pretrainer, as in folders for EncoderASR"
        )
    for name in ("language_model", "test_beam_search"):
        parts.pop(name, None)
    loaded = re.sub("\n +language_model: .*", "", parts["pretrainer"])
    if language_model is not None:
        options = {"alpha": 0.5, "beta": 1.5, **(model_options or {})}
        model = New("unispeech_sb.decoding.LanguageModel", options)
        decoding["language_model"] = model
        search_options["language_model"] = Ref("language_model")
        loaded = loaded.rstrip() + "\n        language_model: !ref "
        loaded += "<language_model>\n"
    parts["pretrainer"] = loaded
    decoding["decoding_function"] = Name(
        "unispeech_sb.decoding.PrefixBeamSearcher"
    )
    decoding["test_beam_search"] = {
        "tokenizer": Ref("tokenizer"),
        **search_options,
    }
    parts["decoding_function"] = _yaml_text(decoding) + "\n"
    with new_folder(path) as folder:
        shutil.copytree(source, folder, dirs_exist_ok=True)
        (folder / "language_model.ckpt").unlink(missing_ok=True)
        if language_model is not None:
            shutil.copyfile(language_model, folder / "language_model.ckpt")
        _write(folder / YAML_FILE, "".join(parts.values()))


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


def _parts(text):
    """Name at the left of a yaml -> its lines; others are numbered."""
    parts = {}
    for place, part in enumerate(re.split(r"(?m)^(?=[^\s#])", text)):
        name = re.match(r"(\w+):", part)
        parts[name.group(1) if name else place] = part
    return parts


class _Dumper(yaml.SafeDumper):
    """Writes HyperPyYAML's tags, and lists on one line."""

    def ignore_aliases(self, data):
        """What is written twice is written out twice."""
        return True

    def choose_scalar_style(self):
        """Without quotes after a tag, as people write them."""
        if (self.event.tag or "").startswith("!"):
            return ""
        return super().choose_scalar_style()


def _represent_call(dumper, call):
    """A class or function and its arguments."""
    tag = f"!{type(call).__name__.lower()}:{call.name}"
    if not call.arguments:
        return dumper.represent_scalar(tag, "")
    if isinstance(call.arguments, list):
        return dumper.represent_sequence(tag, call.arguments)
    return dumper.represent_mapping(tag, call.arguments)


def _represent_list(dumper, items):
    """A list in brackets."""
    return dumper.represent_sequence(
        "tag:yaml.org,2002:seq", items, flow_style=True
    )


def _represent_ref(dumper, ref):
    """The name of another entry."""
    return dumper.represent_scalar("!ref", f"<{ref}>")


def _represent_flag(dumper, flag):
    """True or False, as SpeechBrain's yamls write them."""
    return dumper.represent_scalar("tag:yaml.org,2002:bool", str(flag))


_Dumper.add_representer(New, _represent_call)
_Dumper.add_representer(Name, _represent_call)
_Dumper.add_representer(Ref, _represent_ref)
_Dumper.add_representer(bool, _represent_flag)
_Dumper.add_representer(list, _represent_list)
_Dumper.add_representer(tuple, _represent_list)


def _yaml_text(entries):
    """Text of a yaml with ``New``, ``Name`` and ``Ref`` among its values."""
    texts, plain = [], False
    for name, value in entries.items():
        text = yaml.dump(
            {name: value}, Dumper=_Dumper, sort_keys=False, indent=4, width=999
        )
        comment = COMMENTS.get(name)
        was_plain, plain = plain, not isinstance(value, (New, Name, dict))
        if comment and plain:
            text = f"{text.rstrip()} # {comment}\n"
        elif comment:
            text = f"# {comment}\n{text}"
        close = was_plain and not isinstance(value, dict)
        texts.append(text if close or not texts else f"\n{text}")
    return "".join(texts)


def _write(path, content):
    """Writes a text, copies a file, or saves an object."""
    path.parent.mkdir(exist_ok=True)
    if hasattr(content, "save"):
        content.save(path)
    elif isinstance(content, Path):
        shutil.copyfile(content, path)
    else:
        path.write_text(content, encoding="utf-8")
