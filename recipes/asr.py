"""Speech recognition by CTC: which letters, or phones, does speech say?

LibriSpeech, as the folder that its archives unpack to:

    python recipes/asr.py hparams/asr.yaml --data_folder=LibriSpeech

Recordings of your own, listed in a CSV with the columns id, path, split, wrd:

    python recipes/asr.py hparams/asr.yaml --data_folder=my_speech

Each run ends with the scores, wer.txt and cer.txt with the alignments, and
export/, a folder that SpeechBrain's EncoderASR loads.
"""

from functools import partial
from pathlib import Path

from unispeech_sb.brains import CTCBrain
from unispeech_sb.dataio.corpora.librispeech import is_librispeech, librispeech
from unispeech_sb.dataio.corpora.synthetic import synthetic_sentences
from unispeech_sb.dataio.corpora.table import table
from unispeech_sb.dataio.texts import prepare_texts, text_datasets
from unispeech_sb.experiment import main as script
from unispeech_sb.experiment import run


def corpus(hparams):
    """Chooses the corpus by what the data folder holds.

    Arguments
    ---------
    hparams : dict
        The recipe's yaml.

    Returns
    -------
    iterable of dict
        Utterance records.
    """
    folder = Path(hparams["data_folder"])
    if hparams["synthetic"]:
        return synthetic_sentences(
            folder, hparams["synthetic_sentences"], seed=hparams["seed"]
        )
    if not folder.exists():
        raise ValueError(
            f"{folder}: expected a LibriSpeech folder, a folder with "
            "manifest.csv, or a CSV; there is nothing"
        )
    if is_librispeech(folder):
        return librispeech(folder, hparams["subsets"])
    return table(folder, label_column=None)


def prepare(hparams):
    """Checks every recording, makes the tokenizer and writes the manifests.

    Arguments
    ---------
    hparams : dict
        The recipe's yaml.
    """
    prepare_texts(() if hparams["skip_prep"] else corpus(hparams), hparams)


main = partial(run, CTCBrain, text_datasets, prepare)
"""Runs the recipe on a list of arguments, or on the process's."""

if __name__ == "__main__":
    script(main)
