"""Units by clustering, as HuBERT's authors make them (Hsu et al. 2021, section
IV-B): frames of MFCCs or hidden states, k-means of more of them than fit in
memory, and the nearest centre of each frame.

The recordings are in shards, which may be made on machines that share a
folder: a shard is done when its file is there, so that a killed run goes on.
With ``engine: ray``, Ray's processes make them.
"""

import math
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from speechbrain.utils.logger import get_logger
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from unispeech_sb.atomic import atomic
from unispeech_sb.dataio.audio import read_audio
from unispeech_sb.dataio.corpora.fairseq import write_fairseq_units
from unispeech_sb.dataio.units import check_units, write_units
from unispeech_sb.environment import require_extra

__all__ = [
    "cluster_frames",
    "find_units",
    "make_features",
    "own_shards",
    "read_units",
    "write_results",
]

logger = get_logger(__name__)

_SAMPLE_RATE = 16000
_LONGEST = 4000  # samples, more than a frame of any backbone sees
_ROWS = 2**16  # frames whose distances are held at once
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


def make_features(
    hparams: dict[str, Any], device: str = "cpu"
) -> "MFCCs | HiddenStates":
    """Chooses what is clustered.

    Arguments
    ---------
    hparams : dict
        The recipe's yaml: ``model``, None for MFCCs; else ``make_backbone``
        makes it, and ``layer`` says whose states. Recordings longer than
        ``max_batch_s`` are computed in pieces.
    device : str
        Where to compute.

    Returns
    -------
    MFCCs or HiddenStates
        From waveforms to frames.

    Example
    -------
    >>> make_features({"model": None}).dim
    39
    """
    if hparams["model"] is None:
        return MFCCs()
    return HiddenStates(
        hparams["make_backbone"](),
        hparams["layer"],
        hparams["max_batch_s"],
        device,
    )


class MFCCs:
    """39 numbers every 10 ms: 13 MFCCs by Kaldi's recipe, without energy, and
    their first and second differences.
    """

    dim = 39
    label_rate = 100
    window_s = 0.025

    def __call__(self, wavs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Computes the frames, [T, 39], of waveforms at 16 kHz, each [N]."""
        return [_mfccs(wav) for wav in wavs]


def _mfccs(wav):
    """MFCCs of a waveform, with their differences."""
    from torchaudio.compliance import kaldi
    from torchaudio.functional import compute_deltas

    cepstra = kaldi.mfcc(
        wav[None], sample_frequency=_SAMPLE_RATE, use_energy=False
    ).T
    slopes = compute_deltas(cepstra)
    return torch.cat([cepstra, slopes, compute_deltas(slopes)]).T.contiguous()


class _Backbone(Protocol):
    """What is asked of a ``Backbone``, which this folder does not import."""

    dim: int
    num_states: int

    def to(self, device: str | torch.device) -> "_Backbone":
        """Moves it."""

    def eval(self) -> "_Backbone":
        """Sets the mode."""

    def output_lengths(self, lengths: torch.Tensor) -> torch.Tensor:
        """Frames of numbers of samples."""


class HiddenStates:
    """Hidden states of one layer of a backbone, before any final LayerNorm.

    Layer 0 is the input of the blocks, 1 the output of the first block, and so
    on. Recordings longer than ``chunk_s`` are cut into equal pieces. These
    overlap by the window of a frame, so that there are as many frames as
    without cuts. (The authors' do not: theirs are a frame late after each
    100 s.)
    """

    def __init__(
        self,
        backbone: _Backbone,
        layer: int,
        chunk_s: float = 100.0,
        device: str | torch.device = "cpu",
    ) -> None:
        if not 0 <= layer < backbone.num_states:
            raise ValueError(
                f"layer: expected 0 to {backbone.num_states - 1}, the layers "
                f"of the model; got {layer}"
            )
        self.backbone = backbone.to(device).eval()
        self.layer, self.chunk_s, self.device = layer, chunk_s, device
        self.dim = backbone.dim
        counts = backbone.output_lengths(torch.arange(_LONGEST))
        self.window = int((counts < 1).sum())
        self.hop = int((counts < 2).sum()) - self.window
        self.label_rate = _SAMPLE_RATE // self.hop
        self.window_s = self.window / _SAMPLE_RATE
        self.max_frames = max(1, int(chunk_s * self.label_rate))

    def __reduce__(self) -> tuple[Any, ...]:
        """What a copy in another process is made of: a norm of weights cannot
        be pickled."""
        backbone: Any = self.backbone
        made = type(backbone), backbone.config, backbone.state_dict()
        return _rebuilt, (*made, self.layer, self.chunk_s, self.device)

    def __call__(self, wavs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Computes the frames, [T, D], of waveforms, each [N], in a batch."""
        pieces = [self._pieces(wav) for wav in wavs]
        if max(map(len, pieces)) == 1:
            return self._states([piece for (piece,) in pieces])
        return [
            torch.cat([self._states([piece])[0] for piece in own])
            for own in pieces
        ]

    def _pieces(self, wav):
        """Cuts a waveform where its frames are too many."""
        num_frames = self.backbone.output_lengths(len(wav))
        if num_frames <= self.max_frames:
            return [wav]
        size = math.ceil(num_frames / math.ceil(num_frames / self.max_frames))
        starts = range(0, num_frames, size)
        stops = [min(start + size, num_frames) for start in starts]
        return [
            wav[start * self.hop : (stop - 1) * self.hop + self.window]
            for start, stop in zip(starts, stops)
        ]

    @torch.inference_mode()
    def _states(self, wavs):
        """The layer's states of a batch of waveforms."""
        lengths = torch.tensor([len(wav) for wav in wavs])
        batch = pad_sequence(wavs, batch_first=True).to(self.device)
        wav_lens = (lengths / batch.shape[1]).to(self.device)
        (state,) = self.backbone.iter_states(
            batch, wav_lens, last_state="raw", layers=[self.layer]
        )
        counts = self.backbone.output_lengths(lengths).tolist()
        rows = state.float().cpu()
        return [row[:count] for row, count in zip(rows, counts)]


def _rebuilt(kind, config, state, *options):
    """``HiddenStates`` of a backbone that is made anew."""
    backbone = kind(**config)
    backbone.load_state_dict(state)
    return HiddenStates(backbone, *options)


def own_shards(hparams: dict[str, Any]) -> Sequence[int]:
    """Numbers of the shards that this run makes.

    Arguments
    ---------
    hparams : dict
        The recipe's yaml: ``shards``, how many there are, and ``shard``, which
        one is to be made here; None for all.

    Returns
    -------
    sequence of int
        From 0.

    Raises
    ------
    ValueError
        When there is no such shard, or no such engine.

    Example
    -------
    >>> list(own_shards({"shards": 3, "shard": None}))
    [0, 1, 2]
    """
    count, shard = hparams["shards"], hparams["shard"]
    if hparams.get("engine") not in (None, "ray"):
        raise ValueError(
            f"engine: expected null or ray; got {hparams['engine']!r}"
        )
    if count < 1 or shard not in (None, *range(count)):
        raise ValueError(
            "expected shards of at least 1 and shard from 0 to "
            f"{count - 1}, or null for all; got {count} and {shard}"
        )
    return range(count) if shard is None else [shard]


def cluster_frames(
    records: Sequence[dict[str, Any]],
    features: "MFCCs | HiddenStates",
    hparams: dict[str, Any],
) -> np.ndarray | None:
    """Clusters the frames of drawn training recordings, or goes on with it.

    Arguments
    ---------
    records : list of dict
        Utterance records.
    features : callable
        ``MFCCs`` or ``HiddenStates``.
    hparams : dict
        The recipe's yaml: ``save_folder``, which shards share, ``shards`` and
        ``shard``, ``kmeans_share`` of the training recordings, ``num_units``,
        ``kmeans`` with options of scikit-learn, ``seed``, ``max_batch_s``,
        ``engine`` (``ray``: shards are made by Ray's processes) and
        ``ray_address``.

    Returns
    -------
    numpy.ndarray or None
        The centres, float32, [K, D]; None when shards are still to be made, or
        another run is to cluster.

    Raises
    ------
    ValueError
        When there are fewer frames than units, or one is not finite.
    """
    path = Path(hparams["save_folder"], "centres.npz")
    most_s = hparams["max_batch_s"]
    if not path.is_file():
        paths = _shard_files(hparams, "frames_{}.f32")
        joined = path.with_name("frames.f32")
        drawn = draw_sample(records, hparams["kmeans_share"], hparams["seed"])
        if not joined.is_file():

            def make(own, path):
                dump_frames(own, features, path, most_s)

            _make_shards(make, records, paths, hparams, drawn)
            if not _all_there(paths, hparams):
                return None
            join_files(paths, joined)
        _cluster(joined, features.dim, path, hparams)
    with np.load(path, allow_pickle=False) as arrays:
        return arrays["centres"]


def find_units(
    records: Sequence[dict[str, Any]],
    features: "MFCCs | HiddenStates",
    centres: np.ndarray,
    hparams: dict[str, Any],
) -> list[Path] | None:
    """Finds the units of the recordings of this run's shards.

    Arguments
    ---------
    records : list of dict
        Utterance records.
    features : callable
        ``MFCCs`` or ``HiddenStates``.
    centres : numpy.ndarray
        Of ``cluster_frames``, [K, D].
    hparams : dict
        As for ``cluster_frames``.

    Returns
    -------
    list of pathlib.Path or None
        Files for ``read_units``, one for each shard; None when shards are
        still to be made, or another run is to go on.
    """
    paths = _shard_files(hparams, "units_{}.npz")
    most_s = hparams["max_batch_s"]

    def make(own, path):
        dump_units(own, features, centres, path, most_s)

    _make_shards(make, records, paths, hparams)
    return paths if _all_there(paths, hparams) else None


def read_units(paths: Iterable[str | Path]) -> Iterator[np.ndarray]:
    """Yields the units of recordings, a shard at a time in memory.

    Arguments
    ---------
    paths : iterable of path-like
        Files of ``find_units``.

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


def write_results(
    records: Sequence[dict[str, Any]],
    paths: Sequence[Path],
    features: "MFCCs | HiddenStates",
    hparams: dict[str, Any],
) -> None:
    """Writes the folder of units, with the centres, and fairseq's files.

    Arguments
    ---------
    records : list of dict
        Utterance records.
    paths : list of pathlib.Path
        Of ``find_units``.
    features : callable
        ``MFCCs`` or ``HiddenStates``.
    hparams : dict
        The recipe's yaml: ``units_folder``, and as for ``cluster_frames``.
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


def _shard_files(hparams, name):
    """The file of each shard."""
    count = hparams["shards"]
    return [
        Path(hparams["save_folder"], name.format(f"{shard:04d}_of_{count:04d}"))
        for shard in range(count)
    ]


def _make_shards(make, records, paths, hparams, drawn=None):
    """Makes those of this run's shards whose files are not there: of records,
    or of those of ``drawn`` names."""
    left = {}
    for shard in own_shards(hparams):
        if not paths[shard].is_file():
            own = shard_of(records, shard, hparams["shards"])
            kept = [r for r in own if drawn is None or r["ID"] in drawn]
            left[Path(paths[shard]).resolve()] = kept
    if hparams.get("engine") is None:
        for path, own in left.items():
            make(own, path)
    elif left:
        _make_by_ray(make, left, hparams.get("ray_address"))


def _make_by_ray(make, left, address):
    """The same by Ray's processes, a shard and a processor each; they read and
    write at the same paths as this process."""
    require_extra("ray", "scale", "engine: ray")
    from unispeech_sb.ray_session import ray_session

    with ray_session(address):
        import ray

        task = ray.remote(num_cpus=1, max_retries=4)(_in_one_thread)
        shared = ray.put(make)
        jobs = [task.remote(shared, own, path) for path, own in left.items()]
        with tqdm(total=len(jobs), unit="shard", disable=None) as progress:
            while jobs:
                done, jobs = ray.wait(jobs)
                ray.get(done)
                progress.update(len(done))


def _in_one_thread(make, records, path):
    """Makes a shard."""
    torch.set_num_threads(1)
    if not path.is_file():  # of a process that ended after it
        make(records, path)


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


def shard_of(items, shard, num_shards):
    """Takes one of as many parts of similar length, in order."""
    bounds = [len(items) * n // num_shards for n in (shard, shard + 1)]
    return items[slice(*bounds)]


def draw_sample(records, share, seed):
    """IDs of a share of the training recordings, drawn by the seed."""
    if not 0 < share <= 1:
        raise ValueError(
            f"kmeans_share: expected a share in (0, 1], got {share}"
        )
    names = [r["ID"] for r in records if r["split"] == "train"]
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(names), generator=generator).tolist()
    return {names[i] for i in order[: math.ceil(share * len(names))]}


def dump_frames(records, features, path, max_batch_s):
    """Writes the frames of recordings, as ``map_frames`` reads them."""
    with atomic(path, "wb") as file:
        for frames in frames_of(records, features, max_batch_s, "Frames"):
            file.write(frames.numpy().tobytes())


def dump_units(records, features, centres, path, max_batch_s):
    """Writes the units of recordings, as ``read_units`` reads them."""
    centres = torch.from_numpy(np.ascontiguousarray(centres))
    found = [
        nearest_centres(frames, centres).to(torch.int32).numpy()
        for frames in frames_of(records, features, max_batch_s, "Units")
    ]
    with atomic(path, "wb") as file:
        np.savez(
            file,
            units=np.concatenate([np.empty(0, np.int32), *found]),
            counts=np.array([len(own) for own in found], np.int64),
        )


def frames_of(records, features, max_batch_s, what):
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


def map_frames(path, dim):
    """Opens a file of float32 frames without reading it, [T, D]."""
    size = os.path.getsize(path)
    if size == 0 or size % (4 * dim):
        raise ValueError(
            f"{path}: expected frames of {dim} float32 numbers, got "
            f"{size} bytes"
        )
    return np.memmap(path, np.float32, "r").reshape(-1, dim)


def join_files(paths, target):
    """Joins files into one, whole or not at all, and removes them."""
    with atomic(target, "wb") as joined:
        for path in paths:
            with open(path, "rb") as part:
                shutil.copyfileobj(part, joined)
    for path in paths:
        Path(path).unlink()


def fit_clusters(frames, num_units, seed=0, **options):
    """Clusters frames by mini-batches: centres, [K, D], and the inertia.

    Mapped frames are not copied: only the batches, and some numbers of each
    frame, are in memory. This is scikit-learn's ``fit``, as in the authors'
    code; its ``partial_fit`` would ignore ``n_init`` and
    ``max_no_improvement``. ``options`` take the place of ``AUTHORS``. The
    inertia is the mean squared distance of a frame to its centre, a running
    mean over the last batches.
    """
    try:
        from sklearn.cluster import MiniBatchKMeans
    except ImportError as error:
        raise ImportError(
            "k-means needs the package scikit-learn: "
            "pip install 'unispeech_sb[pretrain]'"
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
    """Index of each frame's nearest centre, the lower of two, int64, [T]."""
    # |x - c|^2 without |x|^2, which is the same for all centres
    norms = centres.square().sum(dim=1)
    found = [
        (norms - 2 * rows @ centres.T).argmin(dim=1)
        for rows in frames.split(_ROWS)
    ]
    return torch.cat(found)
