"""Keyword spotting: classification of short clips by the word in them.

Speech Commands, as the folder that its archive unpacks to:

    python recipes/keyword_spotting.py hparams/keyword_spotting.yaml \
        --data_folder=speech_commands_v0.02

Clips of your own, listed in a CSV with the columns id, path, split, label:

    python recipes/keyword_spotting.py hparams/keyword_spotting.yaml \
        --data_folder=my_clips --num_classes=10

SUPERB's task to the letter is hparams/keyword_spotting_superb.yaml. Each run
ends with the scores, confusion.{csv,txt,png}, and export/, a folder that
SpeechBrain's EncoderClassifier loads. docs/results.md says what to expect.
"""

from functools import partial
from pathlib import Path

import unispeech_sb  # noqa: F401  # isort: skip  # guards what follows
from speechbrain.dataio.sampler import ReproducibleWeightedRandomSampler

from unispeech_sb.brains import UtteranceBrain
from unispeech_sb.dataio.corpora import read_corpus
from unispeech_sb.dataio.corpora.speech_commands import class_balanced_weights
from unispeech_sb.dataio.manifest import (
    read_manifest,
    usable_records,
    write_manifests,
)
from unispeech_sb.dataio.pipelines import (
    audio_pipeline,
    check_num_classes,
    fit_label_encoder,
    label_pipeline,
    manifest_datasets,
)
from unispeech_sb.experiment import main as script
from unispeech_sb.experiment import run


def prepare(hparams):
    """Checks every clip and writes the manifests.

    Arguments
    ---------
    hparams : dict
        The recipe's yaml.
    """
    if hparams["skip_prep"]:
        return
    records = usable_records(
        read_corpus("keyword_spotting", hparams),
        hparams["max_duration_s"],
        hparams["skip_bad_files"],
    )
    write_manifests(records, hparams["manifest_folder"])
    _encode_labels(hparams)  # a wrong number is known before --overwrite acts


def dataio_prep(hparams):
    """Builds the datasets: waveform and label of each clip.

    Arguments
    ---------
    hparams : dict
        The recipe's yaml; ``label_encoder`` is added to it, and the samplers
        of a class-balanced protocol.

    Returns
    -------
    dict
        ``train``, ``valid`` and, if there is one, ``test``.
    """
    datasets, encoder = _encode_labels(hparams)
    hparams["label_encoder"] = encoder
    superb = hparams["protocol"] == "superb"
    for dataset in datasets.values():
        dataset.add_dynamic_item(
            audio_pipeline(
                hparams["sample_rate"],
                gain_db=hparams["gain_db"],
                random_silence=superb,
            )
        )
        dataset.add_dynamic_item(label_pipeline(encoder))
        dataset.set_output_keys(["id", "sig", "label_encoded"])
    if superb:
        balance_classes(hparams)
    return datasets


def _encode_labels(hparams):
    """Datasets of the manifests, and the encoder of their labels."""
    datasets = manifest_datasets(hparams["manifest_folder"])
    encoder = fit_label_encoder(datasets)
    check_num_classes(len(encoder), hparams)
    return datasets, encoder


def balance_classes(hparams):
    """Draws training and validation clips so that all classes weigh the same.

    Arguments
    ---------
    hparams : dict
        The recipe's yaml; samplers are added to its loader options.
    """
    # The test set is scored as it is
    hparams["test_dataloader_opts"] = dict(hparams["valid_dataloader_opts"])
    draws = {"train": hparams["draws_per_epoch"], "valid": None}
    for split, num_draws in draws.items():
        manifest = Path(hparams["manifest_folder"], f"{split}.csv")
        weights = class_balanced_weights(read_manifest(manifest))
        options = hparams[f"{split}_dataloader_opts"]
        options.pop("shuffle", None)
        options["sampler"] = ReproducibleWeightedRandomSampler(
            weights, num_draws or len(weights), True, seed=hparams["seed"]
        )


main = partial(run, UtteranceBrain, dataio_prep, prepare)
"""Runs the recipe on a list of arguments, or on the process's."""

if __name__ == "__main__":
    script(main)
