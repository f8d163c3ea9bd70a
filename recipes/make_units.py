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

import hashlib
import json
import os
from pathlib import Path

import unispeech_sb  # noqa: F401  # isort: skip  # guards what follows
import numpy as np
import speechbrain as sb
from hyperpyyaml import load_hyperpyyaml
from speechbrain.utils.logger import get_logger

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
from unispeech_sb.experiment import main as script
from unispeech_sb.experiment import parse_arguments
from unispeech_sb.metrics.units import count_pairs, unit_quality, unit_use

logger = get_logger(__name__)

_DECIDES = (
    *("data_folder", "subsets", "synthetic", "valid_share", "min_duration_s"),
    *("model", "layer", "num_units", "kmeans_share", "kmeans", "seed"),
    *("shards", "max_batch_s"),
)
"""Keys that must not change when a run goes on."""


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
    """Checks every recording and writes the manifests, once.

    Arguments
    ---------
    hparams : dict
        The recipe's yaml.

    Returns
    -------
    list of dict
        The records of all splits.
    """
    folder, save = (
        Path(hparams["manifest_folder"]),
        Path(hparams["save_folder"]),
    )
    path = save / "settings.json"
    if not path.is_file() and not hparams["skip_prep"]:
        records = check_records(
            unlabelled_records(hparams), hparams["skip_bad_files"]
        )
        kept, dropped = filter_by_duration(records, hparams["min_duration_s"])
        if dropped:
            logger.info(
                f"Left out {len(dropped)} files under "
                f"{hparams['min_duration_s']} s"
            )
        write_manifests(kept, folder, required_splits=("train",))
    paths = {split: folder / f"{split}.csv" for split in SPLITS}
    paths = {split: file for split, file in paths.items() if file.is_file()}
    if "train" not in paths:
        raise ValueError(f"{folder}: expected train.csv in it, got none")
    _keep_settings(path, hparams, paths.values())
    return [
        {**record, "split": split}
        for split, file in paths.items()
        for record in read_manifest(file)
    ]


def _keep_settings(path, hparams, manifests):
    """Writes what a run depends on, or refuses to go on with another."""
    settings = {key: hparams[key] for key in _DECIDES}
    settings["manifests"] = [
        hashlib.sha256(file.read_bytes()).hexdigest() for file in manifests
    ]
    text = json.dumps(settings, indent=2, default=str)
    if path.is_file():
        kept = json.loads(path.read_text(encoding="utf-8"))
        now = json.loads(text)
        changed = [key for key in now if now[key] != kept.get(key)]
        if changed:
            raise ValueError(
                f"{path}: expected a run with the same {', '.join(changed)}; "
                f"choose another --output_folder, or remove {path.parent}"
            )
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}.tmp")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)


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
    draft = path.with_suffix(f".{os.getpid()}.tmp")
    with open(draft, "wb") as file:
        np.savez(file, centres=centres, inertia=inertia)
    os.replace(draft, path)
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
    Path(hparams["output_folder"], "scores.json").write_text(text, "utf-8")
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
    hparams_file, run_opts, overrides = parse_arguments(argv)
    with open(hparams_file, encoding="utf-8") as file:
        hparams = load_hyperpyyaml(file, overrides)
    _shards(hparams)
    sb.create_experiment_directory(
        hparams["output_folder"], hparams_file, overrides
    )
    features = make_features(hparams, run_opts["device"] or "cpu")
    records = prepare(hparams)
    centres = find_centres(records, features, hparams)
    if centres is None:
        return None
    paths = label(records, features, centres, hparams)
    if paths is None:
        return None
    return finish(records, paths, features, hparams)


if __name__ == "__main__":
    script(main)
