"""Parts of the making of units that can be done on machines of their own, and
that are kept when a run is killed: a shard is done when its file is there.
"""

import math
import os
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from unispeech_sb.dataio.audio import read_audio
from unispeech_sb.dataio.unit_clusters import nearest_centres


def shard_of(items, shard, num_shards):
    """Takes one of as many parts of like length, in order.

    Arguments
    ---------
    items : list
        What to part.
    shard : int
        Which part, from 0.
    num_shards : int
        How many parts.

    Returns
    -------
    list
        The part.

    Example
    -------
    >>> [shard_of("abcde", shard, 3) for shard in range(3)]
    ['a', 'bc', 'de']
    """
    bounds = [len(items) * n // num_shards for n in (shard, shard + 1)]
    return items[slice(*bounds)]


def draw_sample(records, share, seed):
    """Draws the training recordings that are clustered.

    Arguments
    ---------
    records : list of dict
        Utterance records of all splits.
    share : float
        How many of the training recordings, in (0, 1].
    seed : int
        What the draw depends on, beside the records.

    Returns
    -------
    set of str
        Their IDs, at least one.

    Raises
    ------
    ValueError
        When the share is out of range.

    Example
    -------
    >>> records = [{"ID": name, "split": "train"} for name in "abcd"]
    >>> len(draw_sample(records, 0.5, seed=0))
    2
    """
    if not 0 < share <= 1:
        raise ValueError(
            f"kmeans_share: expected a share in (0, 1], got {share}"
        )
    names = [r["ID"] for r in records if r["split"] == "train"]
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(names), generator=generator).tolist()
    return {names[i] for i in order[: math.ceil(share * len(names))]}


def dump_frames(records, features, path, max_batch_s):
    """Writes the frames of recordings, whole or not at all.

    Arguments
    ---------
    records : list of dict
        Utterance records.
    features : callable
        ``MFCCs`` or ``HiddenStates``.
    path : path-like
        The file to write, as ``map_frames`` reads it.
    max_batch_s : float
        Most seconds to compute at once, padding included.

    Example
    -------
    >>> path = getfixture("tmp_path") / "frames.f32"
    >>> dump_frames([], None, path, max_batch_s=10.0)
    >>> path.stat().st_size
    0
    """
    draft = Path(f"{path}.{os.getpid()}.tmp")
    with open(draft, "wb") as file:
        for frames in _frames(records, features, max_batch_s, "Frames"):
            file.write(frames.numpy().tobytes())
    os.replace(draft, path)


def dump_units(records, features, centres, path, max_batch_s):
    """Writes the units of recordings, whole or not at all.

    Arguments
    ---------
    records : list of dict
        Utterance records.
    features : callable
        ``MFCCs`` or ``HiddenStates``.
    centres : numpy.ndarray
        float32, [K, D].
    path : path-like
        The file to write, as ``read_units`` reads it.
    max_batch_s : float
        Most seconds to compute at once, padding included.

    Example
    -------
    >>> path = getfixture("tmp_path") / "units.npz"
    >>> dump_units([], None, np.zeros((2, 39), np.float32), path, 10.0)
    >>> list(read_units([path]))
    []
    """
    centres = torch.from_numpy(np.ascontiguousarray(centres))
    found = [
        nearest_centres(frames, centres).to(torch.int32).numpy()
        for frames in _frames(records, features, max_batch_s, "Units")
    ]
    draft = Path(f"{path}.{os.getpid()}.tmp")
    with open(draft, "wb") as file:
        np.savez(
            file,
            units=np.concatenate([np.empty(0, np.int32), *found]),
            counts=np.array([len(own) for own in found], np.int64),
        )
    os.replace(draft, path)


def read_units(paths):
    """Yields the units of recordings, a shard at a time in memory.

    Arguments
    ---------
    paths : iterable of path-like
        Files that ``dump_units`` wrote.

    Yields
    ------
    numpy.ndarray
        Units of a recording, int32, [T].

    Example
    -------
    >>> list(read_units([]))
    []
    """
    for path in paths:
        with np.load(path, allow_pickle=False) as arrays:
            stops = arrays["counts"].cumsum()
            yield from np.split(arrays["units"], stops)[:-1]


def _frames(records, features, max_batch_s, what):
    """Yields the frames of each recording, computed in batches."""
    with tqdm(
        total=len(records), desc=what, unit="file", disable=None
    ) as progress:
        for batch in _batches(records, max_batch_s):
            wavs = [
                read_audio(r["wav"], r["start"], r["stop"], allow_silence=True)
                for r in batch
            ]
            yield from features(wavs)
            progress.update(len(batch))


def _batches(records, max_batch_s):
    """Parts records, in their order, by their padded length."""
    batch, longest = [], 0.0
    for record in records:
        longest = max(longest, record["duration"])
        if batch and longest * (len(batch) + 1) > max_batch_s:
            yield batch
            batch, longest = [], record["duration"]
        batch.append(record)
    if batch:
        yield batch
