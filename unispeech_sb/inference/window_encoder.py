"""Outputs of a model on recordings of any length, window by window."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from speechbrain.dataio.preprocess import AudioNormalizer
from torch.nn.utils.rnn import pad_sequence

from unispeech_sb.dataio.audio import AudioError
from unispeech_sb.inference.audio_blocks import (
    GlobalStatistics,
    Known,
    check_blocks,
    global_norm,
    padded_batches,
    read_blocks,
    run_apart,
    seconds_of,
    source_name,
)
from unispeech_sb.inference.sliding_window import Window, cut_windows
from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.nnet.lengths import conv_lengths
from unispeech_sb.nnet.packing import plan_windows

_LIVE_S = 15.0
"""Longest window of a recording that goes on, in seconds."""


@dataclass(frozen=True, eq=False)
class Chunk:
    """A window of a recording, [N], which has ``num_frames`` frames."""

    source: object
    statistics: GlobalStatistics
    window: Window
    wav: torch.Tensor
    num_frames: int

    @property
    def is_last(self) -> bool:
        """Whether the recording ends here."""
        return self.window.last == self.num_frames

    @property
    def is_whole(self) -> bool:
        """Whether this is all of the recording."""
        return self.is_last and self.window.first == 0


class WindowEncoder:
    """Computes log-posteriors of recordings of any length, window by window.

    A recording is read twice in blocks, first for its length and the statistics
    that models normalise by, and is never in memory as a whole.
    """

    def __init__(
        self,
        backbone: Backbone,
        encode: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        normalizer: AudioNormalizer,
        window_s: float,
        context_s: float,
    ) -> None:
        extractor = backbone.feature_extractor
        self.backbone, self.encode = backbone, encode
        self.normalizer = normalizer
        self.window_s, self.context_s = window_s, context_s
        self._convs = extractor.kernels, extractor.strides
        self._stride, self._field = extractor.hop, extractor.field

    @property
    def sample_rate(self) -> int:
        """Rate of the waveforms in Hz."""
        return self.normalizer.sample_rate

    @property
    def frame_s(self) -> float:
        """Seconds from one frame to the next."""
        return self._stride / self.sample_rate

    def seconds(self, source: Known) -> float:
        """Length of a recording, without reading it."""
        return seconds_of(source, self.sample_rate)

    def read(self, path: Known) -> torch.Tensor:
        """Reads a whole recording, [N]."""
        blocks = list(read_blocks(path, self.normalizer))
        self._check_length(path, sum(map(len, blocks)))
        return torch.cat(blocks)

    def cut(self, source: Known) -> Iterator[Chunk]:
        """Yields a recording as chunks; the only one where it is short."""
        statistics = self.statistics(source)
        windows = self.plan(statistics.num_samples)
        blocks = read_blocks(source, self.normalizer)
        for window, wav in cut_windows(blocks, windows):
            if len(windows) > 1:  # the last samples may make no frame
                wav = wav[: len(wav) - (len(wav) - self._field) % self._stride]
            yield Chunk(source, statistics, window, wav, windows[-1].last)

    def plan(self, num_samples: int) -> list[Window]:
        """The windows of a recording."""
        size = self.num_frames(round(self.window_s * self.sample_rate))
        context = round(self.context_s / self.frame_s)
        return plan_windows(
            num_samples, size, context, self._stride, self._field
        )

    def samples_of(self, first: int, last: int) -> Window:
        """The samples that some frames see."""
        stop = (last - 1) * self._stride + self._field
        return Window(first * self._stride, stop, first, first, last)

    def num_frames(self, num_samples: int) -> int:
        """Frames of so many samples."""
        return (num_samples - self._field) // self._stride + 1

    def encode_all(
        self, chunks: Iterable[Chunk], batch_seconds: float
    ) -> Iterator[tuple[Chunk, torch.Tensor | AudioError]]:
        """Yields chunks, in batches of up to ``batch_seconds``, with the
        log-posteriors of the frames that each gives, [T, V], on the CPU, or
        why there are none."""

        def length(chunk):  # a recording without cuts goes alone
            return math.inf if chunk.is_whole else len(chunk.wav)

        most = batch_seconds * self.sample_rate
        for batch in padded_batches(chunks, length, most):
            rows = run_apart(self._encode_chunks, batch, _source)
            yield from zip(batch, rows, strict=True)

    def _encode_chunks(self, batch):
        """Log-posteriors of chunks, [T, V] each."""
        wavs = [chunk.wav for chunk in batch]
        if batch[0].is_whole:
            rows = self.encode_whole(wavs)
        else:
            statistics = [chunk.statistics for chunk in batch]
            with global_norm(self.backbone, statistics) as prepare:
                rows = self.encode_whole(prepare(wavs))
        return [row[chunk.window.kept] for chunk, row in zip(batch, rows)]

    def encode_whole(self, wavs: list[torch.Tensor]) -> list[torch.Tensor]:
        """Log-posteriors of waveforms, [N] each, in one batch: [T, V] each."""
        counts = torch.tensor([len(wav) for wav in wavs])
        padded = pad_sequence(wavs, batch_first=True)
        rows = self.encode(padded, counts / padded.shape[1]).float().cpu()
        frames = conv_lengths(counts, *self._convs).tolist()
        return [row[:n] for row, n in zip(rows, frames)]

    def encode_live(
        self, blocks: Iterable[torch.Tensor]
    ) -> Iterator[tuple[torch.Tensor, bool]]:
        """Yields log-posteriors of a recording that goes on, [T, V], and
        whether they are final: of all frames that were not, after each block;
        and of those up to the context before the end of a window, where there
        is a frame behind it.

        Each window has half of the one before it, and is normalised by the
        statistics of all up to its end.
        """
        window_s = min(self.window_s, _LIVE_S)
        size = self.num_frames(round(window_s * self.sample_rate))
        step = size // 2
        context = min(round(self.context_s / self.frame_s), size // 4)
        most = self.samples_of(0, size + 1).stop - 1  # of so many frames
        statistics = self._no_statistics()
        held, begin, first = torch.zeros(0), 0, 0  # as frames of the whole

        def rows():
            if begin == 0:  # this is all of it
                return self.encode_whole([held])[0][first:]
            usable = self.samples_of(0, self.num_frames(len(held))).stop
            with global_norm(self.backbone, [statistics]) as prepare:
                found = self.encode_whole(prepare([held[:usable]]))
            return found[0][first - begin :]

        for block in check_blocks(blocks, "stream"):
            while len(block):
                if len(held) == most:
                    stop = begin + size - context
                    yield rows()[: stop - first], True
                    begin, first = begin + step, stop
                    held = held[step * self._stride :]
                room = most - len(held)
                statistics.add(block[:room])
                held, block = torch.cat([held, block[:room]]), block[room:]
            if self.num_frames(len(held)) > first - begin:
                yield rows(), False
        self._check_length("stream", statistics.num_samples)
        yield rows(), True

    def _no_statistics(self):
        """Statistics of nothing yet."""
        return GlobalStatistics(self._convs[0][0], self._convs[1][0])

    def statistics(self, source: Known) -> GlobalStatistics:
        """Reads a recording for its length and statistics."""
        statistics = self._no_statistics()
        for block in read_blocks(source, self.normalizer):
            statistics.add(block)
        self._check_length(source, statistics.num_samples)
        return statistics

    def _check_length(self, source, num_samples):
        """Raises when a recording has no frame."""
        if num_samples < self._field:
            raise AudioError(
                f"{source_name(source)}: too short, expected at least "
                f"{self._field} samples at {self.sample_rate} Hz, got "
                f"{num_samples}"
            )


def _source(chunk):
    """The recording of a chunk."""
    return chunk.source
