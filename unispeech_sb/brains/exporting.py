"""Trained modules to a pretrained folder that tells its own story."""

from importlib.metadata import version

from unispeech_sb.checkpoints.pretrained_folder import write_pretrained

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
SPEAKERS = """\
from unispeech_sb.inference import SpeakerVerification

verification = SpeakerVerification.from_hparams("PATH/TO/THIS/FOLDER")
verification.verify("a.wav", "b.wav")  # score, llr, same, threshold

from speechbrain.inference.classifiers import EncoderClassifier
from speechbrain.inference.speaker import SpeakerRecognition

recognizer = SpeakerRecognition.from_hparams(source="PATH/TO/THIS/FOLDER")
cosine, _ = recognizer.verify_files("a.wav", "b.wav")  # decides at 0.25
classifier = EncoderClassifier.from_hparams(source="PATH/TO/THIS/FOLDER")
log_posteriors, score, index, speaker = classifier.classify_file("a.wav")"""
DIARIZATION = """\
from unispeech_sb.inference.diarization import SpeakerDiarization

diarization = SpeakerDiarization.from_hparams("PATH/TO/THIS/FOLDER")
found = diarization.diarize_file("a.wav")
for start, end, speaker, confidence in found.segments:
    print(f"{start:7.2f} {end:7.2f} {speaker}")"""
PRETRAINED = """\
from unispeech_sb.lobes.backbone import Backbone

backbone = Backbone.from_pretrained("PATH/TO/THIS/FOLDER")
# Every recipe takes the folder: --model=PATH/TO/THIS/FOLDER"""
THRESHOLDS = """\

## Thresholds

SpeechBrain's `verify_files` always decides at a cosine of 0.25, whatever the
model. By the calibration of this folder, on {positive} target and {negative}
non-target trials, two recordings are of one speaker more probably than not
from this cosine on:

| before listening, one speaker is as probable as | cosine |
|---|---|
{rows}
"""
PRIORS = (0.5, 0.1, 0.01)
"""Probabilities of one speaker whose thresholds a README tells."""
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


def export_speakers(folder, hparams, calibration, scores, scored_on, facts):
    """Writes what ``SpeakerRecognition`` and ``EncoderClassifier`` load,
    replacing an older export.

    Arguments
    ---------
    folder : pathlib.Path
        The folder to make.
    hparams : types.SimpleNamespace
        With ``backbone``, ``head``, ``objective`` and ``label_encoder``, the
        speakers of the training.
    calibration : unispeech_sb.metrics.calibration.Calibration or None
        Of the cosines. Left out where it was not fitted to any trial.
    scores : dict
        Name -> number.
    scored_on : str
        The split they are of.
    facts : dict
        What else the README tells of the training: name -> value.

    Example
    -------
    >>> from types import SimpleNamespace
    >>> from unispeech_sb.dataio.labels import LabelEncoder
    >>> from unispeech_sb.lobes.backbone import Backbone
    >>> from unispeech_sb.lobes.heads import AMSoftmax, SpeakerHead
    >>> hparams = SimpleNamespace(
    ...     backbone=Backbone.from_preset("tiny"),
    ...     head=SpeakerHead(16, [8], [1], [1], xvector_output_dim=4),
    ...     objective=AMSoftmax(4, num_classes=2),
    ...     label_encoder=LabelEncoder.from_labels(["ann", "bob"]),
    ... )
    >>> path = getfixture("tmp_path") / "export"
    >>> export_speakers(path, hparams, None, {"EER": 1.0}, "test", {})
    >>> sorted(p.stem for p in path.iterdir() if p.suffix == ".ckpt")
    ['backbone', 'head', 'label_encoder', 'objective']
    """
    if calibration is not None and not any(calibration.num_trials):
        calibration = None
    readme = README.format(
        name=folder.parent.resolve().name,
        usage=SPEAKERS,
        summary="Speaker verification by the cosine of two embeddings, "
        f"trained on {len(hparams.label_encoder)} speakers",
        scored_on=scored_on,
        scores=_rows(scores),
        training=_training(hparams, facts),
        table=_thresholds(calibration),
    )
    names = ("backbone", "head", "objective")
    write_pretrained(
        folder,
        {name: getattr(hparams, name) for name in names},
        "SpeakerRecognition",
        readme,
        hparams.label_encoder,
        replace=True,
        calibration=calibration,
    )


def export_diarization(folder, hparams, decision, scores, scored_on, facts):
    """Writes what ``SpeakerDiarization`` loads, replacing an older export.

    Arguments
    ---------
    folder : pathlib.Path
        The folder to make.
    hparams : types.SimpleNamespace
        With ``backbone``, ``head``, ``num_speakers``, ``window_s``,
        ``frame_s``, ``min_speech_s``, ``min_pause_s`` and ``narrow_band``.
    decision : unispeech_sb.brains.decisions.Decision
        Threshold and median filter.
    scores : dict
        Name -> number.
    scored_on : str
        The split they are of.
    facts : dict
        What else the README tells of the training: name -> value.

    Example
    -------
    >>> from types import SimpleNamespace
    >>> from unispeech_sb.brains.decisions import Decision
    >>> from unispeech_sb.lobes.backbone import Backbone
    >>> from unispeech_sb.lobes.heads import DiarizationHead
    >>> hparams = SimpleNamespace(
    ...     backbone=Backbone.from_preset("tiny"),
    ...     head=DiarizationHead(16, hidden_size=4),
    ...     num_speakers=2,
    ...     window_s=8.0,
    ...     frame_s=0.02,
    ...     **{"min_speech_s": 0.0, "min_pause_s": 0.0},
    ...     narrow_band=False,
    ... )
    >>> path = getfixture("tmp_path") / "export"
    >>> export_diarization(path, hparams, Decision(), {"DER": 9.0}, "test", {})
    >>> sorted(p.name for p in path.iterdir() if p.suffix == ".ckpt")
    ['backbone.ckpt', 'head.ckpt']
    """
    readme = README.format(
        name=folder.parent.resolve().name,
        usage=DIARIZATION,
        summary=f"Who speaks when: up to {hparams.num_speakers} speakers "
        f"in {hparams.window_s:g} s",
        scored_on=scored_on,
        scores=_rows(scores),
        training=_training(hparams, facts),
        table="",
    )
    names = ("frame_s", "min_speech_s", "min_pause_s", "narrow_band")
    write_pretrained(
        folder,
        {"backbone": hparams.backbone, "head": hparams.head},
        "SpeakerDiarization",
        readme,
        replace=True,
        num_local_speakers=hparams.num_speakers,
        chunk_s=hparams.window_s,
        **decision._asdict(),
        **{name: getattr(hparams, name) for name in names},
    )


def export_pretraining(folder, hparams, scores, scored_on, facts):
    """Writes what ``Backbone.from_pretrained`` loads, replacing an older one.

    Arguments
    ---------
    folder : pathlib.Path
        The folder to make.
    hparams : types.SimpleNamespace
        With ``backbone``, ``head`` and, where there are phones, ``tokenizer``.
    scores : dict
        Name -> number.
    scored_on : str
        The split they are of.
    facts : dict
        What else the README tells of the training: name -> value.

    Example
    -------
    >>> from types import SimpleNamespace
    >>> from unispeech_sb.lobes.backbone import Backbone
    >>> from unispeech_sb.lobes.heads import UniSpeechSATHead
    >>> hparams = SimpleNamespace(
    ...     backbone=Backbone.from_preset("tiny"),
    ...     head=UniSpeechSATHead(16, 9, 12, [2, 4, 6]),
    ... )
    >>> path = getfixture("tmp_path") / "export"
    >>> export_pretraining(path, hparams, {"loss": 1.0}, "valid", {})
    >>> sorted(p.name for p in path.iterdir() if p.suffix == ".ckpt")
    ['backbone.ckpt', 'head.ckpt']
    """
    readme = README.format(
        name=folder.parent.resolve().name,
        usage=PRETRAINED,
        summary="A pre-trained backbone, and the head that it was trained by",
        scored_on=scored_on,
        scores=_rows(scores),
        training=_training(hparams, facts),
        table="",
    )
    lobes = {name: getattr(hparams, name) for name in ("backbone", "head")}
    write_pretrained(folder, lobes, "WaveformEncoder", readme, replace=True)
    if hasattr(hparams, "tokenizer"):
        hparams.tokenizer.save(folder / "tokenizer.ckpt")


def _thresholds(calibration):
    """What the README tells of decisions; nothing where it depends on more
    than the cosine."""
    if calibration is None or calibration.quality:
        return ""
    rows = [f"| {p:g} | {calibration.threshold(p):.4f} |" for p in PRIORS]
    positive, negative = calibration.num_trials
    return THRESHOLDS.format(
        positive=positive, negative=negative, rows="\n".join(rows)
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
