"""Trained modules to a pretrained folder that tells its own story."""

from importlib.metadata import version

from unispeech_sb.checkpoints.folder import write_pretrained

README = """\
# {name}

{summary}. It loads offline and from anywhere; unispeech_sb must be installed.

```python
{usage}
```

## Scores on the split "{scored_on}"

{scores}

## Training

{training}
{table}"""
CLASSIFIER = """\
from speechbrain.inference.classifiers import EncoderClassifier

classifier = EncoderClassifier.from_hparams(source="PATH/TO/THIS/FOLDER")
log_posteriors, score, index, label = classifier.classify_file("a.wav")"""
ASR = """\
from speechbrain.inference.ASR import EncoderASR

asr = EncoderASR.from_hparams(source="PATH/TO/THIS/FOLDER")
text = asr.transcribe_file("a.wav")"""
TOLD = (
    "data_folder",
    "corpus_version",
    "protocol",
    "model",
    "freeze",
    "freeze_backbone_updates",
    "number_of_epochs",
    "batch_size",
    "max_batch_s",
    "lr",
    "lr_backbone",
    "seed",
)
"""Keys of the yaml that the README tells, where the yaml has them."""


def export_classifier(folder, hparams, scores, scored_on, facts, table):
    """Writes what ``EncoderClassifier`` loads, replacing an older export.

    Arguments
    ---------
    folder : str or pathlib.Path
        The folder to make.
    hparams : types.SimpleNamespace
        With ``backbone``, ``head``, ``label_encoder`` and ``problem_type``.
    scores : dict
        Name -> number.
    scored_on : str
        The split they are of.
    facts : dict
        What else the README tells of the training: name -> value.
    table : str
        The per-class table.

    Example
    -------
    >>> from types import SimpleNamespace
    >>> from unispeech_sb.dataio.labels import LabelEncoder
    >>> from unispeech_sb.lobes.backbone import Backbone
    >>> from unispeech_sb.lobes.heads import UtteranceHead
    >>> hparams = SimpleNamespace(
    ...     backbone=Backbone.from_preset("tiny"),
    ...     head=UtteranceHead(input_size=16, num_classes=2),
    ...     label_encoder=LabelEncoder.from_labels(["no", "yes"]),
    ... )
    >>> path = getfixture("tmp_path") / "export"
    >>> export_classifier(path, hparams, {"accuracy": 1.0}, "test", {}, "")
    >>> sorted(p.name for p in path.iterdir() if p.suffix == ".ckpt")
    ['backbone.ckpt', 'head.ckpt', 'label_encoder.ckpt']
    """
    encoder = hparams.label_encoder
    labels = [encoder.ind2lab[index] for index in range(len(encoder))]
    readme = README.format(
        name=folder.parent.resolve().name,
        usage=CLASSIFIER,
        summary=f"One of {len(labels)} classes for each utterance: "
        + ", ".join(map(str, labels)),
        scored_on=scored_on,
        scores=_rows(scores),
        training=_training(hparams, facts),
        table=f"\n```\n{table}\n```\n",
    )
    write_pretrained(
        folder,
        {"backbone": hparams.backbone, "head": hparams.head},
        "EncoderClassifier",
        readme,
        encoder,
        replace=True,
        allow_silence="_silence_" in labels,
        problem_type=getattr(
            hparams, "problem_type", "single_label_classification"
        ),
    )


def export_asr(folder, hparams, scores, scored_on, facts):
    """Writes what ``EncoderASR`` loads, replacing an older export.

    Arguments
    ---------
    folder : pathlib.Path
        The folder to make.
    hparams : types.SimpleNamespace
        With ``backbone``, ``head`` and ``tokenizer``.
    scores : dict
        Name -> number.
    scored_on : str
        The split they are of.
    facts : dict
        What else the README tells of the training: name -> value.

    Example
    -------
    >>> from types import SimpleNamespace
    >>> from unispeech_sb.dataio.tokenizers import CTCTokenizer
    >>> from unispeech_sb.lobes.backbone import Backbone
    >>> from unispeech_sb.lobes.heads import FrameHead
    >>> tokenizer = CTCTokenizer.from_texts(["so it is"])
    >>> hparams = SimpleNamespace(
    ...     backbone=Backbone.from_preset("tiny"),
    ...     head=FrameHead(16, len(tokenizer)),
    ...     tokenizer=tokenizer,
    ... )
    >>> path = getfixture("tmp_path") / "export"
    >>> export_asr(path, hparams, {"WER": 1.0}, "test", {})
    >>> sorted(p.name for p in path.iterdir() if p.suffix == ".ckpt")
    ['backbone.ckpt', 'head.ckpt', 'tokenizer.ckpt']
    """
    tokenizer = hparams.tokenizer
    readme = README.format(
        name=folder.parent.resolve().name,
        usage=ASR,
        summary=f"Speech to text, by CTC over {len(tokenizer)} tokens",
        scored_on=scored_on,
        scores=_rows(scores),
        training=_training(hparams, facts),
        table="",
    )
    write_pretrained(
        folder,
        {"backbone": hparams.backbone, "head": hparams.head},
        "EncoderASR",
        readme,
        tokenizer,
        replace=True,
        blank_index=tokenizer.blank_index,
    )


def _training(hparams, facts):
    """What the README tells of the training."""
    told = {key: getattr(hparams, key) for key in TOLD if hasattr(hparams, key)}
    told |= facts
    told |= {p: version(p) for p in ("speechbrain", "torch")}
    return _rows(told)


def _rows(values):
    """A markdown table of names and values."""
    lines = ["| what | value |", "|---|---|"]
    for name, value in values.items():
        text = f"{value:.4g}" if isinstance(value, float) else value
        lines.append(f"| {name} | {text} |")
    return "\n".join(lines)
