"""What a verification model is scored on: the utterances that a trial list
names, kept apart from the training, or pairs of a split's utterances.
"""

import os
from pathlib import Path

import numpy as np
from speechbrain import Stage
from speechbrain.utils.logger import get_logger

from unispeech_sb.dataio.manifest import read_manifest
from unispeech_sb.dataio.pairs import pair_trials
from unispeech_sb.dataio.trials import read_trials, speakers_of, write_trials

logger = get_logger(__name__)


def trial_records(records, path, audio_root=None):
    """Makes what a trial list names the test set.

    The speakers of the list, as far as the corpus knows them, are left out of
    the other splits: verification is of speakers that were never heard.

    Arguments
    ---------
    records : iterable of dict
        Utterance records with ``spk_id``.
    path : str or path-like
        The trial list.
    audio_root : str or path-like, optional
        Folder of the files that it names. Without one it names IDs of the
        records.

    Returns
    -------
    list of dict
        Records of train and valid, then those of the list, whose IDs are its
        names. Their ``spk_id`` is empty where it is not known.

    Raises
    ------
    ValueError
        As ``read_trials``, or when no other speaker is left to train on.

    Example
    -------
    >>> path = getfixture("tmp_path") / "trials.txt"
    >>> _ = path.write_text("1 a1 a2\\n0 a1 b1\\n")
    >>> records = [
    ...     {"ID": name, "wav": name, "spk_id": name[0], "split": "train"}
    ...     for name in ("a1", "a2", "b1", "c1")
    ... ]
    >>> found = trial_records(records, path)
    >>> [(record["ID"], record["split"]) for record in found]
    [('c1', 'train'), ('a1', 'test'), ('a2', 'test'), ('b1', 'test')]
    """
    records = list(records)
    if audio_root is None:
        known = {record["ID"]: record for record in records}
        names = read_trials(path, known=known).names
        test = [{"spk_id": "", **known[n], "split": "test"} for n in names]
    else:
        known = {record["wav"]: record for record in records}
        names = read_trials(path, root=audio_root).names
        test = []
        for name in names:
            wav = os.path.abspath(os.path.join(audio_root, name))
            speaker = known.get(wav, {}).get("spk_id", "")
            record = {"ID": name, "wav": wav, "split": "test"}
            test.append({**record, "spk_id": speaker})
    heard = {record["spk_id"] for record in test} - {""}
    others = [record for record in records if record["split"] != "test"]
    kept = [r for r in others if r.get("spk_id", "") not in heard]
    if not kept:
        raise ValueError(
            f"{path}: expected speakers beside those of the trials, to train "
            "on; there are none"
        )
    if len(kept) < len(others):
        logger.info(
            f"Left out {len(others) - len(kept)} recordings of speakers of "
            f"{path}"
        )
    return kept + test


def add_trials(hparams):
    """Reads or makes the trials of validation and test.

    Arguments
    ---------
    hparams : dict
        The recipe's yaml. In place of the file ``trials`` come the ``Trials``
        of each stage, and there are added ``trial_speakers``, stage -> the
        speakers of both sides, and ``write_trials``. Without a file, pairs of
        the test set are compared, at most ``num_test_trials``; without a test
        set, those of valid, at most ``num_valid_trials``.

    Raises
    ------
    ValueError
        As ``read_trials`` and ``pair_trials``, or when the list and the
        corpus disagree on speakers.

    Example
    -------
    >>> from unispeech_sb.dataio.manifest import write_manifests
    >>> folder = getfixture("tmp_path")
    >>> record = {"wav": "/a.wav", "duration": 1.0, "split": "valid"}
    >>> records = [{**record, "ID": n, "spk_id": n[0]} for n in ("a1", "a2")]
    >>> records += [{**record, "ID": "b1", "spk_id": "b"}]
    >>> _ = write_manifests(records, folder, required_splits=())
    >>> hparams = {"manifest_folder": folder, "trials": None, "seed": 1}
    >>> add_trials({**hparams, "num_valid_trials": 1})
    Traceback (most recent call last):
    ...
    ValueError: trials of the split valid: expected 2 trials or more, got 1
    >>> hparams["num_valid_trials"] = 10
    >>> add_trials(hparams)
    >>> hparams["trials"][Stage.TEST].targets.tolist()
    [True, False, False]
    """
    path = hparams["trials"]
    found, owners = {}, {}
    for stage, split in ((Stage.VALID, "valid"), (Stage.TEST, "test")):
        manifest = Path(hparams["manifest_folder"], f"{split}.csv")
        if not manifest.is_file():  # a run then evaluates on valid
            found[stage], owners[stage] = (
                found[Stage.VALID],
                owners[Stage.VALID],
            )
            continue
        speakers = {r["ID"]: r["spk_id"] for r in read_manifest(manifest)}
        if path is not None and stage == Stage.TEST:
            trials = read_trials(path, known=speakers)
        else:
            trials = _pairs(speakers, split, hparams)
        found[stage] = trials
        owners[stage] = _owners(trials, speakers, path)
    hparams["trials"], hparams["trial_speakers"] = found, owners
    hparams["write_trials"] = write_trials


def _pairs(speakers, split, hparams):
    """Trials of a split's utterances."""
    try:
        return pair_trials(
            list(speakers),
            list(speakers.values()),
            hparams[f"num_{split}_trials"],
            hparams["seed"],
        )
    except ValueError as error:
        raise ValueError(f"trials of the split {split}: {error}") from error


def _owners(trials, speakers, path):
    """Speakers of both sides of each trial, by number."""
    names = [speakers[name] for name in trials.names]
    if "" in names:
        owners = speakers_of(trials)
    else:
        owners = np.unique(names, return_inverse=True)[1]
    left, right = owners[trials.left], owners[trials.right]
    wrong = np.flatnonzero((left == right) != trials.targets)
    if len(wrong):
        one, other = (
            trials.names[side[wrong[0]]] for side in (trials.left, trials.right)
        )
        kind = "target" if trials.targets[wrong[0]] else "non-target"
        raise ValueError(
            f"{path}: {one} {other} is a {kind} trial, but by the corpus "
            f"these are of {speakers[one]} and {speakers[other]}"
        )
    return left, right
