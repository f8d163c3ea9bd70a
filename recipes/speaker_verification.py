"""Speaker verification: is it the same speaker in two recordings?

VoxCeleb1, as the folder that its archives unpack to, scored on its trials:

    python recipes/speaker_verification.py hparams/speaker_verification.yaml \
        --data_folder=voxceleb1 --trials=veri_test2.txt --valid_speakers=40

VoxCeleb2, scored on VoxCeleb1: the same with --data_folder=voxceleb2
--audio_root=voxceleb1/wav. Recordings of your own, listed in a CSV with the
columns id, path, split and speaker, the speakers of each split being others,
are scored on pairs of the test set, or on --trials that name their ids:

    python recipes/speaker_verification.py hparams/speaker_verification.yaml \
        --data_folder=my_voices

SUPERB's task is hparams/speaker_verification_superb.yaml, the authors' system
hparams/speaker_verification_large.yaml. Each run ends with the scores,
trials.csv, det.png and histogram.png, and export/, a folder that SpeechBrain's
SpeakerRecognition and EncoderClassifier load.
"""

from functools import partial
from pathlib import Path

from speechbrain import Stage
from speechbrain.utils.distributed import run_on_main

from unispeech_sb.brains import SpeakerBrain
from unispeech_sb.dataio.corpora import read_corpus
from unispeech_sb.dataio.manifest import write_manifests
from unispeech_sb.dataio.noises import prepare_noises
from unispeech_sb.dataio.speakers import (
    build_for_speakers,
    check_speakers,
    long_enough,
    read_speakers,
    speaker_datasets,
    split_speakers,
    split_valid,
)
from unispeech_sb.dataio.trials import add_trials, trial_records
from unispeech_sb.experiment import main as script
from unispeech_sb.experiment import run

NOISE_PIECE_S = 10.0
"""Seconds of the pieces that noises are cut into: more than a crop."""


def prepare(hparams):
    """Checks every recording and writes the manifests.

    Arguments
    ---------
    hparams : dict
        The recipe's yaml. ``trials`` say what is tested on,
        ``valid_speakers`` are held out of a corpus without a validation set,
        none where ``validate_on`` is "test".
    """
    if hparams["skip_prep"]:
        return
    records = read_corpus("speaker_verification", hparams)
    if hparams["trials"] is not None:
        records = trial_records(
            records, hparams["trials"], hparams["audio_root"]
        )
    num_speakers = hparams["valid_speakers"]
    if hparams.get("validate_on") == "test":
        num_speakers = 0
    apart = partial(
        split_speakers,
        num_speakers=num_speakers,
        piece_s=hparams["valid_piece_s"],
        seed=hparams["seed"],
    )
    records = split_valid(
        check_speakers(records, hparams),
        {"valid_speakers": num_speakers and apart},
    )
    write_manifests(
        long_enough(records, hparams), hparams["manifest_folder"], ("train",)
    )


def copy_noises(hparams):
    """Copies the noises and room impulse responses that the yaml asks for.

    Arguments
    ---------
    hparams : dict
        The recipe's yaml.
    """
    for kind, piece_s in (("noise", NOISE_PIECE_S), ("rir", None)):
        folder = hparams.get(f"{kind}_folder")
        if folder is not None:
            copies = Path(hparams[f"{kind}_list"]).parent
            prepare_noises(folder, copies, piece_s)


def dataio_prep(hparams):
    """Builds the datasets, the trials, and the objective for as many speakers
    as there are.

    Arguments
    ---------
    hparams : dict
        The recipe's yaml; ``label_encoder``, the built ``objective`` and the
        trials of each stage are added to it. With ``head_from``, the weights
        of head and objective are those of that folder.

    Returns
    -------
    dict
        ``train``, ``valid`` and, if there is one, ``test``.
    """
    run_on_main(copy_noises, [hparams])
    encoder, start = None, hparams["head_from"]
    if start is not None:
        encoder = read_speakers(start)
    datasets = speaker_datasets(hparams, encoder=encoder)
    add_trials(hparams)
    if hparams.get("validate_on") == "test":
        if "test" not in datasets:
            raise ValueError("validate_on: expected a test set, got none")
        datasets["valid"] = datasets["test"]
        hparams["valid_dataloader_opts"] = hparams["test_dataloader_opts"]
        hparams["trials"][Stage.VALID] = hparams["trials"][Stage.TEST]
    build_for_speakers("objective", hparams)
    if start is not None:
        for name in ("head", "objective"):
            hparams[name].load(Path(start, f"{name}.ckpt"))
    return datasets


main = partial(run, SpeakerBrain, dataio_prep, prepare)
"""Runs the recipe on a list of arguments, or on the process's."""

if __name__ == "__main__":
    script(main)
