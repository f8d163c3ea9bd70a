"""What a checkpoint is, told without building the model."""

from typing import NamedTuple

from unispeech_sb.checkpoints.checkpoint import Fact
from unispeech_sb.checkpoints.files import read_tensors
from unispeech_sb.checkpoints.keys import CLASSES
from unispeech_sb.checkpoints.pretrained import (
    LABEL_FILES,
    is_pretrained,
    read_lobe,
    read_pretrained,
)
from unispeech_sb.checkpoints.safety.pickles import is_torch_file
from unispeech_sb.checkpoints.source import find_source, read_checkpoint
from unispeech_sb.convert.pretrained import interface_of
from unispeech_sb.dataio.labels import LabelEncoder
from unispeech_sb.lobes.adapters import adapter_languages

SIZES = {(12, 768): "Base", (24, 1024): "Large"}
SHOWN = (
    "num_hidden_layers",
    "hidden_size",
    "num_attention_heads",
    "intermediate_size",
    "conv_dim",
    "conv_bias",
    "feat_extract_norm",
    "do_stable_layer_norm",
    "adapter_attn_dim",
    "sampling_rate",
    "normalize_wav",
    "normalize_eps",
    "weight_norm",
    "last_state",
    "mask_rule",
)
"""Facts that are told of every backbone, in this order."""

SHOWN_OF = {
    "ForPreTraining": (
        "num_codevector_groups",
        "num_codevectors_per_group",
        "codevector_dim",
        "proj_codevector_dim",
        "gumbel_temperature",
    ),
    "ForCTC": ("final_dropout", "ctc_loss_reduction", "ctc_zero_infinity"),
    "ForSequenceClassification": (
        "use_weighted_layer_sum",
        "classifier_proj_size",
    ),
    "ForAudioFrameClassification": ("use_weighted_layer_sum",),
    "ForXVector": (
        "use_weighted_layer_sum",
        "tdnn_dim",
        "xvector_output_dim",
        "tdnn_lengths",
        "relu",
    ),
    "ForECAPA": ("channels", "embedding_size"),
    "ForEENDVC": ("num_speakers", "num_layers", "num_heads", "speaker_size"),
}
"""Task -> facts that are told of its head."""

MOST_NAMES = 4
"""Names of a vocabulary or a list that are told before the rest is counted."""


class Description(NamedTuple):
    """What is known of a checkpoint.

    Arguments
    ---------
    facts : dict
        Name -> ``Fact``: value and where it is from.
    dropped : dict
        Name of a tensor that would not convert -> why.
    notes : list of str
        What a conversion would add or assume.

    Example
    -------
    >>> print(Description({"family": Fact("unispeech", "a.json")}, {}, []))
    family  unispeech  a.json
    would not convert: nothing
    """

    facts: dict
    dropped: dict
    notes: list

    def __str__(self):
        """Three columns: what, value, where from."""
        texts = {name: _text(fact.value) for name, fact in self.facts.items()}
        name_width = max(map(len, ["", *texts]))
        width = min(40, max(map(len, ["", *texts.values()])))
        lines = [
            f"{name:<{name_width}}  {text:<{width}}  {self.facts[name].source}"
            for name, text in texts.items()
        ]
        reasons = {}
        for name, reason in self.dropped.items():
            reasons.setdefault(reason, []).append(name)
        for reason, names in reasons.items():
            lines.append(f"would not convert: {_text(names)} ({reason})")
        lines += [] if reasons else ["would not convert: nothing"]
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join(line.rstrip() for line in lines)


def describe(source, save_path=None, **overrides):
    """Tells what a file or folder is, from its names, sizes and texts.

    Arguments
    ---------
    source : str or pathlib.Path
        Anything that ``convert_checkpoint`` reads, or a pretrained folder.
    save_path : str, optional
        Where downloads are kept.
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
    if path.is_dir() and is_pretrained(path):
        return _describe_ours(path)
    if path.is_file() and path.name.startswith("adapter."):
        return _describe_adapter(path)
    if path.suffix == ".ckpt" and not is_torch_file(path):
        return _describe_lobe(path)
    found = read_checkpoint(path, overrides=overrides)
    facts = {"what": _what(found)}
    facts |= _told(found.facts, found.task)
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


def _told(facts, task=None):
    """Size, then those facts that matter, in order."""
    told, names = {}, (*SHOWN, *SHOWN_OF.get(task, ()))
    if "family" in facts:
        told["family"] = facts["family"]
    if "hidden_size" in facts and "num_hidden_layers" in facts:
        layers = facts["num_hidden_layers"].value
        dim = facts["hidden_size"].value
        size = SIZES.get((layers, dim), "other")
        told["size"] = Fact(f"{size} ({layers} x {dim})", "the next two")
    known = {name: facts[name] for name in names if name in facts}
    return told | {
        n: fact for n, fact in known.items() if fact.value is not None
    }


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


def _describe_lobe(path):
    """The facts of one module of a pretrained folder."""
    lobe = read_lobe(path)
    text = f"{lobe.cls.rpartition('.')[2]} of unispeech_sb"
    facts = {"what": Fact(text, "note in the file")}
    facts |= _told(
        {k: Fact(v, "note in the file") for k, v in lobe.config.items()}
    )
    facts["tensors"] = _tensor_fact([lobe.tensors])
    count = _num_parameters({path.stem: lobe.tensors})
    facts["parameters"] = Fact(count, "shapes of the tensors")
    return Description(facts, {}, [])


def _describe_ours(folder):
    """A pretrained folder's facts."""
    found = read_pretrained(folder)
    origin = found.origin
    facts = {"what": Fact("pretrained folder of unispeech_sb", "backbone.ckpt")}
    if origin:
        text = f"{origin.get('origin')}, {origin.get('task')}"
        facts["converted from"] = Fact(text, "origin.json")
        facts["family"] = Fact(origin.get("family"), "origin.json")
    config = {
        name: Fact(value, f"{lobe}.ckpt")
        for lobe, file in reversed(found.lobes.items())
        for name, value in file.config.items()
    }
    config["sampling_rate"] = Fact(16000, "both families")
    facts |= _told(config, origin.get("task"))
    for name, lobe in found.lobes.items():
        facts[name] = Fact(lobe.cls.rpartition(".")[2], f"{name}.ckpt")
    for name in LABEL_FILES:
        if (folder / name).is_file():
            labels = LabelEncoder.read_labels(folder / name)
            facts["labels"] = Fact(labels, name)
    if origin.get("blank_index") is not None:
        facts["blank"] = Fact(origin["blank_index"], "origin.json")
    lobes = {name: lobe.tensors for name, lobe in found.lobes.items()}
    facts["tensors"] = _tensor_fact(lobes.values())
    facts["parameters"] = Fact(_num_parameters(lobes), "shapes of the tensors")
    return Description(facts, {}, [])


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
