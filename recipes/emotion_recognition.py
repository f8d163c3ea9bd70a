"""Emotion recognition: how an utterance is spoken.

IEMOCAP, as the folder that its archive unpacks to: neutral, happy or excited,
angry, sad. Each of five folds tests one session and trains on the others; a
run does them one after another, and ends with the mean of their accuracies:

    python recipes/emotion_recognition.py hparams/emotion_recognition.yaml \\
        --data_folder=IEMOCAP_full_release

One fold, as on each of five machines (the last one finds the others' scores
and writes the mean); or recordings of your own, listed in a CSV with the
columns id, path, split, label:

    python recipes/emotion_recognition.py hparams/emotion_recognition.yaml \\
        --data_folder=IEMOCAP_full_release --fold=3
    python recipes/emotion_recognition.py hparams/emotion_recognition.yaml \\
        --data_folder=my_emotions --num_classes=6

SUPERB's task to the letter is hparams/emotion_recognition_superb.yaml. Each
fold has a folder fold1 to fold5 for its scores, confusion.{csv,txt,png},
predictions in the form of SUPERB's leaderboard, and export/, a folder that
SpeechBrain's EncoderClassifier loads; scores.json beside them is the mean.
"""

import json
import sys
from pathlib import Path

import unispeech_sb  # noqa: F401  # isort: skip  # guards what follows
from speechbrain.utils.distributed import run_on_main

from unispeech_sb.atomic import write_json
from unispeech_sb.brains import UtteranceBrain
from unispeech_sb.dataio.corpora import find_corpus, read_corpus
from unispeech_sb.dataio.corpora.iemocap import EMOTIONS, FOLDS, check_fold
from unispeech_sb.dataio.labels import LabelEncoder
from unispeech_sb.dataio.manifest import prepare_manifests
from unispeech_sb.dataio.pipelines import (
    audio_pipeline,
    check_num_classes,
    fit_label_encoder,
    label_pipeline,
    manifest_datasets,
)
from unispeech_sb.dataio.samplers import draw_by_passes
from unispeech_sb.experiment import main as script
from unispeech_sb.experiment import process_group, read_command, run


def prepare(hparams):
    """Checks every recording and writes the manifests.

    Arguments
    ---------
    hparams : dict
        The recipe's yaml.
    """
    if not hparams["skip_prep"]:
        records = read_corpus("emotion_recognition", hparams)
        prepare_manifests(records, hparams)
        _encode_labels(hparams)  # a wrong number is known before --overwrite


def dataio_prep(hparams):
    """Builds the datasets: waveform and label of each recording.

    Arguments
    ---------
    hparams : dict
        The recipe's yaml; ``label_encoder`` is added to it, in SUPERB's order
        where the labels are SUPERB's.

    Returns
    -------
    dict
        ``train``, ``valid`` and, if there is one, ``test``.
    """
    datasets, encoder = _encode_labels(hparams)
    hparams["label_encoder"] = encoder
    for dataset in datasets.values():
        dataset.add_dynamic_item(audio_pipeline(hparams["sample_rate"]))
        dataset.add_dynamic_item(label_pipeline(encoder))
        dataset.set_output_keys(["id", "sig", "label_encoded"])
    options = hparams["train_dataloader_opts"]
    draw_by_passes(options, len(datasets["train"]), hparams)
    return datasets


def _encode_labels(hparams):
    """Datasets of the manifests, and the encoder of their labels, in SUPERB's
    order where they are SUPERB's."""
    datasets = manifest_datasets(hparams["manifest_folder"])
    encoder = fit_label_encoder(datasets)
    if set(encoder.lab2ind) == set(EMOTIONS):
        encoder = LabelEncoder.from_labels(EMOTIONS)
    check_num_classes(len(encoder), hparams)
    return datasets, encoder


def main(argv=None):
    """Runs one fold, or all of them where none is named and the corpus has
    folds.

    Arguments
    ---------
    argv : list, optional
        The command line; the process's when omitted.

    Returns
    -------
    dict
        Scores of the fold or the corpus; of all folds, those of
        ``scores.json``.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    command = read_command(argv)
    settings = command.settings
    corpus = find_corpus("emotion_recognition", settings)
    if corpus not in ("iemocap", "synthetic"):  # which have folds
        return run(UtteranceBrain, dataio_prep, prepare, argv)
    fold, folder = settings["fold"], Path(settings["output_folder"])
    folds = FOLDS if fold is None else (fold,)
    with process_group(command):
        for fold in folds:
            scores = _run_fold(check_fold(fold), folder, argv)
        mean = run_on_main(_write_mean, [folder])
    return scores if mean is None or len(folds) == 1 else mean


def _run_fold(fold, folder, argv):
    """Runs a fold in its own folder."""
    keys = {
        "fold": fold,
        "output_folder": folder / f"fold{fold}",
        "predictions_file": f"test_fold{fold}_predict.txt",
    }
    options = [f"--{key}={value}" for key, value in keys.items()]
    return run(UtteranceBrain, dataio_prep, prepare, [*argv, *options])


def _write_mean(folder):
    """The mean of the folds' accuracies, once all have one."""
    files = [folder / f"fold{fold}" / "scores.json" for fold in FOLDS]
    if not all(file.is_file() for file in files):
        return None
    found = [json.loads(file.read_text("utf-8"))["accuracy"] for file in files]
    mean = {"accuracy": sum(found) / len(found)}
    mean |= {f"fold{fold}": share for fold, share in zip(FOLDS, found)}
    write_json(folder / "scores.json", mean)
    print(f"\nMean accuracy of the folds: {100 * mean['accuracy']:.1f} %")
    return mean


if __name__ == "__main__":
    script(main)
