"""Slot filling: the text of a request, with tags around the values in it.

Audio SNIPS, as the folder of SUPERB's archive:

    python recipes/slot_filling.py hparams/slot_filling.yaml \\
        --data_folder=SNIPS

Requests of your own, listed in a CSV with the columns id, path, split, wrd and
slots, which has a tag for each word, the name of a slot or O for none, as in
"play some abba" and "O O artist":

    python recipes/slot_filling.py hparams/slot_filling.yaml \\
        --data_folder=my_requests

SUPERB's task to the letter is hparams/slot_filling_superb.yaml. Each run ends
with the scores, wer.txt and cer.txt with the alignments of the texts with tags,
test-hyp.ark and test-ref.ark in the form of SUPERB's leaderboard, and export/,
a folder that SpeechBrain's EncoderASR loads: PLAY SOME B-artist ABBA E-artist.
"""

from functools import partial
from pathlib import Path

import unispeech_sb  # noqa: F401  # isort: skip  # guards what follows
import torch
from speechbrain.utils.data_pipeline import provides, takes

from unispeech_sb.brains import SlotBrain
from unispeech_sb.dataio import pipelines, texts
from unispeech_sb.dataio.corpora import find_corpus, read_corpus
from unispeech_sb.dataio.corpora.audio_snips import (
    SLOTS_FILE,
    with_tagged_texts,
)
from unispeech_sb.experiment import main as script
from unispeech_sb.experiment import run


def prepare(hparams):
    """Checks every recording, makes the tokenizer and writes the manifests.

    Arguments
    ---------
    hparams : dict
        The recipe's yaml.
    """
    records, vocabulary = (), hparams["vocabulary"]
    if not hparams["skip_prep"]:
        records = with_tagged_texts(
            read_corpus("slot_filling", hparams), hparams["protocol"]
        )
    if not vocabulary and find_corpus("slot_filling", hparams) == "audio_snips":
        vocabulary = Path(hparams["data_folder"], SLOTS_FILE)
    texts.prepare_texts(records, hparams, vocabulary)


def dataio_prep(hparams):
    """Builds the datasets: waveform, text with tags and tokens of each
    recording; and the head for as many tokens as there are.

    Arguments
    ---------
    hparams : dict
        The recipe's yaml; ``tokenizer``, the built ``head`` and the batches of
        each split are added to it.

    Returns
    -------
    dict
        ``train``, ``valid`` and, if there is one, ``test``.
    """
    tokenizer = hparams["tokenizer"] = texts.read_tokenizer(hparams)
    texts.build_head(len(tokenizer), hparams)

    @takes(hparams["text_column"])
    @provides("text", "tokens")
    def encode(tagged):
        tokens = tokenizer.targets(tagged)
        # As the model can write it, the unknown spelt
        text = " ".join(tokenizer.decode(tokens).split())
        return text, torch.tensor(tokens, dtype=torch.long)

    datasets = pipelines.manifest_datasets(hparams["manifest_folder"])
    for split, dataset in datasets.items():
        dataset.add_dynamic_item(
            pipelines.audio_pipeline(hparams["sample_rate"])
        )
        dataset.add_dynamic_item(encode)
        dataset.set_output_keys(["id", "sig", "text", "tokens"])
        texts.add_batches(dataset, split, hparams)
    return datasets


main = partial(run, SlotBrain, dataio_prep, prepare)
"""Runs the recipe on a list of arguments, or on the process's."""

if __name__ == "__main__":
    script(main)
