"""UniSpeech-SAT's pre-training: clusters of masked frames, and utterance-wise
contrastive learning on mixed speech (Chen et al. 2021).

First iteration, on units of MFCCs, which recipes/make_units.py has made:

    python recipes/make_units.py hparams/make_units.yaml \
        --data_folder=LibriSpeech --output_folder=results/units
    python recipes/pretrain_unispeech_sat.py \
        hparams/pretrain_unispeech_sat.yaml \
        --units_folder=results/units/units --output_folder=results/first

Second iteration, from the start, on units of hidden states of the first:

    python recipes/make_units.py hparams/make_units.yaml \
        --data_folder=LibriSpeech --output_folder=results/better \
        --model=results/first/export --layer=2 --num_units=500
    python recipes/pretrain_unispeech_sat.py \
        hparams/pretrain_unispeech_sat.yaml \
        --units_folder=results/better/units --output_folder=results/second

The authors' sizes and settings are hparams/pretrain_unispeech_sat_base.yaml
and hparams/pretrain_unispeech_sat_large.yaml. On several GPUs: torchrun
--nproc_per_node=8 recipes/pretrain_unispeech_sat.py ... --precision=bf16. Each
run ends with the scores and export/, a folder that Backbone.from_pretrained
and every other recipe take: --model=export.
"""

from functools import partial

from unispeech_sb.brains.pretraining import PretrainBrain, build_objective
from unispeech_sb.dataio.pretraining import (
    NUM_SPECIALS,
    SpeechCrops,
    add_batches,
    unit_targets,
    usable_rows,
)
from unispeech_sb.dataio.units import check_units, read_about
from unispeech_sb.experiment import main as script
from unispeech_sb.experiment import run


def prepare(hparams):
    """Checks the units of every recording."""
    if not hparams["skip_prep"]:
        check_units(hparams["units_folder"], hparams["num_units"])


def dataio_prep(hparams):
    """Builds the datasets: a crop of each utterance with its units; and head
    and objective for as many units as there are.

    What is built is added to ``hparams``. Gives ``train``, ``valid`` and, if
    there is one, ``test``.
    """
    folder = hparams["units_folder"]
    about = read_about(folder)
    sizes = {"num_clusters": about["num_units"] + NUM_SPECIALS}
    pre_norm = hparams["backbone"].config["do_stable_layer_norm"]
    if pre_norm and hparams["codevectors"]:
        sizes["extract_norm"] = "apply"
    build_objective(hparams, sizes, label_rate=about["label_rate"])
    datasets = {}
    for split, rows in usable_rows(folder, hparams).items():
        datasets[split] = SpeechCrops(
            rows,
            unit_targets(folder, split),
            about["label_rate"],
            hparams.get("crop_s"),
            hparams.get("equal_lengths", False),
            hparams["sample_rate"],
            hparams["seed"],
        )
        add_batches(datasets[split], split, hparams)
    return datasets


main = partial(run, PretrainBrain, dataio_prep, prepare)
"""Runs the recipe on a list of arguments, or on the process's."""

if __name__ == "__main__":
    script(main)
