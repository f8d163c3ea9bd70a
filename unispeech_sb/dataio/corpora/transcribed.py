"""Speech with its words, from whichever corpus a folder holds: what recipes of
speech and of phonemes read.
"""

from pathlib import Path

from unispeech_sb.dataio.corpora.common_voice import (
    common_voice,
    is_common_voice,
)
from unispeech_sb.dataio.corpora.librispeech import is_librispeech, librispeech
from unispeech_sb.dataio.corpora.synthetic import synthetic_sentences
from unispeech_sb.dataio.corpora.table import table


def transcribed_speech(hparams):
    """Chooses the corpus by what the data folder holds.

    Arguments
    ---------
    hparams : dict
        The recipe's yaml: ``data_folder`` and ``synthetic``, with which
        ``synthetic_sentences`` of ``synthetic_voices`` are spoken into it,
        and ``subsets`` of LibriSpeech or Common Voice.

    Returns
    -------
    iterable of dict
        Utterance records.

    Raises
    ------
    ValueError
        When there is no such folder.

    Example
    -------
    >>> transcribed_speech({"data_folder": "nowhere", "synthetic": False})
    Traceback (most recent call last):
    ...
    ValueError: nowhere: expected a LibriSpeech folder, ...
    """
    folder = Path(hparams["data_folder"])
    if hparams["synthetic"]:
        return synthetic_sentences(
            folder,
            hparams["synthetic_sentences"],
            hparams["synthetic_voices"],
            hparams["seed"],
        )
    if not folder.exists():
        raise ValueError(
            f"{folder}: expected a LibriSpeech folder, a language of Common "
            "Voice, a folder with manifest.csv, or a CSV; there is nothing"
        )
    if is_librispeech(folder):
        return librispeech(folder, hparams["subsets"])
    if is_common_voice(folder):
        return common_voice(folder, hparams["subsets"])
    return table(folder, label_column=None)
