"""One CTC model, many languages: adapters that are switched at run time.

Files and names are those of transformers' Wav2Vec2 (MMS): beside the model,
``adapter.<language>.safetensors`` (or ``.bin``) holds the adapters of all
blocks and the classifier of the language's own vocabulary.
"""

import re
from pathlib import Path

import torch
from torch import nn

from unispeech_sb.checkpoints.files import (
    load_strict,
    read_tensors,
    write_tensors,
)
from unispeech_sb.checkpoints.options import FAMILIES
from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.lobes.heads.classification import FrameHead
from unispeech_sb.nnet.transformer import AttentionAdapter

SUFFIXES = (".safetensors", ".bin")
"""Kinds of files, the preferred one first."""
_PLAIN = re.compile(r"\w[\w.-]*")
"""A language, such as ``eng`` or ``zho-script_simplified``."""
CLASSIFIER = "lm_head."


class Adapters(nn.ModuleDict):
    """Modules under the names that an adapter file gives them."""


def adapter_languages(folder: str | Path) -> list[str]:
    """Lists the languages of a folder.

    Arguments
    ---------
    folder : str or pathlib.Path
        With files ``adapter.<language>.safetensors`` or ``.bin``.

    Returns
    -------
    list of str
        In alphabetical order.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> (folder / "adapter.eng.bin").touch()
    >>> adapter_languages(folder)
    ['eng']
    """
    names = [
        path.name[len("adapter.") : -len(suffix)]
        for suffix in SUFFIXES
        for path in Path(folder).glob(f"adapter.*{suffix}")
    ]
    return sorted({name for name in names if _PLAIN.fullmatch(name)})


def load_adapter(
    folder: str | Path, lang: str, backbone: Backbone, head: FrameHead
) -> None:
    """Switches a model to a language.

    Both modules are changed in place, or not at all where the file does not
    fit. The adapters' parameters stay the same objects; the classifier's are
    new ones where the vocabulary's size differs: an optimizer has to be made
    anew. Type, device and ``requires_grad`` stay.

    Arguments
    ---------
    folder : str or pathlib.Path
        With the language's file.
    lang : str
        The language.
    backbone : Backbone
        With ``adapter_attn_dim``.
    head : FrameHead
        Its ``classifier`` takes over ``lm_head``.

    Raises
    ------
    ValueError
        When there is no such language, or its file does not fit exactly.

    Example
    -------
    >>> from unispeech_sb.lobes.backbone import Backbone
    >>> load_adapter(".", "eng", Backbone.from_preset("tiny"), None)
    Traceback (most recent call last):
    ...
    ValueError: adapters: expected a backbone with adapter_attn_dim; ...
    """
    adapters = _adapters(backbone)
    path = _find(folder, lang)
    tensors = read_tensors(path)
    family = _family(tensors)
    weight = tensors.get(CLASSIFIER + "weight", head.classifier.weight)
    num_classes = max(1, len(weight)) if weight.dim() else 1
    with torch.device("meta"):  # the file's tensors take their places
        found = {
            index: AttentionAdapter(*reversed(adapter.linear_1.weight.shape))
            for index, adapter in adapters.items()
        }
        classifier = nn.Linear(head.classifier.in_features, num_classes)
    file = _under_file_names(found, classifier, family)
    load_strict(file, tensors, path, assign=True)
    _resize(head, num_classes)
    with torch.no_grad():
        target = _under_file_names(adapters, head.classifier, family)
        for own, new in zip(target.parameters(), file.parameters()):
            own.copy_(new)


def save_adapter(
    folder: str | Path,
    lang: str,
    backbone: Backbone,
    head: FrameHead,
    family: str,
) -> Path:
    """Writes the current adapters and classifier as one language.

    Arguments
    ---------
    folder : str or pathlib.Path
        Where; its file of that language is replaced.
    lang : str
        The language.
    backbone : Backbone
        With ``adapter_attn_dim``.
    head : FrameHead
        Its ``classifier`` becomes ``lm_head``.
    family : str
        One of ``checkpoints.options.FAMILIES``, which names the tensors.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    ValueError
        When the language is no plain name or there is no such family.

    Example
    -------
    >>> from unispeech_sb.lobes.backbone import Backbone
    >>> from unispeech_sb.lobes.heads import FrameHead
    >>> backbone = Backbone.from_preset(
    ...     "tiny", do_stable_layer_norm=True, adapter_attn_dim=4
    ... )
    >>> folder, head = getfixture("tmp_path"), FrameHead(16, 30)
    >>> save_adapter(folder, "eng", backbone, head, "unispeech").name
    'adapter.eng.safetensors'
    >>> load_adapter(folder, "eng", backbone, head)
    """
    if family not in FAMILIES:
        raise ValueError(
            f"family: expected {' or '.join(FAMILIES)}; got {family!r}"
        )
    path = Path(folder) / f"adapter.{_plain(lang)}{SUFFIXES[0]}"
    file = _under_file_names(_adapters(backbone), head.classifier, family)
    write_tensors(path, file.state_dict(), {"format": "pt"})
    return path


def _adapters(backbone):
    """Index of a block -> its adapter."""
    adapters = {
        str(index): layer.adapter_layer
        for index, layer in enumerate(backbone.encoder.layers)
    }
    if None in adapters.values():
        raise ValueError(
            "adapters: expected a backbone with adapter_attn_dim; this one "
            "has no adapters"
        )
    return adapters


def _under_file_names(adapters, classifier, family):
    """The modules under the names of a file."""
    layers = {
        index: nn.ModuleDict({"adapter_layer": adapter})
        for index, adapter in adapters.items()
    }
    encoder = nn.ModuleDict({"layers": nn.ModuleDict(layers)})
    prefix = FAMILIES[family].rstrip(".")
    return Adapters(
        {
            prefix: nn.ModuleDict({"encoder": encoder}),
            CLASSIFIER.rstrip("."): classifier,
        }
    )


def _family(tensors):
    """The family in a file's names; the first one if they have none."""
    for family, prefix in FAMILIES.items():
        if any(name.startswith(prefix) for name in tensors):
            return family
    return next(iter(FAMILIES))


def _find(folder, lang):
    """The file of a language."""
    for suffix in SUFFIXES:
        path = Path(folder) / f"adapter.{_plain(lang)}{suffix}"
        if path.is_file():
            return path
    languages = adapter_languages(folder)
    raise ValueError(
        f"{folder}: expected an adapter for one of the languages "
        f"{', '.join(languages) or '(none there)'}; got {lang!r}"
    )


def _plain(lang):
    """Refuses a language that could name a file elsewhere."""
    if not _PLAIN.fullmatch(lang):
        raise ValueError(
            f"language: expected letters, digits, _, - and dots; got {lang!r}"
        )
    return lang


def _resize(head, num_classes):
    """Gives a classifier new parameters where its size changes."""
    classifier = head.classifier
    if num_classes == classifier.out_features:
        return
    new = {
        name: nn.Parameter(
            old.new_empty(num_classes, *old.shape[1:]), old.requires_grad
        )
        for name, old in classifier.named_parameters()
    }
    for name, parameter in new.items():
        setattr(classifier, name, parameter)
    classifier.out_features = num_classes
    head.config["num_classes"] = num_classes
