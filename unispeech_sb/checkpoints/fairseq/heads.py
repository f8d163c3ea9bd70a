"""What stands on a fairseq backbone: sizes, names, what is left out."""

import re

from unispeech_sb.checkpoints.checkpoint import TENSORS, Fact
from unispeech_sb.checkpoints.fairseq.names import TOP, rename

PROJECTION = "w2v_encoder.proj."
LEFT_OVER = "left over from pre-training; a CTC model does not use it"
RELATIVE = re.compile(r"relative_attention_bias|\.grep_")
OLD_PROJECTION = "q2h_proj."
SEVERAL = (
    "of pre-training on several sets of labels, which no class here or in "
    "transformers has"
)
UNTRANSPOSED = (
    "of a first stage of July 2021 with q2h_proj, which no class here or in "
    "transformers has"
)


def refuse_relative(rest, path):
    """Refuses models whose attention needs more than this backbone has.

    Arguments
    ---------
    rest : dict
        Name in the file -> tensor, for what is not the backbone's.
    path : str or pathlib.Path
        The file, for the error.

    Raises
    ------
    ValueError
        When there is a tensor of relative positions.

    Example
    -------
    >>> refuse_relative({"encoder.layers.0.self_attn.grep_a": 0}, "x.pt")
    Traceback (most recent call last):
    ...
    ValueError: x.pt: expected attention without relative positions; ...
    """
    for name in rest:
        if RELATIVE.search(name):
            raise ValueError(
                f"{path}: expected attention without relative positions; "
                f"{str(name):.80} changes every output, and neither this "
                "package nor transformers has it for these families"
            )


def read_ctc(rest, prefix, path):
    """The head of a CTC model.

    Arguments
    ---------
    rest : dict
        Name in the file -> tensor, for what is not the backbone's.
    prefix : str
        Start of the backbone's names.
    path : str or pathlib.Path
        The file, for errors.

    Returns
    -------
    top : dict
        transformers' name -> tensor.
    facts : dict
        Sizes.
    dropped : dict
        Name in the file -> why it is left out.

    Raises
    ------
    ValueError
        When the head is missing or a tensor unknown.

    Example
    -------
    >>> read_ctc({}, "", "x.pt")
    Traceback (most recent call last):
    ...
    ValueError: x.pt: expected a CTC head, w2v_encoder.proj.weight; ...
    """
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
    """The tensors of a pre-training objective.

    Arguments
    ---------
    rest : dict
        Name in the file -> tensor, for what is not the backbone's.
    kind : Kind
        What the model is.
    path : str or pathlib.Path
        The file, for errors.

    Returns
    -------
    top : dict
        transformers' name -> tensor; empty where no class has such an
        objective.
    facts : dict
        Sizes.
    dropped : dict
        Name in the file -> why it is left out.

    Raises
    ------
    ValueError
        When a tensor is unknown or misshapen.

    Example
    -------
    >>> from unispeech_sb.checkpoints.fairseq.config import KINDS
    >>> read_pretraining({}, KINDS["wav2vec2"], "x.pt")
    ({}, {}, {})
    """
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
        "UniSpeech or UniSpeech-SAT model"
    )
