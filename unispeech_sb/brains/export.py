"""Trained modules to a pretrained folder, with a README of their training.

Each ``export_...`` function writes what one of SpeechBrain's interfaces loads,
in the place of an older export. ``hparams`` are those of the recipe, with its
modules in them; ``scores``, name -> number, are of the split ``scored_on``;
``facts``, name -> value, are what else the README says of the training.
"""

from importlib.metadata import version
from itertools import product

from unispeech_sb.checkpoints.interfaces import INTERFACES
from unispeech_sb.checkpoints.pretrained_folder import (
    training_record,
    write_pretrained,
)
from unispeech_sb.checkpoints.sharing import hub_name, write_card
from unispeech_sb.dataio.labels import LabelEncoder
from unispeech_sb.nnet.losses import PROBLEM_TYPES

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
SLOTS = """\

## Slots

```python
from unispeech_sb.inference.asr import LongFormASR

asr = LongFormASR.from_hparams("PATH/TO/THIS/FOLDER")
for name, value in asr.transcribe_long("a.wav").slots:
    print(name, value)
```
"""
PADDING = """
Scores are by SUPERB's protocol. An utterance gives the same in a padded batch
as alone here. In s3prl it does not: with random weights and half the length of
the batch, the last hidden state is off by 48 % rms in Base and 3 % in Large. So
only results of utterances alone can equal s3prl's.
"""
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
"""Probabilities of one speaker whose thresholds are in a README."""
REPORTED = (
    "data_folder",
    "data_name",
    "corpus_version",
    "protocol",
    "fold",
    "fold_lists",
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
"""Keys of the yaml that are in a README, where the yaml has them."""


def export_classifier(folder, hparams, scores, scored_on, facts, table):
    """For ``EncoderClassifier``: ``backbone``, ``head``, ``label_encoder`` and
    ``problem_type`` of the yaml, and a table of the classes."""
    encoder = hparams.label_encoder
    labels = [encoder.ind2lab[index] for index in range(len(encoder))]
    named = ", ".join(map(str, labels))
    _export_classes(
        folder,
        hparams,
        f"One of {len(labels)} classes for each utterance: {named}",
        (scores, scored_on, facts, table),
        encoder,
        allow_silence="_silence_" in labels,
        problem_type=getattr(hparams, "problem_type", PROBLEM_TYPES[0]),
    )


def export_intents(folder, hparams, slots, scores, scored_on, facts, table):
    """For ``EncoderClassifier``: ``backbone`` and ``head``, whose outputs are
    the values of each slot: name -> values. Labels are the combinations of
    values, ``|`` between them."""
    sizes = {slot: len(values) for slot, values in slots.items()}
    named = ", ".join(f"{slot} ({size} values)" for slot, size in sizes.items())
    _export_classes(
        folder,
        hparams,
        f"An intent for each utterance, as {'|'.join(slots)}: {named}",
        (scores, scored_on, facts, table),
        LabelEncoder.from_labels(
            ["|".join(v) for v in product(*slots.values())]
        ),
        problem_type=PROBLEM_TYPES[0],
        slot_sizes=list(sizes.values()),
    )


def _export_classes(folder, hparams, summary, results, labels, **options):
    """For ``EncoderClassifier``; ``results`` are scores, split, facts and a
    table, ``options`` what the interface takes."""
    *results, table = results
    texts = _texts(
        folder,
        hparams,
        ["EncoderClassifier"],
        summary,
        *results,
        f"\n```\n{table}\n```\n",
    )
    write_pretrained(
        folder,
        _lobes(hparams, "backbone", "head"),
        "EncoderClassifier",
        labels=labels,
        replace=True,
        **texts,
        **options,
    )


def export_asr(folder, hparams, scores, scored_on, facts):
    """For ``EncoderASR``: ``backbone``, ``head`` and ``tokenizer``."""
    tokenizer = hparams.tokenizer
    with_tags = " with tags of slots" if tokenizer.has_tags else ""
    texts = _texts(
        folder,
        hparams,
        ["EncoderASR"],
        f"Speech to text{with_tags}, by CTC over {len(tokenizer)} tokens",
        scores,
        scored_on,
        facts,
        SLOTS if tokenizer.has_tags else "",
    )
    write_pretrained(
        folder,
        _lobes(hparams, "backbone", "head"),
        "EncoderASR",
        labels=tokenizer,
        replace=True,
        **texts,
        blank_index=tokenizer.blank_index,
    )


def export_speakers(folder, hparams, calibration, scores, scored_on, facts):
    """For ``SpeakerRecognition`` and ``EncoderClassifier``: ``backbone``,
    ``head``, ``objective`` and ``label_encoder``, the speakers of the training.

    The ``Calibration`` of the cosines is left out where it is None or was not
    fitted to any trial.
    """
    if calibration is not None and not any(calibration.num_trials):
        calibration = None
    texts = _texts(
        folder,
        hparams,
        ["SpeakerRecognition", "EncoderClassifier"],
        "Speaker verification by the cosine of two embeddings, "
        f"trained on {len(hparams.label_encoder)} speakers",
        scores,
        scored_on,
        facts,
        _thresholds(calibration),
    )
    write_pretrained(
        folder,
        _lobes(hparams, "backbone", "head", "objective"),
        "SpeakerRecognition",
        labels=hparams.label_encoder,
        replace=True,
        **texts,
        calibration=calibration,
    )


def export_diarization(folder, hparams, config, scores, scored_on, facts):
    """For ``SpeakerDiarization``: ``backbone``, ``head``, ``num_speakers``,
    ``window_s`` and ``narrow_band``, and the ``BinarizeConfig``."""
    texts = _texts(
        folder,
        hparams,
        ["SpeakerDiarization"],
        f"Who speaks when: up to {hparams.num_speakers} speakers "
        f"in {hparams.window_s:g} s",
        scores,
        scored_on,
        facts,
    )
    write_pretrained(
        folder,
        _lobes(hparams, "backbone", "head"),
        "SpeakerDiarization",
        replace=True,
        **texts,
        num_local_speakers=hparams.num_speakers,
        chunk_s=hparams.window_s,
        narrow_band=hparams.narrow_band,
        **config._asdict(),
    )


def export_pretraining(folder, hparams, scores, scored_on, facts):
    """For ``WaveformEncoder`` and ``Backbone.from_pretrained``: ``backbone``,
    ``head`` and, where there are phones, ``tokenizer``."""
    texts = _texts(
        folder,
        hparams,
        ["WaveformEncoder"],
        "A pre-trained backbone, and the head that it was trained by",
        scores,
        scored_on,
        facts,
    )
    if hasattr(hparams, "tokenizer"):
        texts["files"]["tokenizer.ckpt"] = hparams.tokenizer
    write_pretrained(
        folder,
        _lobes(hparams, "backbone", "head"),
        "WaveformEncoder",
        replace=True,
        **texts,
    )


def _lobes(hparams, *names):
    """Modules of the recipe, by name."""
    return {name: getattr(hparams, name) for name in names}


def _name_of_run(folder, hparams):
    """What a run's model is called: as the folder, whose name may be a seed or
    a fold alone."""
    if folder.name.removeprefix("fold").isdecimal():
        return "-".join(folder.parts[-3:])
    return folder.name


def _texts(
    folder, hparams, interfaces, summary, scores, scored_on, facts, table=""
):
    """The README, with the usage of each interface, and ``training.json``, as
    ``write_pretrained`` takes them."""
    training = {
        key: getattr(hparams, key) for key in REPORTED if hasattr(hparams, key)
    }
    training |= facts
    training |= {p: version(p) for p in ("speechbrain", "torch")}
    name = _name_of_run(folder.parent.resolve(), hparams)
    readme = README.format(
        name=name,
        usage="\n\n".join(INTERFACES[name].usage for name in interfaces),
        summary=summary,
        scored_on=scored_on,
        scores=_rows(scores),
        training=_rows(training),
        table=table,
    )
    if getattr(hparams, "protocol", None) == "superb":
        readme += PADDING
    data, language = (
        getattr(hparams, key, None) for key in ("data_name", "language")
    )
    if getattr(hparams, "synthetic", False):
        data = "synthetic speech by espeak-ng"
    readme = write_card(
        readme,
        interfaces[0],
        name,
        scores,
        scored_on,
        data,
        hub_name(getattr(hparams, "model", "")),
        {"language": language if isinstance(language, str) else None},
    )
    family = hparams.backbone.family
    record = training_record(scores, scored_on, training, family)
    return {"readme": readme, "files": record}


def _thresholds(calibration):
    """What the README says of thresholds; nothing where a decision depends on
    more than the cosine."""
    if calibration is None or calibration.quality:
        return ""
    rows = [f"| {p:g} | {calibration.threshold(p):.4f} |" for p in PRIORS]
    positive, negative = calibration.num_trials
    return THRESHOLDS.format(
        positive=positive, negative=negative, rows="\n".join(rows)
    )


def _rows(values):
    """A markdown table of names and values."""
    lines = ["| what | value |", "|---|---|"]
    for name, value in values.items():
        text = f"{value:.4g}" if isinstance(value, float) else value
        lines.append(f"| {name} | {text} |")
    return "\n".join(lines)
