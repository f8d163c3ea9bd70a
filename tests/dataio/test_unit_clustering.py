"""Units by clustering: frames, shards, k-means."""

import builtins
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.cluster import MiniBatchKMeans
from torchaudio.compliance import kaldi

from unispeech_sb.dataio.unit_clustering import (
    AUTHORS,
    HiddenStates,
    MFCCs,
    cluster_frames,
    draw_sample,
    dump_frames,
    dump_units,
    fit_clusters,
    join_files,
    map_frames,
    nearest_centres,
    read_units,
    shard_of,
)
from unispeech_sb.lobes.backbone import Backbone


def noise(*lengths):
    """Waveforms of such lengths."""
    return [0.1 * torch.randn(length) for length in lengths]


def slopes(rows):
    """Kaldi's differences over two frames on each side, by the formula."""
    padded = torch.cat([rows[:1]] * 2 + [rows] + [rows[-1:]] * 2)
    found = torch.zeros_like(rows)
    for distance in (1, 2):
        later = padded[2 + distance :][: len(rows)]
        earlier = padded[2 - distance :][: len(rows)]
        found += distance * (later - earlier) / 10
    return found


def test_mfccs_have_their_differences():
    (wav,) = noise(8000)
    (feats,) = MFCCs()([wav])
    cepstra, first, second = feats.split(13, dim=1)
    torch.testing.assert_close(first, slopes(cepstra))
    torch.testing.assert_close(second, slopes(first))
    assert MFCCs.dim == feats.shape[1]


def test_mfccs_begin_with_a_cepstrum_not_with_the_energy():
    (wav,) = noise(8000)
    (feats,) = MFCCs()([wav])
    logs = kaldi.fbank(wav[None], sample_frequency=16000)
    mean = logs.sum(dim=1) / 23**0.5  # the first cosine is constant
    torch.testing.assert_close(feats[:, 0], mean, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("length", [400, 559, 560, 16000, 16123])
def test_mfccs_are_a_hundred_a_second(length):
    (feats,) = MFCCs()(noise(length))
    assert len(feats) == (length - 400) // 160 + 1


def test_hidden_states_are_those_of_the_layer():
    backbone = Backbone.from_preset("tiny", freeze=True)
    (wav,) = noise(8000)
    states = list(backbone.iter_states(wav[None]))
    for layer, expected in enumerate(states):
        (feats,) = HiddenStates(backbone, layer)([wav])
        torch.testing.assert_close(feats, expected[0])


def test_the_last_states_are_before_the_final_norm():
    backbone = Backbone.from_preset("small", freeze=True)
    (wav,) = noise(8000)
    (feats,) = HiddenStates(backbone, 3)([wav])
    torch.testing.assert_close(
        backbone.encoder.final_norm(feats[None]), backbone(wav[None])
    )


@pytest.mark.parametrize("model", ["tiny", "small"])
def test_a_batch_gives_what_its_recordings_give_alone(model):
    states = HiddenStates(Backbone.from_preset(model, freeze=True), 2)
    wavs = noise(8000, 5000, 1200)
    for wav, found in zip(wavs, states(wavs)):
        torch.testing.assert_close(
            found, states([wav])[0], rtol=1e-4, atol=1e-5
        )


def test_layers_above_are_not_computed():
    backbone = Backbone.from_preset("tiny", freeze=True)

    def fail(*_):
        raise AssertionError("the second block was computed")

    backbone.encoder.layers[1].register_forward_pre_hook(fail)
    assert len(HiddenStates(backbone, 1)(noise(800))[0]) == 2


@pytest.mark.parametrize("model", ["tiny", "small"])
@pytest.mark.parametrize("length", [16000, 16320, 50123])
def test_pieces_have_as_many_frames_as_the_whole(model, length):
    backbone = Backbone.from_preset(model, freeze=True)
    wavs = noise(length, 4000)
    whole = HiddenStates(backbone, 1)(wavs)
    cut = HiddenStates(backbone, 1, chunk_s=0.5)(wavs)
    assert [feats.shape for feats in cut] == [feats.shape for feats in whole]


def test_pieces_are_not_shifted():
    backbone = Backbone.from_preset("small", freeze=True, normalize_wav=False)
    # Without positions, each frame of the input depends on its window only
    backbone.encoder.pos_conv_embed.register_forward_hook(
        lambda module, inputs, output: torch.zeros_like(output)
    )
    wavs = noise(50123)
    (whole,) = HiddenStates(backbone, 0)(wavs)
    (cut,) = HiddenStates(backbone, 0, chunk_s=0.5)(wavs)
    torch.testing.assert_close(cut, whole, rtol=1e-4, atol=1e-5)


def test_rate_and_window_are_the_backbones():
    tiny = HiddenStates(Backbone.from_preset("tiny"), 1)
    assert (tiny.label_rate, tiny.window, tiny.window_s) == (50, 400, 0.025)
    small = HiddenStates(Backbone.from_preset("small"), 1)
    assert (small.label_rate, small.window) == (50, 930)


def test_a_layer_that_is_not_there_is_refused():
    for layer in (-1, 3):
        with pytest.raises(ValueError, match=f"expected 0 to 2.* got {layer}"):
            HiddenStates(Backbone.from_preset("tiny"), layer)


@pytest.fixture
def records(tmp_path, write_noise):
    """Recordings of 0.5 to 1.5 s."""
    sizes = [8000, 16000, 24000, 8000]
    return [
        {
            "ID": f"r{number}",
            "wav": write_noise(tmp_path / f"{number}.wav", size),
            "duration": size / 16000,
            "split": "train",
            "start": None,
            "stop": None,
        }
        for number, size in enumerate(sizes)
    ]


class Spy(MFCCs):
    """Keeps how long the recordings of each batch are."""

    def __init__(self):
        self.batches = []

    def __call__(self, wavs):
        self.batches.append([len(wav) for wav in wavs])
        return super().__call__(wavs)


@pytest.mark.parametrize("num_shards", [1, 2, 3, 7, 20])
def test_shards_are_all_items_in_order(num_shards):
    items = list(range(10))
    shards = [shard_of(items, n, num_shards) for n in range(num_shards)]
    assert sum(shards, []) == items
    sizes = [len(shard) for shard in shards]
    assert max(sizes) - min(sizes) <= 1


def test_the_sample_is_of_training_recordings_and_by_the_seed():
    records = [
        {"ID": f"{split}{n}", "split": split}
        for split in ("train", "valid")
        for n in range(100)
    ]
    names = draw_sample(records, 0.105, seed=0)
    assert len(names) == 11
    assert all(name.startswith("train") for name in names)
    assert names == draw_sample(records, 0.105, seed=0)
    assert names != draw_sample(records, 0.105, seed=1)
    assert len(draw_sample(records, 1, seed=0)) == 100
    for share in (0, 1.5):
        with pytest.raises(ValueError, match="share in"):
            draw_sample(records, share, seed=0)


def test_batches_are_in_order_and_no_longer_than_asked(records, tmp_path):
    features = Spy()
    dump_frames(records, features, tmp_path / "frames", max_batch_s=2.0)
    assert features.batches == [[8000, 16000], [24000], [8000]]
    frames = map_frames(tmp_path / "frames", 39)
    expected = np.concatenate(
        [
            features([torch.from_numpy(wav)])[0].numpy()
            for wav in map(read, records)
        ]
    )
    assert np.array_equal(frames, expected)


def read(record):
    """The samples of a recording, as soundfile reads them."""
    import soundfile

    return soundfile.read(record["wav"], dtype="float32")[0]


def test_a_stretch_has_the_frames_of_its_stretch(records, tmp_path):
    part = {**records[2], "start": 8000, "stop": 16000}
    dump_frames([part], MFCCs(), tmp_path / "frames", 9.0)
    wav = torch.from_numpy(read(records[2])[8000:16000])
    assert np.array_equal(
        map_frames(tmp_path / "frames", 39), MFCCs()([wav])[0].numpy()
    )


def test_units_come_back_as_they_were_found(records, tmp_path):
    centres = np.random.default_rng(0).normal(0, 9, (6, 39)).astype(np.float32)
    paths = [tmp_path / name for name in ("first", "none", "second")]
    for path, own in zip(paths, (records[:3], [], records[3:])):
        dump_units(own, MFCCs(), centres, path, 9.0)
    found = list(read_units(paths))
    assert len(found) == len(records)
    for record, units in zip(records, found):
        (frames,) = MFCCs()([torch.from_numpy(read(record))])
        expected = nearest_centres(frames, torch.from_numpy(centres))
        assert np.array_equal(units, expected.numpy())


@pytest.mark.parametrize("dump", ["frames", "units"])
def test_a_shard_that_was_not_finished_is_not_there(records, tmp_path, dump):
    def stop(wavs):
        if len(wavs[0]) == 24000:
            raise KeyboardInterrupt
        return MFCCs()(wavs)

    path = tmp_path / "shard"
    with pytest.raises(KeyboardInterrupt):
        if dump == "frames":
            dump_frames(records, stop, path, 2.0)
        else:
            dump_units(records, stop, np.zeros((2, 39), "f4"), path, 2.0)
    assert not path.exists()


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


def test_joined_frames_are_not_computed_again(tmp_path):
    blobs().tofile(tmp_path / "frames.f32")
    hparams = {
        "save_folder": tmp_path, "shards": 2, "shard": None, "seed": 0,
        "kmeans_share": 1, "num_units": 5, "kmeans": {"n_init": 1},
        "max_batch_s": 9.0,
    }  # fmt: skip
    record = {"ID": "a", "wav": "missing.wav", "split": "train"}
    features = SimpleNamespace(dim=8)
    centres = cluster_frames([record], features, hparams)
    assert centres.shape == (5, 8)
    assert [path.name for path in tmp_path.iterdir()] == ["centres.npz"]
    assert np.array_equal(cluster_frames([record], features, hparams), centres)


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
