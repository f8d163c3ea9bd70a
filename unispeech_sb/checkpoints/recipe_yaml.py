"""The yaml of a SpeechBrain recipe as data: nothing in it is run.

An entry is read when it is asked for, as a recipe names much that no model
needs: optimizers, augmentations, commands.
"""

import ast
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from unispeech_sb.checkpoints.interfaces import YAML_FILE
from unispeech_sb.checkpoints.options import shown
from unispeech_sb.checkpoints.safe_yaml import LOBES, Name, New, Ref
from unispeech_sb.checkpoints.yaml_nodes import (
    PLAIN,
    compose_file,
    compose_yaml,
    read_scalar,
)

MOST_VALUES = 20_000
"""Values of one entry, those of what it refers to among them."""
MOST_ENTRIES_DEEP = 20
"""References to references."""

NNET, _MODELS = "speechbrain.nnet", "speechbrain.lobes.models"
DECODERS = "speechbrain.decoders"
SEARCHERS = {
    f"{DECODERS}{module}.S2S{kind}{name}Searcher"
    for module in ("", ".seq2seq")
    for kind in ("RNN", "Transformer")
    for name in ("Beam", "Greedy")
}
"""Classes that write texts token by token, from what an encoder gives."""
LAYER_MIX = "unispeech_sb.nnet.pooling.LayerMix"
LISTED = {
    *LOBES,
    LAYER_MIX,
    *SEARCHERS,
    *(
        f"{DECODERS}.scorer.{name}"
        for name in (
            *("CTCScorer", "CoverageScorer", "LengthScorer", "RNNLMScorer"),
            *("ScorerBuilder", "TransformerLMScorer"),
        )
    ),
    f"{NNET}.linear.Linear",
    f"{NNET}.embedding.Embedding",
    f"{NNET}.RNN.AttentionalRNNDecoder",
    *(
        f"{NNET}.containers.{name}"
        for name in ("LengthsCapableSequential", "ModuleList", "Sequential")
    ),
    *(
        f"{NNET}.normalization.{name}"
        for name in ("BatchNorm1d", "InstanceNorm1d", "LayerNorm")
    ),
    *(f"{NNET}.activations.{name}" for name in ("Softmax", "Swish")),
    *(
        f"{NNET}.pooling.{name}"
        for name in ("AdaptivePool", "AttentivePooling", "Pooling1d")
    ),
    f"{NNET}.pooling.StatisticsPooling",
    *(f"{NNET}.RNN.{name}" for name in ("GRU", "LSTM", "LiGRU", "RNN")),
    f"{NNET}.CNN.Conv1d",
    f"{NNET}.dropout.Dropout2d",
    "speechbrain.processing.features.InputNormalization",
    f"{_MODELS}.VanillaNN.VanillaNN",
    f"{_MODELS}.RNNLM.RNNLM",
    f"{_MODELS}.convolution.ConvolutionFrontEnd",
    *(
        f"{_MODELS}.transformer.{name}.{name}"
        for name in ("TransformerASR", "TransformerLM")
    ),
    *(f"{_MODELS}.CRDNN.{name}" for name in ("CRDNN", "DNN_Block")),
    *(f"{_MODELS}.Xvector.{name}" for name in ("Classifier", "Xvector")),
    *(f"{_MODELS}.ECAPA_TDNN.{n}" for n in ("Classifier", "ECAPA_TDNN")),
    *(
        f"torch.nn.{name}"
        for name in (
            *("BatchNorm1d", "Conv1d", "Dropout", "ELU", "Embedding"),
            *("Flatten", "GELU"),
            *("GRU", "Identity", "LSTM", "LayerNorm", "LeakyReLU", "Linear"),
            *("LogSoftmax", "PReLU", "ReLU", "SELU", "Sequential", "SiLU"),
            *("Sigmoid", "Softmax", "Tanh"),
        )
    ),
}
"""Classes of modules that a recipe's yaml may name without ``--trust``."""

SOFTMAX = (
    f"{NNET}.activations.Softmax",
    *("torch.nn.LogSoftmax", "torch.nn.Softmax"),
)
_WRITERS = {"dec", "decoder", "seq_lin", "Transformer"}
"""Names of what a searcher decodes with, in SpeechBrain's recipes."""
_UNUSED = ("ctc_lin", "lm_model")
"""Names of what only training needs, where the searcher does not."""
_REFERENCE = re.compile(r"<([\w.\[\]]+)>")
_OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.USub: operator.neg,
}


class Apply(NamedTuple):
    """In a yaml: what a function returns."""

    name: str
    arguments: Any = {}


_CALLS = {"!new": New, "!name": Name, "!apply": Apply}


class Part(NamedTuple):
    """Where the tensors of an entry are: a file, a prefix of their names."""

    file: Path
    prefix: str = ""


class RecipeYaml:
    """A recipe's yaml, or the ``hyperparams.yaml`` of its run.

    Arguments
    ---------
    path : str or pathlib.Path
        The file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        node = compose_file(path, aliases=True)
        if not isinstance(node, yaml.MappingNode):
            raise ValueError(f"{path}: expected the yaml of a recipe")
        self.nodes = {str(key.value): value for key, value in node.value}
        self.names = {id(value): name for name, value in self.nodes.items()}

    def get(self, name: str, default: Any = None) -> Any:
        """The value of an entry: plain data, in it ``New``, ``Name`` and
        ``Apply``, and a ``Ref`` for each object of another entry."""
        if name not in self.nodes:
            return default
        return _Reader(self).value(self.nodes[name], entry=name)

    def recoverables(self) -> dict[str, str]:
        """What a checkpoint has: name of the file, without suffix -> entry."""
        checkpointer = self.get("checkpointer")
        arguments = getattr(checkpointer, "arguments", None)
        if not isinstance(arguments, Mapping):
            return {}
        found = arguments.get("recoverables")
        if isinstance(found, Ref):  # to a mapping with a tag
            found = None
        return {
            name: str(value)
            for name, value in (found or {}).items()
            if isinstance(value, Ref)
        }

    def modules(self) -> dict[str, str]:
        """The entry of each of a recipe's modules that has one."""
        found = self.get("modules")
        if not isinstance(found, dict):
            raise ValueError(f"{self.path}: expected modules by name")
        return {k: str(v) for k, v in found.items() if isinstance(v, Ref)}

    def parts(self, ckpt: Path) -> dict[str, Part]:
        """Entry -> where its tensors are in a checkpoint."""
        found = {}
        for stem, entry in self.recoverables().items():
            file = ckpt / f"{stem}.ckpt"
            if not file.is_file():
                continue
            found[entry] = Part(file)
            call = self.get(entry)
            if getattr(call, "name", "") != "torch.nn.ModuleList":
                continue
            for items in call.arguments or ():
                for place, item in enumerate(items):
                    found.setdefault(str(item), Part(file, f"{place}."))
        return found

    def collected(self, ckpt: Path) -> dict[str, Part]:
        """Entry -> the file that the recipe's pretrainer got for it: where it
        was collected, in the run of a checkpoint, or where it came from."""
        given = getattr(self.get("pretrainer"), "arguments", None)
        given = given if isinstance(given, Mapping) else {}
        loaded = given.get("loadables")
        paths = given.get("paths")
        paths = paths if isinstance(paths, dict) else {}
        folder, found = Path(str(given.get("collect_in", ""))), {}
        save = ckpt.absolute().parent
        for name, entry in loaded.items() if isinstance(loaded, dict) else ():
            places = [f / f"{name}.ckpt" for f in (folder, save)]
            places.append(save / folder.name / f"{name}.ckpt")
            places.append(Path(str(paths.get(name, ""))))
            files = [path for path in places if path.is_file()]
            if isinstance(entry, Ref) and files:
                found[str(entry)] = Part(files[0])
        return found

    def lobes(self) -> dict[str, Any]:
        """Entries of self-supervised models: what is built from a source."""
        calls = {name: self.get(name) for name in self.nodes}
        return {
            name: call
            for name, call in calls.items()
            if isinstance(getattr(call, "arguments", None), dict)
            and {"source", "hub"} & call.arguments.keys()
        }


class _Reader:
    """Reads one entry."""

    def __init__(self, recipe):
        self.recipe, self.count = recipe, 0

    def value(self, node, entry=None, depth=0):
        """What a node stands for; an object of an entry is a ``Ref``, but for
        the entry that is asked for."""
        self.count += 1
        if self.count > MOST_VALUES or depth > MOST_ENTRIES_DEEP:
            raise self.error(
                node, f"at most {MOST_VALUES} values in an entry", "more"
            )
        kind, _, name = node.tag.partition(":")
        owner = self.recipe.names.get(id(node))
        if kind in _CALLS and name:
            if owner is not None and owner != entry:
                return Ref(owner)
            return _CALLS[kind](name, self.arguments(node, depth))
        if node.tag == "!ref" and isinstance(node, yaml.ScalarNode):
            return self.reference(node, depth)
        if isinstance(node, yaml.MappingNode):
            return {
                str(key.value): self.value(item, None, depth + 1)
                for key, item in node.value
            }
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, None, depth + 1) for item in node.value]
        if node.tag.startswith(PLAIN):
            return self.scalar(node, depth)
        return None  # !PLACEHOLDER and the like: nothing that is needed

    def arguments(self, node, depth):
        """The arguments of a call, by name or in a list."""
        if isinstance(node, yaml.ScalarNode):
            return {}
        plain = type(node)(f"{PLAIN}arguments", node.value)
        return self.value(plain, None, depth + 1)

    def scalar(self, node, depth):
        """A number, a text, ..., or a tuple of them: ``(1, 2)``, which
        HyperPyYAML takes for one in quotes too."""
        if not re.fullmatch(r"\(.*\)", node.value):
            return read_scalar(node)
        inside = compose_yaml(f"[{node.value[1:-1]}]", self.recipe.path)
        return tuple(self.value(inside, None, depth + 1))

    def reference(self, node, depth):
        """What a ``!ref`` stands for: an object, a value, or a sum or text
        with values in it."""
        whole = _REFERENCE.fullmatch(node.value)
        if whole is not None:
            return self.value(self.target(node, whole[1]), None, depth + 1)
        text = _REFERENCE.sub(
            lambda found: str(
                self.value(self.target(node, found[1]), None, depth + 1)
            ),
            node.value,
        )
        if len(text) > 1000:
            raise self.error(node, "a short text", shown(text))
        try:
            return _calculated(ast.parse(text, mode="eval").body)
        except (SyntaxError, ValueError, ArithmeticError, RecursionError):
            return text

    def target(self, node, place):
        """The node at a place such as ``sizes.dim`` or ``sizes[dim]``."""
        first, *rest = re.findall(r"\w+", place)
        found = self.recipe.nodes.get(first)
        for part in rest:
            inside = found.value if isinstance(found, yaml.MappingNode) else []
            pairs = {str(key.value): value for key, value in inside}
            found = pairs.get(part)
        if found is None:
            raise self.error(node, "!ref to an entry", f"<{shown(place)}>")
        return found

    def error(self, node, expected, got):
        """The error of a node."""
        line = node.start_mark.line + 1 if node.start_mark else 0
        return ValueError(
            f"{self.recipe.path}, line {line}: expected {expected}; got {got}"
        )


def _calculated(node):
    """The number of a sum, difference, product or quotient."""
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return node.value
    if isinstance(node, ast.UnaryOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_calculated(node.operand))
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        sides = _calculated(node.left), _calculated(node.right)
        return _OPERATORS[type(node.op)](*sides)
    raise ValueError("not a number")


def run_yaml(path: str | Path) -> Path | None:
    """The yaml of the run that a training checkpoint, or a file in it, is of:
    SpeechBrain puts it beside the folder of checkpoints."""
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    for place in (folder, *folder.absolute().parents[:2]):
        if (place / YAML_FILE).is_file():
            return place / YAML_FILE
    return None


def interface_of(recipe: RecipeYaml) -> str:
    """What loads the result of a recipe, by what its yaml has."""
    if searchers(recipe):
        return "EncoderDecoderASR"
    if "ctc_lin" in recipe.modules():
        return "EncoderASR"
    if "verification_file" in recipe.nodes:
        return "SpeakerRecognition"
    return "EncoderClassifier"


def searchers(recipe: RecipeYaml) -> list[str]:
    """Entries that decode, that of the test before that of validation."""
    calls = {name: recipe.get(name) for name in recipe.nodes}
    found = [n for n, c in calls.items() if getattr(c, "name", "") in SEARCHERS]
    return sorted(
        found,
        key=lambda name: (not name.startswith("test"), name.startswith("val")),
    )


def reached(get: Callable[[str], Any], name: str) -> list[str]:
    """Entries that one is made of, and those are; ``get`` gives an entry."""
    found, left = [], [name]
    while left:
        names = dict.fromkeys(_references(get(left.pop())))
        new = [entry for entry in names if entry not in found]
        found += new
        left += new
    return found


def _references(value):
    """Entries that a value refers to."""
    if isinstance(value, Ref):
        return [str(value)]
    if isinstance(value, (New, Name, Apply)):
        return _references(value.arguments)
    items = value.values() if isinstance(value, Mapping) else value
    items = items if isinstance(value, (Mapping, list, tuple)) else []
    return [name for item in items for name in _references(item)]


def order_of(
    recipe: RecipeYaml,
    owner: str | None,
    interface: str,
    forward: Sequence[str] = (),
) -> list[str]:
    """Entries in the order in which they run, as given or as in SpeechBrain's
    recipes, the backbone's first; for a decoder the searcher's is the last."""
    order = list(forward)
    if interface != "EncoderDecoderASR":
        return order or _known_order(recipe, owner, interface)
    found = searchers(recipe)
    if not found:
        raise ValueError(
            f"{recipe.path}: expected an entry that decodes, such as "
            f"!new:{DECODERS}.S2SRNNBeamSearcher, for {interface}; got none"
        )
    if order and order[-1] in found:
        return order
    return [*(order or _encoder_order(recipe, owner, found[0])), found[0]]


def _encoder_order(recipe, owner, searcher):
    """Entries of the modules whose output a searcher takes."""
    modules, used = recipe.modules(), reached(recipe.get, searcher)
    rest = {
        name: entry
        for name, entry in modules.items()
        if entry not in (owner, *used) and name not in _UNUSED
    }
    known = ("normalize", "CNN", "enc", "slu_enc")
    order = [rest.pop(name) for name in known if name in rest]
    if owner is None or rest:
        raise _unknown_order(recipe, rest or modules)
    return [owner, *order]


def _unknown_order(recipe, modules):
    """The error of modules that no recipe of SpeechBrain names so."""
    return ValueError(
        f"{recipe.path}: expected modules of a known order; got "
        f"{', '.join(modules)}: give --forward with their names, the "
        "backbone first"
    )


def _known_order(recipe, owner, interface):
    """Entries of the modules where none decodes token by token."""
    modules = recipe.modules()
    rest = [m for m, entry in modules.items() if entry != owner]
    if interface == "EncoderASR":
        rest = [name for name in ("enc", "ctc_lin") if name in rest]
    elif "embedding_model" in rest:
        known = ("mean_var_norm", "embedding_model", "classifier", "softmax")
        rest = [name for name in known if name in rest]
    order = [*(modules[name] for name in rest)]
    calls = {name: recipe.get(name) for name in recipe.nodes}
    names = {n: getattr(call, "name", "") for n, call in calls.items()}
    pools = [n for n, c in names.items() if c.startswith(f"{NNET}.pooling.")]
    if interface != "EncoderASR" and "embedding_model" not in rest:
        order[:0] = [name for name in pools if name not in order][:1]
    last = [n for n, c in names.items() if c in SOFTMAX and n not in order]
    order += [n for n in last if n in ("log_softmax", "softmax")][:1]
    decoder = [name for name in modules if name in _WRITERS]
    if (
        decoder
        and interface != "EncoderASR"
        or list(modules.values()) == [owner]
    ):
        what = f"a decoder, {decoder[0]}," if decoder else "a backbone alone,"
        raise ValueError(
            f"{recipe.path}: expected a recipe of CTC, of a searcher of "
            f"SpeechBrain's, of classes or of speakers; got {what} which no "
            "interface here loads: "
            "unispeech-sb convert takes the backbone"
        )
    if owner is None or not rest:
        raise _unknown_order(recipe, modules)
    return [owner, *order]
