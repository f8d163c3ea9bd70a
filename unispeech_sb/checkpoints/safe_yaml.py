"""A folder's yaml as data: what is not plain or listed here is refused.

SpeechBrain builds whatever class or function a yaml names. Here the text is
parsed with bounds, and checked as a whole before anything is imported; no name
in it is looked up but in ``CLASSES`` and ``FUNCTIONS``. Nothing here imports
torch.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from unispeech_sb.checkpoints.options import (
    COUNT,
    FLAG,
    SHARE,
    SPAN,
    SPANS,
    TOKEN,
    check_arguments,
    real,
    shown,
)
from unispeech_sb.checkpoints.yaml_nodes import (
    PLAIN,
    compose_file,
    compose_yaml,
    read_scalar,
)
from unispeech_sb.moved import current_name

HEADS = "unispeech_sb.lobes.heads"
"""Package of the heads, and of what makes them parts of an interface."""
BACKBONE = "unispeech_sb.lobes.backbone.Backbone"
PRETRAINER = "speechbrain.utils.parameter_transfer.Pretrainer"
_LOBES = "unispeech_sb.lobes.unispeech"
MODEL = "unispeech_sb.decoding.LanguageModel"
_LABELS = "unispeech_sb.dataio.labels.LabelEncoder"
_TOKENIZER = "unispeech_sb.dataio.tokenizers.CTCTokenizer"
_CALIBRATION = "unispeech_sb.metrics.calibration.Calibration"
_SEARCHER = "unispeech_sb.decoding.PrefixBeamSearcher"

LOBES = {
    BACKBONE,
    *(
        f"{HEADS}.{name}"
        for name in (
            *("AAMSoftmax", "AMSoftmax", "DiarizationHead", "ECAPAHead"),
            *("EENDVCHead", "FrameHead", "ProjectedFrameHead", "RecurrentHead"),
            *("SpeakerHead", "StatisticsHead", "UniSpeechHead"),
            *("UniSpeechSATHead", "UtteranceHead"),
        )
    ),
}
"""Modules with a weight file; all their arguments are plain data."""

_PARTS = {
    f"{HEADS}.PassThrough": set(),
    f"{HEADS}.FramePosteriors": {"backbone", "head", "blank_index"},
    f"{HEADS}.UtteranceEncoder": {"backbone", "head", "allow_silence"},
    f"{HEADS}.UtterancePosteriors": {"head", "problem_type"},
    f"{HEADS}.IntentPosteriors": {"head", "slot_sizes"},
    f"{HEADS}.SpeakerPosteriors": {"head", "objective"},
}
CLASSES: dict[str, set[str] | None] = {
    **dict.fromkeys(LOBES),
    **_PARTS,
    _LABELS: set(),
    _TOKENIZER: set(),
    _CALIBRATION: set(),
    # Not its path: the file is the folder's own
    MODEL: {"alpha", "beta", "unk_offset", "boundary", "case"},
    # Not paths, custom_hooks and the like: files are those of the folder
    PRETRAINER: {"loadables"},
}
"""All that ``!new:`` may name: class -> arguments; None where they are those of
its constructor, all of them plain data. A new lobe is a row of ``LOBES``."""
FUNCTIONS = {
    "speechbrain.decoders.ctc_greedy_decode": {"blank_id"},
    _SEARCHER: set(),
}
"""All that ``!name:`` may name: path -> arguments."""

_KEYS = {
    "pretrainer": {PRETRAINER},
    "decoding_function": set(FUNCTIONS),
    "tokenizer": {_TOKENIZER},
    "label_encoder": {_LABELS},
    "language_model": {MODEL},
    "calibration": {_CALIBRATION},
    "mean_var_norm_emb": {f"{HEADS}.PassThrough"},
    "backbone": {BACKBONE},
    "head": LOBES - {BACKBONE},
    "objective": LOBES - {BACKBONE},
    "audio_normalizer": set(),
}
"""Name of an entry or argument -> what it may be."""

_RULES = {
    "threshold": SHARE,
    "median_filter": SPAN,
    "frame_s": real(1e-4, 10),
    "min_speech_s": real(0, 3600),
    "min_pause_s": real(0, 3600),
    "chunk_s": real(0.01, 3600),
    "num_local_speakers": SPAN,
    "narrow_band": FLAG,
    "allow_silence": FLAG,
    "sample_rate": COUNT,
    "blank_index": TOKEN,
    "blank_id": TOKEN,
    "beam_size": SPAN,
    "beam_threshold": real(0, 1e6),
    "token_threshold": real(0, 1e6),
    "prune_history": FLAG,
    "patience": SPANS,
    "topk": SPAN,
    "alpha": real(-1e6, 1e6),
    "beta": real(-1e6, 1e6),
    "unk_offset": real(-1e6, 1e6),
}
"""Name of an entry or argument -> what a number there may be."""
_SEARCH = {
    *("tokenizer", "language_model", "hot_words", "beam_size", "topk"),
    *("beam_threshold", "token_threshold", "prune_history", "patience"),
}
"""Options of a beam search; SpeechBrain would fetch a ``kenlm_model_path``."""

_KEY = re.compile(r"[\w.@ -]{1,100}")
_REFERENCE = re.compile(r"<(\w+)>")
_TRUST = (
    "which would run as code: if you trust who made it, say --trust, or "
    "trust=True in Python"
)


class Ref(str):
    """In a yaml: what another entry of that name is."""


class New(NamedTuple):
    """In a yaml: an object, of its class and arguments."""

    name: str
    arguments: dict[str, Any] = {}


class Name(NamedTuple):
    """In a yaml: a function or class with some of its arguments."""

    name: str
    arguments: dict[str, Any] = {}


def read_plain(path: str | Path) -> dict[str, Any]:
    """Plain data of a yaml file: a mapping of texts, numbers, lists, ...; a
    ``ValueError`` where a tag would make it anything else."""
    return _Checker(path, may_name=False).mapping(compose_file(path))


def read_folder_yaml(
    path: str | Path,
    overrides: str | Mapping[str, Any] | None = None,
    overrides_must_match: bool = True,
) -> dict[str, Any]:
    """Reads a folder's yaml, checked as a whole: entry -> plain data, in it
    ``Ref``, ``New`` and ``Name`` of the classes and functions of the lists.

    Arguments
    ---------
    path : str or pathlib.Path
        The yaml file.
    overrides : str or dict, optional
        Yaml, or plain data, that replaces values.
    overrides_must_match : bool
        Whether each must be of an entry that is there.

    Returns
    -------
    dict
        Nothing is built yet, and nothing imported.

    Raises
    ------
    ValueError
        In one sentence, with the line: a tag or a name that is not listed, an
        argument that would reach outside of the folder, a size out of range,
        or no yaml.
    """
    checker = _Checker(path)
    entries = checker.mapping(compose_file(path))
    if overrides:
        if not isinstance(overrides, str):
            overrides = str(yaml.safe_dump(dict(overrides)))
        nodes = compose_yaml(overrides, "overrides")
        own = _Checker("overrides").mapping(nodes)
        unknown = [name for name in own if name not in entries]
        if unknown and overrides_must_match:
            raise ValueError(
                f"{path}: expected overrides of its entries, "
                f"{', '.join(entries)}; got {shown(unknown[0])}"
            )
        entries = _updated(entries, own)
    for name, value in entries.items():
        _check_entry(name, value, entries, path)
    _check_loaded(entries, path)
    return entries


class _Checker:
    """Makes plain data of nodes; tags become ``Ref``, ``New`` and ``Name``."""

    def __init__(self, path: str | Path, may_name: bool = True) -> None:
        self.path, self.may_name = path, may_name

    def mapping(self, node):
        """A mapping's keys, which are texts that occur once, and values."""
        if not isinstance(node, yaml.MappingNode):
            raise self.error(node, "names and values", "something else")
        found = {}
        for key, value in node.value:
            if key.tag not in (f"{PLAIN}plain", f"{PLAIN}str"):
                got = f"{self.tag_of(key)}, {_TRUST}"
                raise self.error(key, "a plain name as a key", got)
            if not _KEY.fullmatch(key.value):
                raise self.error(key, "a name as a key", shown(key.value))
            if key.value in found:
                raise self.error(key, "each name once", shown(key.value))
            found[key.value] = self.value(value)
        return found

    def value(self, node):
        """What a node stands for."""
        tag = node.tag.removeprefix(PLAIN)
        if tag == "map" and isinstance(node, yaml.MappingNode):
            return self.mapping(node)
        if tag == "seq" and isinstance(node, yaml.SequenceNode):
            return [self.value(item) for item in node.value]
        if tag in ("plain", "str") and isinstance(node, yaml.ScalarNode):
            return node.value if tag == "str" else self.scalar(node)
        if not self.may_name:
            raise self.error(node, "plain data", self.tag_of(node))
        if tag == "!ref" and isinstance(node, yaml.ScalarNode):
            found = _REFERENCE.fullmatch(node.value)
            if found is None:
                raise self.error(
                    node,
                    "!ref <name of an entry>",
                    f"!ref {shown(node.value)}, {_TRUST}",
                )
            return Ref(found.group(1))
        kind, _, name = tag.partition(":")
        listed = {"!new": CLASSES, "!name": FUNCTIONS}.get(kind, {})
        name = _listed_name(name)
        if name not in listed:
            raise self.error(
                node,
                "the classes and functions that this package writes",
                f"{self.tag_of(node)}, {_TRUST}",
            )
        arguments = {}
        if isinstance(node, yaml.MappingNode):
            arguments = self.mapping(node)
        elif node.value:
            raise self.error(node, "arguments by name", self.tag_of(node))
        self.check_names(node, name, arguments, listed[name])
        if kind == "!new":
            return New(name, arguments)
        if listed[name] != arguments.keys():
            wanted = ", ".join(sorted(FUNCTIONS[name]))
            raise self.error(node, f"the arguments {wanted}", "fewer")
        return Name(name, arguments)

    def check_names(self, node, name, arguments, allowed):
        """Refuses arguments that are not listed."""
        for key, value in arguments.items():
            if allowed is None and not _is_plain(value):
                raise self.error(
                    node, f"plain arguments of {name}", f"another {key}"
                )
            if allowed is not None and key not in allowed:
                raise self.error(
                    node,
                    f"no argument of {name} but "
                    f"{', '.join(sorted(allowed)) or 'none'}",
                    f"{shown(key)}, {_TRUST}",
                )

    def scalar(self, node):
        """A text without quotes: a number, true, false, null, or a text."""
        text = node.value
        if text[:1] == "(" and text[-1] == ")":  # code to HyperPyYAML
            got = f"{shown(text)}, {_TRUST}"
            raise self.error(node, "a list in brackets, [...]", got)
        return read_scalar(node)

    def tag_of(self, node):
        """A tag as an error shows it."""
        tag = node.tag
        if tag.startswith(PLAIN):
            tag = f"!!{tag.removeprefix(PLAIN)}"
        return tag if tag.isprintable() and len(tag) < 100 else shown(tag)

    def error(self, node, expected, got):
        """The error of a node."""
        line = f", line {node.start_mark.line + 1}" if node else ""
        return ValueError(f"{self.path}{line}: expected {expected}; got {got}")


def _listed_name(name):
    """A name as the lists have it: where it is now, by its public path."""
    if name in CLASSES or name in FUNCTIONS:
        return name
    name = current_name(name)
    module, _, last = name.rpartition(".")
    package = module.rpartition(".")[0]
    if module == _LOBES:  # SpeechBrain's way to name them
        package = BACKBONE.removesuffix(".Backbone")
        package = package if last == "Backbone" else HEADS
    for path in (name, f"{package}.{last}"):
        if path in CLASSES or path in FUNCTIONS:
            return path
    return name


def _is_plain(value):
    """Whether nothing in a value is built."""
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return not isinstance(value, (Ref, New, Name))


def _updated(entries, given):
    """Entries with some replaced; arguments and mappings are merged."""
    found = dict(entries)
    for key, value in given.items():
        old = found.get(key)
        if type(value) is dict and isinstance(old, (New, Name)):
            value = old._replace(arguments=_updated(old.arguments, value))
        elif type(value) is dict and type(old) is dict:
            value = _updated(old, value)
        found[key] = value
    return found


def _check_entry(name, value, entries, path, depth=0):
    """Refuses what may not stand under a name, here or inside of it."""
    where = f"{path}: expected {name} to be"
    target = value
    if isinstance(value, Ref):
        target = entries.get(value)
        if target is None or isinstance(target, (Ref, dict, list)):
            raise ValueError(f"{path}: expected an entry {value}, of {name}")
    found = getattr(target, "name", None)
    absent = value is None and name == "language_model"
    if name in _KEYS and not absent and found not in _KEYS[name]:
        names = ", ".join(sorted(p.rpartition(".")[2] for p in _KEYS[name]))
        raise ValueError(f"{where} {names or 'left out'}")
    if name in _RULES and not _RULES[name].holds(target):
        raise ValueError(
            f"{where} {_RULES[name].expected}; got {shown(target)}"
        )
    if found in LOBES and depth and not isinstance(value, Ref):
        raise ValueError(f"{where} !ref to an entry with its own file")
    inside = value if isinstance(value, dict) else {}
    if isinstance(value, (New, Name)):
        inside = {} if found in LOBES else value.arguments
        if found in LOBES:
            check_arguments(value.arguments, path)
    if name == "test_beam_search" and set(inside) - _SEARCH:
        raise ValueError(
            f"{where} options of a beam search ({', '.join(sorted(_SEARCH))}); "
            f"got {shown(min(set(inside) - _SEARCH))}"
        )
    if isinstance(value, list) and not _is_plain(value):
        raise ValueError(f"{where} a list of plain data")
    for key, item in inside.items():
        _check_entry(key, item, entries, path, depth + 1)


def _check_loaded(entries, path):
    """What has a file is loaded, nothing else is, and modules are there."""
    for name in ("modules", "pretrainer"):
        if name not in entries:
            raise ValueError(f"{path}: expected an entry {name}")
    loadables = entries["pretrainer"].arguments.get("loadables")
    if not isinstance(loadables, dict) or not all(
        isinstance(value, Ref) and value == name
        for name, value in loadables.items()
    ):
        raise ValueError(
            f"{path}: expected loadables of the pretrainer, each a !ref to "
            "the entry of its name"
        )
    files = {*LOBES, _LABELS, _TOKENIZER, _CALIBRATION, MODEL}
    for name, value in entries.items():
        has_file = _class_of(value)
        if has_file in files and name not in loadables:
            raise ValueError(f"{path}: expected {name} among the loadables")
        if has_file not in files and name in loadables:
            raise ValueError(
                f"{path}: expected no loadable {name}; it has no file"
            )
    search = entries.get("test_beam_search")
    if getattr(entries.get("decoding_function"), "name", "") == _SEARCHER and (
        not isinstance(search, dict) or "tokenizer" not in search
    ):
        raise ValueError(f"{path}: expected test_beam_search with a tokenizer")
    modules = entries["modules"]
    if not isinstance(modules, dict) or not modules:
        raise ValueError(f"{path}: expected modules by name")
    for name, value in modules.items():
        found = entries[value] if isinstance(value, Ref) else value
        if _class_of(found) not in {*LOBES, *_PARTS}:
            raise ValueError(
                f"{path}: expected the module {name} to be one of this package"
            )


def _class_of(value):
    """The class of an object, None of everything else."""
    return value.name if isinstance(value, New) else None
