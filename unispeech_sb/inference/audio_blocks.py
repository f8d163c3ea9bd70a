"""Recordings of any length: read block by block, run in batches, normalised
as a whole.

A window's own mean and variance differ from the whole recording's, so what a
model that normalises gives would depend on the cuts. Under global
normalisation a first pass over the samples gathers what both normalisations
need, in constant memory: mean and variance of the waveform, and of the patches
that the first convolution sees (``nnet/frontend.py``).
"""

import ctypes
import logging
import math
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain, islice
from numbers import Integral, Real
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from speechbrain.dataio.preprocess import AudioNormalizer
from speechbrain.inference.interfaces import Pretrained

from unispeech_sb.dataio.audio import (
    FILE_ERRORS,
    RATES,
    AudioError,
    Resampler,
    attempt,
    decode,
    error_of,
    naming,
    read_header,
)
from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.text import named

_logger = logging.getLogger(__name__)

Source = str | Path | torch.Tensor | np.ndarray
"""A file that ``read_audio`` reads, or a waveform at the model's rate, [N]."""

Known = str | Path | torch.Tensor
"""A ``Source`` that ``as_source`` has seen."""

WHOLE = (str, bytes, torch.Tensor, np.ndarray)
"""What is one recording, though it can be iterated over."""

_LOUDEST = 100.0
"""Magnitude from which samples are no waveform from -1 to 1, however loud."""

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_BLOCK_S = 30.0
"""Seconds that are decoded at a time."""
_MOST_COMPILED = 256
"""Convolutions that stay compiled, one for each layer and length: by default
1,024 in oneDNN and as many in PyTorch, 60 to 200 MB that recordings of other
lengths hardly use again. Read when the first convolution runs."""
for _cache in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
    os.environ.setdefault(_cache, str(_MOST_COMPILED))


def as_source(source: Any) -> Known:
    """A recording as it is, an array as a tensor; raises for anything else."""
    if isinstance(source, str):
        return source
    if isinstance(source, os.PathLike):
        return Path(source)
    if isinstance(source, np.ndarray) and source.dtype.kind in "fiubc":
        source = torch.from_numpy(np.array(source))
    if not isinstance(source, torch.Tensor):
        raise AudioError(
            "expected the name of a file or a waveform, [N]; got "
            + (
                f"an array of {source.dtype}"
                if isinstance(source, np.ndarray)
                else type(source).__name__
            )
        )
    if source.dim() != 1:
        raise AudioError(
            f"waveform: expected shape [N]; got {list(source.shape)}"
        )
    if source.is_meta or source.layout != torch.strided:
        raise AudioError("waveform: expected a dense tensor with values")
    if not source.is_floating_point():
        raise AudioError(
            "waveform: expected floating-point samples from -1 to 1; got "
            f"{str(source.dtype).removeprefix('torch.')}"
        )
    most = source.detach().abs().max().item() if len(source) else 0.0
    if _LOUDEST < most < math.inf:
        raise AudioError(
            f"waveform: expected samples from -1 to 1; got up to {most:g} "
            "(16-bit samples are divided by 32768)"
        )
    return source.detach()


def is_stream(source: Any) -> bool:
    """Whether samples come in blocks, from an iterable that is no recording."""
    return isinstance(source, Iterable) and not isinstance(source, WHOLE)


def check_batch_seconds(batch_seconds: float) -> None:
    """Refuses what is no length of a batch."""
    number = isinstance(batch_seconds, (int, float))
    if not number or not batch_seconds > 0:  # NaN compares false
        raise ValueError(
            f"batch_seconds: expected seconds above 0; got {batch_seconds!r}"
        )


def check_list(paths: Iterable[Any]) -> None:
    """Refuses a single file where several may come."""
    one = isinstance(paths, (str, bytes, os.PathLike, torch.Tensor))
    if one or not hasattr(paths, "__iter__") or hasattr(paths, "read"):
        raise ValueError(
            f"expected a list of files; got {' '.join(repr(paths).split()):.60}"
        )


def read_blocks(
    source: Known, normalizer: AudioNormalizer, block_s: float = _BLOCK_S
) -> Iterator[torch.Tensor]:
    """Yields a file, or a waveform at the model's rate, in blocks, [N] each.

    As if it were read at once: channels are averaged and rates converted as
    SpeechBrain's interfaces do.
    """
    if isinstance(source, torch.Tensor):
        size = math.ceil(block_s * normalizer.sample_rate)
        yield from check_blocks(source.float().cpu().split(size), "waveform")
        return
    with naming(source):
        blocks = _converted(source, normalizer.sample_rate, block_s)
        yield from check_blocks(blocks, source)


def _converted(path, sample_rate, block_s):
    """Blocks of a file at another rate; the last one ends the conversion."""
    rate, blocks = decode(path, block_s=block_s)
    resampler, last = Resampler(rate, sample_rate), None
    for block in blocks:
        if last is not None:
            yield resampler.push(last)
        last = block
    yield resampler.finish(last)


def load_audio(
    self: Pretrained, path: str | Path, savedir: str | Path | None = None
) -> torch.Tensor:
    """Reads a recording, [N], for the methods that are SpeechBrain's: a file of
    this machine as by ``read_blocks``, what has to be fetched as they do."""
    fetched = savedir is not None or not os.path.isfile(path)
    if fetched or self.audio_normalizer.mix != "avg-to-mono":
        return Pretrained.load_audio(self, path, savedir)
    return torch.cat([*read_blocks(path, self.audio_normalizer)]).to(
        self.device
    )


def check_blocks(
    blocks: Iterable[torch.Tensor], name: str | Path
) -> Iterator[torch.Tensor]:
    """Passes blocks on, [N] each, float32; raises where one is not finite."""
    for block in blocks:
        try:
            wav = as_source(block)
        except AudioError as error:
            raise AudioError(f"{name}: {error}") from None
        if not isinstance(wav, torch.Tensor):
            raise AudioError(f"{name}: expected waveforms, [N]; got {wav!r}")
        if not wav.isfinite().all():
            raise AudioError(f"{name}: some samples are NaN or infinite")
        yield wav.float().cpu()


def duration_s(path: str | Path) -> float:
    """Reads how many seconds a file has, by its header."""
    if not isinstance(path, (str, os.PathLike)):
        raise AudioError(
            f"expected the name of a file; got {type(path).__name__}"
        )
    num_samples, rate = read_header(path)
    return num_samples / rate


def seconds_of(source: Known, sample_rate: int) -> float:
    """Seconds of a file, by its header, or of a waveform at a rate."""
    if isinstance(source, torch.Tensor):
        return len(source) / sample_rate
    return duration_s(source)


def run_sources(
    sources: Iterable[Any],
    run: Callable[[list[Source]], Iterable[tuple[Source, Any]]],
    model_rate: int,
    sample_rate: int | None = None,
) -> list[Any]:
    """Results, or an ``AudioError`` each, of recordings in their order.

    ``run`` takes files and waveforms at the model's rate, in Hz, and yields
    them with their results in any order. ``sample_rate`` is that of the
    waveforms among the sources, the model's when omitted.
    """
    check_list(sources)
    rate = model_rate if sample_rate is None else sample_rate
    check_rate("sample_rate", rate)
    given = list(sources)
    numbers = [s for s in given[:2] if isinstance(s, Real)]
    if numbers:
        raise ValueError(
            "expected files or waveforms; got a list with the number "
            f"{numbers[0]}: a waveform is an array, [N], and its rate is given "
            "as sample_rate"
        )
    ready = [attempt("waveform", _at_rate, s, rate, model_rate) for s in given]
    usable = {id(s): s for s in ready if not isinstance(s, AudioError)}
    found = {id(s): result for s, result in run([*usable.values()])}
    results = [found.get(id(s), s) for s in ready]
    failed = [r for r in results if isinstance(r, AudioError)]
    if failed and len(results) > 1:
        _logger.warning(
            f"{len(failed)} of {len(results)} recordings failed, an AudioError "
            f"stands for each: {named(failed)}"
        )
    return results


def check_rate(name: str, rate: Any) -> None:
    """Refuses what is no sampling rate."""
    whole = isinstance(rate, Integral) and not isinstance(rate, bool)
    if not whole or not RATES[0] <= rate <= RATES[1]:
        raise ValueError(
            f"{name}: expected {RATES[0]} to {RATES[1]} Hz; got {rate!r}"
        )


def _at_rate(source, rate, model_rate):
    """A file, or a waveform at the model's rate."""
    if isinstance(source, Mapping):
        wav = source.get("array", source.get("raw"))
        if wav is None or "sampling_rate" not in source:
            raise AudioError(
                "waveform: expected a dict with array and sampling_rate; got "
                f"one with {named(source, 5)}"
            )
        rate = source["sampling_rate"]
        check_rate("sampling_rate", rate)
        source = np.asarray(wav) if isinstance(wav, list) else wav
    source = as_source(source)
    if not isinstance(source, torch.Tensor) or rate == model_rate:
        return source
    return Resampler(rate, model_rate).finish(source.float().cpu())


def padded_batches(
    items: Iterable[_Item], length: Callable[[_Item], float], most: float
) -> Iterator[list[_Item]]:
    """Groups items so that a batch, padded to its longest, is ``most`` long.

    A longer item goes alone. Items are read no further than the next batch
    needs.
    """
    batch: list[_Item] = []
    longest = 0.0
    for item in items:
        longest = max(longest, length(item))
        if batch and longest * (len(batch) + 1) > most:
            yield batch
            batch = []  # this item is the longest so far
        batch.append(item)
        if longest * (len(batch) + 1) > most:
            yield batch
            batch, longest = [], 0.0
    if batch:
        yield batch


def ahead(items: Iterable[_Item], workers: int) -> Iterator[_Item]:
    """Yields items, of which a thread makes the next one meanwhile; without
    ``workers`` none does."""
    if not workers:
        yield from items
        return
    source = iter(items)
    end: Any = object()
    pool = ThreadPoolExecutor(1, "read-ahead")
    try:
        coming = pool.submit(next, source, end)
        while (item := coming.result()) is not end:
            coming = pool.submit(next, source, end)
            yield item
    finally:
        pool.shutdown(cancel_futures=True)


def read_ahead(
    items: Iterable[_Item],
    read: Callable[[_Item], _Result],
    workers: int,
    length: Callable[[_Item], float],
    most: float,
) -> Iterator[_Result]:
    """Yields what ``read`` gives for items, in their order.

    ``workers`` threads read up to ``most`` of their lengths ahead, one item at
    least; without them an item is read when it is asked for. Decoding and
    resampling let other threads run meanwhile.
    """
    if not workers:
        yield from map(read, items)
        return
    pool = ThreadPoolExecutor(workers, "read-ahead")
    waiting: deque[tuple[float, Future[_Result]]] = deque()
    total = 0.0
    try:
        for item in items:
            total += length(item)
            while waiting and total > most:
                own, coming = waiting.popleft()
                total -= own
                yield coming.result()
            waiting.append((length(item), pool.submit(read, item)))
        while waiting:
            yield waiting.popleft()[1].result()
    finally:
        pool.shutdown(cancel_futures=True)


class Reading(NamedTuple):
    """What gives the seconds of a path, or of a waveform in the place of one,
    and how many threads read ahead."""

    seconds: Callable[[Any], float] = duration_s
    workers: int = 0


_ONE_BY_ONE = Reading()


def run_files(
    paths: Iterable[str | Path],
    read: Callable[[str | Path], torch.Tensor],
    run_batch: Callable[[list[tuple[str | Path, torch.Tensor]]], Iterable[Any]],
    run_long: Callable[[list[str | Path]], Iterable[tuple[str | Path, Any]]],
    whole_s: float,
    batch_seconds: float,
    on_progress: Callable[[float], object] | None = None,
    reading: Reading = _ONE_BY_ONE,
) -> Iterator[tuple[str | Path, Any]]:
    """Yields each path with the model's result or an ``AudioError``.

    ``run_batch`` takes (path, waveform) pairs of up to ``batch_seconds``,
    padding included, the shortest first; ``run_long`` takes the paths of files
    above ``whole_s`` seconds and yields (path, result). What a file raises
    (``FILE_ERRORS``) becomes its error, and no other file's. Threads read up
    to two batches ahead.
    """
    check_list(paths)
    check_batch_seconds(batch_seconds)
    lengths = []
    for path in paths:
        seconds = attempt(path, reading.seconds, path)
        if isinstance(seconds, AudioError):
            yield path, seconds
        else:
            lengths.append((seconds, path))
    lengths.sort(key=_seconds)
    short = [pair for pair in lengths if pair[0] <= whole_s]
    batches = list(padded_batches(short, _seconds, batch_seconds))
    wavs = read_ahead(
        chain.from_iterable(batches),
        lambda pair: attempt(pair[1], read, pair[1]),
        reading.workers,
        _seconds,
        2 * batch_seconds,
    )
    for batch in batches:
        pairs = []
        for (_, path), wav in zip(batch, islice(wavs, len(batch))):
            if isinstance(wav, AudioError):
                yield path, wav
            else:
                pairs.append((path, wav))
        results = run_apart(run_batch, pairs, _path)
        for (path, _), result in zip(pairs, results, strict=True):
            yield path, result
        if on_progress is not None:
            on_progress(sum(map(_seconds, batch)))
        return_memory()
    for found in run_long([path for _, path in lengths[len(short) :]]):
        yield found
        return_memory()


def return_memory() -> None:
    """Gives freed memory back to the system, where the C library is glibc.

    It keeps what was freed between blocks that are still in use, such as the
    convolutions that stay compiled: without this, resident memory grows with
    the variety of lengths (``benchmarks/soak.py``).
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def run_apart(
    run: Callable[[list[_Item]], Iterable[Any]],
    batch: list[_Item],
    source_of: Callable[[_Item], Known],
) -> list[Any]:
    """Results of a batch, an item each; where it fails, of each item by itself,
    an ``AudioError`` for those that fail alone."""
    if not batch:
        return []
    try:
        return list(run(batch))
    except FILE_ERRORS as error:
        if len(batch) > 1:
            return [run_apart(run, [one], source_of)[0] for one in batch]
        return [error_of(source_name(source_of(batch[0])), error)]


def source_name(source: Known) -> str | Path:
    """What an error calls a recording."""
    return "waveform" if isinstance(source, torch.Tensor) else source


def with_progress(
    blocks: Iterable[torch.Tensor],
    rate: int,
    on_progress: Callable[[float], object],
) -> Iterator[torch.Tensor]:
    """Reports the seconds of each block when the next one is asked for."""
    for block in blocks:
        yield block
        on_progress(len(block) / rate)


def _path(pair):
    """The path of a pair of path and waveform."""
    return pair[0]


def _seconds(pair):
    """Length of a pair of length and path."""
    return pair[0]


class GlobalStatistics:
    """Running mean and covariance of a waveform's patches, in float64.

    A patch has ``kernel`` samples and begins ``stride``, at most ``kernel``,
    after the one before.
    """

    def __init__(self, kernel: int, stride: int) -> None:
        self.kernel, self.stride = kernel, stride
        self.num_samples = self._num_patches = 0
        self._sum = self._squares = 0.0
        self._patch_sum = torch.zeros(kernel, dtype=torch.float64)
        self._products = torch.zeros(kernel, kernel, dtype=torch.float64)
        self._rest = torch.zeros(0, dtype=torch.float64)

    def add(self, block: torch.Tensor) -> None:
        """Counts the samples, [N], that follow those of the last call."""
        block = block.double()
        self.num_samples += len(block)
        self._sum += block.sum().item()
        self._squares += block.square().sum().item()
        self._rest = torch.cat([self._rest, block])
        if len(self._rest) < self.kernel:
            return
        patches = self._rest.unfold(0, self.kernel, self.stride)
        self._num_patches += len(patches)
        self._patch_sum += patches.sum(0)
        self._products += patches.T @ patches
        self._rest = self._rest[len(patches) * self.stride :]

    @property
    def mean(self) -> float:
        """Mean of the samples."""
        return self._sum / self.num_samples

    @property
    def variance(self) -> float:
        """Variance of the samples."""
        return max(self._squares / self.num_samples - self.mean**2, 0.0)

    @property
    def patch_mean(self) -> torch.Tensor:
        """Mean of the patches, [kernel]."""
        return self._patch_sum / self._num_patches

    @property
    def patch_covariance(self) -> torch.Tensor:
        """Covariance of the patches, [kernel, kernel]."""
        mean = self.patch_mean
        return self._products / self._num_patches - torch.outer(mean, mean)


@contextmanager
def global_norm(
    backbone: Backbone, statistics: Sequence[GlobalStatistics]
) -> Iterator[Callable[[list[torch.Tensor]], list[torch.Tensor]]]:
    """Makes a backbone normalise windows as it would whole recordings.

    ``statistics`` has the recording's of each row of the batch. Yields a
    function that prepares waveforms, [N] each. The backbone is as before when
    the block ends; others must not use it meanwhile.
    """
    extractor, normalizes = backbone.feature_extractor, backbone.normalize_wav
    shifts = [(0.0, 1.0)] * len(statistics)
    if normalizes:
        eps = backbone.normalize_eps
        shifts = [(s.mean, (s.variance + eps) ** -0.5) for s in statistics]
    means, covariances = zip(
        *(
            (scale * (s.patch_mean - mean), scale**2 * s.patch_covariance)
            for s, (mean, scale) in zip(statistics, shifts, strict=True)
        )
    )
    device = backbone.masked_spec_embed.device
    extractor.patch_statistics = (
        torch.stack(means).to(device),
        torch.stack(covariances).to(device),
    )
    backbone.normalize_wav = False
    try:
        yield lambda wavs: [
            (wav - mean) * scale
            for wav, (mean, scale) in zip(wavs, shifts, strict=True)
        ]
    finally:
        extractor.patch_statistics = None
        backbone.normalize_wav = normalizes
