"""What a recipe of SpeechBrain trained, as a folder that its interfaces load.

The modules are built as the recipe's yaml says, one after another; the
backbone says its sizes itself, so that the folder needs no other model.
"""

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from hyperpyyaml import load_hyperpyyaml
from torch import nn

from unispeech_sb.checkpoints.files import (
    check_finite,
    load_strict,
    public_path,
)
from unispeech_sb.checkpoints.interfaces import (
    INTERFACES,
    META_FILE,
    YAML_FILE,
    is_training_checkpoint,
)
from unispeech_sb.checkpoints.options import shown
from unispeech_sb.checkpoints.pretrained_folder import (
    is_lobe_file,
    new_folder,
    read_lobe,
    training_record,
    write_parts,
)
from unispeech_sb.checkpoints.recipe_yaml import (
    DECODERS,
    LAYER_MIX,
    LISTED,
    SOFTMAX,
    Apply,
    RecipeYaml,
    interface_of,
    order_of,
    reached,
    run_yaml,
)
from unispeech_sb.checkpoints.safe_yaml import (
    BACKBONE,
    HEADS,
    PRETRAINER,
    Name,
    New,
    Ref,
    read_plain,
)
from unispeech_sb.checkpoints.safety.pickles import read_objects
from unispeech_sb.checkpoints.sharing import write_card
from unispeech_sb.checkpoints.source import read_trained
from unispeech_sb.checkpoints.speechbrain import state_of
from unispeech_sb.convert.lobes import build_lobes
from unispeech_sb.convert.tokenizers import has_labels, labels_of
from unispeech_sb.lobes.lobe import Lobe

_PIECES = "sentencepiece.SentencePieceProcessor"
_RESERVED = {
    *("backbone", "blank_index", "decoding_function", "label_encoder"),
    *("layer_mix", "mean_var_norm_emb", "modules", "pretrainer"),
    *("sample_rate", "tokenizer"),
}
_FAULTS = (
    *(AttributeError, ImportError, LookupError, RuntimeError, TypeError),
    *(ValueError, pickle.UnpicklingError),
)
"""What modules raise that do not fit a yaml, a file or one another."""

README = """\
# {name}

What a recipe of SpeechBrain trained, exported by unispeech_sb, which must be
installed. It loads offline and from anywhere:

```python
{usage}
```

## Modules, in their order

{chain}

## Scores in the checkpoint

{scores}
"""


class _Tensors(NamedTuple):
    """What goes into a file as SpeechBrain's modules load it."""

    content: Any

    def save(self, path):
        """Writes it."""
        torch.save(self.content, path)


def export_recipe(
    ckpt: str | Path,
    dst: str | Path | None = None,
    yaml: str | Path | None = None,
    interface: str | None = None,
    forward: Sequence[str] = (),
    labels: str | Path | None = None,
    config: str | Path | None = None,
    trust: bool = False,
) -> str:
    """Exports a training checkpoint of one of SpeechBrain's recipes.

    Arguments
    ---------
    ckpt : str or pathlib.Path
        Folder of the checkpoint, ``CKPT+...``.
    dst : str or pathlib.Path, optional
        Folder to make; ``export`` in the folder of the run when omitted.
    yaml : str or pathlib.Path, optional
        Yaml of the recipe; the ``hyperparams.yaml`` of the run when omitted.
    interface : str, optional
        ``EncoderASR``, ``EncoderDecoderASR``, ``EncoderClassifier`` or
        ``SpeakerRecognition``; by what the yaml has when omitted.
    forward : sequence of str, optional
        Entries of the yaml in the order in which the recipe runs them, the
        backbone first; known orders when omitted. For ``EncoderDecoderASR``
        the last may be the searcher, that of the recipe's test when omitted.
    labels : str or pathlib.Path, optional
        Label file or SentencePiece model; that of the run when omitted.
    config : str or pathlib.Path, optional
        As for ``convert_checkpoint``.
    trust : bool
        Build classes that are not ``LISTED``, which may run any code.

    Returns
    -------
    str
        The report for the terminal.

    Raises
    ------
    ValueError
        When the checkpoint, the yaml or the labels are not as expected, or the
        modules do not fit their files or one another. Nothing is written then.

    Example
    -------
    >>> export_recipe(getfixture("tmp_path"))
    Traceback (most recent call last):
    ...
    ValueError: ...: expected a training checkpoint of SpeechBrain, ...
    """
    ckpt = Path(ckpt)
    if not is_training_checkpoint(ckpt):
        raise ValueError(
            f"{ckpt}: expected a training checkpoint of SpeechBrain, the "
            f"folder CKPT+... with {META_FILE}"
        )
    place = run_yaml(ckpt) if yaml is None else Path(yaml)
    if place is None:
        raise ValueError(
            f"{ckpt}: expected the yaml of the recipe; no {YAML_FILE} is near: "
            "give --yaml FILE"
        )
    recipe = RecipeYaml(place)
    plan = _Plan(recipe, ckpt, trust)
    plan.add_backbone(config)
    interface = interface or interface_of(recipe)
    plan.add_modules(order_of(recipe, plan.owner, interface, forward))
    plan.wire(interface, _label_file(recipe, ckpt, labels))
    if dst is None:
        dst = ckpt.absolute().parents[1] / "export"
    scores = {
        name: value
        for name, value in read_plain(ckpt / META_FILE).items()
        if type(value) in (int, float) and name not in ("unixtime",)
    }
    files = plan.files | training_record(
        scores, "valid", {"recipe": place.name}, plan.family
    )
    name = ckpt.absolute().parents[1].name
    text = README.format(
        name=name,
        usage=INTERFACES[interface].usage,
        chain=" -> ".join(plan.chain),
        scores="\n".join(f"- {k}: {v:.4g}" for k, v in scores.items()),
    )
    tags = {"tags": [plan.family]}
    files["README.md"] = write_card(text, interface, name, facts=tags)
    with new_folder(dst) as folder:
        write_parts(folder, plan.entries, files)
        notes = _tried(folder, interface, place)
    lines = [
        f"Wrote {dst} for {interface}",
        f"used    {' -> '.join(plan.chain)}",
        f"labels  {plan.labels.name}",
        *(f"note    {note}" for note in notes),
    ]
    return "\n".join(lines)


def _label_file(recipe, ckpt, given):
    """The file of the tokens or classes."""
    if given is not None:
        return Path(given)
    near = (ckpt.absolute().parent, ckpt.absolute().parents[1])
    saved = [ckpt / f"{stem}.ckpt" for stem in recipe.recoverables()]
    kept = [folder / "label_encoder.txt" for folder in near]
    for path in (*saved, *kept):
        if path.is_file() and has_labels(path):
            return path
    models = [
        part.file
        for entry, part in recipe.collected(ckpt).items()
        if getattr(recipe.get(entry), "name", "") == _PIECES
    ]
    models = models or [p for folder in near for p in folder.glob("*.model")]
    if len(models) != 1:
        raise ValueError(
            f"{ckpt}: expected the labels of the run, label_encoder.txt or one "
            f"model of SentencePiece; got {len(models)} of these: give "
            "--labels FILE"
        )
    return models[0]


class _Plan:
    """Entries of the new yaml, and what its files hold."""

    def __init__(self, recipe, ckpt, trust):
        self.recipe, self.ckpt, self.trust = recipe, ckpt, trust
        self.parts = recipe.collected(ckpt) | recipe.parts(ckpt)
        self.entries: dict[str, Any] = {}
        self.files: dict[str, Any] = {}
        self.chain: list[str] = []

    def add_backbone(self, config):
        """The backbone, by its own sizes; after one that a layer mix follows
        that as well."""
        found, self.owner, part = read_trained(self.recipe, self.ckpt, config)
        self.family = found.family
        backbone = build_lobes(found, self.ckpt)["backbone"]
        check_finite(backbone.state_dict(), self.ckpt)
        options = dict(backbone.config)
        self.files["backbone.ckpt"] = backbone
        tensors = {} if part is None else state_of(part.file)
        mixes = ("weights", "layer_mix.weights")
        mixes = [f"{part.prefix}{name}" for name in mixes if part]
        weights = [tensors[name] for name in mixes if name in tensors]
        self.chain = ["backbone"]
        if weights:
            options["output_all_hiddens"] = True
            self.add_mix(weights[0], options["hidden_size"])
        self.entries = {
            "backbone": New(BACKBONE, options),
            **self.entries,
        }

    def add_mix(self, weights, dim):
        """The weighted sum of a ``WeightedSSLModel``."""
        call = self.recipe.get(self.owner)
        given = getattr(call, "arguments", {})
        if isinstance(given, dict) and given.get("layernorm") is True:
            sizes = {"normalized_shape": dim, "elementwise_affine": False}
            self.entries["layer_norm"] = New("torch.nn.LayerNorm", sizes)
            self.chain.append("layer_norm")
        self.entries["layer_mix"] = New(LAYER_MIX, {"num_states": len(weights)})
        self.files["layer_mix.ckpt"] = _Tensors({"weights": weights})
        self.chain.append("layer_mix")

    def add_modules(self, order):
        """The modules after the backbone, and what they are made of."""
        first, *rest = order
        if first != self.owner:
            raise ValueError(
                f"--forward: expected the backbone first, {self.owner}; got "
                f"{shown(first)}"
            )
        names = self.recipe.modules()
        for name in rest:
            entry = name if name in self.recipe.nodes else names.get(name)
            if entry is None:
                raise ValueError(
                    f"--forward: expected entries of {self.recipe.path}; got "
                    f"{shown(name)}"
                )
            self.chain.append(self.add_entry(entry))

    def add_entry(self, entry):
        """An object of the recipe, after those that it refers to; its name."""
        name = f"{entry}_module" if entry in _RESERVED else entry
        if name in self.entries:
            return name
        call = self.checked(self.recipe.get(entry), entry)
        self.entries[name] = call
        part = self.parts.get(entry)
        if part is not None:
            content = self.content(part)
            if content:
                self.files[f"{name}.ckpt"] = content
        return name

    def checked(self, value, entry):
        """A value whose classes are listed; entries in it are added."""
        if isinstance(value, Ref):
            return Ref(self.add_entry(str(value)))
        if isinstance(value, (New, Name)):
            if value.name not in LISTED and not self.trust:
                raise ValueError(
                    f"{self.recipe.path}: expected {entry} of modules of "
                    f"SpeechBrain and torch; got {shown(value.name)}, which "
                    "may run any code: if you trust the recipe, say --trust"
                )
            return value._replace(
                arguments=self.checked(value.arguments, entry)
            )
        if isinstance(value, Apply):
            raise ValueError(
                f"{self.recipe.path}: expected {entry} as !new:; got what the "
                f"function {shown(value.name)} returns"
            )
        if isinstance(value, Mapping):
            return {k: self.checked(v, entry) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.checked(item, entry) for item in value]
        return value

    def content(self, part):
        """What the file of a part holds for it; nothing of one without
        state."""
        if is_lobe_file(part.file):
            read_lobe(part.file)
            return part.file
        tensors = {
            name.removeprefix(part.prefix): tensor.clone()
            for name, tensor in state_of(part.file).items()
            if name.startswith(part.prefix)
        }
        check_finite(tensors, part.file)
        if tensors or part.prefix:
            return _Tensors(tensors) if tensors else None
        return _Tensors(read_objects(part.file))  # statistics of a norm

    def wire(self, interface, labels):
        """What the interface needs beside the modules."""
        row = INTERFACES.get(interface)
        if interface not in _WIRES or row is None:
            raise ValueError(
                f"--interface: expected {', '.join(_WIRES)}; got {interface}"
            )
        self.labels = labels
        blank = self.recipe.get("blank_index")
        if interface == "EncoderASR":
            if type(blank) is not int:
                raise ValueError(
                    f"{self.recipe.path}: expected the number blank_index"
                )
            self.entries["blank_index"] = blank
        built = labels_of(labels, interface, blank)
        cls = _PIECES if built is labels else public_path(type(built))
        self.entries[row.labels] = New(cls)
        self.files[f"{row.labels}.ckpt"] = built
        self.entries |= _WIRES[interface](self.entries, self.chain)
        loaded = [Path(n).stem for n in self.files if n.endswith(".ckpt")]
        self.entries["pretrainer"] = New(
            PRETRAINER, {"loadables": {name: Ref(name) for name in loaded}}
        )


def _chain(names):
    """Modules one after another."""
    return New(f"{HEADS}.Chain", {name: Ref(name) for name in names})


def _wire_asr(entries, chain):
    """Log-posteriors of frames, decoded greedily."""
    chain = _with_softmax(entries, chain)
    blank = {"blank_id": Ref("blank_index")}
    greedy = Name("speechbrain.decoders.ctc_greedy_decode", blank)
    return {
        "decoding_function": greedy,
        "modules": {"encoder": _chain(chain)},
    }


def _with_softmax(entries, chain):
    """A chain that ends in log-posteriors."""
    if entries[chain[-1]].name in SOFTMAX:
        return chain
    softmax = New(SOFTMAX[0], {"apply_log": True})
    entries["log_softmax"] = softmax
    chain.append("log_softmax")
    return chain


def _wire_decoder(entries, chain):
    """An encoder, and what decodes token by token."""
    *encoder, searcher = chain
    # A scorer is no module: what it has goes to the device by itself
    modules = {
        name: Ref(name)
        for name in reached(entries.get, searcher)
        if type(entries[name]) is New
        and entries[name].name in LISTED
        and not entries[name].name.startswith(f"{DECODERS}.")
    }
    modules |= {"encoder": _chain(encoder), "decoder": Ref(searcher)}
    given = entries[searcher].arguments
    parts = given.get("modules") if isinstance(given, Mapping) else None
    if not parts:
        return {"modules": modules}
    # Of a Transformer, which has the last part of the encoder in it
    modules["transformer"] = parts[0]
    return {"transformer_beam_search": True, "modules": modules}


def _wire_classifier(entries, chain):
    """A vector for each utterance, and its class: what the last module with
    classes gives."""
    scored = 2 if entries[chain[-1]].name in SOFTMAX else 1
    norm = New(f"{HEADS}.PassThrough")
    return {
        "modules": {
            "compute_features": norm,
            "mean_var_norm": norm,
            "embedding_model": _chain(chain[:-scored]),
            "classifier": _chain(chain[-scored:]),
        }
    }


def _wire_speakers(entries, chain):
    """As a classifier, for verification too."""
    norm = New(f"{HEADS}.PassThrough")
    return {"mean_var_norm_emb": norm, **_wire_classifier(entries, chain)}


_WIRES = {
    "EncoderASR": _wire_asr,
    "EncoderDecoderASR": _wire_decoder,
    "EncoderClassifier": _wire_classifier,
    "SpeakerRecognition": _wire_speakers,
}
"""Interface -> its part of the yaml."""


def _tried(folder, interface, place):
    """Loads a new folder and runs it on noise; what is good to know."""
    row = INTERFACES[interface]
    try:
        with open(folder / YAML_FILE, encoding="utf-8") as file:
            hparams = load_hyperpyyaml(file)
        pretrainer = hparams["pretrainer"]
        for name, built in pretrainer.loadables.items():
            path = folder / f"{name}.ckpt"
            if isinstance(built, nn.Module) and not isinstance(built, Lobe):
                _load_module(built, path, pretrainer)
        pretrainer.collect_files(str(folder))
        pretrainer.load_collected()
        modules = nn.ModuleDict(hparams["modules"]).eval()
        lost = _without_weights(modules, pretrainer.loadables.values())
        found, size = _scores(modules, hparams)
    except _FAULTS as error:
        first = (str(error).splitlines() or [type(error).__name__])[0][:300]
        raise ValueError(
            f"{place}: expected modules that fit their files and one another "
            f"in this order ({first}); --forward gives another order"
        ) from error
    if lost:
        raise ValueError(
            f"{place}: expected the weights of {lost[0]} in the checkpoint, "
            "among the recoverables of the recipe; it was trained and not saved"
        )
    count = len(hparams[row.labels])
    if found.dim() != 3 or count > size:
        raise ValueError(
            f"{place}: expected scores of {count} labels; the modules give "
            f"{list(found.shape)} of 2 recordings: give --forward"
        )
    if count < size:
        return [f"{size} outputs, labels for {count}: the others have no name"]
    return []


def _without_weights(modules, loaded):
    """Names of parameters that no file was for."""
    parts = [built for built in loaded if isinstance(built, nn.Module)]
    known = {id(p) for built in parts for p in built.parameters()}
    named = modules.named_parameters()
    return [name for name, parameter in named if id(parameter) not in known]


def _scores(modules, hparams):
    """What modules give for noise, and of how many labels these are scores: of
    a decoder, what its encoder gives."""
    is_decoder = "decoder" in modules
    # A decoder may write many tokens a frame
    wavs = torch.randn(2, 6400 if is_decoder else 16000)
    lens = torch.tensor([1.0, 0.5])
    encoder = "encoder" if "encoder" in modules else "embedding_model"
    with torch.no_grad():
        found = modules[encoder](wavs, lens)
        if is_decoder:
            if hparams.get("transformer_beam_search"):
                found = modules["transformer"].encode(found, lens)
            modules["decoder"](found, lens)
            return found, modules["decoder"].set_n_out()
        if "classifier" in modules:
            found = modules["classifier"](found)
    return found, found.shape[-1]


def _load_module(built, path, pretrainer):
    """Loads a module strictly, where its file is a state dict: SpeechBrain
    would pass over what does not fit."""
    tensors = state_of(path)
    if tensors:
        load_strict(built, tensors, path)
