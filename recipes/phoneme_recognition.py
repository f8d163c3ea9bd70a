"""Phoneme recognition by CTC: which phones does speech say?

UniSpeech's Common Voice protocol, fine-tuning on an hour of a language, from
the authors' manifests and clips of Common Voice:

    python recipes/phoneme_recognition.py hparams/phoneme_recognition.yaml \
        --data_folder=es --wav_root=cv-corpus-5.1-2020-06-22/es/clips

LibriSpeech with a pronouncing lexicon; a language of Common Voice with
espeak-ng's phones (or recordings of your own, listed in a CSV with the columns
id, path, split, phones, by --data_folder alone):

    python recipes/phoneme_recognition.py hparams/phoneme_recognition.yaml \
        --data_folder=LibriSpeech --lexicon=librispeech-lexicon.txt
    python recipes/phoneme_recognition.py hparams/phoneme_recognition.yaml \
        --data_folder=cv-corpus-21.0-2025-03-14/ky --espeak=ky

SUPERB's task to the letter is hparams/phoneme_recognition_superb.yaml. Each
run ends with the scores, per.txt with the alignments, and export/, a folder
that SpeechBrain's EncoderASR loads.
"""

from functools import partial

from unispeech_sb.brains import CTCBrain
from unispeech_sb.dataio.corpora.phones import (
    phone_records,
    phone_vocabulary,
)
from unispeech_sb.dataio.texts import prepare_texts, text_datasets
from unispeech_sb.experiment import main as script
from unispeech_sb.experiment import run


def prepare(hparams):
    """Checks every recording, makes the tokenizer and writes the manifests.

    Arguments
    ---------
    hparams : dict
        The recipe's yaml.
    """
    found = phone_vocabulary(hparams)
    if found is not None:
        hparams["make_tokenizer"] = partial(
            hparams["make_tokenizer"], vocabulary=found
        )
    records = () if hparams["skip_prep"] else phone_records(hparams)
    prepare_texts(records, hparams)


main = partial(run, CTCBrain, text_datasets, prepare)
"""Runs the recipe on a list of arguments, or on the process's."""

if __name__ == "__main__":
    script(main)
