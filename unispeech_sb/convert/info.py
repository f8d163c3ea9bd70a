"""What a checkpoint is, told without building the model."""

from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from unispeech_sb.checkpoints.checkpoint import Fact
from unispeech_sb.checkpoints.files import (
    is_safetensors,
    read_metadata,
    read_tensors,
)
from unispeech_sb.checkpoints.huggingface import CLASSES
from unispeech_sb.checkpoints.interfaces import (
    INTERFACES,
    META_FILE,
    YAML_FILE,
    folder_kind,
    purpose,
    result_of,
)
from unispeech_sb.checkpoints.options import OPTIONS
from unispeech_sb.checkpoints.pretrained_folder import (
    LABEL_FILES,
    ORIGIN_FILE,
    TRAINING_FILE,
    LobeFile,
    is_lobe_file,
    is_pretrained,
    read_lobe,
    read_lobes,
    read_pretrained,
)
from unispeech_sb.checkpoints.safe_yaml import read_folder_yaml, read_plain
from unispeech_sb.checkpoints.source import find_source, read_checkpoint
from unispeech_sb.checkpoints.speechbrain import find_saved
from unispeech_sb.checkpoints.texts import read_json
from unispeech_sb.convert.lobes import KINDS, kinds_of, shown_of
from unispeech_sb.convert.pretrained import interface_of
from unispeech_sb.convert.to_huggingface import why_not
from unispeech_sb.convert.tokenizers import take_tokens
from unispeech_sb.dataio.labels import LabelEncoder
from unispeech_sb.lobes.adapters import adapter_languages

UNKNOWN = "not recorded"

SIZES = {(12, 768): "Base", (24, 1024): "Large"}
SHOWN = (
    *(name for name, option in OPTIONS.items() if option.shown),
    "sampling_rate",
    "weight_norm",
)
"""Facts that are shown of every backbone, in this order."""

MOST_NAMES = 4
"""Names of a vocabulary or a list that are shown; the rest is counted."""


class Description(NamedTuple):
    """What is known of a checkpoint; ``str()`` gives the table of it.

    Arguments
    ---------
    facts : dict
        Name -> ``Fact``: value and where it is from.
    dropped : dict
        Name of a tensor that would not convert -> why.
    notes : list of str
        What a conversion would add or assume.
    """

    facts: dict[str, Fact]
    dropped: dict[str, str]
    notes: list[str]

    def __str__(self) -> str:
        """Three columns: what, value, where from."""
        texts = {name: _text(fact.value) for name, fact in self.facts.items()}
        name_width = max(map(len, ["", *texts]))
        width = min(40, max(map(len, ["", *texts.values()])))
        lines = [
            f"{name:<{name_width}}  {text:<{width}}  {self.facts[name].source}"
            for name, text in texts.items()
        ]
        reasons: dict[str, list[str]] = {}
        for name, reason in self.dropped.items():
            reasons.setdefault(reason, []).append(name)
        for reason, names in reasons.items():
            lines.append(f"would not convert: {_text(names)} ({reason})")
        lines += [] if reasons else ["would not convert: nothing"]
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join(line.rstrip() for line in lines)


def describe(
    source: str | Path,
    save_path: str | None = None,
    config: str | Path | None = None,
    **overrides: Any,
) -> Description:
    """Describes a file or folder by its names, sizes and texts.

    Arguments
    ---------
    source : str or pathlib.Path
        Anything that ``convert_checkpoint`` reads, or a pretrained folder.
    save_path : str, optional
        Where downloads are kept.
    config : str or pathlib.Path, optional
        As for ``convert_checkpoint``.
    **overrides
        As for ``convert_checkpoint``.

    Returns
    -------
    Description
        Its ``str()`` is the table for the terminal.

    Raises
    ------
    ValueError
        When it is no checkpoint, or a damaged one.

    Example
    -------
    >>> from unispeech_sb.lobes.backbone import Backbone
    >>> folder = getfixture("tmp_path")
    >>> Backbone.from_preset("tiny").save(folder / "backbone.ckpt")
    >>> print(describe(folder))
    what ...
    """
    path = find_source(source, save_path)
    kind = folder_kind(path)
    if kind in RUNS:
        return RUNS[kind](path, config)
    if path.is_dir() and is_pretrained(path):
        return _describe_ours(path, kind)
    if path.is_file() and path.name.startswith("adapter."):
        return _describe_adapter(path)
    if is_lobe_file(path):
        return _describe_lobes(path)
    found = read_checkpoint(path, None, overrides, config)
    take_tokens(found)
    facts = {"what": _what(found)}
    kinds = [kind for kind in KINDS if kind.task == found.task]
    facts |= _shown_facts(found.facts, kinds)
    facts |= _names_facts(found)
    facts["tensors"] = _tensor_fact([found.backbone, found.top])
    facts["parameters"] = Fact(
        _num_parameters({"backbone": found.backbone, "head": found.top}),
        "shapes of the tensors",
    )
    if path.is_dir() and adapter_languages(path):
        languages = adapter_languages(path)
        facts["languages"] = Fact(languages, "adapter files")
    facts["converts for"] = Fact(interface_of(found), "the task")
    return Description(facts, found.dropped, found.notes)


def _what(found):
    """One line on what was read."""
    names = {known: name for name, known in CLASSES.items()}
    name = names.get((found.family, found.task), found.task)
    source = found.facts.get("task")
    return Fact(f"{found.origin}: {name}", source.source if source else "")


def _shown_facts(facts, kinds):
    """Family and size, then those facts that matter of some kinds of lobes."""
    found = {"family": facts["family"]} if "family" in facts else {}
    if "hidden_size" in facts and "num_hidden_layers" in facts:
        layers = facts["num_hidden_layers"].value
        dim = facts["hidden_size"].value
        size = SIZES.get((layers, dim), "other")
        found["size"] = Fact(f"{size} ({layers} x {dim})", "the next two")
    for name in (*SHOWN, *shown_of(kinds)):
        if name in facts and facts[name].value is not None:
            found[name] = facts[name]
    return found


def _names_facts(found):
    """Vocabulary and labels."""
    facts = {}
    if found.tokens is not None:
        facts["vocabulary"] = Fact(found.tokens, _where(found, "vocabulary"))
    if found.blank_index is not None:
        blank = str(found.blank_index)
        if found.tokens is not None and found.blank_index < len(found.tokens):
            blank += f" {found.tokens[found.blank_index]!r}"
        facts["blank"] = Fact(blank, _where(found, "blank_index"))
    if found.labels is not None:
        facts["labels"] = Fact(found.labels, _where(found, "num_labels"))
    return facts


def _where(found, name):
    """Where a fact is from, if it is known."""
    if name in found.facts:
        return found.facts[name].source
    return "vocab.json" if found.origin == "Hugging Face" else "the file"


def _describe_adapter(path):
    """The facts of one language's adapters."""
    tensors = read_tensors(path)
    layers = {
        name.split(".adapter_layer.")[0]
        for name in tensors
        if ".adapter_layer." in name
    }
    head = tensors.get("lm_head.weight")
    if not layers or head is None or head.dim() != 2:
        raise ValueError(
            f"{path}: expected adapters of all blocks and lm_head; it holds "
            f"{_text(sorted(tensors))}"
        )
    names = "names of the tensors"
    facts = {
        "what": Fact("adapters of one language", names),
        "language": Fact(path.name.split(".")[1], "name of the file"),
        "num_hidden_layers": Fact(len(layers), names),
        "hidden_size": Fact(head.shape[1], "lm_head.weight"),
        "vocab_size": Fact(head.shape[0], "lm_head.weight"),
        "tensors": _tensor_fact([tensors]),
        "parameters": Fact(
            _num_parameters({"adapters": tensors}), "shapes of the tensors"
        ),
    }
    return Description(facts, {}, ["goes beside the model that it is for"])


def _describe_lobes(path):
    """The facts of one module of a pretrained folder, or of several that were
    trained together."""
    lobes, source = read_lobes(path), "note in the file"
    names = ", ".join(lobe.name for lobe in lobes.values())
    facts = {"what": Fact(f"{names} of unispeech_sb", source)}
    for lobe in lobes.values():
        options = {k: Fact(v, source) for k, v in lobe.config.items()}
        facts |= _shown_facts(options, kinds_of(lobe, path))
    named = {name or path.stem: lobe for name, lobe in lobes.items()}
    return Description(facts | _sizes(named), {}, [])


def _describe_ours(folder, kind):
    """A pretrained folder's facts."""
    found = read_pretrained(folder)
    origin = found.origin
    facts = {"what": Fact("pretrained folder of unispeech_sb", "backbone.ckpt")}
    facts |= _uses(folder, kind)
    if origin:
        text = f"{origin.get('origin')}, {origin.get('task')}"
        facts["converted from"] = Fact(text, "origin.json")
    facts |= _history(found)
    facts |= _lobe_facts(found.lobes)
    for name in LABEL_FILES:
        if (folder / name).is_file():
            labels = LabelEncoder.read_labels(folder / name)
            facts["labels"] = Fact(labels, name)
    if origin.get("blank_index") is not None:
        facts["blank"] = Fact(origin["blank_index"], "origin.json")
    facts |= _sizes(found.lobes)
    return Description(facts, _left_out(found), _refused(folder / YAML_FILE))


def _refused(path):
    """Why commands would not load a folder's yaml, where there is one."""
    try:
        if path.is_file():
            read_folder_yaml(path)
    except ValueError as error:
        return [f"not loaded without --trust: {error}"]
    return []


def _left_out(found):
    """What of a folder ``to_huggingface`` does not write -> why."""
    reason = why_not(found)
    if reason is None:
        return {}
    part = "all of it" if why_not(found, backbone_only=True) else "the head"
    return {part: reason}


def _uses(folder, kind):
    """What loads a folder, and the command for it."""
    if kind not in INTERFACES:
        return {}
    interface = INTERFACES[kind]
    rows = {
        "task": interface.task,
        "interface": interface.speechbrain,
        "our class": interface.ours,
        "command": interface.command.replace("FOLDER", str(folder)),
    }
    return {name: Fact(row, YAML_FILE) for name, row in rows.items() if row}


def _history(found):
    """Family, scores and training, as far as they are known."""
    notes = found.training
    source = TRAINING_FILE if notes else f"no {TRAINING_FILE}"
    facts = {"family": Fact(notes.get("family") or UNKNOWN, source)}
    if found.lobes["backbone"].config.get("num_buckets"):
        facts["family"] = Fact("wavlm", "backbone.ckpt: num_buckets")
    for name, lobe in found.lobes.items():
        for kind in kinds_of(lobe, found.folder / f"{name}.ckpt"):
            if kind.family:
                facts["family"] = Fact(kind.family, f"{name}.ckpt: {lobe.name}")
    if found.origin.get("family"):
        facts["family"] = Fact(found.origin["family"], ORIGIN_FILE)
    if found.origin and not notes:
        return facts  # what others trained
    scores = ", ".join(
        f"{name} {_number(value)}"
        for name, value in (notes.get("scores") or {}).items()
    )
    scores += f" on {notes['scored_on']}" if notes.get("scored_on") else ""
    facts["scores"] = Fact(scores or UNKNOWN, source)
    for name, value in (notes.get("training") or {"": UNKNOWN}).items():
        facts[f"trained: {name}".strip(": ")] = Fact(_number(value), source)
    return facts


def _number(value):
    """Four digits of what is not whole; anything else as it is."""
    return f"{value:.4g}" if isinstance(value, float) else value


def _lobe_facts(lobes):
    """What matters of each module, and its class."""
    config, kinds = {}, []
    for name, lobe in reversed(lobes.items()):
        kinds = kinds_of(lobe, f"{name}.ckpt") + kinds
        config |= {k: Fact(v, f"{name}.ckpt") for k, v in lobe.config.items()}
    config["sampling_rate"] = Fact(16000, "all families")
    facts = _shown_facts(config, kinds)
    for name, lobe in lobes.items():
        facts[name] = Fact(lobe.name, f"{name}.ckpt")
    return facts


def _describe_run(folder, config):
    """The facts of a recipe's folder."""
    result = result_of(folder)
    facts = {
        "what": Fact("folder of a recipe's run", YAML_FILE),
        "result": Fact(result or "none yet", "files"),
    }
    if (folder / "scores.json").is_file():
        for name, value in read_json(folder / "scores.json").items():
            facts[f"score: {name}"] = Fact(_number(value), "scores.json")
    saved = sorted(path.parent.name for path in folder.glob(f"*/*/{META_FILE}"))
    facts["checkpoints"] = Fact(saved or "none", "files")
    return Description(facts, {"all of it": "commands take the result"}, [])


def _describe_saved(folder, config):
    """The facts of a training checkpoint, or of the last one of a folder."""
    path = folder / META_FILE
    if not path.is_file():
        path = max(folder.glob(f"CKPT+*/{META_FILE}"))
    result = result_of(folder)
    lobes = {
        file.stem: read_lobe(file)
        for file in sorted(path.parent.glob("*.ckpt"))
        if is_safetensors(file) and "lobe" in read_metadata(file)
    }
    saved = None if lobes else find_saved(path.parent)
    who = "unispeech_sb" if lobes else "SpeechBrain"
    facts = {
        "what": Fact(f"training checkpoint of {who}", path.name),
        "result": Fact(result or "none yet", "files"),
    }
    for name, value in read_plain(path).items():
        if name == "unixtime":
            value = datetime.fromtimestamp(value).isoformat(" ", "seconds")
        facts[f"saved: {name}"] = Fact(_number(value), path.name)
    if saved is not None:
        found = read_checkpoint(path.parent, config=config)
        facts |= _shown_facts(found.facts, KINDS[:1])
        lobes = {saved.path.stem: LobeFile("Backbone", {}, saved.tensors)}
        return Description(facts | _sizes(lobes), found.dropped, found.notes)
    facts |= _lobe_facts(lobes) | _sizes(lobes)
    note = "the recipe's own command goes on from it"
    left = [name for name, lobe in lobes.items() if lobe.name != "Backbone"]
    why = "commands take the result; unispeech-sb export makes one"
    return Description(facts, dict.fromkeys(left, why), [note])


def _describe_units(folder, config):
    """The facts of a folder of units."""
    name = "units.json"
    facts = {
        "what": Fact("units of unispeech_sb", name),
        "command": Fact(purpose(folder, "units").partition(": ")[2], name),
    }
    about = read_json(folder / name)
    facts |= {key: Fact(value, name) for key, value in about.items()}
    return Description(facts, {"all of it": "units are no model"}, [])


RUNS = {
    "run": _describe_run,
    "training checkpoint": _describe_saved,
    "units": _describe_units,
}
"""Kind of a folder that no interface loads -> function that describes it."""


def _sizes(lobes):
    """Number and precision of the tensors, and parameters by module."""
    tensors = {name: lobe.tensors for name, lobe in lobes.items()}
    count = _num_parameters(tensors)
    return {
        "tensors": _tensor_fact(tensors.values()),
        "parameters": Fact(count, "shapes of the tensors"),
    }


def _tensor_fact(groups):
    """Number and precision of the tensors."""
    tensors = [tensor for group in groups for tensor in group.values()]
    kinds = sorted({str(t.dtype).removeprefix("torch.") for t in tensors})
    return Fact(f"{len(tensors)}, {', '.join(kinds)}", "the file")


def _num_parameters(lobes):
    """Number of parameters, in all and by module."""
    counts = {
        name: sum(tensor.numel() for tensor in tensors.values())
        for name, tensors in lobes.items()
        if tensors
    }
    parts = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    return f"{sum(counts.values()):,} ({parts})"


def _text(value):
    """A value for the table."""
    if isinstance(value, (list, tuple)):
        if len(value) > MOST_NAMES and all(isinstance(v, str) for v in value):
            first = ", ".join(value[:MOST_NAMES])
            return f"{len(value)}: {first}, ..."
        return ", ".join(map(str, value))
    return str(value)
