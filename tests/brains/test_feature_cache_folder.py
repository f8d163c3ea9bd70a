"""A folder of kept features: its files, and the processes that share it."""

import json
import multiprocessing
import os
import shutil
import signal
from types import SimpleNamespace

import pytest
import torch
from speechbrain.dataio.batch import PaddedBatch

from tests.brains.clips import clips, num_computed, stand
from unispeech_sb.atomic import temporary_path
from unispeech_sb.brains import feature_cache
from unispeech_sb.brains.feature_cache import FeatureCache
from unispeech_sb.dataio import cached_items


def test_the_size_is_printed_before_anything_is_written(
    backbone, manifests, tmp_path, capsys, monkeypatch
):
    written = []
    write = feature_cache.write_tensors
    monkeypatch.setattr(
        feature_cache,
        "write_tensors",
        lambda path, tensors, notes: (
            written.append(capsys.readouterr().out),
            write(path, tensors, notes),
        ),
    )
    cache = FeatureCache(tmp_path / "cache", backbone)
    cache.view(clips(manifests))
    (printed,) = written
    size = sum(p.stat().st_size for p in cache.folder.iterdir())
    shown = float(printed.partition("(")[2].split()[0])
    assert "computing 18 of 18 waveforms" in printed and " MB;" in printed
    assert shown == pytest.approx(size / 1e6, abs=0.06)


def test_what_does_not_fit_on_the_disk_is_refused(
    backbone, manifests, tmp_path, monkeypatch
):
    usage = SimpleNamespace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    cache = FeatureCache(tmp_path / "cache", backbone)
    with pytest.raises(OSError, match=r"expected .* of free disk .* got 0.0"):
        cache.view(clips(manifests))
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_a_disk_that_fills_up_takes_one_sentence(backbone, manifests, tmp_path):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    cache = FeatureCache(tmp_path / "cache", backbone)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        with pytest.raises(OSError, match="safetensors") as caught:
            cache.view(clips(manifests))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert "\n" not in str(caught.value)
    assert not list(cache.folder.iterdir())
    cache.view(clips(manifests))  # once there is space


def compute_until_killed(folder, manifests, backbone):
    """Is killed while it writes the third chunk."""
    write, left = feature_cache.write_tensors, [2]

    def dying(path, tensors, notes):
        if not left[0]:
            temporary_path(path).write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        write(path, tensors, notes)

    feature_cache.write_tensors = dying
    stand(folder, backbone).view(clips(manifests))


def test_a_killed_pass_goes_on(
    backbone, manifests, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(cached_items, "_BATCH_SAMPLES", 5 * 4800)
    monkeypatch.setattr(feature_cache, "_CHUNK_BYTES", 1)
    context = multiprocessing.get_context("fork")
    given = (tmp_path, manifests, backbone)
    process = context.Process(target=compute_until_killed, args=given)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    cache = stand(tmp_path, backbone)
    left = [path.name[0] for path in cache.folder.iterdir()]
    assert len(left) == 3 and left.count(".") == 1
    assert 0 < num_computed(cache, clips(manifests), capsys) < 18
    assert not list(tmp_path.rglob(".*"))
    whole = stand(tmp_path / "other", backbone)
    whole.view(clips(manifests))
    data = clips(manifests)
    for place in range(18):
        own, other = (
            c.features(PaddedBatch([c.view(data)[place]]))[0]
            for c in (cache, whole)
        )
        torch.testing.assert_close(own, other)


def test_a_damaged_chunk_is_named(backbone, manifests, tmp_path):
    cache = stand(tmp_path, backbone)
    cache.view(clips(manifests))
    (path,) = cache.folder.glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=path.name):
        stand(tmp_path, backbone)


def compute_beside(folder, manifests, backbone, counted):
    """A process that needs the same features; how many it computed."""
    compute = FeatureCache._named

    def counting(self, wavs):
        with counted.get_lock():
            counted.value += len(wavs)
        return compute(self, wavs)

    FeatureCache._named = counting
    feature_cache._WAIT_S = 0.01
    stand(folder, backbone).view(clips(manifests))


def test_processes_share_a_folder(backbone, manifests, tmp_path):
    context = multiprocessing.get_context("fork")
    counted = context.Value("i", 0)
    given = (tmp_path, manifests, backbone, counted)
    both = [
        context.Process(target=compute_beside, args=given) for _ in range(2)
    ]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert counted.value == 18
    cache = stand(tmp_path, backbone)
    assert len(cache._entries) == 18
    assert not list(tmp_path.glob(".*.lock"))


def compute_share(rank, folder, manifests, backbone, counted):
    """One of the two processes of a run."""
    torch.distributed.init_process_group(
        "gloo", f"file://{folder}/meeting", rank=rank, world_size=2
    )
    compute_beside(folder / "cache", manifests, backbone, counted[rank])
    data = clips(manifests)
    cache = stand(folder / "cache", backbone)
    assert len(cache.view(data).entries) == len(data)
    torch.distributed.destroy_process_group()


def test_processes_of_a_run_share_the_work(
    backbone, manifests, tmp_path, monkeypatch
):
    monkeypatch.setattr(cached_items, "_BATCH_SAMPLES", 4800)
    context = multiprocessing.get_context("fork")
    counted = [context.Value("i", 0) for _ in range(2)]
    given = (tmp_path, manifests, backbone, counted)
    both = [
        context.Process(target=compute_share, args=(rank, *given))
        for rank in range(2)
    ]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert [count.value for count in counted] == [9, 9]


def test_the_note_of_a_chunk_is_plain(backbone, manifests, tmp_path):
    """Chunks are safetensors that anything reads: frames and their counts."""
    from safetensors import safe_open

    cache = FeatureCache(tmp_path, backbone)
    cache.view(clips(manifests))
    (path,) = cache.folder.glob("*.safetensors")
    with safe_open(path, framework="np") as chunk:
        digests = json.loads(chunk.metadata()["digests"])
        counts, feats = (chunk.get_tensor(n) for n in ("counts", "features"))
    assert len(digests) == len(counts) == 18
    assert feats.shape == (counts.sum(), 3, 16)
