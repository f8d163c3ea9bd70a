"""Reading recordings: one function that reads, one that only checks, and one
sentence that names the file when something is wrong with it.

Recordings are decoded from their first sample on, in blocks, so that no number
in a file decides how much memory is asked for, and formats can be read in which
libsndfile cannot seek.
"""

import functools
import io
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
import soundfile
import torch

from unispeech_sb.atomic import atomic
from unispeech_sb.dataio.containers import (
    ENDLESS,
    ForeignFile,
    missing,
    without_length,
)
from unispeech_sb.text import absent

__all__ = ["AudioError", "read_audio", "read_header"]

_Result = TypeVar("_Result")

FILE_ERRORS = (ArithmeticError, MemoryError, OSError, RuntimeError, ValueError)
"""What reading a file, or running a model on it, may raise because of the file:
overflows, too little memory, the system's errors, those of libsndfile and torch
(RuntimeError), and values that are refused. Others are faults of a program."""

RATES = 1_000, 384_000
"""Least and greatest sampling rate in Hz that is read."""

_BLOCK_VALUES = 2**20
"""Most samples of all channels that are decoded at a time: 4 MB."""
_TABLE = 2**19
"""Largest table of filters for resampling; others are computed in parts."""


class AudioError(ValueError):
    """A recording that cannot be used; the message names it and says why.

    Example
    -------
    >>> try:
    ...     read_audio("nowhere.wav")
    ... except AudioError as error:
    ...     print(error)
    nowhere.wav: there is no such file
    """


class AudioBytes:
    """A recording in memory, in a format of libsndfile's that states its
    length: where the functions here take a path, they take one of these."""

    def __init__(self, name: str, content: bytes) -> None:
        self.name, self.content = name, content

    def __str__(self) -> str:
        return self.name


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Turns what ``FILE_ERRORS`` lists into an ``AudioError`` of the file."""
    try:
        yield
    except AudioError:
        raise
    except FILE_ERRORS as error:
        raise error_of(path, error) from error


def attempt(
    path: str | Path, function: Callable[..., _Result], *arguments: object
) -> "_Result | AudioError":
    """What a function gives for a file, or the file's error, so that one bad
    file does not end the work on the others."""
    try:
        return function(*arguments)
    except FILE_ERRORS as error:
        return error_of(path, error)


def error_of(path: str | Path, error: BaseException) -> AudioError:
    """The ``AudioError`` of a file, in one line, for what it has raised.

    A new one, as the frames of a traceback keep waveforms in memory.
    """
    path = "waveform" if isinstance(path, torch.Tensor) else path
    said = str(error).strip()
    if isinstance(error, OSError) and error.strerror:
        other = error.filename not in (None, path, str(path))
        said = error.strerror + f": {error.filename}" * other
    if not isinstance(error, AudioError):
        said = " ".join(said.split("\n", 1)[0].split())[:300]
    if isinstance(error, MemoryError):
        said = said or "not enough memory"
    said = said or type(error).__name__
    named = isinstance(error, AudioError) or said.startswith(f"{path}: ")
    return AudioError(said if named else f"{path}: {said}")


def read_audio(
    path: str | Path,
    start: int | None = None,
    stop: int | None = None,
    sample_rate: int = 16000,
    min_samples: int = 400,
    allow_silence: bool = False,
) -> torch.Tensor:
    """Reads a recording, or a stretch of it, as one channel at one rate.

    Several channels are averaged and other rates resampled as by SpeechBrain's
    ``AudioNormalizer``: see ``Resampler``. Of a stretch only that stretch is
    decoded, in formats where that can be. Truncation is recognised wherever the
    file says how long it should be: ``containers.py`` lists the formats; MP3
    with a Xing header; FLAC.

    Arguments
    ---------
    path : str or path-like
        Any format that soundfile reads; with PyAV (``pip install av``) or the
        program ``ffmpeg`` also m4a, mp4, aac, webm, and others.
    start : int, optional
        First sample of the stretch, at the file's own rate.
    stop : int, optional
        Sample after the last one of the stretch, at the file's own rate.
    sample_rate : int
        Rate of the result in Hz.
    min_samples : int
        Least length at ``sample_rate``; 400 is one frame of the backbone.
    allow_silence : bool
        Take recordings in which every sample is the same.

    Returns
    -------
    torch.Tensor
        The waveform, float32, [N].

    Raises
    ------
    AudioError
        When the file is missing, unreadable, truncated, empty, too short, not
        finite, all silent, at a rate outside 1 to 384 kHz, or does not hold
        the stretch.

    Example
    -------
    >>> path = getfixture("tmpdir") / "tone.wav"
    >>> soundfile.write(path, np.sin(np.arange(8000)), 8000)
    >>> read_audio(path).shape
    torch.Size([16000])
    >>> read_audio(path, start=4000, stop=6000).shape
    torch.Size([4000])
    """
    with naming(path):
        rate, decoded = decode(path, start, stop)
        blocks = list(decoded)
        limits = min_samples, sample_rate, allow_silence
        _check_samples(path, blocks, rate, *limits)
        return Resampler(rate, sample_rate).finish(torch.cat(blocks))


def check_audio(
    path: str | Path,
    start: int | None = None,
    stop: int | None = None,
    sample_rate: int = 16000,
    min_samples: int = 400,
    allow_silence: bool = False,
) -> float:
    """Checks a recording as ``read_audio`` does; gives its seconds."""
    with naming(path):
        rate, blocks = decode(path, start, stop)
        limits = min_samples, sample_rate, allow_silence
        return _check_samples(path, blocks, rate, *limits) / rate


def read_header(path: str | Path) -> tuple[int, int]:
    """Reads how long a recording is, without decoding it where it says so.

    Arguments
    ---------
    path : str or path-like
        As for ``read_audio``.

    Returns
    -------
    num_samples : int
        Samples per channel.
    rate : int
        The file's own rate in Hz.

    Raises
    ------
    AudioError
        When the file is missing, empty, not audio, at a rate outside 1 to
        384 kHz, or shorter than its header says.

    Example
    -------
    >>> path = getfixture("tmpdir") / "tone.wav"
    >>> soundfile.write(path, np.sin(np.arange(800)), 8000)
    >>> read_header(path)
    (800, 8000)
    """
    with naming(path), _open(path) as file:
        count, rate = file.num_samples, file.samplerate
        if count is None:
            count = _count(path, os.stat(path).st_mtime_ns)
        return count, rate


def bounds_of(record):
    """First sample of a record, the one after its last, and their rate."""
    num_samples, rate = read_header(record["wav"])
    start, stop = record.get("start"), record.get("stop")
    return start or 0, num_samples if stop is None else stop, rate


def decode(
    path: str | Path,
    start: int | None = None,
    stop: int | None = None,
    block_s: float = 30.0,
) -> tuple[int, Iterator[torch.Tensor]]:
    """Opens a stretch of a recording: its rate, and its samples in blocks of
    up to ``block_s`` seconds, channels averaged, float32, [N] each; they raise
    an ``AudioError`` where the file ends before it should."""
    blocks = _stretch(path, start or 0, stop, block_s)
    return next(blocks), blocks


def _stretch(path, start, stop, block_s):
    """Yields the rate, then the blocks of a stretch."""
    with naming(path), _open(path) as file:
        count = file.num_samples
        if stop is None and count is not None:
            stop = count
        end = math.inf if stop is None else stop
        if not 0 <= start < end <= (math.inf if count is None else count):
            raise _no_such_stretch(path, count, start, stop)
        yield file.samplerate
        place, size = start, math.ceil(block_s * file.samplerate)
        for block in file.blocks(start, end, size):
            place += len(block)
            yield torch.from_numpy(np.ascontiguousarray(block)).mean(1)
        if count is not None and place < end:
            raise AudioError(
                f"{path}: truncated, its header says {stop - start} samples "
                f"but only {place - start} can be decoded"
            )
        if stop is not None and place < end:
            raise _no_such_stretch(path, place, start, stop)
        if place == start:
            raise AudioError(f"{path}: the recording is empty")


def _no_such_stretch(path, count, start, stop):
    """The error of a stretch that a file does not hold."""
    return AudioError(
        f"{path}: expected a stretch of its {count} samples, "
        f"got start {start}, stop {stop}"
    )


@functools.lru_cache(maxsize=1024)
def _count(path, changed):
    """Samples of a file that does not state them: all of it is decoded."""
    return sum(map(len, decode(path)[1]))


def _open(path):
    """Opens a recording whose header is sound."""
    if not isinstance(path, AudioBytes):
        _check_file(path)
    file = _open_any(path)
    try:
        _check_header(path, file)
    except AudioError:
        file.close()
        raise
    return file


def _check_file(path):
    """Raises where no file is, or less of it than it says."""
    if os.path.isdir(path):
        raise AudioError(f"{path}: expected a recording; it is a folder")
    if not os.path.isfile(path):
        raise AudioError(f"{path}: {absent(path, 'file')}")
    if os.path.getsize(path) == 0:
        raise AudioError(f"{path}: the file is empty")
    lacks = missing(path)
    if lacks:
        raise AudioError(f"{path}: truncated, {lacks}")


def _open_any(path):
    """Opens a file by libsndfile, or by FFmpeg where that does not know it."""
    try:
        return _SoundFile(path)
    except TypeError as error:  # soundfile asks for the rate of *.raw
        raise AudioError(
            f"{path}: samples without a header, whose rate nobody knows"
        ) from error
    except soundfile.LibsndfileError as error:
        reason: object = error.error_string.rstrip(".")
        if str(reason).startswith(("Internal error", "File does not exist")):
            reason = "Format not recognised"  # as there is such a file
        try:
            if isinstance(path, AudioBytes):
                raise LookupError from error
            return ForeignFile(path)
        except (LookupError, ValueError) as foreign:
            if isinstance(foreign, ValueError):
                reason = foreign
            raise AudioError(
                f"{path}: not readable as audio: {reason}"
            ) from error


def _check_header(path, file):
    """Raises when an open file holds nothing, or has no usable rate."""
    if file.num_samples == 0:
        raise AudioError(f"{path}: the recording is empty")
    least, most = RATES
    if not least <= file.samplerate <= most:
        raise AudioError(
            f"{path}: expected a sampling rate from {least} to {most} Hz, got "
            f"{file.samplerate}"
        )


def write_audio(
    path: str | Path, samples: np.ndarray, sample_rate: int
) -> None:
    """Writes 16-bit samples, [N], in the format of the name's suffix. An error
    is an ``OSError`` with the path: of a full disk libsndfile tells nothing."""
    content, form = io.BytesIO(), Path(path).suffix[1:]
    soundfile.write(content, samples, sample_rate, "PCM_16", format=form)
    with atomic(path, "wb") as file:
        file.write(content.getbuffer())


class _SoundFile(soundfile.SoundFile):
    """A file that is read front to back, by libsndfile.

    After each block soundfile seeks, unless a file cannot be sought in, which
    some formats (GSM 6.10, G.721, DWVW, XI) answer with an error.
    """

    def __init__(self, path: str | Path | AudioBytes) -> None:
        self._stream: io.IOBase | None
        if isinstance(path, AudioBytes):
            self._stream = io.BytesIO(path.content)
            super().__init__(self._stream)
            return
        self._stream = without_length(path)
        # Bytes, as soundfile takes names in Unicode only; on Windows all are
        name = os.fspath(path) if os.name == "nt" else os.fsencode(path)
        super().__init__(self._stream or name)

    def close(self) -> None:
        """Closes the file."""
        super().close()
        if self._stream is not None:
            self._stream.close()

    def seekable(self) -> bool:
        """Whether soundfile may seek by itself."""
        return False

    @property
    def num_samples(self) -> int | None:
        """Samples of each channel; None where that is not stated."""
        return None if self.frames >= ENDLESS else self.frames

    def blocks(
        self, start: int, stop: float, size: int
    ) -> Iterator[np.ndarray]:
        """Yields the samples of a stretch, up to ``size`` at a time, [N, C]."""
        place, size = 0, min(size, max(1, _BLOCK_VALUES // self.channels))
        try:
            if start:
                place = self._sought(start)
            while place < stop:
                wanted = int(min(size, stop - place))
                block = self.read(wanted, dtype="float32", always_2d=True)
                if not len(block):
                    return
                yield block[max(0, start - place) :]
                place += len(block)
        except soundfile.LibsndfileError as error:
            reason = error.error_string.rstrip(".")
            raise ValueError(f"truncated or damaged: {reason}") from error

    def _sought(self, start):
        """Seeks; gives the place, which is the first where that cannot be."""
        try:
            return self.seek(start)
        except soundfile.LibsndfileError:
            return 0


def _check_samples(path, blocks, rate, min_samples, sample_rate, silence):
    """Counts samples; raises where they are not finite, all the same (unless
    ``silence``), or fewer than ``min_samples`` once they are resampled."""
    count, least, most = 0, math.inf, -math.inf
    for block in blocks:
        if not block.isfinite().all():
            raise AudioError(f"{path}: some samples are NaN or infinite")
        count += len(block)
        least = min(least, block.min().item())
        most = max(most, block.max().item())
    if not silence and least == most:
        raise AudioError(f"{path}: all silent, every sample is {least:g}")
    if count * sample_rate < min_samples * rate:
        raise AudioError(
            f"{path}: too short, expected at least {min_samples} samples at "
            f"{sample_rate} Hz, got {count} at {rate} Hz"
        )
    return count


class Resampler:
    """Converts a waveform, block by block, from one sampling rate to another.

    The numbers are those of ``torchaudio.functional.resample`` as SpeechBrain
    calls it: sample j of the result is the sum over samples i of

        x[i] s k(b (i / old - j / new)),   k(t) = sinc(t) cos(pi t / 12)^2

    for t between -6 and 6, where ``old`` and ``new`` are the rates without
    their common divisor, b = 0.99 min(old, new), and s = b / old. torchaudio
    tabulates k for all ``new`` phases over ``old`` samples: 2.8 GB from 44,101
    to 16,000 Hz. No table of that size is made here: the filters are computed
    as they are needed, so that memory grows with the samples only.

    Arguments
    ---------
    rate : int
        Sampling rate of the input in Hz.
    sample_rate : int
        Sampling rate of the result in Hz.

    Example
    -------
    >>> resampler = Resampler(44101, 16000)
    >>> parts = [resampler.push(torch.randn(44101)) for _ in range(2)]
    >>> len(torch.cat([*parts, resampler.finish()]))
    32000
    """

    def __init__(self, rate: int, sample_rate: int) -> None:
        divisor = math.gcd(rate, sample_rate)
        self.old, self.new = rate // divisor, sample_rate // divisor
        self._reach = math.ceil(6 * self.old / (0.99 * min(self.old, self.new)))
        self._buffer = torch.zeros(self._reach)
        self._taken = self._given = 0

    def push(self, block: torch.Tensor) -> torch.Tensor:
        """Takes samples, [N]; gives those of the result that are certain."""
        if self.old == self.new:
            return block
        self._taken += len(block)
        self._buffer = torch.cat([self._buffer, block])
        periods = (len(self._buffer) - 2 * self._reach - 1) // self.old
        if periods < 1:
            return self._buffer[:0]
        size = self.new * (self.old + 2 * self._reach)
        convert = self._by_table if size <= _TABLE else self._by_parts
        found = convert(periods)
        self._buffer = self._buffer[periods * self.old :].clone()
        self._given += len(found)
        return found

    def finish(self, block: torch.Tensor | None = None) -> torch.Tensor:
        """Takes the last samples, [N], if any; gives the rest of the result."""
        block = torch.zeros(0) if block is None else block
        if self.old == self.new:
            return block
        given, taken = self._given, self._taken + len(block)
        rest = self.push(
            torch.cat([block, torch.zeros(self._reach + self.old + 1)])
        )
        return rest[: self._length(taken) - given]

    def _length(self, taken):
        """Samples of the result: torchaudio rounds before it rounds up."""
        exact = self.new * taken / self.old
        return math.ceil(np.float32(exact) if exact < 2**23 else exact)

    def _by_table(self, periods):
        """Converts whole periods by one convolution."""
        table = _filters(self.old, self.new, self._reach)
        used = self._buffer[: periods * self.old + 2 * self._reach]
        found = torch.nn.functional.conv1d(
            used[None, None], table, stride=self.old
        )
        return found[0].T.reshape(-1)

    def _by_parts(self, periods):
        """Converts whole periods sample by sample, as many as fit at once."""
        taps = 2 * self._reach + 2
        windows, found = self._buffer.unfold(0, taps, 1), []
        for numbers in torch.arange(periods * self.new).split(2**18 // taps):
            phases = numbers % self.new
            centers = phases * self.old // self.new
            places = centers[:, None] + torch.arange(taps) - self._reach
            weights = _weights(places, phases[:, None], self.old, self.new)
            used = windows[numbers // self.new * self.old + centers]
            found.append((used * weights).sum(1))
        return torch.cat(found)


def _weights(places, phases, old, new):
    """The filter's values at samples of the input, for phases of the result.

    torchaudio's order and precision: the phase is rounded to float32.
    """
    base = 0.99 * min(old, new)
    times = (-phases / new + places.double() / old) * base
    times = times.clamp(-6, 6)
    window = torch.cos(times * math.pi / 6 / 2) ** 2
    times = times * math.pi
    sinc = torch.where(times == 0, 1.0, times.sin() / times)
    return (sinc * (window * (base / old))).float()


@functools.lru_cache(maxsize=16)
def _filters(old, new, reach):
    """The filters of all phases, [new, 1, old + 2 reach]."""
    places = torch.arange(-reach, reach + old)
    return _weights(places, torch.arange(new)[:, None], old, new)[:, None]
