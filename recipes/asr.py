"""Speech recognition by CTC: which letters, or phones, does speech say?

LibriSpeech, as the folder that its archives unpack to:

    python recipes/asr.py hparams/asr.yaml --data_folder=LibriSpeech

A language of Common Voice, or recordings of your own, listed in a CSV with the
columns id, path, split, wrd:

    python recipes/asr.py hparams/asr.yaml --data_folder=my_speech

SUPERB's task to the letter is hparams/asr_superb.yaml. Each run ends with
the scores, wer.txt and cer.txt with the alignments, and export/, a folder
that SpeechBrain's EncoderASR loads.
"""

from functools import partial

from unispeech_sb.brains import CTCBrain
from unispeech_sb.dataio.corpora import read_corpus
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
    records = () if hparams["skip_prep"] else read_corpus("asr", hparams)
    prepare_texts(records, hparams)


main = partial(run, CTCBrain, text_datasets, prepare)
"""Runs the recipe on a list of arguments, or on the process's."""

if __name__ == "__main__":
    script(main)
