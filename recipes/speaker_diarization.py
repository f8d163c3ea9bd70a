"""Speaker diarization: who speaks when, also at the same time?

Recordings with RTTM files, as a folder of Kaldi folders (LibriMix has that
form), a folder with manifest.csv, a CSV with the columns id, path, split and
rttm, or a folder of recordings with an RTTM file beside each:

    python recipes/speaker_diarization.py hparams/speaker_diarization.yaml \
        --data_folder=mix2

Artificial conversations of people who speak alone in their recordings come to
the training set, drawn anew in each epoch; without recorded ones for training
they are all of it:

    python recipes/speaker_diarization.py hparams/speaker_diarization.yaml \
        --data_folder=mix2 --simulated=300 --simulated_folder=LibriSpeech

SUPERB's task is hparams/speaker_diarization_superb.yaml, the authors' EEND
with vector clustering, which also tells voices, so that any number of speakers
can be followed through recordings of any length,
hparams/speaker_diarization_vc.yaml. Each run ends with the scores,
hypotheses.rttm, activities.safetensors, and export/, a folder that
unispeech_sb.inference.diarization.SpeakerDiarization loads.
"""

from functools import partial
from pathlib import Path

import unispeech_sb  # noqa: F401  # isort: skip  # guards what follows
from speechbrain import Stage

from unispeech_sb.brains import DiarizationBrain
from unispeech_sb.dataio.corpora import read_corpus
from unispeech_sb.dataio.diarization import (
    diarization_datasets,
    mixture_recordings,
)
from unispeech_sb.dataio.manifest import check_records, write_manifests
from unispeech_sb.experiment import main as script
from unispeech_sb.experiment import run


def prepare(hparams):
    """Checks every recording and its segments, and writes the manifests.

    Arguments
    ---------
    hparams : dict
        The recipe's yaml. With ``simulated`` the recordings of
        ``simulated_folder``, too, but for the speakers that are tested on.
    """
    if hparams["skip_prep"]:
        return
    folder, simulated = hparams["manifest_folder"], hparams["simulated"]
    if simulated and hparams["simulated_folder"] is None:
        raise ValueError(
            f"expected a simulated_folder to make {simulated} conversations "
            "of; got none"
        )
    records = check_records(
        read_corpus("speaker_diarization", hparams), hparams["skip_bad_files"]
    )
    needed = ("valid",) if simulated else ("train", "valid")
    write_manifests(records, folder, required_splits=needed)
    if simulated:
        singles = mixture_recordings(records, hparams)
        write_manifests(
            singles, Path(folder, "voices"), required_splits=("train",)
        )


def dataio_prep(hparams):
    """Builds the datasets, and a head that knows all speakers of the training
    by their voices, where the yaml has one.

    Arguments
    ---------
    hparams : dict
        The recipe's yaml; the references of each stage and such a head are
        added to it.

    Returns
    -------
    dict
        ``train``, ``valid`` and, if there is one, ``test``.
    """
    datasets = diarization_datasets(hparams)
    for name in ("references", "uems"):
        # Without a test set the validation set is tested on
        found = hparams[name]
        found.setdefault(Stage.TEST, found.get(Stage.VALID, {}))
    if "speaker_loss_weight" in hparams:
        known = hparams["num_known_speakers"]
        head = hparams["head"](num_known_speakers=known)
        hparams["head"] = hparams["modules"]["head"] = head
        hparams["checkpointer"].add_recoverable("head", head)
    return datasets


main = partial(run, DiarizationBrain, dataio_prep, prepare)
"""Runs the recipe on a list of arguments, or on the process's."""

if __name__ == "__main__":
    script(main)
