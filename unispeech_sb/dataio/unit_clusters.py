"""k-means over more frames than fit in memory, and the nearest centre of each
frame, with the settings of HuBERT's authors (Hsu et al. 2021, section IV-B).
"""

import os
import shutil
from pathlib import Path

import numpy as np
import torch

AUTHORS = {
    "init": "k-means++",
    "max_iter": 100,
    "batch_size": 10000,
    "tol": 0.0,
    "max_no_improvement": 100,
    "n_init": 20,
    "reassignment_ratio": 0.0,
}
"""Options of scikit-learn's ``MiniBatchKMeans`` in the authors' code."""

_ROWS = 2**16  # frames whose distances are held at once


def map_frames(path, dim):
    """Opens a file of frames without reading it.

    Arguments
    ---------
    path : str or path-like
        float32 numbers, frame after frame, and nothing else.
    dim : int
        Numbers of a frame.

    Returns
    -------
    numpy.memmap
        The frames, read-only, [T, D].

    Raises
    ------
    ValueError
        When the file has no whole number of frames, or none.

    Example
    -------
    >>> path = getfixture("tmp_path") / "frames.f32"
    >>> np.zeros((5, 39), np.float32).tofile(path)
    >>> map_frames(path, 39).shape
    (5, 39)
    """
    size = os.path.getsize(path)
    if size == 0 or size % (4 * dim):
        raise ValueError(
            f"{path}: expected frames of {dim} float32 numbers, got "
            f"{size} bytes"
        )
    return np.memmap(path, np.float32, "r").reshape(-1, dim)


def fit_clusters(frames, num_units, seed=0, **options):
    """Clusters frames by mini-batches.

    Mapped frames are not copied: only the batches, and some numbers of each
    frame, are in memory. This is scikit-learn's ``fit``, as in the authors'
    code; its ``partial_fit`` would ignore ``n_init`` and
    ``max_no_improvement``.

    Arguments
    ---------
    frames : numpy.ndarray
        float32, [T, D].
    num_units : int
        Number of clusters K.
    seed : int
        What the draws depend on.
    **options
        Options of ``MiniBatchKMeans`` in place of ``AUTHORS``.

    Returns
    -------
    centres : numpy.ndarray
        float32, [K, D].
    inertia : float
        Mean squared distance of a frame to its centre, a running mean over
        the last batches.

    Raises
    ------
    ImportError
        When scikit-learn is not installed.
    ValueError
        When there are fewer frames than clusters, or one is not finite.

    Example
    -------
    >>> frames = np.repeat(np.eye(3, dtype=np.float32), 20, axis=0)
    >>> centres, inertia = fit_clusters(frames, num_units=3)
    >>> sorted(centres.argmax(axis=1).tolist()), round(inertia, 6)
    ([0, 1, 2], 0.0)
    """
    try:
        from sklearn.cluster import MiniBatchKMeans
    except ImportError as error:
        raise ImportError(
            "k-means needs the package scikit-learn: "
            "pip install unispeech_sb[pretrain]"
        ) from error
    if len(frames) < num_units:
        raise ValueError(
            f"num_units: expected at most the {len(frames)} frames to "
            f"cluster, got {num_units}"
        )
    kmeans = MiniBatchKMeans(
        num_units,
        random_state=seed,
        compute_labels=False,
        **{**AUTHORS, **options},
    ).fit(frames)
    return kmeans.cluster_centers_, float(kmeans.inertia_ / len(frames))


def nearest_centres(frames, centres):
    """Finds the centre that each frame is nearest to.

    Arguments
    ---------
    frames : torch.Tensor
        float32, [T, D].
    centres : torch.Tensor
        float32, on the same device, [K, D].

    Returns
    -------
    torch.Tensor
        Index of the centre, the lower of two that are equally near, int64,
        [T].

    Example
    -------
    >>> nearest_centres(
    ...     torch.tensor([[0.9], [0.2]]), torch.tensor([[0.0], [1]])
    ... )
    tensor([1, 0])
    """
    # |x - c|^2 without |x|^2, which is the same for all centres
    norms = centres.square().sum(dim=1)
    found = [
        (norms - 2 * rows @ centres.T).argmin(dim=1)
        for rows in frames.split(_ROWS)
    ]
    return torch.cat(found)


def join_files(paths, target):
    """Writes files one after the other into one, whole or not at all.

    Arguments
    ---------
    paths : list of path-like
        What to join; all are removed at the end.
    target : path-like
        The file to write.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> parts = [folder / "a", folder / "b"]
    >>> _ = [part.write_bytes(part.name.encode()) for part in parts]
    >>> join_files(parts, folder / "all")
    >>> (folder / "all").read_bytes(), parts[0].exists()
    (b'ab', False)
    """
    draft = Path(f"{target}.{os.getpid()}.tmp")
    with open(draft, "wb") as joined:
        for path in paths:
            with open(path, "rb") as part:
                shutil.copyfileobj(part, joined)
    os.replace(draft, target)
    for path in paths:
        Path(path).unlink()
