"""Phoneme recognition by CTC.

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
from unispeech_sb.dataio import pipelines, texts
from unispeech_sb.dataio.corpora.phones import (
    phone_records,
    phone_vocabulary,
)
from unispeech_sb.experiment import main as script
from unispeech_sb.experiment import run


def prepare(hparams):
    """Checks every recording, finds its phones, makes the tokenizer and writes
    the manifests.

    Arguments
    ---------
    hparams : dict
        The recipe's yaml.
    """
    vocabulary = phone_vocabulary(hparams)
    records = () if hparams["skip_prep"] else phone_records(hparams)
    texts.prepare_texts(records, hparams, vocabulary)


def dataio_prep(hparams):
    """Builds the datasets: waveform, phones and their tokens of each recording;
    and the head for as many phones as there are. ``hparams`` are changed as by
    ``recipes/asr.py``."""
    tokenizer = hparams["tokenizer"] = texts.read_tokenizer(hparams)
    texts.build_head(len(tokenizer), hparams)
    datasets = pipelines.manifest_datasets(hparams["manifest_folder"])
    for split, dataset in datasets.items():
        dataset.add_dynamic_item(
            pipelines.audio_pipeline(hparams["sample_rate"])
        )
        dataset.add_dynamic_item(
            pipelines.text_pipeline(tokenizer, hparams["text_column"])
        )
        dataset.set_output_keys(["id", "sig", "text", "tokens"])
        texts.add_batches(dataset, split, hparams)
    return datasets


main = partial(run, CTCBrain, dataio_prep, prepare)
"""Runs the recipe on a list of arguments, or on the process's."""

if __name__ == "__main__":
    script(main)
