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
then that of shard 0 again, then all others, then that of shard 0.

Each run ends with units/, which the pre-training takes and which fairseq reads
as well, and with scores.json: how the units are used and, where the column
phone_spans of a manifest says when which phone is heard (as --synthetic=True
does), purities and PNMI.
"""

import json
from pathlib import Path

import unispeech_sb  # noqa: F401  # isort: skip  # guards what follows
import numpy as np
from speechbrain.utils.logger import get_logger

from unispeech_sb.atomic import atomic
from unispeech_sb.dataio.corpora.fairseq import write_fairseq_units
from unispeech_sb.dataio.manifest import (
    SPLITS,
    check_records,
    filter_by_duration,
    read_manifest,
    write_manifests,
)
from unispeech_sb.dataio.pretraining import unlabelled_records
from unispeech_sb.dataio.unit_clustering import (
    HiddenStates,
    MFCCs,
    draw_sample,
    dump_frames,
    dump_units,
    fit_clusters,
    join_files,
    map_frames,
    read_units,
    shard_of,
)
from unispeech_sb.dataio.units import (
    check_units,
    phone_frames,
    read_spans,
    write_units,
)
from unispeech_sb.experiment import enter, open_output, read_command
from unispeech_sb.experiment import main as script
from unispeech_sb.metrics.units import count_pairs, unit_quality, unit_use

logger = get_logger(__name__)


def make_features(hparams, device="cpu"):
    """Chooses what is clustered.

    Arguments
    ---------
    hparams : dict
        The recipe's yaml.
    device : str
        Where to compute.

    Returns
    -------
    MFCCs or HiddenStates
        From waveforms to frames.
    """
    if hparams["model"] is None:
        return MFCCs()
    return HiddenStates(
        hparams["make_backbone"](),
        hparams["layer"],
        hparams["max_batch_s"],
        device,
    )


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


def read_records(hparams):
    """Reads the manifests.

    Arguments
    ---------
    hparams : dict
        The recipe's yaml.

    Returns
    -------
    list of dict
        The records of all splits.
    """
    folder = Path(hparams["manifest_folder"])
    paths = {split: folder / f"{split}.csv" for split in SPLITS}
    paths = {split: file for split, file in paths.items() if file.is_file()}
    if "train" not in paths:
        raise ValueError(f"{folder}: expected train.csv in it, got none")
    return [
        {**record, "split": split}
        for split, file in paths.items()
        for record in read_manifest(file)
    ]


def _shards(hparams):
    """The shards of this run."""
    count, shard = hparams["shards"], hparams["shard"]
    if count < 1 or shard not in (None, *range(count)):
        raise ValueError(
            "expected shards of at least 1 and shard from 0 to "
            f"{count - 1}, or null for all; got {count} and {shard}"
        )
    return range(count) if shard is None else [shard]


def _files(hparams, name):
    """The file of each shard."""
    count = hparams["shards"]
    return [
        Path(hparams["save_folder"], name.format(f"{shard:04d}_of_{count:04d}"))
        for shard in range(count)
    ]


def _all_there(paths, hparams):
    """Whether all shards are done, and this run does what comes next."""
    missing = [str(n) for n, path in enumerate(paths) if not path.is_file()]
    if missing:
        logger.info(
            f"Shards {', '.join(missing)} are to do: run them, then shard 0"
        )
    elif hparams["shard"] not in (None, 0):
        logger.info("All shards are done: run shard 0 again")
    return not missing and hparams["shard"] in (None, 0)


def find_centres(records, features, hparams):
    """Clusters the frames of drawn training recordings.

    Arguments
    ---------
    records : list of dict
        Utterance records.
    features : callable
        From waveforms to frames.
    hparams : dict
        The recipe's yaml.

    Returns
    -------
    numpy.ndarray or None
        The centres, [K, D]; None when that is for another run to do.
    """
    path = Path(hparams["save_folder"], "centres.npz")
    if not path.is_file():
        paths = _files(hparams, "frames_{}.f32")
        joined = path.with_name("frames.f32")
        drawn = draw_sample(records, hparams["kmeans_share"], hparams["seed"])
        for shard in [] if joined.is_file() else _shards(hparams):
            if not paths[shard].is_file():
                own = shard_of(records, shard, hparams["shards"])
                own = [record for record in own if record["ID"] in drawn]
                dump_frames(own, features, paths[shard], hparams["max_batch_s"])
        if not joined.is_file():
            if not _all_there(paths, hparams):
                return None
            join_files(paths, joined)
        _cluster(joined, features.dim, path, hparams)
    with np.load(path, allow_pickle=False) as arrays:
        return arrays["centres"]


def _cluster(joined, dim, path, hparams):
    """Writes the centres of a file of frames, and removes that."""
    frames = map_frames(joined, dim)
    logger.info(f"k-means of {len(frames)} frames")
    centres, inertia = fit_clusters(
        frames, hparams["num_units"], hparams["seed"], **hparams["kmeans"]
    )
    with atomic(path, "wb") as file:
        np.savez(file, centres=centres, inertia=inertia)
    joined.unlink()
    logger.info(f"Mean squared distance to the centres: {inertia:.4g}")


def label(records, features, centres, hparams):
    """Finds the units of the recordings of this run's shards.

    Arguments
    ---------
    records : list of dict
        Utterance records.
    features : callable
        From waveforms to frames.
    centres : numpy.ndarray
        The centres, [K, D].
    hparams : dict
        The recipe's yaml.

    Returns
    -------
    list of pathlib.Path or None
        Files with the units of all; None when others are to be made.
    """
    paths = _files(hparams, "units_{}.npz")
    for shard in _shards(hparams):
        if not paths[shard].is_file():
            own = shard_of(records, shard, hparams["shards"])
            dump_units(
                own, features, centres, paths[shard], hparams["max_batch_s"]
            )
    return paths if _all_there(paths, hparams) else None


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
    heard = {phone for own in spans if own for phone, _, _ in own}
    phones = {phone: index for index, phone in enumerate(sorted(heard))}
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


def finish(records, paths, features, hparams):
    """Writes the folder of units, and scores them.

    Arguments
    ---------
    records : list of dict
        Utterance records.
    paths : list of pathlib.Path
        Files with the units of all.
    features : callable
        From waveforms to frames.
    hparams : dict
        The recipe's yaml.

    Returns
    -------
    dict
        Split -> its scores.
    """
    folder, num_units = Path(hparams["units_folder"]), hparams["num_units"]
    about = {key: hparams[key] for key in ("num_units", "model", "seed")}
    about |= {"label_rate": features.label_rate, "window_s": features.window_s}
    if hparams["model"] is not None:
        about["layer"] = hparams["layer"]
    write_units(folder, records, read_units(paths), about)
    centres = Path(hparams["save_folder"], "centres.npz")
    (folder / "centres.npz").write_bytes(centres.read_bytes())
    check_units(folder, num_units)
    if all(record["start"] is None is record["stop"] for record in records):
        write_fairseq_units(folder, records, read_units(paths), num_units)
    else:
        logger.info("No files for fairseq, which knows no stretches of files")
    scores = score(records, read_units(paths), num_units, features)
    for split, found in scores.items():
        told = ", ".join(f"{name} {value:.4g}" for name, value in found.items())
        logger.info(f"{split}: {told}")
    text = json.dumps(scores, indent=2) + "\n"
    with atomic(Path(hparams["output_folder"], "scores.json")) as file:
        file.write(text)
    return scores


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
    hparams = command.load()
    _shards(hparams)
    # The units are made here, not trained on
    own = {k: v for k, v in hparams.items() if k != "units_folder"}
    output = open_output(command, own, prepare)
    if enter(command, output, prepare, trusting=True) is not None:
        logger.info(f"{output.folder}: already finished, nothing made")
        return output.read_scores()
    features = make_features(hparams, command.run_opts["device"] or "cpu")
    records = read_records(hparams)
    centres = find_centres(records, features, hparams)
    if centres is None:
        return None
    paths = label(records, features, centres, hparams)
    if paths is None:
        return None
    scores = finish(records, paths, features, hparams)
    output.finish("all", hparams["units_folder"])
    return scores


if __name__ == "__main__":
    script(main)
