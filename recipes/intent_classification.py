"""Intent classification: what a spoken command asks for, as several slots.

Fluent Speech Commands, as the folder that its archive unpacks to; each command
has an action, an object and a location:

    python recipes/intent_classification.py \\
        hparams/intent_classification.yaml \\
        --data_folder=fluent_speech_commands_dataset

Commands of your own, listed in a CSV with the columns id, path, split and one
for each slot:

    python recipes/intent_classification.py \\
        hparams/intent_classification.yaml --data_folder=my_commands \\
        --slots=[drink,size] --num_classes=14

SUPERB's task to the letter is hparams/intent_classification_superb.yaml. Each
run ends with the scores, a confusion matrix of each slot, test_predict.csv in
the form of SUPERB's leaderboard, and export/, a folder that SpeechBrain's
EncoderClassifier loads; its labels are as activate|lights|kitchen.
"""

from functools import partial

import unispeech_sb  # noqa: F401  # isort: skip  # guards what follows
import torch
from speechbrain.utils.data_pipeline import provides, takes

from unispeech_sb.brains import IntentBrain
from unispeech_sb.dataio.corpora import read_corpus
from unispeech_sb.dataio.manifest import prepare_manifests
from unispeech_sb.dataio.pipelines import (
    audio_pipeline,
    check_num_classes,
    fit_label_encoder,
    manifest_datasets,
)
from unispeech_sb.dataio.samplers import draw_by_passes
from unispeech_sb.experiment import main as script
from unispeech_sb.experiment import run


def prepare(hparams):
    """Checks every recording and writes the manifests.

    Arguments
    ---------
    hparams : dict
        The recipe's yaml.
    """
    if hparams["skip_prep"]:
        return
    records = list(read_corpus("intent_classification", hparams))
    missing = [s for s in hparams["slots"] if any(s not in r for r in records)]
    if missing:
        raise ValueError(
            f"{hparams['data_folder']}: expected a column for each slot; "
            f"there is none for {', '.join(missing)}: --slots=[...]"
        )
    prepare_manifests(records, hparams)
    _encode_slots(hparams)  # a wrong number is known before --overwrite acts


def dataio_prep(hparams):
    """Builds the datasets: waveform and values of the slots of each recording.

    Arguments
    ---------
    hparams : dict
        The recipe's yaml; ``slot_encoders`` are added to it, whose values are
        in the order in which they first occur in training, and ``compute_cost``
        learns their numbers.

    Returns
    -------
    dict
        ``train``, ``valid`` and, if there is one, ``test``.
    """
    datasets, encoders = _encode_slots(hparams)
    slots, sizes = [*encoders], [*map(len, encoders.values())]
    hparams["slot_encoders"] = encoders
    hparams["compute_cost"] = partial(hparams["compute_cost"], slot_sizes=sizes)

    @takes(*slots)
    @provides("label_encoded")
    def encode(*values):
        indices = zip(encoders.values(), values, strict=True)
        return torch.tensor([encoder.lab2ind[v] for encoder, v in indices])

    for dataset in datasets.values():
        dataset.add_dynamic_item(audio_pipeline(hparams["sample_rate"]))
        dataset.add_dynamic_item(encode)
        dataset.set_output_keys(["id", "sig", "label_encoded"])
    options = hparams["train_dataloader_opts"]
    draw_by_passes(options, len(datasets["train"]), hparams)
    return datasets


def _encode_slots(hparams):
    """Datasets of the manifests, and an encoder of the values of each slot."""
    datasets = manifest_datasets(hparams["manifest_folder"])
    encoders = {
        slot: fit_label_encoder(datasets, slot, by_appearance=True)
        for slot in hparams["slots"]
    }
    check_num_classes(
        sum(map(len, encoders.values())),
        hparams,
        f"values of {', '.join(encoders)}",
    )
    return datasets, encoders


main = partial(run, IntentBrain, dataio_prep, prepare)
"""Runs the recipe on a list of arguments, or on the process's."""

if __name__ == "__main__":
    script(main)
