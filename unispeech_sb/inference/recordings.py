"""Recordings of any length, read block by block at the model's rate."""

import math
from pathlib import Path

import soundfile
import torch

BLOCK_S = 30.0
"""Seconds that are decoded at a time."""

FILTER_REACH = 64
"""Samples of the lower rate that a block shares with its neighbours when it
is resampled: ten times the reach of torchaudio's filter."""

# What libsndfile answers for a FLAC stream that does not state its length.
_UNKNOWN_FRAMES = 2**63 - 1


class RecordingError(ValueError):
    """A recording that cannot be transcribed; the message names it.

    Example
    -------
    >>> from speechbrain.dataio.preprocess import AudioNormalizer
    >>> try:
    ...     next(read_blocks("nowhere.wav", AudioNormalizer()))
    ... except RecordingError as error:
    ...     print(error)
    nowhere.wav: there is no such file
    """


def read_blocks(source, normalizer, block_s=BLOCK_S):
    """Reads a recording in blocks, as if it were read at once.

    Channels are averaged and rates converted as SpeechBrain's interfaces do;
    neighbouring blocks share what the resampling filter reaches over.

    Arguments
    ---------
    source : str or path-like or torch.Tensor
        A file that soundfile reads, or a waveform at the model's rate, [N].
    normalizer : speechbrain.dataio.preprocess.AudioNormalizer
        Gives the rate and converts to it.
    block_s : float
        Length of a block in seconds, about.

    Yields
    ------
    torch.Tensor
        The next samples, float32, [N].

    Raises
    ------
    RecordingError
        When a file is missing, not readable to its end, or not finite.
    ValueError
        When a tensor is not a single waveform.

    Example
    -------
    >>> from speechbrain.dataio.preprocess import AudioNormalizer
    >>> path = getfixture("tmpdir") / "tone.wav"
    >>> soundfile.write(path, torch.rand(20000, 2).numpy(), 8000)
    >>> blocks = read_blocks(path, AudioNormalizer(16000), block_s=1.0)
    >>> [len(block) for block in blocks]
    [15872, 16000, 8128]
    """
    if isinstance(source, torch.Tensor):
        if source.dim() != 1:
            raise ValueError(
                f"waveform: expected shape [N]; got {list(source.shape)}"
            )
        size = math.ceil(block_s * normalizer.sample_rate)
        yield from source.float().cpu().split(size)
        return
    with _open(source) as file:
        for block in _converted(source, file, normalizer, block_s):
            if not block.isfinite().all():
                raise RecordingError(
                    f"{source}: some samples are NaN or infinite"
                )
            yield block


def duration_s(path):
    """Reads how long a file says it is.

    Arguments
    ---------
    path : str or path-like
        A file that soundfile reads.

    Returns
    -------
    float
        Seconds.

    Raises
    ------
    RecordingError
        When the file is missing, empty, not audio, or does not say it.

    Example
    -------
    >>> path = getfixture("tmpdir") / "tone.wav"
    >>> soundfile.write(path, torch.rand(800).numpy(), 8000)
    >>> duration_s(path)
    0.1
    """
    with _open(path) as file:
        return file.frames / file.samplerate


def _open(path):
    """Opens a file that is there and audio."""
    if not Path(path).is_file():
        raise RecordingError(f"{path}: there is no such file")
    if not Path(path).stat().st_size:
        raise RecordingError(f"{path}: the file is empty")
    try:
        file = soundfile.SoundFile(path)
    except soundfile.LibsndfileError as error:
        reason = error.error_string.rstrip(".")
        raise RecordingError(
            f"{path}: not readable as audio: {reason}"
        ) from error
    if file.frames == _UNKNOWN_FRAMES:
        file.close()
        raise RecordingError(
            f"{path}: the header does not say how long it is, write it anew"
        )
    return file


def _converted(path, file, normalizer, block_s):
    """Blocks of an open file at the normalizer's rate.

    Blocks and overlaps hold whole periods of both rates, so that the filter's
    phases are those of the whole.
    """
    divisor = math.gcd(file.samplerate, normalizer.sample_rate)
    period, new_period = (
        rate // divisor for rate in (file.samplerate, normalizer.sample_rate)
    )
    reach = FILTER_REACH * max(1, period / new_period)
    shared = period * math.ceil(reach / period) if period != new_period else 0
    size = period * math.ceil(block_s * file.samplerate / period)
    size = max(size, shared)
    held, before, more = torch.zeros(0), 0, True
    while more:
        block = _decoded(path, file, size)
        more = len(block) == size
        held = torch.cat([held, block]) if len(held) else block
        if len(held) <= before:
            return
        converted = normalizer(held, file.samplerate)
        end = len(held) - shared if more else len(held)
        skipped = before // period * new_period
        stop = end // period * new_period if more else len(converted)
        yield converted[skipped:stop]
        kept_from = max(end - shared, 0)
        held, before = held[kept_from:], end - kept_from


def _decoded(path, file, size):
    """The next samples of an open file, channels averaged, [N]."""
    declared = min(size, file.frames - file.tell())
    try:
        samples = file.read(size, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        reason = error.error_string.rstrip(".")
        raise RecordingError(
            f"{path}: truncated or damaged: {reason}"
        ) from error
    if len(samples) < declared:
        raise RecordingError(
            f"{path}: truncated, its header says {declared - len(samples)} "
            "more samples than can be decoded"
        )
    return torch.from_numpy(samples).mean(1)
