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
from unispeech_sb.dataio.corpora.fairseq_manifests import (
    fairseq_manifests,
    find_vocabulary,
    is_fairseq_manifests,
)
from unispeech_sb.dataio.corpora.lexicon import (
    espeak_phones,
    lexicon_phones,
    read_lexicons,
    table_phones,
)
from unispeech_sb.dataio.corpora.transcribed import transcribed_speech
from unispeech_sb.dataio.texts import prepare_texts, text_datasets
from unispeech_sb.experiment import main as script
from unispeech_sb.experiment import run


def vocabulary(hparams):
    """Finds the authors' vocabulary, which may lie beside their manifests.

    Arguments
    ---------
    hparams : dict
        The recipe's yaml.

    Returns
    -------
    path-like or None
        The JSON file; None where the phones of the training texts are it.
    """
    folder = hparams["data_folder"]
    if hparams["vocabulary"] is None and is_fairseq_manifests(folder):
        return find_vocabulary(folder, hparams["labels"])
    return hparams["vocabulary"]


def corpus(hparams):
    """Reads the records, and finds their phones where only words are known.

    Arguments
    ---------
    hparams : dict
        The recipe's yaml.

    Returns
    -------
    iterable of dict
        Utterance records with ``phones``.
    """
    folder = hparams["data_folder"]
    if is_fairseq_manifests(folder):
        return fairseq_manifests(
            folder, hparams["wav_root"], hparams["labels"], vocabulary(hparams)
        )
    records = transcribed_speech(hparams)
    if hparams["lexicon"]:
        lexicon = read_lexicons(hparams["lexicon"])
        return lexicon_phones(records, lexicon, hparams["skip_bad_files"])
    if hparams["phones_table"]:
        return table_phones(records, hparams["phones_table"])
    if hparams["espeak"]:
        return espeak_phones(records, hparams["espeak"])
    if hparams["synthetic"]:
        return [{**record, "phones": record["phn"]} for record in records]
    return records


def prepare(hparams):
    """Checks every recording, makes the tokenizer and writes the manifests.

    Arguments
    ---------
    hparams : dict
        The recipe's yaml.
    """
    found = vocabulary(hparams)
    if found is not None:
        hparams["make_tokenizer"] = partial(
            hparams["make_tokenizer"], vocabulary=found
        )
    prepare_texts(() if hparams["skip_prep"] else corpus(hparams), hparams)


main = partial(run, CTCBrain, text_datasets, prepare)
"""Runs the recipe on a list of arguments, or on the process's."""

if __name__ == "__main__":
    script(main)
