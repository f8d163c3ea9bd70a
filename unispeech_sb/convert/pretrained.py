"""Checkpoints of others to folders that SpeechBrain's interfaces load."""

import hashlib
import json
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from unispeech_sb import __version__
from unispeech_sb.atomic import cached_folder
from unispeech_sb.checkpoints.checkpoint import Checkpoint, Fact
from unispeech_sb.checkpoints.files import check_finite
from unispeech_sb.checkpoints.interfaces import INTERFACES, folder_kind
from unispeech_sb.checkpoints.options import SWITCHES, default_family
from unispeech_sb.checkpoints.pretrained_folder import (
    ORIGIN_FILE,
    TEXTS_FOLDER,
    file_digest,
    write_pretrained,
)
from unispeech_sb.checkpoints.sharing import (
    hub_name,
    read_front,
    write_card,
)
from unispeech_sb.checkpoints.source import (
    READ_HERE,
    SMALL_FILES,
    WEIGHTS,
    find_source,
    read_backbone,
    read_checkpoint,
)
from unispeech_sb.checkpoints.special_tokens import WARNING
from unispeech_sb.checkpoints.texts import read_tokens
from unispeech_sb.convert.lobes import build_lobes, kind_of
from unispeech_sb.convert.tokenizers import (
    VOCABULARIES,
    take_tokens,
    tokenizer_files,
)
from unispeech_sb.dataio.labels import LabelEncoder
from unispeech_sb.dataio.tokenizers import CTCTokenizer
from unispeech_sb.lobes.adapters import load_adapter
from unispeech_sb.nnet.losses import PROBLEM_TYPES

README = """\
# {model}

Converted by unispeech_sb from `{source}`: {origin}, {family}, {task}. It
loads offline and from anywhere:

```python
{usage}
```

## Where publishers' codes differ

| switch | here | because |
|---|---|---|
{switches}

Each is an argument in `hyperparams.yaml`. `last_state`: hidden states end
after the final LayerNorm (`normed`) or before it (`raw`). `mask_rule`: valid
frames of a padded row by the convolutions' formula (`hf`) or by fairseq's
chunks (`fairseq`, where padding changes results). `tdnn_lengths`: valid
frames after dilated layers (`exact`) or as transformers counts them (`hf`).
`normalize_eps`: added to the variance of a waveform that is normalised, 1e-7
by transformers' feature extractor, 1e-5 by the authors, s3prl and SpeechBrain.

## Report

```
{report}
```
"""


class ConversionReport(NamedTuple):
    """What became of every tensor.

    Arguments
    ---------
    destination : str
        The folder that was written.
    interface : str
        SpeechBrain's interface that loads it.
    used : dict
        Module -> number of tensors.
    dropped : dict
        Name of a tensor that was left out -> why.
    notes : list of str
        What else is good to know.

    Example
    -------
    >>> print(ConversionReport("d", "WaveformEncoder", {"backbone": 2}, {}, []))
    Wrote d for WaveformEncoder
    used    backbone: 2 tensors
    dropped nothing
    """

    destination: str
    interface: str
    used: dict[str, int]
    dropped: dict[str, str]
    notes: list[str]

    def __str__(self) -> str:
        """The report as lines of text."""
        lines = [f"Wrote {self.destination} for {self.interface}"]
        lines += [f"used    {k}: {n} tensors" for k, n in self.used.items()]
        lines += [f"dropped {k}: {why}" for k, why in self.dropped.items()]
        lines += [] if self.dropped else ["dropped nothing"]
        lines += [
            note if note.startswith(WARNING) else f"note    {note}"
            for note in self.notes
        ]
        return "\n".join(lines)


def interface_of(checkpoint: Checkpoint) -> str:
    """The key of ``INTERFACES`` for a ``Checkpoint``."""
    interface = kind_of(checkpoint).interface
    if interface == "EncoderASR" and not checkpoint.tokens:
        return "WaveformEncoder"
    return interface


def convert_checkpoint(
    src: str | Path,
    dst: str | Path,
    backbone: str | Path | None = None,
    config: str | Path | None = None,
    **overrides: Any,
) -> ConversionReport:
    """Converts a checkpoint to a pretrained folder.

    Every module of the checkpoint becomes a ``.ckpt``; each tensor is used
    or dropped for a stated reason. Precision stays that of the file.

    Arguments
    ---------
    src : str or pathlib.Path
        A Hugging Face folder or hub name; a file of the authors' fairseq, of
        their speaker verification or diarization, or of s3prl; a training
        checkpoint of SpeechBrain (``CKPT+...``), or a file in it.
    dst : str or pathlib.Path
        The folder to make; must not hold anything yet.
    backbone : str or pathlib.Path, optional
        For files that hold a head only: any source of a backbone.
    config : str or pathlib.Path, optional
        For training checkpoints with tensors alone: source of the model that
        the training began with, where the yaml of the run does not tell.
    **overrides
        Options to set in place of what the files say or leave open, such as
        ``num_attention_heads``, ``mask_rule``, or ``target_lang`` for a model
        with adapters.

    Returns
    -------
    ConversionReport
        Its ``str()`` is the report for the terminal.

    Raises
    ------
    ValueError
        When ``src`` is no such checkpoint, a tensor is missing, unexpected,
        misshapen or not finite, or ``dst`` exists. Nothing is written then.

    Example
    -------
    >>> convert_checkpoint(getfixture("tmp_path"), "unused")
    Traceback (most recent call last):
    ...
    ValueError: ...: expected a checkpoint, ...; it is empty
    """
    path = find_source(src)
    found = read_checkpoint(path, overrides=overrides, config=config)
    take_tokens(found)
    if backbone is not None:
        _take_backbone(found, backbone, overrides)
    lobes = build_lobes(found, path)
    if "target_lang" in overrides:
        _set_language(found, lobes, path, overrides["target_lang"])
    for lobe in lobes.values():
        check_finite(lobe.state_dict(), path)
    interface = interface_of(found)
    used = {name: len(lobe.state_dict()) for name, lobe in lobes.items()}
    report = ConversionReport(
        str(dst), interface, used, found.dropped, found.notes
    )
    write_pretrained(
        dst,
        lobes,
        interface,
        _readme(found, lobes, src, path, report),
        _label_encoder(found, path),
        files=_files(found, path),
        **_options(found, interface, lobes),
    )
    return report


def converted_folder(source: str | Path) -> Path:
    """The pretrained folder of a Hugging Face folder, of a hub name or of a
    file, which is converted once for each content of its files.

    It is kept by ``cached_folder``. A hub name of a folder of this package is
    that folder.
    """
    path = find_source(source)
    if folder_kind(path) not in READ_HERE:
        return path
    name = f"{path.resolve().name[:80]}-{_digest(path)}"
    make = partial(convert_checkpoint, path)
    return cached_folder("converted", name, make, f"{source}: converted to")


def _digest(folder):
    """Digest of this version and of all that a conversion reads."""
    if folder.is_file():
        text = f"{__version__} {file_digest(folder)}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]
    patterns = [*SMALL_FILES, *(name for names in WEIGHTS for name in names)]
    paths = {path for p in patterns for path in folder.glob(p)}
    found = hashlib.sha256(f"{__version__}\n".encode())
    for path in sorted(path for path in paths if path.is_file()):
        found.update(f"{path.name} {file_digest(path)}\n".encode())
    return found.hexdigest()[:16]


def _options(found, interface, lobes):
    """Values of the interface's part of the yaml."""
    if interface == "EncoderClassifier":
        kind = found.config["problem_type"] or PROBLEM_TYPES[0]
        return {"problem_type": kind}
    if interface == "EncoderASR":
        return {"blank_index": found.blank_index}
    if interface != "SpeakerDiarization":
        return {}
    head = lobes["head"].config
    options = {"min_speech_s": 0.0, "min_pause_s": 0.0, "chunk_s": 30.0}
    if found.task == "ForEENDVC":  # as the authors' inference decides
        return {
            **options,
            "threshold": 0.4,
            "median_filter": 25,
            "frame_s": 0.04,
            "num_local_speakers": head["num_speakers"],
            "narrow_band": found.config["sampling_rate"] == 8000,
        }
    return {
        **options,
        "threshold": 0.5,
        "median_filter": 1,
        "frame_s": 0.02,
        "num_local_speakers": head.get("num_speakers")
        or head.get("num_classes"),
        "narrow_band": False,
    }


def _set_language(found, lobes, path, lang):
    """Puts one language's adapters and vocabulary in place."""
    if found.task != "ForCTC" or not path.is_dir():
        raise ValueError(
            f"{path}: expected a CTC model with adapters for target_lang; "
            f"got {found.task}"
        )
    load_adapter(path, str(lang), lobes["backbone"], lobes["head"])
    size = lobes["head"].config["num_classes"]
    found.tokens = read_tokens(path, size, str(lang))
    found.notes.append(f"language: {lang}")


def _take_backbone(found, backbone, overrides):
    """Puts a head on a backbone from elsewhere."""
    if found.backbone:
        raise ValueError(
            f"{backbone}: expected no other backbone; the checkpoint has one"
        )
    options, tensors, path = read_backbone(backbone)
    expected = found.config.get("hidden_size")
    if expected not in (None, options["hidden_size"]):
        raise ValueError(
            f"{path}: expected a backbone of {expected} features for this "
            f"head; got {options['hidden_size']}"
        )
    found.backbone = tensors
    if found.facts["family"].source == "assumed":
        family = options.get("family") or default_family(options)
        found.family = family
        found.facts["family"] = Fact(family, str(backbone))
    found.config = {**options, **found.config, **overrides}
    found.notes.append(f"backbone: from {backbone}")
    given = {n: Fact(v, str(backbone)) for n, v in options.items()}
    found.facts = {**given, **found.facts}


def _label_encoder(found, path):
    """Classes or tokens in SpeechBrain's encoder; None where there are none."""
    try:
        if interface_of(found) == "EncoderASR":
            return _tokenizer(found)
        names = found.tokens or found.labels
        return LabelEncoder.from_labels(names) if names else None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _tokenizer(found):
    """The tokenizer of a CTC model."""
    if found.vocabulary is not None:
        return VOCABULARIES[found.vocabulary]()
    if "vocab.json" in found.files:
        return CTCTokenizer.from_huggingface(
            found.files, found.tokens, found.blank_index
        )
    phones = tokenizer_files(found.tokens, found.blank_index)
    separator = " " if "Phoneme" in phones["tokenizer_config.json"] else ""
    return CTCTokenizer.from_tokens(
        found.tokens, found.blank_index, separator=separator
    )


def _files(found, path):
    """Texts and adapters that go along."""
    files = {f"{TEXTS_FOLDER}/{n}": text for n, text in found.files.items()}
    origin = {
        "origin": found.origin,
        "source": path.resolve().name,
        "family": found.family,
        "task": found.task,
        "weight_norm": found.config.get("weight_norm", "new"),
        "blank_index": found.blank_index,
        "labels": found.labels is not None,
        "facts": {
            name: {"value": fact.value, "source": fact.source}
            for name, fact in sorted(found.facts.items())
        },
    }
    files[ORIGIN_FILE] = json.dumps(origin, indent=1, ensure_ascii=False)
    if path.is_dir():
        files |= {adapter.name: adapter for adapter in path.glob("adapter.*")}
    return files


def _readme(found, lobes, src, path, report):
    """The folder's README, with licence and language of the model's own."""
    rows = []
    for name in (*SWITCHES, "normalize_eps"):
        for lobe in lobes.values():
            if name in lobe.config:
                why = found.facts[name].source
                rows.append(f"| {name} | {lobe.config[name]} | {why} |")
    text = README.format(
        model=Path(src).name,
        source=Path(src).name if Path(src).exists() else src,
        origin=found.origin,
        family=found.family,
        task=found.task,
        usage=INTERFACES[report.interface].usage,
        switches="\n".join(rows),
        report=str(report).partition("\n")[2],  # without the path
    )
    theirs = read_front(path)
    kept = ("license", "license_name", "license_link", "language")
    facts = {key: theirs[key] for key in kept if key in theirs}
    return write_card(
        text,
        report.interface,
        Path(src).name,
        base_model=hub_name(src) or theirs.get("base_model"),
        facts={**facts, "tags": [found.family]},
    )
