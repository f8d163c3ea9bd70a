"""Features of a frozen backbone, computed once and read from disk ever after.

A frozen backbone gives the same features of an utterance at every visit, alone
and in any batch. Where a head is affine up to a mean over time, as SUPERB's for
words, intents, emotions and speakers, the mean of each hidden state is all that
it needs: training on these means is training on the frames, with the same loss
and the same gradients.

An entry is found by the content of what it was computed from: the samples that
the data pipeline gives (so their level, their stretch and their cropping count)
and, in the name of the folder, the backbone's weights and options, and
``FEATURE_VERSION``. Nothing else is ever looked up, so none is stale. Entries
are in chunks, safetensors files that appear whole or not at all: a killed pass
goes on after the last one.
"""

import hashlib
import json
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.utils.distributed import (
    ddp_barrier,
    if_main_process,
    is_distributed_initialized,
)
from speechbrain.utils.logger import get_logger
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset
from tqdm import tqdm

from unispeech_sb.atomic import OneWriter
from unispeech_sb.brains.saving import own_random_numbers
from unispeech_sb.checkpoints.files import (
    read_metadata,
    read_tensors,
    write_tensors,
)
from unispeech_sb.dataio.cached_items import (
    LIVE,
    CachedDataset,
    Waveforms,
    wav_digest,
)
from unispeech_sb.nnet.lengths import absolute_lengths
from unispeech_sb.nnet.pooling import masked_mean

logger = get_logger(__name__)

FEATURE_VERSION = 1
"""To be raised when a change of this package changes features."""

_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
}
_NO_MATTER = ("freeze", "freeze_feature_extractor", "gradient_checkpointing")
"""Options of a backbone that change no feature of a frozen one."""

_CHUNK_BYTES, _CHUNK_S = 2**28, 60.0
"""Of a chunk at most; its seconds of work are what a kill costs."""
_NOTE_BYTES = 64  # of an entry, beside its features
_WAIT_S = 1.0  # between two looks at whether another process has finished


def open_cache(
    hparams: SimpleNamespace, head: nn.Module | None, device: torch.device | str
) -> "FeatureCache | None":
    """The cache that a yaml asks for, if it does.

    ``feature_cache`` is its folder, which many runs and processes may share,
    ``cache_dtype`` what features are kept as: float32, bfloat16, which halves
    the size and rounds, or float64. An item that is cropped at random is
    computed at each visit, or with ``cache_crops`` above 0 so many crops of it
    are drawn in advance, of which each visit takes one. A ``ValueError`` where
    features would not be those of training without a cache.
    """
    folder = getattr(hparams, "feature_cache", None)
    if not folder:
        return None
    backbone = hparams.backbone
    _check(hparams, backbone)
    name = getattr(hparams, "cache_dtype", "float32")
    crops = getattr(hparams, "cache_crops", 0)
    if name not in _DTYPES or type(crops) is not int or crops < 0:
        raise ValueError(
            f"feature_cache: expected cache_dtype {' or '.join(_DTYPES)}, and "
            f"cache_crops of 0 or more; got {name} and {crops}"
        )
    pooled = getattr(head, "takes_means", False)
    seed = getattr(hparams, "seed", 0)
    return FeatureCache(
        folder, backbone, pooled, _DTYPES[name], crops, seed, device
    )


def _check(hparams, backbone):
    """Refuses what changes features from visit to visit."""
    trains = any(p.requires_grad for p in backbone.parameters())
    faults = {
        "a frozen backbone (--freeze=True), as features of one that trains "
        "change": trains or backbone.training,
        "no augmentation of waveforms (--augmentation=null), which draws "
        "others at each visit": getattr(hparams, "augmentation", None)
        is not None,
        "mask_rule hf, as by fairseq's the features of an utterance depend on "
        "its batch": backbone.mask_rule != "hf",
    }
    for expected, is_wrong in faults.items():
        if is_wrong:
            raise ValueError(f"feature_cache: expected {expected}")


class FeatureCache:
    """Features by the content of waveforms, in a folder for each backbone.

    With ``pooled`` there is one frame for each utterance, the mean of its
    frames. Processes share a folder: one computes what is missing, others wait
    for it; those of one distributed run compute together.
    """

    def __init__(
        self,
        folder: str | Path,
        backbone: nn.Module,
        pooled: bool = False,
        dtype: torch.dtype = torch.float32,
        num_crops: int = 0,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.backbone, self.pooled, self.dtype = backbone, pooled, dtype
        self.num_crops, self.seed, self.device = num_crops, seed, device
        self.model = model_digest(backbone)
        kind = f"{'means' if pooled else 'frames'}-{str(dtype)[6:]}"
        self.folder = Path(folder, f"{self.model}-{kind}")
        self._places: dict[str, int] = {}  # digest -> entry
        self._entries: list[tuple[torch.Tensor, int, int]] = []
        self._files: set[str] = set()
        self._views: dict[int, CachedDataset] = {}
        self._load()

    def check(self) -> None:
        """Refuses a backbone that has changed since the cache was opened."""
        if model_digest(self.backbone) != self.model:
            raise ValueError(
                "feature_cache: expected the backbone that the run began "
                "with; got another one: run without a cache"
            )

    def view(
        self,
        dataset: Dataset[Any],
        num_workers: int = 0,
        progressbar: bool = False,
    ) -> "CachedDataset":
        """The same dataset, whose items name an entry instead of having a
        waveform; computes what is missing. Draws no random numbers."""
        if id(dataset) not in self._views:
            show = progressbar and if_main_process()
            wavs = Waveforms(dataset, self.num_crops, self.seed, num_workers)
            with own_random_numbers():
                wanted = self._survey(wavs, show)
                self._fill(wavs, wanted, show)
            places = [[self._entry(w) for w in own] for own in wanted]
            self._views[id(dataset)] = CachedDataset(dataset, places)
        return self._views[id(dataset)]

    def features(self, batch: PaddedBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Features of a batch of a ``view``, as the backbone gives them, and
        the valid shares of their frames."""
        entries = batch.entry.tolist()
        counts = [1] * len(entries)
        for row, entry in enumerate(entries):
            if entry != LIVE:
                _, start, stop = self._entries[entry]
                counts[row] = stop - start
        live = [row for row, entry in enumerate(entries) if entry == LIVE]
        if live:
            computed, found = self._computed_live(batch, live)
            for row, count in zip(live, found, strict=True):
                counts[row] = count
        feats = self._gathered(entries, counts)
        if live:
            feats[:, live, : computed.shape[2]] = computed.to(feats.dtype)
        lens = torch.tensor(counts, device=self.device) / max(counts)
        return feats if self.backbone.output_all_hiddens else feats[0], lens

    def _computed_live(self, batch, rows):
        """Features of some rows of a batch, and the number of their frames."""
        wavs, wav_lens = (part[rows].to(self.device) for part in batch.sig)
        lengths = absolute_lengths(wav_lens, wavs.shape[1])
        longest = int(lengths.max())
        feats, counts = self._compute(wavs[:, :longest], lengths)
        return feats, counts.tolist()

    def _gathered(self, entries, counts):
        """Cached features of the rows of a batch, [S, B, T, D]."""
        size = (self._num_states, len(entries), max(counts), self.backbone.dim)
        feats = torch.zeros(size, dtype=self.dtype)
        for row, entry in enumerate(entries):
            if entry != LIVE:
                chunk, start, stop = self._entries[entry]
                found = chunk[start:stop].transpose(0, 1)
                feats[:, row, : stop - start] = found
        feats = feats.to(self.device)  # before it grows
        if self.dtype == torch.bfloat16:
            feats = feats.float()
        return feats

    @property
    def _num_states(self):
        """Hidden states S that the backbone gives."""
        all_of_them = self.backbone.output_all_hiddens
        return self.backbone.num_states if all_of_them else 1

    @torch.no_grad()
    def _compute(self, wavs, lengths):
        """Features, [S, B, T, D], of waveforms of so many samples, and the
        number of their frames, [B]; in the backbone's own precision."""
        wavs = wavs.to(next(self.backbone.parameters()).dtype)
        wav_lens = lengths / wavs.shape[1]
        with torch.autocast(wavs.device.type, enabled=False):
            feats = self.backbone(wavs, wav_lens)
        feats = feats if self.backbone.output_all_hiddens else feats[None]
        lens = self.backbone.frame_lens(wavs.shape[1], wav_lens)
        if not self.pooled:
            return feats, absolute_lengths(lens, feats.shape[2])
        means = torch.stack([masked_mean(state, lens) for state in feats])
        return means[:, :, None], torch.ones_like(lengths)

    def _entry(self, wanted):
        """The entry of a waveform."""
        if wanted.digest not in self._places:
            raise ValueError(
                f"{self.folder}: expected recordings that stay as they are; "
                "one has changed while its features were computed"
            )
        return self._places[wanted.digest]

    def _survey(self, wavs, progressbar):
        """What is wanted of each item of a dataset."""
        rank, world = _processes()
        places = range(rank, len(wavs.dataset), world)
        bar = tqdm(
            wavs.survey(places),
            "Reading audio",
            disable=not progressbar,
            leave=False,
        )
        found = dict(zip(places, bar, strict=True))
        if world > 1:
            parts = [None] * world
            torch.distributed.all_gather_object(parts, found)
            found = {k: v for part in parts for k, v in part.items()}
        return [found[place] for place in range(len(wavs.dataset))]

    def _missing(self, wanted):
        """The waveforms without an entry, each once, the longest first."""
        found = {
            w.digest: w
            for own in wanted
            for w in own
            if w.digest not in self._places
        }
        return sorted(found.values(), key=lambda w: -w.num_samples)

    def _fill(self, wavs, wanted, progressbar):
        """Computes what is missing."""
        if not self._missing(wanted):
            return
        rank, world = _processes()
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with self._alone():
            self._load()  # what another process has written by now
            missing = self._missing(wanted)
            ddp_barrier()  # nobody writes before all have looked
            if missing:
                self._check_space(missing, sum(map(len, wanted)))
                self._compute_all(wavs, missing[rank::world], progressbar)
            ddp_barrier()
        self._load()

    def _check_space(self, missing, total):
        """Says how much will be written, and refuses what does not fit."""
        frames = sum(
            1 if self.pooled else self.backbone.output_lengths(w.num_samples)
            for w in missing
        )
        size = self._num_states * self.backbone.dim * self.dtype.itemsize
        needed = frames * size + _NOTE_BYTES * len(missing)
        free = shutil.disk_usage(self.folder.parent).free
        if if_main_process():
            print(
                f"Feature cache {self.folder}: computing {len(missing)} of "
                f"{total} waveforms ({_size(needed)}; {_size(free)} are free)"
            )
        if needed > free:
            raise OSError(
                f"{self.folder}: expected {_size(needed)} of free disk for the "
                f"features of {len(missing)} waveforms; got {_size(free)}: "
                "choose another --feature_cache"
            )

    def _compute_all(self, wavs, missing, progressbar):
        """Computes features and writes them, chunk by chunk."""
        self.folder.mkdir(exist_ok=True)
        bar = tqdm(total=len(missing), desc="Features", disable=not progressbar)
        chunk: dict[str, torch.Tensor] = {}
        started, size = time.monotonic(), 0
        with bar:
            for batch in wavs.batches(missing):
                for name, feats in self._named(batch):
                    chunk[name] = feats
                    size += feats.nbytes
                is_due = time.monotonic() - started > _CHUNK_S
                if size >= _CHUNK_BYTES or is_due:
                    self._write(chunk)
                    chunk, size, started = {}, 0, time.monotonic()
                bar.update(len(batch))
        if chunk:
            self._write(chunk)

    def _named(self, wavs):
        """Digest and features, [T, S, D], of each of some waveforms."""
        lengths = torch.tensor([len(wav) for wav in wavs], device=self.device)
        padded = pad_sequence(list(wavs), batch_first=True).to(self.device)
        feats, counts = self._compute(padded, lengths)
        for row, (wav, count) in enumerate(
            zip(wavs, counts.tolist(), strict=True)
        ):
            own = feats[:, row, :count].transpose(0, 1)
            yield wav_digest(wav), own.to(self.dtype).cpu()

    def _write(self, chunk):
        """Writes a chunk, under a name that no other process chooses."""
        counts = [len(feats) for feats in chunk.values()]
        write_tensors(
            self.folder / f"{secrets.token_hex(8)}.safetensors",
            {
                "features": torch.cat(list(chunk.values())),
                "counts": torch.tensor(counts),
            },
            {"digests": json.dumps(list(chunk))},
        )

    def _load(self):
        """Maps the chunks that are there and not yet known."""
        for path in sorted(self.folder.glob("[!.]*.safetensors")):
            if path.name in self._files:
                continue
            tensors, notes = read_tensors(path), read_metadata(path)
            digests = json.loads(notes.get("digests", "[]"))
            feats = tensors.get("features", torch.zeros(0))
            counts = tensors.get("counts", torch.zeros(0)).tolist()
            shape = (sum(counts), self._num_states, self.backbone.dim)
            if len(digests) != len(counts) or feats.shape != shape:
                raise ValueError(
                    f"{path}: expected a chunk of features; remove it"
                )
            self._files.add(path.name)
            stop = 0
            for digest, count in zip(digests, counts, strict=True):
                start, stop = stop, stop + count
                if digest not in self._places:
                    self._places[digest] = len(self._entries)
                    self._entries.append((feats, start, stop))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Waits until no other run computes into this folder."""
        writer, waits = OneWriter(self.folder, shared=True), False
        while if_main_process():
            try:
                writer.acquire()
                break
            except BlockingIOError as error:
                if not waits:
                    logger.info(f"{error}: waiting for it")
                waits = True
                time.sleep(_WAIT_S)
        try:
            ddp_barrier()
            yield
        finally:
            writer.release()


def model_digest(backbone: Any) -> str:
    """Digest of all that features depend on beside the waveform: weights,
    options, and the version of this code."""
    found = hashlib.blake2b(digest_size=12)
    options = {
        name: getattr(backbone, name, value)
        for name, value in backbone.config.items()
        if name not in _NO_MATTER
    }
    found.update(json.dumps([FEATURE_VERSION, options]).encode())
    for name, tensor in backbone.state_dict().items():
        found.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        plain = tensor.detach().cpu().contiguous().flatten()
        found.update(plain.view(torch.uint8).numpy())
    return found.hexdigest()


def _processes():
    """Number of this process, and of all of a run."""
    if not is_distributed_initialized():
        return 0, 1
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


def _size(num_bytes):
    """A size in words."""
    if num_bytes < 1e9:
        return f"{num_bytes / 1e6:.1f} MB"
    return f"{num_bytes / 1e9:.1f} GB"
