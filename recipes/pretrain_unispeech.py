"""UniSpeech's pre-training: phonetic CTC and contrastive learning in one
(Wang et al. 2021).

First stage, speech with phones: of a lexicon, of the authors' manifests, of
espeak-ng, or of several languages, whose phones are told apart or shared:

    python recipes/pretrain_unispeech.py hparams/pretrain_unispeech.yaml \
        --data_folder=LibriSpeech --lexicon=librispeech-lexicon.txt
    python recipes/pretrain_unispeech.py hparams/pretrain_unispeech.yaml \
        --data_folder=cv-corpus-21.0-2025-03-14 --shared_phones=True \
        --languages="{es: {espeak: es}, ky: {espeak: ky}}"

Second stage, it goes on with unlabelled speech:

    python recipes/pretrain_unispeech.py \
        hparams/pretrain_unispeech_continued.yaml --data_folder=recordings \
        --model=FIRST/export --head_from=FIRST/export

The authors' settings are hparams/pretrain_unispeech_large.yaml and
hparams/pretrain_unispeech_continued.yaml. On several GPUs: torchrun
--nproc_per_node=8 recipes/pretrain_unispeech.py ... --precision=bf16. Each run
ends with the scores and export/, a folder that Backbone.from_pretrained and
every other recipe take: --model=export.
"""

from functools import partial

from unispeech_sb.brains.pretraining import PretrainBrain, build_objective
from unispeech_sb.dataio.corpora.phones import (
    phone_records,
    phone_vocabulary,
)
from unispeech_sb.dataio.manifest import check_records, write_manifests
from unispeech_sb.dataio.pretraining import (
    SpeechCrops,
    add_batches,
    phone_targets,
    unlabelled_records,
    usable_rows,
)
from unispeech_sb.dataio.shards import is_shards
from unispeech_sb.dataio.texts import (
    check_phones,
    prepare_texts,
    read_tokenizer,
)
from unispeech_sb.experiment import main as script
from unispeech_sb.experiment import run


def prepare(hparams):
    """Checks every recording, makes the tokenizer and writes the manifests.

    Arguments
    ---------
    hparams : dict
        The recipe's yaml; with ``labelled``, speech has to have phones, of
        its vocabulary where one is given.
    """
    folder, skip_prep = hparams["manifest_folder"], hparams["skip_prep"]
    if not hparams["labelled"]:
        if not (skip_prep or is_shards(hparams["data_folder"])):
            records = unlabelled_records(hparams)
            good = check_records(records, hparams["skip_bad_files"])
            write_manifests(good, folder)
        return
    found = phone_vocabulary(hparams)
    records = () if skip_prep else phone_records(hparams)
    prepare_texts(records, hparams, found)
    if found is not None:
        tokenizer, column = read_tokenizer(hparams), hparams["text_column"]
        check_phones(folder, tokenizer, column, found)


def dataio_prep(hparams):
    """Builds the datasets: waveform of each utterance, whole with its phones or
    a crop without; and head and objective for as many phones as there are.

    What is built is added to ``hparams``. Gives ``train``, ``valid`` and, if
    there is one, ``test``.
    """
    targets, phones, options = None, 0, {}
    if hparams["labelled"]:
        tokenizer = hparams["tokenizer"] = read_tokenizer(hparams)
        targets = phone_targets(tokenizer, hparams["text_column"])
        phones = len(tokenizer)
        options["blank_index"] = tokenizer.blank_index
    conv_size = hparams["backbone"].config["conv_dim"][-1]
    sizes = {"conv_size": conv_size, "num_ctc_classes": phones}
    build_objective(hparams, sizes, **options)
    datasets, folder = {}, hparams["manifest_folder"]
    if not hparams["labelled"] and is_shards(hparams["data_folder"]):
        folder = hparams["data_folder"]
    for split, rows in usable_rows(folder, hparams).items():
        datasets[split] = SpeechCrops(
            rows,
            targets,
            crop_s=hparams.get("crop_s"),
            equal_lengths=hparams.get("equal_lengths", False),
            sample_rate=hparams["sample_rate"],
            seed=hparams["seed"],
        )
        add_batches(datasets[split], split, hparams)
    return datasets


main = partial(run, PretrainBrain, dataio_prep, prepare)
"""Runs the recipe on a list of arguments, or on the process's."""

if __name__ == "__main__":
    script(main)
