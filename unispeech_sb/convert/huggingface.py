"""Hugging Face checkpoints to folders that SpeechBrain's interfaces load."""

from typing import NamedTuple

import torch

from unispeech_sb.checkpoints.files import load_strict
from unispeech_sb.checkpoints.folder import write_pretrained
from unispeech_sb.checkpoints.huggingface import read_huggingface
from unispeech_sb.checkpoints.keys import (
    SEQUENCE_CLASSIFICATION,
    UNCONVERTED,
)
from unispeech_sb.checkpoints.source import find_folder
from unispeech_sb.dataio.labels import LabelEncoder
from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.lobes.heads import UtteranceHead
from unispeech_sb.nnet.losses import PROBLEM_TYPES

README = """\
# {model}

Converted from the Hugging Face checkpoint `{source}` ({architecture}) by
unispeech_sb. It loads offline and from anywhere:

```python
{usage}
```

{report}
"""
USAGE = {
    "EncoderClassifier": """\
from speechbrain.inference.classifiers import EncoderClassifier

classifier = EncoderClassifier.from_hparams(source="PATH/TO/THIS/FOLDER")
log_posteriors, score, index, label = classifier.classify_file("a.wav")""",
    "WaveformEncoder": """\
from speechbrain.inference.encoders import WaveformEncoder

encoder = WaveformEncoder.from_hparams(source="PATH/TO/THIS/FOLDER")
features = encoder.encode_batch(wavs, wav_lens)  # [B, T, D]""",
}


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
    used: dict
    dropped: dict
    notes: list

    def __str__(self):
        """The report as lines of text."""
        lines = [f"Wrote {self.destination} for {self.interface}"]
        lines += [f"used    {k}: {n} tensors" for k, n in self.used.items()]
        lines += [f"dropped {k}: {why}" for k, why in self.dropped.items()]
        lines += [] if self.dropped else ["dropped nothing"]
        lines += [f"note    {note}" for note in self.notes]
        return "\n".join(lines)


def convert_checkpoint(src, dst):
    """Converts a Hugging Face checkpoint to a pretrained folder.

    ``ForSequenceClassification`` becomes a folder for ``EncoderClassifier``;
    every other class one with its backbone. Each tensor is used or dropped
    for a stated reason.

    Arguments
    ---------
    src : str or pathlib.Path
        A Hugging Face folder, or the name of a model on the hub.
    dst : str or pathlib.Path
        The folder to make; must not hold anything yet.

    Returns
    -------
    ConversionReport
        Its ``str()`` is the report for the terminal.

    Raises
    ------
    ValueError
        When ``src`` is no such checkpoint, a tensor is missing, unexpected
        or misshapen, or ``dst`` exists. Nothing is written then.

    Example
    -------
    >>> convert_checkpoint(getfixture("tmp_path"), "unused")
    Traceback (most recent call last):
    ...
    ValueError: ...: expected config.json of a Hugging Face checkpoint
    """
    folder = find_folder(src)
    found = read_huggingface(folder)
    architecture = (found.config.get("architectures") or ["unknown class"])[0]
    classifies = architecture.endswith("ForSequenceClassification")
    interface = "EncoderClassifier" if classifies else "WaveformEncoder"
    lobes = {"backbone": Backbone.from_pretrained(folder)}
    dropped, labels, options = {}, None, {}
    if classifies:
        lobes["head"] = _sequence_head(found, folder)
        labels = _labels(found.config)
        options = {
            "allow_silence": False,
            "problem_type": found.config.get("problem_type")
            or PROBLEM_TYPES[0],
        }
    else:
        dropped = {name: _reason(name, folder) for name in found.top}
    used = {name: len(lobe.state_dict()) for name, lobe in lobes.items()}
    report = ConversionReport(str(dst), interface, used, dropped, found.notes)
    readme = README.format(
        model=folder.resolve().name,
        source=src,
        architecture=architecture,
        usage=USAGE[interface],
        report=report,
    )
    write_pretrained(dst, lobes, interface, readme, labels, **options)
    return report


def _sequence_head(found, folder):
    """The utterance head of a sequence classifier."""
    config, weights = found.config, {}
    for name, tensor in found.top.items():
        weights[SEQUENCE_CLASSIFICATION.get(name, name)] = tensor
    with torch.device("meta"):
        head = UtteranceHead(
            input_size=config["hidden_size"],
            num_classes=len(_id2label(config)),
            proj_size=config["classifier_proj_size"],
            use_weighted_layer_sum=config["use_weighted_layer_sum"],
            num_states=config["num_hidden_layers"] + 1,
        )
    load_strict(head, weights, folder, assign=True)
    return head


def _reason(name, folder):
    """Why a tensor outside the backbone is left, or an error."""
    part = name.split(".")[0]
    if part not in UNCONVERTED:
        raise ValueError(f"{folder}: expected no tensor {name!r}")
    return UNCONVERTED[part]


def _id2label(config):
    """Class names of a configuration by index; transformers' defaults."""
    default = {"0": "LABEL_0", "1": "LABEL_1"}
    return config.get("id2label") or default


def _labels(config):
    """The label encoder of a configuration."""
    names = {int(i): label for i, label in _id2label(config).items()}
    return LabelEncoder.from_labels([names[i] for i in range(len(names))])
