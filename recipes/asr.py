"""Automatic speech recognition (ASR) by CTC, into letters or phones.

LibriSpeech, as the folder that its archives unpack to:

    python recipes/asr.py hparams/asr.yaml --data_folder=LibriSpeech

A language of Common Voice, fairseq's train.tsv with train.ltr or train.wrd, a
folder of Kaldi folders with wav.scp and text, or recordings of your own, listed
in a CSV with the columns id, path, split, wrd:

    python recipes/asr.py hparams/asr.yaml --data_folder=my_speech

SUPERB's task to the letter is hparams/asr_superb.yaml. Each run ends with
the scores, wer.txt and cer.txt with the alignments, and export/, a folder
that SpeechBrain's EncoderASR loads.
"""

from functools import partial

from unispeech_sb.brains import CTCBrain
from unispeech_sb.dataio import pipelines, texts
from unispeech_sb.dataio.corpora import read_corpus
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
    texts.prepare_texts(records, hparams)


def dataio_prep(hparams):
    """Builds the datasets: waveform, text and tokens of each recording; and
    the head for as many tokens as there are.

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
