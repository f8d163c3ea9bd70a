"""Pretrained folders back to Hugging Face, for transformers to load."""

import inspect
import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch

from unispeech_sb.checkpoints.files import write_tensors
from unispeech_sb.checkpoints.huggingface import (
    CLASSES,
    CONV,
    HEAD_TENSORS,
    WEIGHT_NORM,
    join_heads,
)
from unispeech_sb.checkpoints.interfaces import (
    folder_kind,
    is_training_checkpoint,
)
from unispeech_sb.checkpoints.options import (
    BACKBONE,
    FAMILIES,
    HEADS,
    OPTIONS,
    OURS,
    SWITCHES,
    WAV_NORM_EPS,
    check_config,
    check_overrides,
    default_family,
    missing_in,
    shown,
)
from unispeech_sb.checkpoints.pretrained_folder import (
    LABEL_FILES,
    TOKENIZER_FILE,
    Pretrained,
    new_folder,
    read_pretrained,
)
from unispeech_sb.checkpoints.source import READ_HERE
from unispeech_sb.convert.lobes import KINDS, check_lobe, kinds_of
from unispeech_sb.convert.pretrained import convert_checkpoint
from unispeech_sb.convert.tokenizers import tokenizer_files
from unispeech_sb.dataio.labels import LabelEncoder
from unispeech_sb.dataio.tokenizers import CTCTokenizer
from unispeech_sb.lobes.backbone import Backbone

NO_CLASS = (
    "{folder}: transformers has no class for {head}; --backbone-only writes "
    "the backbone"
)
MASK = "masked_spec_embed"


def to_huggingface(
    folder: str | Path,
    dst: str | Path,
    family: str | None = None,
    backbone_only: bool = False,
    config: str | Path | None = None,
    **overrides: Any,
) -> str:
    """Writes a folder that transformers loads without a missing key.

    Arguments
    ---------
    folder : str or pathlib.Path
        A folder that a recipe exported or ``convert_checkpoint`` wrote, or
        what the latter reads.
    dst : str or pathlib.Path
        The folder to make; must not hold anything yet.
    family : str, optional
        One of ``checkpoints.options.FAMILIES``; that of the folder's origin
        when omitted, or of the model that a recipe trained if transformers
        has a class of it; else ``unispeech-sat``, or ``wavlm`` for a backbone
        with its relative positions.
    backbone_only : bool
        Leave the head out.
    config : str or pathlib.Path, optional
        As for ``convert_checkpoint``.
    **overrides
        Options of ``Backbone`` in place of those of the folder, such as
        ``output_norm=False`` for what transformers has no step for.

    Returns
    -------
    str
        The report for the terminal.

    Raises
    ------
    ValueError
        When transformers has no class for the folder's modules. Nothing is
        written then.

    Example
    -------
    >>> from unispeech_sb.lobes.backbone import Backbone
    >>> folder = getfixture("tmp_path")
    >>> Backbone.from_preset("tiny").save(folder / "backbone.ckpt")
    >>> print(to_huggingface(folder, folder / "hf"))
    Wrote ... for transformers.UniSpeechSatModel
    ...
    """
    kind = folder_kind(folder)
    read = is_training_checkpoint(folder) or kind in READ_HERE
    if not read and Path(folder).exists():
        return _write(folder, dst, family, backbone_only, overrides)
    with TemporaryDirectory() as place:
        new = Path(place, "converted")
        convert_checkpoint(folder, new, None, config, **overrides)
        try:
            return _write(new, dst, family, backbone_only, overrides)
        except ValueError as error:
            sentence = str(error).replace(str(new), str(folder))
            raise ValueError(sentence) from error


def _write(folder, dst, family, backbone_only, overrides):
    """Writes what a pretrained folder has; the report."""
    found = _with_options(read_pretrained(folder), overrides)
    model = _model(found, family, backbone_only)
    texts = model.texts
    with new_folder(dst) as temporary:
        path = temporary / "model.safetensors"
        write_tensors(path, model.tensors, {"format": "pt"})
        for file, text in texts.items():
            (temporary / file).write_text(text, encoding="utf-8")
        for adapter in found.folder.glob("adapter.*"):
            shutil.copyfile(adapter, temporary / adapter.name)
    lines = [
        f"Wrote {dst} for transformers.{model.name}",
        f"used    {len(model.tensors)} tensors, "
        f"files: {', '.join(sorted(texts))}",
    ]
    return "\n".join(lines + [f"note    {note}" for note in model.notes])


def _with_options(found, overrides):
    """A folder whose backbone has some other options."""
    check_overrides(overrides)
    file = found.lobes["backbone"]
    known = inspect.signature(Backbone).parameters
    for name in overrides:
        if name not in known:
            raise ValueError(
                f"--set: expected an option of the backbone; got {name}"
            )
    file = file._replace(config={**file.config, **overrides})
    return found._replace(lobes={**found.lobes, "backbone": file})


def why_not(found: Pretrained, backbone_only: bool = False) -> str | None:
    """Why ``to_huggingface`` would refuse what a folder has, ``Pretrained``;
    None where all of it can be written."""
    try:
        _model(found, backbone_only=backbone_only)
    except ValueError as error:
        return str(error).removeprefix(f"{found.folder}: ")
    return None


class _Model(NamedTuple):
    """What a folder of transformers has: class, tensors, texts, notes."""

    name: str
    tensors: dict[str, torch.Tensor]
    texts: dict[str, str]
    notes: list[str]


def _model(found, family=None, backbone_only=False):
    """A folder's model as transformers has it."""
    lobes = {}
    for name, file in found.lobes.items():
        path = found.folder / f"{name}.ckpt"
        lobe = check_lobe(file, path)
        if name == "backbone" and not isinstance(lobe, Backbone):
            raise ValueError(
                f"{path}: expected a Backbone; got {type(lobe).__name__}"
            )
        lobes[name] = file._replace(config=lobe.config)
    found = found._replace(lobes=lobes)
    kind = KINDS[0] if backbone_only else _kind(found)
    task = kind.task
    family, family_notes = _family(found, family, kind)
    name = _class_name(found, family, kind)
    labels = _labels(found) if task != "Model" else None
    config = _config(found, family, name)
    if kind.options is not None:
        options = kind.options(found.lobes["head"].config)
        _check_slots(found, task, labels)
        config |= {
            k: value for k, value in options.items() if value is not None
        }
        config |= _label_options(found, task, labels)
    check_config(config, found.folder)
    tensors = _tensors(found, family, task, config)
    texts = dict(found.texts)
    if task == "ForCTC" and labels and "vocab.json" not in texts:
        texts |= tokenizer_files(labels, config["pad_token_id"])
    texts["config.json"] = _json(config)
    texts["preprocessor_config.json"] = _preprocessor(found, config)
    notes = family_notes + _notes(found, config)
    return _Model(name, tensors, texts, notes)


def _family(found, given, kind):
    """The family to write, and notes: what is given, else that of the origin,
    the objective, or the model that a recipe trained, where it has a class."""
    family = given or found.origin.get("family") or kind.family
    if family:
        return family, []
    backbone = found.lobes["backbone"].config
    family, default = found.training.get("family"), default_family(backbone)
    if family in (None, default):
        return default, []
    fits = (family, kind.task) in CLASSES.values()
    if fits and missing_in(family, backbone) is None:
        return family, []
    return default, [
        f"trained from a model of {shown(family)}, of which transformers has "
        f"no {kind.task} with this backbone: written as {default!r}"
    ]


def _kind(found):
    """What stands on the backbone, which transformers has to have."""
    if found.others:
        others = ", ".join(found.others)
        raise ValueError(NO_CLASS.format(folder=found.folder, head=others))
    if "head" not in found.lobes:
        return KINDS[0]
    path = found.folder / "head.ckpt"
    kinds = {kind.task: kind for kind in kinds_of(found.lobes["head"], path)}
    task = "ForCTC" if "ForCTC" in kinds and _is_ctc(found) else [*kinds][-1]
    if not kinds[task].in_transformers:
        name = found.lobes["head"].name
        raise ValueError(NO_CLASS.format(folder=found.folder, head=name))
    if task == "ForCTC":
        _check_tokenizer(found)
    return kinds[task]


def _check_tokenizer(found):
    """Refuses tokens that transformers' CTC tokenizers cannot have."""
    tokenizer = _tokenizer(found)
    if tokenizer is None and found.origin.get("blank_index") is None:
        raise ValueError(
            f"{found.folder}: expected to know CTC's blank, which "
            "transformers needs; convert with --set dictionary=PATH"
        )
    kind = ""
    if tokenizer is not None and tokenizer.sentencepiece:
        kind = "SentencePiece's pieces"
    elif tokenizer is not None and tokenizer.has_tags:
        kind = "tags of slots"
    if kind:
        raise ValueError(
            f"{found.folder}: transformers has no CTC tokenizer of {kind}; "
            "--backbone-only writes the backbone"
        )


def _is_ctc(found):
    """Whether a frame head's outputs are tokens of CTC."""
    tokenizer = found.folder / TOKENIZER_FILE
    return found.origin.get("task") == "ForCTC" or tokenizer.is_file()


def _tokenizer(found):
    """The folder's tokenizer, if it has one."""
    path = found.folder / TOKENIZER_FILE
    if not path.is_file():
        return None
    tokenizer = CTCTokenizer()
    tokenizer.load_strict(path)
    return tokenizer


def _blank_index(found):
    """Index of CTC's blank; None where nothing tells."""
    tokenizer = _tokenizer(found)
    if tokenizer is None:
        return found.origin.get("blank_index")
    return tokenizer.blank_index


def _class_name(found, family, kind):
    """transformers' class of a family and a kind of head."""
    names, task = {known: name for name, known in CLASSES.items()}, kind.task
    backbone = found.lobes["backbone"].config
    missing = missing_in(family, backbone)
    if missing is not None:
        raise ValueError(
            f"{found.folder}: transformers' models of {family!r} have no "
            f"backbone with {missing}; --family {default_family(backbone)} has"
        )
    if (family, task) not in names:
        other = default_family(backbone)
        hint = ""
        if (other, task) in names and missing_in(other, backbone) is None:
            hint = (
                f"--family {other} has one, and the backbone is the same, or "
            )
        raise ValueError(
            f"{found.folder}: transformers has no {task} of {family!r}; "
            f"{hint}--backbone-only writes the backbone"
        )
    if task == "ForPreTraining":
        _check_pretraining(found, family, kind)
    return names[family, task]


def _check_pretraining(found, family, kind):
    """Refuses objectives that transformers' classes cannot hold."""
    head, needed = found.lobes["head"], {"quantizer.codevectors"}
    fits = kind.family == {"wav2vec2": "unispeech"}.get(family, family)
    if fits and family == "wav2vec2":  # without phones
        fits = not head.config["project_up"]
    elif fits and family == "unispeech":
        needed.add("ctc_proj.weight")
        fits = head.config["project_up"]
    elif fits:
        needed.add("speaker_proj.weight")
        label_dim = head.config["label_dim"]
        sizes = head.config["codevectors"]
        fits = sizes and label_dim in (None, sizes[-1])
    if not fits or needed - head.tensors.keys():
        raise ValueError(
            f"{found.folder}: transformers' class for {family} has no place "
            "for this objective (its parts or their sizes differ); "
            "--backbone-only writes the backbone"
        )


def _check_slots(found, task, labels):
    """Refuses a head that decides several things at once."""
    num_classes = found.lobes["head"].config.get("num_classes")
    if task == "ForSequenceClassification" and labels:
        if len(labels) != num_classes:
            text = f"{len(labels)} labels of {num_classes} outputs"
            raise ValueError(NO_CLASS.format(folder=found.folder, head=text))


def _labels(found):
    """Classes or tokens by index, where the folder has them."""
    for name in LABEL_FILES:
        if (found.folder / name).is_file():
            return LabelEncoder.read_labels(found.folder / name)
    return None


def _config(found, family, name):
    """``config.json``: the one that came, with what is true here."""
    backbone = found.lobes["backbone"].config
    config = _came_with(found)
    config.setdefault("apply_spec_augment", True)
    config |= {
        key: backbone[key]
        for key in BACKBONE
        if key in backbone
        and family in (OPTIONS[key].families or family).split()
    }
    config |= {"model_type": family, "architectures": [name]}
    config |= {key: backbone[key] for key in SWITCHES if key in backbone}
    config["normalize_eps"] = backbone["normalize_eps"]
    facts = found.origin.get("facts", {})
    for token in ("bos_token_id", "eos_token_id", "unk_token_id"):
        if config.get(token) is not None and token in facts:
            config[token] = facts[token]["value"]
    config["num_feat_extract_layers"] = len(backbone["conv_dim"])
    precision = found.lobes["backbone"].tensors[MASK].dtype
    key = "torch_dtype" if "torch_dtype" in config else "dtype"
    config[key] = str(precision).removeprefix("torch.")
    return config


def _label_options(found, task, labels):
    """Options of a head that depend on its tokens or classes."""
    if task == "ForCTC":
        blank = _blank_index(found)
        if "vocab.json" in found.texts or not labels:
            return {"pad_token_id": blank}
        # fairseq's order: blank, padding (here <s>), end, unknown
        names = "pad_token_id", "bos_token_id", "eos_token_id"
        return {name: blank + place for place, name in enumerate(names)}
    if task == "ForPreTraining" or not labels:
        return {}
    return {
        "id2label": {str(i): name for i, name in enumerate(labels)},
        "label2id": {name: i for i, name in enumerate(labels)},
    }


def _came_with(found):
    """The options that the folder's origin had."""
    if "config.json" in found.texts:
        return json.loads(found.texts["config.json"])
    facts = found.origin.get("facts", {})
    return {name: facts[name]["value"] for name in HEADS if name in facts}


def _tensors(found, family, task, config):
    """Every tensor under the name that transformers gives it."""
    prefix = "" if task == "Model" else FAMILIES[family]
    backbone = dict(found.lobes["backbone"].tensors)
    if CONV + "weight" in backbone:
        weight = backbone.pop(CONV + "weight")
        norm = weight.float().norm(dim=(0, 1), keepdim=True).to(weight.dtype)
        original = CONV + "parametrizations.weight.original"
        backbone |= {original + "0": norm, original + "1": weight}
    if found.origin.get("weight_norm") == "old":
        for old, new in WEIGHT_NORM.items():
            backbone[old] = backbone.pop(new)
    masks = config["mask_time_prob"] > 0 or config["mask_feature_prob"] > 0
    if family != "unispeech-sat" and not masks:
        del backbone[MASK]  # transformers makes none then
    tensors = {prefix + name: tensor for name, tensor in backbone.items()}
    if task == "Model":
        return tensors
    heads = {k: file for k, file in found.lobes.items() if k != "backbone"}
    for lobe, file in heads.items():
        several = file.config.get("sub_centers", 1) > 1
        if lobe not in HEAD_TENSORS[task] or several:
            raise ValueError(
                NO_CLASS.format(folder=found.folder, head=file.name)
            )
    tensors |= join_heads({k: file.tensors for k, file in heads.items()}, task)
    norm = "layer_norm_for_extract."
    if family == "unispeech-sat" and task == "ForPreTraining":
        size = config["hidden_size"]  # published Base models have none
        tensors.setdefault(norm + "weight", torch.ones(size))
        tensors.setdefault(norm + "bias", torch.zeros(size))
    if task == "ForXVector" and "objective.weight" not in tensors:
        raise ValueError(
            f"{found.folder}: expected objective.ckpt, which transformers' "
            "x-vector class needs; --backbone-only writes the backbone"
        )
    return tensors


def _preprocessor(found, config):
    """``preprocessor_config.json``: the one that came, or a new one."""
    new = {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "feature_size": 1,
        "padding_side": "right",
        "padding_value": 0.0,
        # the group-norm models were trained without one
        "return_attention_mask": config["feat_extract_norm"] == "layer",
        "sampling_rate": 16000,
    }
    came = found.texts.get("preprocessor_config.json")
    settings = json.loads(came) if came else new
    normalizes = found.lobes["backbone"].config["normalize_wav"]
    if came and settings.get("do_normalize") == normalizes:
        return came
    return _json({**settings, "do_normalize": normalizes})


def _json(content):
    """JSON as transformers lays it out."""
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _notes(found, config):
    """Where transformers will not do what this package does."""
    backbone = found.lobes["backbone"].config
    for name, option in OURS.items():
        if option.only_here and backbone[name] != option.default:
            raise ValueError(
                f"{found.folder}: expected {name} {option.default}; "
                f"transformers has no such step: --set {name}="
                f"{option.default} leaves it out"
            )
    notes = []
    mixes = config.get("use_weighted_layer_sum") and len(found.lobes) > 1
    stable = config["do_stable_layer_norm"] and mixes
    if stable and backbone.get("last_state") == "normed":
        notes.append(
            "the layer mix was trained with the last state after the final "
            "LayerNorm: transformers 4 gives that, transformers 5 the one "
            "before it"
        )
    if backbone["normalize_wav"] and backbone["normalize_eps"] != WAV_NORM_EPS:
        notes.append(
            f"waveforms are normalised with epsilon {WAV_NORM_EPS:g} there, "
            f"{backbone['normalize_eps']:g} here"
        )
    if config["feat_extract_norm"] == "group":
        notes.append(
            "in transformers, results of a group-norm model depend on the "
            "padding; here they do not"
        )
    return notes
