"""k-means of files of frames."""

import builtins
import tracemalloc

import numpy as np
import pytest
import torch
from sklearn.cluster import MiniBatchKMeans

from unispeech_sb.dataio.unit_clusters import (
    AUTHORS,
    fit_clusters,
    join_files,
    map_frames,
    nearest_centres,
)


def blobs(num_frames=3000, dim=8, num_blobs=5):
    """Frames around a few places."""
    generator = np.random.default_rng(0)
    places = generator.normal(0, 10, (num_blobs, dim))
    frames = places[generator.integers(num_blobs, size=num_frames)]
    return (frames + generator.normal(size=frames.shape)).astype(np.float32)


def test_a_mapped_file_gives_scikit_learns_centres(tmp_path):
    frames = blobs()
    frames.tofile(tmp_path / "frames")
    mapped = map_frames(tmp_path / "frames", 8)
    centres, inertia = fit_clusters(mapped, 5, seed=3)
    expected = MiniBatchKMeans(
        5, init="k-means++", max_iter=100, batch_size=10000, tol=0.0,
        max_no_improvement=100, n_init=20, reassignment_ratio=0.0,
        random_state=3,
    ).fit(frames)  # fmt: skip
    assert np.array_equal(centres, expected.cluster_centers_)
    assert inertia == pytest.approx(expected.inertia_ / len(frames), rel=0.05)
    assert inertia == pytest.approx(8, rel=0.1)  # the variance around a place


def test_the_seed_decides_and_options_count():
    frames = blobs(num_blobs=40)
    first, _ = fit_clusters(frames, 7, seed=0)
    assert np.array_equal(first, fit_clusters(frames, 7, seed=0)[0])
    assert not np.array_equal(first, fit_clusters(frames, 7, seed=1)[0])
    fewer, _ = fit_clusters(frames, 7, seed=0, n_init=1, max_iter=2)
    assert not np.array_equal(first, fewer)
    assert AUTHORS["n_init"] == 20


def test_clustering_does_not_hold_the_frames(tmp_path):
    with open(tmp_path / "frames", "wb") as file:
        for _ in range(40):
            file.write(blobs(2500, dim=100).tobytes())
    frames = map_frames(tmp_path / "frames", 100)
    assert frames.nbytes == 40_000_000
    fit_clusters(frames[:2000], 3)  # what is imported first is not counted
    tracemalloc.start()
    fit_clusters(frames, 3, batch_size=1000, n_init=2, max_iter=1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 12_000_000


def test_units_are_those_of_scikit_learn():
    frames = blobs(2000)
    kmeans = MiniBatchKMeans(9, n_init=1, random_state=0).fit(frames)
    found = nearest_centres(
        torch.from_numpy(frames), torch.from_numpy(kmeans.cluster_centers_)
    )
    assert np.array_equal(found.numpy(), kmeans.predict(frames))


def test_files_are_joined_in_order(tmp_path):
    parts = [tmp_path / name for name in "ab"]
    for number, part in enumerate(parts):
        np.full((number + 1, 2), number, np.float32).tofile(part)
    join_files(parts, tmp_path / "all")
    assert map_frames(tmp_path / "all", 2)[:, 0].tolist() == [0, 1, 1]
    assert [path.name for path in tmp_path.iterdir()] == ["all"]


def test_what_cannot_be_clustered_is_told(tmp_path):
    path = tmp_path / "frames"
    path.write_bytes(b"12345678")
    with pytest.raises(ValueError, match=f"{path}: expected frames of 3 "):
        map_frames(path, 3)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="got 0 bytes"):
        map_frames(path, 3)
    with pytest.raises(ValueError, match="at most the 4 frames .* got 5"):
        fit_clusters(blobs(4), 5)
    frames = blobs()
    frames[7, 3] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        fit_clusters(frames, 5)


def test_without_scikit_learn_the_extra_is_named(monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.startswith("sklearn"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=r"unispeech_sb\[pretrain\]"):
        fit_clusters(blobs(), 5)
