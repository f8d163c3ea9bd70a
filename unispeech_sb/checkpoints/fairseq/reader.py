"""fairseq checkpoints of all families, read without fairseq.

Both training stages of UniSpeech, UniSpeech-SAT, wav2vec 2.0, HuBERT, WavLM,
and CTC models fine-tuned from any of them, as written in 2021 and by the
released code; the authors' files of WavLM; and what s3prl made of any as its
upstreams.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from unispeech_sb.checkpoints.checkpoint import (
    TENSORS,
    Checkpoint,
    Fact,
    settle,
)
from unispeech_sb.checkpoints.fairseq.options import (
    FLAT,
    SPECIALS,
    known_sizes,
    known_training,
    literal,
    read_dictionary,
    read_options,
    read_vocabulary,
)
from unispeech_sb.checkpoints.fairseq.tensors import (
    TOP,
    backbone_options,
    complete_backbone,
    rename,
    rename_backbone,
)
from unispeech_sb.checkpoints.options import (
    BACKBONE,
    FAMILIES,
    HEADS,
    SWITCHES,
    check_config,
    shown,
)
from unispeech_sb.checkpoints.special_tokens import token_index

RATE = 16000
NO_OPTIONS = {"family", "task", "vocabulary", "blank_index", "sampling_rate"}
"""Facts that are no part of a configuration."""
GIVEN = {"dictionary", "blank"}
"""What a user gives that is no option of a configuration either."""
FILLED_LATER = {"vocab_size", "pad_token_id", "bos_token_id", "eos_token_id"}
"""Options that the vocabulary decides."""


PROJECTION = "w2v_encoder.proj."
LEFT_OVER = "left over from pre-training; a CTC model does not use it"
ALONE = "as utterances alone, which s3prl's own padding changes"
NO_OBJECTIVE = "part of a pre-training objective that no class here has"
CONVERTED = {"task_cfg", "model_cfg", "model_weight"}
"""What s3prl's converted files of wav2vec 2.0 and HuBERT have in place of
fairseq's parts."""
OLD_PROJECTION = "q2h_proj."
SEVERAL = (
    "of pre-training on several sets of labels, which no class here or in "
    "transformers has"
)
UNTRANSPOSED = (
    "of a first stage of July 2021 with q2h_proj, which no class here or in "
    "transformers has"
)


def is_fairseq(objects: Any) -> bool:
    """Whether a file's content has the parts that fairseq writes."""
    if not isinstance(objects, dict):
        return False
    if CONVERTED <= objects.keys():
        return True
    options, parts = {"cfg", "args"}, {"model", "task_state"}
    return bool(options & objects.keys() and parts & objects.keys())


def read_fairseq(
    objects: dict[str, Any],
    path: str | Path,
    overrides: Mapping[str, Any] | None = None,
) -> Checkpoint:
    """Reads a checkpoint of the authors' fairseq.

    Arguments
    ---------
    objects : dict
        Everything in the file, as ``read_objects`` gives it.
    path : str or pathlib.Path
        The file, for errors and sources.
    overrides : dict, optional
        Options to set in place of what the file says or leaves open, such
        as ``num_attention_heads``; ``dictionary`` is the path of the
        vocabulary (JSON or text), for files that have none.

    Returns
    -------
    Checkpoint
        Its content under transformers' names.

    Raises
    ------
    ValueError
        When it is of another model, damaged, or contradicts itself.
    """
    overrides, converted = overrides or {}, CONVERTED <= objects.keys()
    if converted:
        sections = {"model": objects["model_cfg"], "task": objects["task_cfg"]}
        objects = {"cfg": sections, "model": objects["model_weight"]}
    tensors = _tensors(objects, path)
    options = read_options(objects, path)
    kind = options.kind
    place, model = options.where("model"), options.model
    named = f"{place}: {options.name}"
    if kind.task == "ForCTC":
        place, model = f"{place}.w2v_args", options.upstream
    backbone, rest = rename_backbone(tensors, kind.prefix)
    notes = complete_backbone(backbone)
    _, facts, remarks = backbone_options(
        backbone, path, overrides, known_sizes(model, place, path)
    )
    notes += remarks + _biases(model, facts["conv_bias"].value, path)
    task = kind.task
    if task == "ForCTC":
        top, sizes, dropped = read_ctc(rest, kind.prefix, path)
    else:
        top, sizes, dropped = read_pretraining(rest, kind, path)
        task = "Model" if dropped else task
    if task == "Model" and top:
        raise _unexpected(min(rest), path)
    origin = "fairseq"
    if options.name == FLAT or converted:
        origin, facts["mask_rule"] = "s3prl", Fact("hf", ALONE)
    checkpoint = Checkpoint(
        origin, kind.family, task, {}, backbone, top,
        dropped=dropped, notes=notes,
    )  # fmt: skip
    facts |= {"family": Fact(kind.family, named), "task": Fact(task, named)}
    facts |= sizes
    facts |= _front_end(options, overrides, path)
    _add_temperature(checkpoint, facts, options.model, objects, path)
    _add_vocabulary(checkpoint, facts, objects, overrides, path)
    checkpoint.facts = _settled(facts, options, overrides, path)
    checkpoint.config = {
        name: fact.value
        for name, fact in checkpoint.facts.items()
        if name not in NO_OPTIONS
    }
    check_config(checkpoint.config, path)
    return checkpoint


def _tensors(objects, path):
    """The model's tensors, without hooks."""
    tensors = objects.get("model")
    if not isinstance(tensors, dict):
        raise ValueError(
            f"{path}: expected a fairseq checkpoint with a model; it has "
            f"{', '.join(sorted(map(str, objects)))[:80]} only"
        )
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise ValueError(
                f"{path}: expected named tensors in its model; got "
                f"{shown(name)}: {shown(tensor)}"
            )
    return {name: tensor.detach() for name, tensor in tensors.items()}


def _biases(model, found, path):
    """Checks ``conv_bias``, which the authors' second stage lost."""
    said = model.get("conv_bias")
    if said is None or said == found:
        return []
    if not said:
        raise ValueError(
            f"{path}: expected convolutions without a bias, as its options "
            "say; its tensors have one"
        )
    return [
        "conv_bias: the options say true, but the file has no biases (the "
        "authors' second stage drops those of the first); followed the file"
    ]


def _front_end(options, overrides, path):
    """Normalisation and sampling rate of the waveforms."""
    facts = {}
    for section, found in (("task", options.task), ("model", options.model)):
        if found.get("normalize") is not None:
            source = f"{options.where(section)}.normalize"
            facts["normalize_wav"] = Fact(found["normalize"], source)
            break
    if not {"normalize_wav"} & {*facts, *overrides}:
        raise ValueError(
            f"{path}: expected normalize among its options, which says "
            "whether waveforms are normalised; --set normalize_wav=true or "
            "false gives it"
        )
    rate = options.task.get("sample_rate")
    fact = Fact(rate, f"{options.where('task')}.sample_rate")
    if rate is None:
        fact = Fact(RATE, "the authors' code")
    if fact.value != RATE:
        raise ValueError(
            f"{path}: expected a sample_rate of {RATE}; got {shown(rate)}"
        )
    return {**facts, "sampling_rate": fact}


def _add_temperature(checkpoint, facts, model, objects, path):
    """Rebuilds the Gumbel temperature, which no tensor holds."""
    steps, history = model.get("latent_temp"), objects.get("optimizer_history")
    if "quantizer.codevectors" not in checkpoint.top or not steps:
        return
    where = f"{path}: latent_temp"
    steps = literal(steps, where)
    last = history[-1] if isinstance(history, list) and history else {}
    updates = last.get("num_updates") if isinstance(last, dict) else None
    kinds = {type(step) for step in steps}
    if len(steps) != 3 or not kinds <= {int, float} or not 0 < steps[2] <= 1:
        raise ValueError(
            f"{where}: expected start, end and decay; got {shown(str(steps))}"
        )
    if type(updates) is not int or updates < 0:
        checkpoint.notes.append(
            "gumbel_temperature: not known, since the file does not count "
            "its updates"
        )
        return
    start, end, decay = steps
    facts["gumbel_temperature"] = Fact(
        max(start * decay**updates, end),
        f"latent_temp after {updates} updates (optimizer_history)",
    )


def _add_vocabulary(checkpoint, facts, objects, overrides, path):
    """Adds the symbols, of CTC or of clusters."""
    top = checkpoint.top
    state = objects.get("task_state")
    state = state if isinstance(state, dict) else {}
    stub, where = state.get("target_dictionary"), "target_dictionary"
    several = state.get("dictionaries")
    if stub is None and isinstance(several, list) and len(several) == 1:
        stub, where = several[0], "dictionaries[0]"
    source = f"task_state.{where}"
    head = next(
        (n for n in ("lm_head", "ctc_proj") if n + ".weight" in top), ""
    )
    if overrides.get("dictionary") is not None and head:
        source = str(overrides["dictionary"])
        vocabulary = read_vocabulary(source)
    elif stub is not None:
        vocabulary = read_dictionary(stub, f"{path}: {source}")
    elif head:
        checkpoint.notes.append(
            "vocabulary: not in the file, so the index of the blank is not "
            "known; --set dictionary=PATH gives its vocab.json or text file"
        )
        return
    else:
        return
    if head:
        _check_size(vocabulary, len(top[head + ".weight"]), source, path)
        checkpoint.tokens = vocabulary.tokens
        checkpoint.blank_index = vocabulary.blank_index
        facts["vocabulary"] = Fact(len(vocabulary.tokens), source)
        facts["blank_index"] = Fact(
            vocabulary.blank_index, f"<s> of {source} ({vocabulary.layout})"
        )
        if overrides.get("blank") is not None:
            size = len(vocabulary.tokens)
            index = token_index(overrides["blank"], vocabulary.tokens, size)
            facts["blank_index"] = Fact(index, "given")
            checkpoint.blank_index = index
    elif "label_embeddings_concat" in top:
        rows = len(top["label_embeddings_concat"])
        _check_size(vocabulary, rows, source, path)
        checkpoint.notes.append(_clusters(vocabulary.tokens, source))


def _check_size(vocabulary, rows, source, path):
    """A dictionary and what it names must be of one size."""
    if len(vocabulary.tokens) != rows:
        raise ValueError(
            f"{path}: expected {rows} symbols in {source}, one for each "
            f"output; got {len(vocabulary.tokens)}"
        )


def _clusters(tokens, source):
    """Says which cluster each label embedding stands for."""
    clusters = tokens[len(SPECIALS) :]
    if clusters == [str(index) for index in range(len(clusters))]:
        return (
            f"label_embeddings_concat: cluster k is row k + {len(SPECIALS)}; "
            f"rows 0 to 3 are {' '.join(SPECIALS)}, never targets ({source})"
        )
    return (
        "label_embeddings_concat: rows are in the order of the file's "
        f"dictionary, not of the clusters' numbers ({source})"
    )


def _settled(facts, options, overrides, path):
    """All facts: what the user gave, what was found, then defaults."""
    defaults = {**BACKBONE, **HEADS, **SWITCHES}
    settled = {
        name: Fact(value, "default of transformers")
        for name, value in defaults.items()
        if name not in FILLED_LATER
    }
    settled |= known_training(options) | facts
    given = {k: v for k, v in overrides.items() if k not in GIVEN}
    return settle(settled, given, path)


def read_ctc(rest, prefix, path):
    """The head of a CTC model, out of what is not the backbone's: transformers'
    name -> tensor; sizes; and name in the file -> why it is left out."""
    top, dropped = {}, {}
    for name, tensor in rest.items():
        if name.startswith(PROJECTION):
            top["lm_head." + name.removeprefix(PROJECTION)] = tensor
        elif _top_name(name, prefix) or OLD_PROJECTION in name:
            dropped[name] = LEFT_OVER
        else:
            raise _unexpected(name, path)
    classes = _rows(top, "lm_head.weight", PROJECTION + "weight", path)
    return top, {"vocab_size": Fact(classes, TENSORS)}, dropped


def read_pretraining(rest, kind, path):
    """The tensors of a pre-training objective of a ``Kind``: the same three,
    where ``top`` is empty if no class has such an objective."""
    top, old = {}, False
    for name, tensor in rest.items():
        found = _top_name(name, kind.prefix)
        if name.startswith(PROJECTION) and kind.prefix:
            found = "ctc_proj." + name.removeprefix(PROJECTION)
        elif name.startswith(kind.prefix + OLD_PROJECTION):
            old = True
            continue
        if found is None:
            raise _unexpected(name, path)
        top[found] = tensor
    reason = UNTRANSPOSED if old else None
    if kind.family in ("hubert", "wavlm"):
        reason = NO_OBJECTIVE
    if kind.family == "unispeech-sat" and _several_sets(top):
        reason = SEVERAL
    if reason:
        return {}, {}, dict.fromkeys(rest, reason)
    return top, _sizes(top, path), {}


def _sizes(top, path):
    """Sizes of the quantizer and of the classes."""
    sizes = {}
    if "quantizer.codevectors" in top:
        shape = list(top["quantizer.codevectors"].shape)
        projection = top.get("project_q.weight")
        if len(shape) != 3 or projection is None or projection.dim() != 2:
            raise ValueError(
                f"{path}: expected quantizer.vars [1, entries, size] and "
                f"project_q.weight; got {shape}"
            )
        projected, dim = projection.shape
        groups = dim // max(shape[2], 1)
        if not groups or dim % shape[2] or shape[1] % groups:
            raise ValueError(
                f"{path}: expected quantizer.vars to be groups of code "
                f"vectors for project_q, whose input is {dim}; got {shape}"
            )
        sizes = {
            "num_codevector_groups": groups,
            "num_codevectors_per_group": shape[1] // groups,
            "codevector_dim": dim,
            "proj_codevector_dim": projected,
        }
    if "ctc_proj.weight" in top:
        sizes["num_ctc_classes"] = _rows(top, "ctc_proj.weight", "proj", path)
    embeddings = top.get("label_embeddings_concat")
    if embeddings is not None and embeddings.dim() == 2:
        sizes["num_clusters"], size = embeddings.shape
        sizes.setdefault("proj_codevector_dim", size)
    return {name: Fact(size, TENSORS) for name, size in sizes.items()}


def _several_sets(top):
    """Whether there is one projection for each of several label sets."""
    projection = top.get("project_hid.weight")
    embeddings = top.get("label_embeddings_concat")
    if projection is None or embeddings is None or embeddings.dim() != 2:
        return False
    return len(projection) != embeddings.shape[1]


def _rows(top, name, shown, path):
    """Number of rows of a matrix that must be there."""
    if name not in top or top[name].dim() != 2:
        raise ValueError(f"{path}: expected a CTC head, {shown}; there is none")
    return len(top[name])


def _top_name(name, prefix):
    """transformers' name of an objective's tensor, or None."""
    if not name.startswith(prefix):
        return None
    return rename(name.removeprefix(prefix), TOP)


def _unexpected(name, path):
    """The error for a tensor that no table has."""
    return ValueError(
        f"{path}: unexpected {str(name):.80}, which is no part of a "
        f"model of {', '.join(FAMILIES)}"
    )
