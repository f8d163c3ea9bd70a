"""Recordings of any length, read block by block at the model's rate."""

import math

import soundfile
import torch

from unispeech_sb.dataio.audio import AudioError, read_header

BLOCK_S = 30.0
"""Seconds that are decoded at a time."""

FILTER_REACH = 64
"""Samples of the lower rate that a block shares with its neighbours when it
is resampled: ten times the reach of torchaudio's filter."""


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
    AudioError
        When a file is missing, truncated, not readable to its end, or not
        finite.
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
    read_header(source)
    with soundfile.SoundFile(source) as file:
        for block in _converted(source, file, normalizer, block_s):
            if not block.isfinite().all():
                raise AudioError(f"{source}: some samples are NaN or infinite")
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
    AudioError
        When the file is missing, empty, not audio, shorter than its header
        says, or does not say it.

    Example
    -------
    >>> path = getfixture("tmpdir") / "tone.wav"
    >>> soundfile.write(path, torch.rand(800).numpy(), 8000)
    >>> duration_s(path)
    0.1
    """
    num_samples, rate = read_header(path)
    return num_samples / rate


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
        raise AudioError(f"{path}: truncated or damaged: {reason}") from error
    if len(samples) < declared:
        raise AudioError(
            f"{path}: truncated, its header says {declared - len(samples)} "
            "more samples than can be decoded"
        )
    return torch.from_numpy(samples).mean(1)
