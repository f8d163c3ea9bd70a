"""Units: k-means labels of frames, the targets of UniSpeech-SAT's pre-training.

First iteration, clusters of MFCCs at 100 Hz; second iteration, clusters of the
hidden states of a model at 50 Hz, of one layer:

    python recipes/make_units.py hparams/make_units.yaml \
        --data_folder=LibriSpeech
    python recipes/make_units.py hparams/make_units.yaml \
        --data_folder=LibriSpeech --model=results/pretrain/export --layer=6 \
        --num_units=500 --kmeans_share=0.1

Folders of recordings of your own, several too: --data_folder=[first,second].
A killed run goes on where it was, shard by shard. On several machines that
share the output folder, say on 8: run each with --shards=8 --shard=0 to 7,
then that of shard 0 again, then all others, then that of shard 0. To start
afresh in an earlier folder, give --overwrite to the very first of them alone.

Each run ends with units/, which the pre-training takes and which fairseq reads
as well, and with scores.json: how the units are used and, where the column
phone_spans of a manifest has the times of the phones (as with
--synthetic=True), purities and PNMI.
"""

from pathlib import Path

import unispeech_sb  # noqa: F401  # isort: skip  # guards what follows
import numpy as np
import torch
from speechbrain.utils.logger import get_logger

from unispeech_sb.atomic import write_json
from unispeech_sb.dataio.manifest import (
    check_records,
    filter_by_duration,
    read_splits,
    write_manifests,
)
from unispeech_sb.dataio.pretraining import unlabelled_records
from unispeech_sb.dataio.unit_clustering import (
    cluster_frames,
    find_units,
    make_features,
    own_shards,
    read_units,
    write_results,
)
from unispeech_sb.dataio.units import phone_frames, read_spans
from unispeech_sb.experiment import (
    alone_in,
    enter,
    open_output,
    print_end,
    read_command,
    works_alone,
)
from unispeech_sb.experiment import main as script
from unispeech_sb.metrics.phones import count_pairs, unit_quality, unit_use

logger = get_logger(__name__)


def prepare(hparams):
    """Checks every recording and writes the manifests.

    Arguments
    ---------
    hparams : dict
        The recipe's yaml.
    """
    if hparams["skip_prep"]:
        return
    records = check_records(
        unlabelled_records(hparams), hparams["skip_bad_files"]
    )
    kept, dropped = filter_by_duration(records, hparams["min_duration_s"])
    if dropped:
        logger.info(
            f"Left out {len(dropped)} files under {hparams['min_duration_s']} s"
        )
    write_manifests(
        kept, hparams["manifest_folder"], required_splits=("train",)
    )


def score(records, units, num_units, features):
    """Scores the units of each split.

    Arguments
    ---------
    records : list of dict
        Utterance records.
    units : iterable of numpy.ndarray
        Units of each.
    num_units : int
        Number of units K.
    features : callable
        From waveforms to frames.

    Returns
    -------
    dict
        Split -> its scores.
    """
    spans = [read_spans(record) for record in records]
    names = {phone for own in spans if own for phone, _, _ in own}
    phones = {phone: index for index, phone in enumerate(sorted(names))}
    used, pairs = {}, {}
    for record, own, times in zip(records, units, spans):
        split, counts = record["split"], np.bincount(own, minlength=num_units)
        used[split] = used.get(split, 0) + counts
        if times:
            found = phone_frames(
                times, len(own), features.label_rate, features.window_s, phones
            )
            counts = count_pairs(own, found, num_units, len(phones))
            pairs[split] = pairs.get(split, 0) + counts
    scores = {split: unit_use(counts) for split, counts in used.items()}
    for split, counts in pairs.items():
        scores[split].update(unit_quality(counts))
    return scores


def write_scores(scores, hparams):
    """Writes the scores, and logs them.

    Arguments
    ---------
    scores : dict
        Split -> its scores.
    hparams : dict
        The recipe's yaml.
    """
    for split, found in scores.items():
        named = (f"{name} {value:.4g}" for name, value in found.items())
        logger.info(f"{split}: {', '.join(named)}")
    write_json(Path(hparams["output_folder"], "scores.json"), scores)


def main(argv=None):
    """Runs the recipe on a list of arguments, or on the process's.

    Arguments
    ---------
    argv : list, optional
        The command line after the program's name.

    Returns
    -------
    dict or None
        Split -> its scores; None when shards of other runs are to do.
    """
    command = read_command(argv)
    if not works_alone():
        return None
    hparams = command.load()
    own_shards(hparams)
    # The units are made here, not trained on
    own = {k: v for k, v in hparams.items() if k != "units_folder"}
    output = open_output(command, own, prepare)
    with alone_in(output):
        return make(command, hparams, output)


def make(command, hparams, output):
    """Makes the units of a command line, or goes on with it.

    Arguments
    ---------
    command : Command
        The command line.
    hparams : dict
        The recipe's yaml.
    output : OutputFolder
        Of this process alone, but for other shards.

    Returns
    -------
    dict or None
        As for ``main``.
    """
    folder = hparams["units_folder"]
    finished = enter(command, output, prepare, trusting=True)
    if finished is not None:
        scores = output.read_scores()
        print_end(output, scores, finished, folder)
        return scores
    torch.manual_seed(hparams["seed"])  # of a preset's random weights
    features = make_features(hparams, command.run_opts["device"] or "cpu")
    records = read_splits(hparams["manifest_folder"])
    centres = cluster_frames(records, features, hparams)
    if centres is None:
        return None
    paths = find_units(records, features, centres, hparams)
    if paths is None:
        return None
    write_results(records, paths, features, hparams)
    units = read_units(paths)
    scores = score(records, units, hparams["num_units"], features)
    write_scores(scores, hparams)
    output.finish("all", Path(folder).resolve())
    print_end(output, scores, units=folder)
    return scores


if __name__ == "__main__":
    script(main)
