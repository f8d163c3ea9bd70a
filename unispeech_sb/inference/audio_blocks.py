"""Recordings of any length: read block by block, and run in batches."""

import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import soundfile
import torch
from speechbrain.dataio.preprocess import AudioNormalizer

from unispeech_sb.dataio.audio import AudioError, read_header

Source = str | Path | torch.Tensor
"""A file that soundfile reads, or a waveform at the model's rate, [N]."""

_Item = TypeVar("_Item")

_BLOCK_S = 30.0
"""Seconds that are decoded at a time."""

_FILTER_REACH = 64
"""Samples of the lower rate that a block shares with its neighbours when it
is resampled: ten times the reach of torchaudio's filter."""


def read_blocks(
    source: Source, normalizer: AudioNormalizer, block_s: float = _BLOCK_S
) -> Iterator[torch.Tensor]:
    """Yields a file, or a waveform at the model's rate, in blocks, [N] each.

    As if it were read at once: channels are averaged and rates converted as
    SpeechBrain's interfaces do; neighbouring blocks share what the resampling
    filter reaches over.
    """
    if isinstance(source, torch.Tensor):
        if source.dim() != 1:
            raise ValueError(
                f"waveform: expected shape [N]; got {list(source.shape)}"
            )
        size = math.ceil(block_s * normalizer.sample_rate)
        yield from source.float().cpu().split(size)
        return
    read_header(source)
    with soundfile.SoundFile(source) as file:
        blocks = _converted(source, file, normalizer, block_s)
        yield from check_blocks(blocks, source)


def check_blocks(
    blocks: Iterable[torch.Tensor], name: str | Path
) -> Iterator[torch.Tensor]:
    """Passes blocks on, [N] each, float32; raises where one is not finite."""
    for block in blocks:
        if block.dim() != 1:
            raise ValueError(
                f"{name}: expected shape [N]; got {list(block.shape)}"
            )
        if not block.isfinite().all():
            raise AudioError(f"{name}: some samples are NaN or infinite")
        yield block.float().cpu()


def duration_s(path: str | Path) -> float:
    """Reads how many seconds a file has, by its header."""
    num_samples, rate = read_header(path)
    return num_samples / rate


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


def run_files(
    paths: Iterable[str | Path],
    read: Callable[[str | Path], torch.Tensor],
    run_batch: Callable[[list[tuple[str | Path, torch.Tensor]]], Iterable[Any]],
    run_long: Callable[[list[str | Path]], Iterable[tuple[str | Path, Any]]],
    whole_s: float,
    batch_seconds: float,
    on_progress: Callable[[float], object] | None = None,
) -> Iterator[tuple[str | Path, Any]]:
    """Yields each path with the model's result or an ``AudioError``.

    ``run_batch`` takes (path, waveform) pairs of up to ``batch_seconds``,
    padding included, the shortest first; ``run_long`` takes the paths of files
    above ``whole_s`` seconds and yields (path, result).
    """
    lengths = []
    for path in paths:
        try:
            lengths.append((duration_s(path), path))
        except AudioError as error:
            yield path, error
    lengths.sort(key=_seconds)
    short = [pair for pair in lengths if pair[0] <= whole_s]
    for batch in padded_batches(short, _seconds, batch_seconds):
        pairs = []
        for _, path in batch:
            try:
                pairs.append((path, read(path)))
            except AudioError as error:
                yield path, error
        results = run_batch(pairs) if pairs else []
        for (path, _), result in zip(pairs, results, strict=True):
            yield path, result
        if on_progress is not None:
            on_progress(sum(map(_seconds, batch)))
    yield from run_long([path for _, path in lengths[len(short) :]])


def _seconds(pair):
    """Length of a pair of length and path."""
    return pair[0]


def _converted(path, file, normalizer, block_s):
    """Blocks of an open file at the normalizer's rate.

    Blocks and overlaps hold whole periods of both rates, so that the filter's
    phases are those of the whole.
    """
    divisor = math.gcd(file.samplerate, normalizer.sample_rate)
    period, new_period = (
        rate // divisor for rate in (file.samplerate, normalizer.sample_rate)
    )
    reach = _FILTER_REACH * max(1, period / new_period)
    shared = period * math.ceil(reach / period) if period != new_period else 0
    size = period * math.ceil(block_s * file.samplerate / period)
    size = max(size, shared)
    buffer, before, more = torch.zeros(0), 0, True
    while more:
        block = _decoded(path, file, size)
        more = len(block) == size
        buffer = torch.cat([buffer, block]) if len(buffer) else block
        if len(buffer) <= before:
            return
        converted = normalizer(buffer, file.samplerate)
        end = len(buffer) - shared if more else len(buffer)
        skipped = before // period * new_period
        stop = end // period * new_period if more else len(converted)
        yield converted[skipped:stop]
        kept_from = max(end - shared, 0)
        buffer, before = buffer[kept_from:], end - kept_from


def _decoded(path, file, size):
    """The next samples of an open file, channels averaged, [N]."""
    declared = min(size, file.frames - file.tell())
    try:
        samples = file.read(size, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        reason = error.error_string.rstrip(".")
        raise AudioError(f"{path}: truncated or damaged: {reason}") from error
    if len(samples) < declared:
        raise AudioError(
            f"{path}: truncated, its header says {declared - len(samples)} "
            "more samples than can be decoded"
        )
    return torch.from_numpy(samples).mean(1)
