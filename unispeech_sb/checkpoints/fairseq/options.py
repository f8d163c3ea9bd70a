"""What fairseq writes beside tensors: options and dictionaries.

Files of both generations are read: ``args`` (a Namespace, all options in one
place) and ``cfg`` (a section for the model, one for the task). Nothing in
them is run, not even the Python expressions that some options are.
"""

import ast
from pathlib import Path
from typing import Any, NamedTuple

from unispeech_sb.checkpoints.checkpoint import Fact
from unispeech_sb.checkpoints.file_types import what_objects
from unispeech_sb.checkpoints.options import FAMILIES, OPTIONS, shown
from unispeech_sb.checkpoints.safety.stubs import Stub, plain
from unispeech_sb.checkpoints.texts import order_tokens, read_json


class Kind(NamedTuple):
    """What a name of a fairseq model means.

    Arguments
    ---------
    family : str
        One of ``checkpoints.options.FAMILIES``; of a CTC model, that of the
        model that was fine-tuned wins.
    task : str
        ``ForPreTraining``, ``ForCTC``, or ``Model`` where no class here has
        its objective.
    prefix : str
        What the names of the backbone's tensors start with.
    """

    family: str
    task: str
    prefix: str


WRAPPED = "w2v_encoder.w2v_model."
KINDS = {
    "unispeech": Kind("unispeech", "ForPreTraining", WRAPPED),
    "wav2vec_mtls1": Kind("unispeech", "ForPreTraining", WRAPPED),
    "wav2vec2": Kind("wav2vec2", "ForPreTraining", ""),
    "hubert": Kind("hubert", "Model", ""),
    "wavlm": Kind("wavlm", "Model", ""),
    "wav2vec_ctc": Kind("unispeech", "ForCTC", WRAPPED),
    "unispeech_sat": Kind("unispeech-sat", "ForPreTraining", ""),
    "bc_m_hubert": Kind("unispeech-sat", "ForPreTraining", ""),
    "hubert_ctc": Kind("unispeech-sat", "ForCTC", WRAPPED),
}
"""Name of a model, of 2021 and of the released code -> what it is. UniSpeech's
second stage is a wav2vec 2.0 model by name and by its parts."""

FLAT = "WavLM's form"
"""What the authors' files of WavLM are called here, and s3prl's of
UniSpeech-SAT: their ``cfg`` has WavLM's options in one place, and no name of a
model."""
FLAT_MARKS = {"extractor_mode", "encoder_embed_dim", "layer_norm_first"}
"""Options that such a ``cfg`` has."""
RELATIVE = "relative_position_embedding"
"""Option that says whether those of ``RELATIVE_OPTIONS`` mean anything."""
RELATIVE_OPTIONS = ("num_buckets", "max_distance")

TRAINING = {
    theirs: ours
    for ours, option in OPTIONS.items()
    for theirs in option.training.split()
}
"""fairseq's options that steer training -> transformers', or as they are."""

SAT_TRAINING = {
    "spk_layer": "utterance_contrastive_layer",
    "utterance_contrastive_layer": "utterance_contrastive_layer",
    "num_negatives": "num_instances",
    "num_instances": "num_instances",
    "cross_sample_negatives": "cross_sample_instances",
    "cross_sample_instances": "cross_sample_instances",
}
"""The same for UniSpeech-SAT, of 2021 and of the released code."""

NORMS = {"layer_norm": "layer", "default": "group"}
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_accurate": "gelu_new",
    "gelu_fast": "gelu_new",
    "relu": "relu",
}
VALUES = {"extractor_mode": NORMS, "activation_fn": ACTIVATIONS}
"""Option -> its values in fairseq -> here."""

LAYERS = ("conv_dim", "conv_kernel", "conv_stride")
"""What each layer of ``conv_feature_layers`` says, in its order."""

MOST_TEXT, MOST_LAYERS = 1000, 64
SPECIALS = ["<s>", "<pad>", "</s>", "<unk>"]
BLANK = SPECIALS[0]
FIRST, LAST = "specials first", "symbols first"
CLASS = "fairseq.data.dictionary.Dictionary"
MOST_BYTES = 64 * 2**20


class Options(NamedTuple):
    """What a file says about its model.

    Arguments
    ---------
    name : str
        Name of the model.
    model, task : dict
        fairseq's options, as plain data.
    upstream : dict
        Those of the model that was fine-tuned; empty where the file leaves
        them out.
    place : str
        ``cfg`` or ``args``, or ``FLAT``.
    criterion : dict
        Those of the loss.
    """

    name: str
    model: dict[str, Any]
    task: dict[str, Any]
    upstream: dict[str, Any]
    place: str
    criterion: dict[str, Any] = {}

    @property
    def kind(self):
        """What the model is."""
        if self.name == FLAT:
            relative = self.model.get(RELATIVE)
            return Kind("wavlm" if relative else "unispeech-sat", "Model", "")
        begun = _known(_name(self.upstream))
        kind = KINDS[self.name]
        return kind if begun is None else kind._replace(family=begun.family)

    def where(self, section):
        """What errors and sources call a section, such as ``cfg.model``."""
        return f"cfg.{section}" if self.place == "cfg" else self.place


def read_options(objects, path):
    """The ``Options`` of a checkpoint; a ``ValueError`` where there are none,
    or those of another model."""
    place = "cfg" if objects.get("cfg") is not None else "args"
    try:
        found = plain(objects.get(place))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(
            f"{path}: expected the options of a fairseq model in cfg or args; "
            "there are none"
        )
    model, task, criterion = (
        _section(found, name, place) for name in ("model", "task", "criterion")
    )
    name = _name(model)
    if model is found and name is None and FLAT_MARKS <= model.keys():
        return Options(FLAT, model, {}, {}, FLAT)
    if _known(name) is None:
        *names, last = KINDS
        what = what_objects(objects)
        raise ValueError(
            f"{path}: expected a model named {', '.join(names)} or {last}; "
            f"got {shown(name)}" + (f"; it is {what}" if what else "")
        )
    options = Options(name, model, task, _upstream(model), place, criterion)
    return _check_upstream(options, path)


def known_sizes(model, source, path):
    """What fairseq's options of a pre-trained model, from a place such as
    ``cfg.model``, say about the backbone's shape: name -> ``Fact``."""
    facts = {}
    for ours, option in OPTIONS.items():
        theirs = option.shape
        unused = theirs in RELATIVE_OPTIONS and not model.get(RELATIVE)
        if not theirs or unused or model.get(theirs) is None:
            continue
        value = model[theirs]
        where = f"{source}.{theirs}"
        if ours in LAYERS:
            layers = read_layers(value, f"{path}: {where}")
            value = [layer[LAYERS.index(ours)] for layer in layers]
        elif theirs in VALUES:
            value = _translate(value, VALUES[theirs], f"{path}: {where}")
        facts[ours] = Fact(value, where)
    return facts


def known_training(options):
    """What ``Options`` say about training, those of fine-tuning first: name
    -> ``Fact``."""
    table, facts = dict(TRAINING), {}
    if options.kind.family == "unispeech-sat":
        table |= SAT_TRAINING
    place = options.where("model")
    for where, model in (
        (f"{place}.w2v_args", options.upstream),
        (place, options.model),
    ):
        for theirs, ours in table.items():
            if model.get(theirs) is not None:
                facts[ours] = Fact(model[theirs], f"{where}.{theirs}")
    infinity = options.criterion.get("zero_infinity")
    if infinity is not None:
        where = f"{options.where('criterion')}.zero_infinity"
        facts["ctc_zero_infinity"] = Fact(infinity, where)
    return facts


def _section(found, name, place):
    """The options of the model or the task, wherever they are kept."""
    section = found.get(name)
    if place == "cfg" and isinstance(section, dict):
        return section
    return found  # a Namespace has them all in one place


def _upstream(model):
    """Options of the model that was fine-tuned, where the file has them."""
    found = model.get("w2v_args")
    return _section(found, "model", "cfg") if isinstance(found, dict) else {}


def _check_upstream(options, path):
    """Refuses CTC models that were fine-tuned from another family."""
    name = _name(options.upstream)
    if name is None or _known(name) is not None:
        return options
    raise ValueError(
        f"{path}: expected a CTC model fine-tuned from one of "
        f"{', '.join(FAMILIES)}; got one from {shown(name)}"
    )


def _name(model):
    """Name of a model among its options, as it is there."""
    return model.get("_name") or model.get("arch")


def _known(name):
    """What a name means; None for any other value."""
    return KINDS.get(name) if isinstance(name, str) else None


def _translate(value, table, where):
    """A value's counterpart."""
    if not isinstance(value, str) or value not in table:
        raise ValueError(
            f"{where}: expected {' or '.join(table)}; got {shown(value)}"
        )
    return table[value]


def read_layers(text, where):
    """Reads fairseq's text for convolutions, a Python expression of lists
    with ``+`` and ``*``, as (channels, kernel, stride) of each layer."""
    layers = literal(text, where)
    right = isinstance(layers, list) and 0 < len(layers) <= MOST_LAYERS
    if not right or not all(
        isinstance(layer, (list, tuple))
        and len(layer) == 3
        and all(type(number) is int for number in layer)
        for layer in layers
    ):
        raise ValueError(
            f"{where}: expected a list of (channels, kernel, stride); got "
            f"{shown(text)}"
        )
    return [tuple(layer) for layer in layers]


def literal(text, where):
    """Value of a text of lists, tuples and numbers, joined by ``+`` and
    ``*``; anything else in it is a ``ValueError``."""
    if isinstance(text, (list, tuple)):
        return text
    fault = ValueError(
        f"{where}: expected lists and numbers only; got {shown(text)}"
    )
    if not isinstance(text, str) or len(text) > MOST_TEXT:
        raise fault
    try:
        return _value(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, TypeError, RecursionError) as error:
        raise fault from error
    except MemoryError as error:  # of the parser, on deep nesting
        raise fault from error


def _value(node):
    """Value of a checked expression."""
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return node.value
    if isinstance(node, (ast.List, ast.Tuple)):
        items = [_value(item) for item in node.elts]
        return items if isinstance(node, ast.List) else tuple(items)
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Mult)):
        left, right = _value(node.left), _value(node.right)
        if not isinstance(left, list):
            raise ValueError("only lists are added and repeated")
        if isinstance(node.op, ast.Add):
            return left + right
        if not isinstance(right, int) or len(left) * right > MOST_LAYERS:
            raise ValueError("too many layers")
        return left * right
    raise ValueError(type(node).__name__)


class Vocabulary(NamedTuple):
    """A dictionary's symbols.

    ``Dictionary(json)`` puts the symbols first and the four specials after
    them; text files give the specials first. CTC's blank is ``<s>`` in both.

    Arguments
    ---------
    tokens : list of str
        The symbols by index, specials included.
    blank_index : int
        Index of CTC's blank.
    layout : str
        ``symbols first`` or ``specials first``.
    """

    tokens: list[str]
    blank_index: int
    layout: str


def read_dictionary(stub, where):
    """The ``Vocabulary`` of a pickled dictionary, a ``Stub``."""
    right = isinstance(stub, Stub) and stub.name == CLASS
    state = stub.state if right else None
    tokens = state.get("symbols") if isinstance(state, dict) else None
    if not isinstance(tokens, list) or not all(
        isinstance(token, str) for token in tokens
    ):
        raise ValueError(
            f"{where}: expected a dictionary of fairseq; got {shown(stub)}"
        )
    vocabulary = _arrange(tokens, where)
    index = state.get("bos_index", vocabulary.blank_index)
    if index != vocabulary.blank_index:
        raise ValueError(
            f"{where}: expected {BLANK} at its bos_index {shown(index)}; it is "
            f"at {vocabulary.blank_index}"
        )
    return vocabulary


def read_vocabulary(path):
    """The ``Vocabulary`` of the file that a dictionary was made of:
    ``vocab.json`` (symbol -> index), or a text file with a symbol and its
    count on each line."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if path.suffix == ".json":
        indices = read_json(path)
        symbols = order_tokens(indices, len(indices), path)
        if max(indices.values(), default=-1) >= len(symbols):
            raise ValueError(
                f"{path}: expected indices 0 to {len(symbols) - 1}; the "
                f"largest is {shown(max(indices.values()))}"
            )
        return _arrange(symbols + SPECIALS, path)
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"{path}: expected at most {MOST_BYTES} bytes")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected text in UTF-8") from error
    symbols = []
    for number, line in enumerate(lines, 1):
        line = line.removesuffix(" #fairseq:overwrite")
        symbol, _, count = line.rpartition(" ")
        if not count.isdecimal():
            raise ValueError(
                f"{path}: expected a symbol and its count on line {number}; "
                f"got {shown(line)}"
            )
        symbols.append(symbol)
    return _arrange(SPECIALS + symbols, path)


def _arrange(tokens, where):
    """Recognises the layout by the places of the specials."""
    if tokens[:4] == SPECIALS:
        return Vocabulary(tokens, 0, FIRST)
    if tokens[-4:] == SPECIALS:
        return Vocabulary(tokens, len(tokens) - 4, LAST)
    raise ValueError(
        f"{where}: expected {' '.join(SPECIALS)} as the first four symbols "
        f"or the last four; the first are {shown(' '.join(tokens[:4]))}"
    )
