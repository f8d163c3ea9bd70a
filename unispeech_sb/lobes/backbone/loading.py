"""Backbones by name: presets, pretrained folders, Hugging Face, the hub.

The functions here are class methods of ``Backbone``.
"""

import difflib
import inspect
from pathlib import Path

from unispeech_sb.checkpoints.files import load_strict
from unispeech_sb.checkpoints.source import read_backbone
from unispeech_sb.lobes.backbone.presets import PRESETS
from unispeech_sb.lobes.lobe import without_weights


def from_preset(cls, name, **overrides):
    """Builds a backbone by name: the one dial of a recipe.

    Arguments
    ---------
    name : str
        A name in ``PRESETS`` for random weights, or any source of
        ``from_pretrained``.
    **overrides
        Any option of ``Backbone``.

    Returns
    -------
    Backbone
        In training mode.

    Raises
    ------
    ValueError
        When there is no such preset or option.

    Example
    -------
    >>> from unispeech_sb.lobes.backbone import Backbone
    >>> Backbone.from_preset("tiny", num_hidden_layers=1).num_states
    2
    """
    if name in PRESETS:
        _check_options(cls, overrides)
        return cls(**{**PRESETS[name], **overrides})
    if "/" not in str(name) and not Path(name).exists():
        raise ValueError(
            f"model: expected a preset ({', '.join(PRESETS)}), a folder "
            f"or a hub name; got {name!r}"
        )
    return cls.from_pretrained(name, **overrides)


def from_pretrained(
    cls,
    source,
    save_path=None,
    output_norm=False,
    freeze=False,
    freeze_feature_extractor=False,
    apply_spec_augment=False,
    output_all_hiddens=False,
    **overrides,
):
    """Loads a checkpoint, with the keywords of SpeechBrain's SSL lobes.

    Arguments
    ---------
    source : str or pathlib.Path
        A pretrained folder (with ``backbone.ckpt``), a Hugging Face
        folder of any UniSpeech or UniSpeech-SAT class, the name of one
        on the hub, or a file of the authors' (fairseq, speaker
        verification, diarization).
    save_path : str, optional
        Where downloads are kept; the hub's own cache when omitted.
    output_norm : bool
        Normalise the output of each utterance over time and channels.
    freeze : bool
        Train nothing.
    freeze_feature_extractor : bool
        Do not train the convolutions.
    apply_spec_augment : bool
        Mask spans in training, as the checkpoint's options say.
    output_all_hiddens : bool
        ``forward`` returns all hidden states.
    **overrides
        Any other option of ``Backbone``, such as ``layerdrop``.

    Returns
    -------
    Backbone
        In training mode (in evaluation mode when frozen).

    Raises
    ------
    ValueError
        When the source is no checkpoint, is damaged or does not fit.

    Example
    -------
    >>> from unispeech_sb.lobes.backbone import Backbone
    >>> folder = getfixture("tmp_path")
    >>> Backbone.from_preset("tiny").save(folder / "backbone.ckpt")
    >>> Backbone.from_pretrained(folder, freeze=True).training
    False
    """
    _check_options(cls, overrides)
    found, tensors, path = read_backbone(source, save_path)
    options = {name: found[name] for name in _options(cls) if name in found}
    options.update(
        overrides,
        output_norm=output_norm,
        freeze=freeze,
        freeze_feature_extractor=freeze_feature_extractor,
        apply_spec_augment=apply_spec_augment,
        output_all_hiddens=output_all_hiddens,
    )
    with without_weights(path):  # the file's tensors take their places
        backbone = cls(**options)
    load_strict(backbone, tensors, path, assign=True)
    return backbone


def _options(cls):
    """Names of the options of a backbone class."""
    return list(inspect.signature(cls).parameters)


def _check_options(cls, overrides):
    """Refuses an option that the backbone does not have."""
    known = _options(cls)
    for name in overrides:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise ValueError(
                f"Backbone: expected an option of its own; got {name!r}{hint}"
            )
