"""Reading recordings: one function that reads, one that only checks, and one
sentence that names the file when something is wrong with it.
"""

import functools
import os
import struct
from pathlib import Path

import numpy as np
import soundfile
import torch
from speechbrain.dataio.preprocess import AudioNormalizer

__all__ = ["AudioError", "read_audio", "read_header"]

# Programs that write WAV into a pipe cannot know the length and put a
# placeholder there: 0xFFFFFFFF (FFmpeg) or 0x7FFFF000 (SoX).
_UNKNOWN_WAV_BYTES = 0x7FFFF000
# What libsndfile answers for a FLAC stream that does not state its length.
_UNKNOWN_FRAMES = 2**63 - 1


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


def read_audio(
    path: str | Path,
    start: int | None = None,
    stop: int | None = None,
    sample_rate: int = 16000,
    min_samples: int = 400,
    allow_silence: bool = False,
) -> torch.Tensor:
    """Reads a recording, or a stretch of it, as one channel at one rate.

    Several channels are averaged and other rates resampled by SpeechBrain's
    ``AudioNormalizer``. Of a stretch only that stretch is decoded. Truncation
    is recognised where the file says how long it should be: WAV, FLAC, MP3.

    Arguments
    ---------
    path : str or path-like
        Any format that soundfile reads.
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
        finite, all silent, or does not hold the stretch.

    Example
    -------
    >>> path = getfixture("tmpdir") / "tone.wav"
    >>> soundfile.write(path, np.sin(np.arange(8000)), 8000)
    >>> read_audio(path).shape
    torch.Size([16000])
    >>> read_audio(path, start=4000, stop=6000).shape
    torch.Size([4000])
    """
    samples, rate = _decode(path, start, stop)
    _check_samples(path, samples, allow_silence)
    _check_length(path, len(samples), rate, min_samples, sample_rate)
    return _normalizer(sample_rate)(torch.from_numpy(samples), rate)


def check_audio(
    path: str | Path,
    start: int | None = None,
    stop: int | None = None,
    sample_rate: int = 16000,
    min_samples: int = 400,
    allow_silence: bool = False,
) -> float:
    """Checks a recording as ``read_audio`` does; gives its seconds."""
    samples, rate = _decode(path, start, stop)
    _check_samples(path, samples, allow_silence)
    _check_length(path, len(samples), rate, min_samples, sample_rate)
    return len(samples) / rate


def read_header(path: str | Path) -> tuple[int, int]:
    """Reads how long a recording is, without decoding it.

    Arguments
    ---------
    path : str or path-like
        Any format that soundfile reads.

    Returns
    -------
    num_samples : int
        Samples per channel.
    rate : int
        The file's own rate in Hz.

    Raises
    ------
    AudioError
        When the file is missing, empty, not audio, or shorter than its header
        says.

    Example
    -------
    >>> path = getfixture("tmpdir") / "tone.wav"
    >>> soundfile.write(path, np.sin(np.arange(800)), 8000)
    >>> read_header(path)
    (800, 8000)
    """
    with _open(path) as file:
        return file.frames, file.samplerate


def bounds_of(record):
    """First sample of a record, the one after its last, and their rate."""
    num_samples, rate = read_header(record["wav"])
    start, stop = record.get("start"), record.get("stop")
    return start or 0, num_samples if stop is None else stop, rate


def _open(path):
    """Opens a recording whose header is sound."""
    if not os.path.isfile(path):
        raise AudioError(f"{path}: there is no such file")
    if os.path.getsize(path) == 0:
        raise AudioError(f"{path}: the file is empty")
    try:
        file = soundfile.SoundFile(path)
    except soundfile.LibsndfileError as error:
        reason = error.error_string.rstrip(".")
        raise AudioError(f"{path}: not readable as audio: {reason}") from error
    try:
        _check_header(path, file)
    except AudioError:
        file.close()
        raise
    return file


def _check_header(path, file):
    """Raises when an open file holds nothing, or less than it says."""
    if file.frames == _UNKNOWN_FRAMES:
        raise AudioError(
            f"{path}: the header does not say how long it is, write it anew"
        )
    missing = _missing_wav_bytes(path) if file.format.startswith("WAV") else 0
    if missing:
        raise AudioError(
            f"{path}: truncated, {missing} bytes less than its header says"
        )
    if file.frames == 0:
        raise AudioError(f"{path}: the recording is empty")


def _missing_wav_bytes(path):
    """Counts the bytes a WAV lacks; libsndfile repairs its length silently."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        if file.read(12)[:4] != b"RIFF":  # RF64 keeps its lengths elsewhere
            return 0
        while len(head := file.read(8)) == 8:
            chunk, length = struct.unpack("<4sI", head)
            if chunk == b"data":
                known = length < _UNKNOWN_WAV_BYTES
                return max(0, file.tell() + length - size) if known else 0
            file.seek(length + length % 2, os.SEEK_CUR)
    return 0


def _decode(path, start, stop):
    """Decodes a stretch: samples [N, channels] and their rate."""
    with _open(path) as file:
        start = 0 if start is None else start
        stop = file.frames if stop is None else stop
        if not 0 <= start < stop <= file.frames:
            raise AudioError(
                f"{path}: expected a stretch of its {file.frames} samples, "
                f"got start {start}, stop {stop}"
            )
        try:
            file.seek(start)
            samples = file.read(stop - start, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            reason = error.error_string.rstrip(".")
            raise AudioError(
                f"{path}: truncated or damaged: {reason}"
            ) from error
        rate = file.samplerate
    if len(samples) < stop - start:
        raise AudioError(
            f"{path}: truncated, its header says {stop - start} samples but "
            f"only {len(samples)} can be decoded"
        )
    return samples, rate


def _check_samples(path, samples, allow_silence):
    """Raises when samples [N, channels] are not finite, or all the same."""
    if not np.isfinite(samples).all():
        raise AudioError(f"{path}: some samples are NaN or infinite")
    mono = samples.mean(axis=1)
    if not allow_silence and mono.min() == mono.max():
        raise AudioError(f"{path}: all silent, every sample is {mono[0]:g}")


def _check_length(path, num_samples, rate, min_samples, sample_rate):
    """Raises when a recording is too short once it is resampled."""
    if num_samples * sample_rate < min_samples * rate:
        raise AudioError(
            f"{path}: too short, expected at least {min_samples} samples at "
            f"{sample_rate} Hz, got {num_samples} at {rate} Hz"
        )


@functools.lru_cache
def _normalizer(sample_rate):
    """Keeps one normalizer per rate: it caches its resampling filters."""
    return AudioNormalizer(sample_rate=sample_rate)
