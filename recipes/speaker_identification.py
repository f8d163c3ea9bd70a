"""Speaker identification: classification of recordings by speaker.

VoxCeleb1, as the folder that its archives unpack to, with iden_split.txt:

    python recipes/speaker_identification.py \
        hparams/speaker_identification.yaml --data_folder=voxceleb1

Recordings of your own, listed in a CSV with the columns id, path, split and
speaker, and start and stop in seconds where they are parts of files. Without
a validation set, one is taken off the training set:

    python recipes/speaker_identification.py \
        hparams/speaker_identification.yaml \
        --data_folder=my_voices --valid_share=0.1

SUPERB's task to the letter is hparams/speaker_identification_superb.yaml. Each
run ends with the scores, speakers.txt with those of each speaker, and export/,
a folder that SpeechBrain's EncoderClassifier loads.
"""

from functools import partial

from unispeech_sb.brains import SSLBrain, UtteranceBrain
from unispeech_sb.dataio.corpora import read_corpus
from unispeech_sb.dataio.manifest import write_manifests
from unispeech_sb.dataio.speakers import (
    build_for_speakers,
    check_speakers,
    long_enough,
    speaker_datasets,
    split_share,
    split_tails,
    split_valid,
)
from unispeech_sb.experiment import main as script
from unispeech_sb.experiment import run


def prepare(hparams):
    """Checks every recording and writes the manifests.

    Arguments
    ---------
    hparams : dict
        The recipe's yaml. ``valid_tail_s`` or ``valid_share`` make the
        validation set of a corpus without one.
    """
    if hparams["skip_prep"]:
        return
    tail_s, share = hparams["valid_tail_s"], hparams["valid_share"]
    ways = {
        "valid_tail_s": tail_s and partial(split_tails, tail_s=tail_s),
        "valid_share": share
        and partial(split_share, share=share, seed=hparams["seed"]),
    }
    records = read_corpus("speaker_identification", hparams)
    records = split_valid(check_speakers(records, hparams), ways)
    write_manifests(
        long_enough(records, hparams), hparams["manifest_folder"], ("train",)
    )


def dataio_prep(hparams):
    """Builds the datasets, and the head for as many speakers as there are.

    Arguments
    ---------
    hparams : dict
        The recipe's yaml; ``label_encoder`` and the built ``head`` are added
        to it.

    Returns
    -------
    dict
        ``train``, ``valid`` and, if there is one, ``test``.
    """
    datasets = speaker_datasets(hparams, closed_set=True)
    build_for_speakers("head", hparams)
    return datasets


class IdentificationBrain(UtteranceBrain):
    """Classification of utterances among more speakers than a confusion
    matrix can show.

    Example
    -------
    >>> IdentificationBrain(hparams={}, run_opts={"device": "cpu"}).scores
    {}
    """

    def write_report(self, folder):
        """Write scores.json, and the scores of each speaker.

        Arguments
        ---------
        folder : pathlib.Path
            The experiment's folder.
        """
        SSLBrain.write_report(self, folder)
        self.write_predictions(folder)
        partial_file = folder / "speakers.txt.partial"
        partial_file.write_text(self.confusion.table() + "\n", "utf-8")
        partial_file.replace(folder / "speakers.txt")


main = partial(run, IdentificationBrain, dataio_prep, prepare)
"""Runs the recipe on a list of arguments, or on the process's."""

if __name__ == "__main__":
    script(main)
