"""SUPERB's voice activity detection for speaker verification: what SoX's
effect ``silence 1 0.1 0.1% -1 0.1 0.1%`` keeps of a recording.
"""

from bisect import bisect_right
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import torch
from speechbrain.utils.logger import get_logger
from tqdm import tqdm

from unispeech_sb.dataio.audio import read_audio

__all__ = ["sound_stretches"]

logger = get_logger(__name__)

_FULL_SCALE = 2**31  # SoX computes with 32-bit integers
_WINDOW_S = 0.02  # over which SoX takes the root mean square
_SPAN_S = 0.1  # least length of a beginning, and of a gap


def sound_stretches(
    wav: torch.Tensor, sample_rate: int = 16000, threshold: float = 0.001
) -> list[tuple[int, int]]:
    """Finds what is left of a waveform when its silent gaps are cut.

    A sample is loud if the root mean square of the 20 ms that end with it is
    above the threshold. A stretch begins with 0.1 s of loud samples and ends
    where 0.1 s of others begin; sound before the end of such a gap does not
    make a sample behind it loud.

    Arguments
    ---------
    wav : torch.Tensor
        Waveform, [N]; SUPERB lowers it by 3 dB first.
    sample_rate : int
        Its rate in Hz.
    threshold : float
        Root mean square, of a full scale of 1.

    Returns
    -------
    list of tuple of int
        First sample of each stretch and the one after its last, in order.

    Example
    -------
    >>> wav = torch.zeros(16000)
    >>> wav[4000:8000] = 0.5
    >>> sound_stretches(wav)
    [(4000, 8319)]
    """
    span = int(_SPAN_S * sample_rate)
    window = int(_WINDOW_S * sample_rate)
    # SoX cuts the root mean square down to a whole number
    level = int(threshold * (_FULL_SCALE - 1)) + 1
    least = window * level**2
    samples = (wav.double() * _FULL_SCALE).round()
    # energies[n]: sum over the samples before n
    energies = torch.cat([samples.new_zeros(1), samples.square().cumsum(0)])
    starts, stops = _loud_runs(energies, window, least)
    begun = stops - starts >= span
    gap_starts = _gap_starts(starts, stops, len(wav), span)
    stretches: list[tuple[int, int]] = []
    onset = _onset(energies, 0, least)
    for start, stop in zip(starts[begun].tolist(), stops[begun].tolist()):
        start = max(start, onset)
        if stop - start < span or (stretches and start < stretches[-1][1]):
            continue
        end = gap_starts[bisect_right(gap_starts, start)]
        stretches.append((start, end))
        onset = _onset(energies, end + span, least)
    return stretches


def _loud_runs(energies, window, least):
    """Start and stop of each run of loud samples, [R] and [R]."""
    before = energies[:-1].roll(window - 1)
    before[: window - 1] = 0.0
    loud = (energies[1:] - before >= least).int()
    edges = loud.diff(prepend=loud.new_zeros(1), append=loud.new_zeros(1))
    return (edges == 1).nonzero()[:, 0], (edges == -1).nonzero()[:, 0]


def _gap_starts(starts, stops, num_samples, span):
    """Where 0.1 s without a loud sample begin, and the end of the waveform."""
    end = starts.new_tensor([num_samples])
    gaps = torch.cat([starts[1:], end]) - stops
    return [*stops[gaps >= span].tolist(), num_samples]


def _onset(energies, first, least):
    """First sample that may be loud, of what counts from ``first`` on."""
    if first >= len(energies):
        return len(energies)
    return int(torch.searchsorted(energies, energies[first] + least)) - 1


def cut_silence(
    wav: torch.Tensor, sample_rate: int = 16000, threshold: float = 0.001
) -> torch.Tensor:
    """Cuts the silent gaps, which must not be all, out of a waveform, [N]."""
    stretches = sound_stretches(wav, sample_rate, threshold)
    if not stretches:
        raise ValueError(
            f"expected {_SPAN_S} s of sound above {threshold} of full scale; "
            f"the {len(wav) / sample_rate:g} s have none"
        )
    return torch.cat([wav[start:stop] for start, stop in stretches])


def with_sound(
    records: Iterable[dict[str, Any]],
    min_s: float = 2.0,
    gain_db: float = -3.0,
    num_workers: int = 1,
) -> list[dict[str, Any]]:
    """Keeps the records with more than ``min_s`` of sound; adds ``sound_s``.

    SUPERB trains on what is longer than 2 s without silent gaps, at 3 dB less.
    At least one has to stay. ``num_workers`` recordings are read at once.
    """
    records = list(records)
    measure = partial(_sound_s, gain=10 ** (gain_db / 20))
    with ThreadPoolExecutor(num_workers) as pool:
        durations = list(
            tqdm(
                pool.map(measure, records),
                desc="Measuring sound",
                total=len(records),
                unit="file",
                disable=None,
            )
        )
    kept = [
        {**record, "sound_s": round(sound_s, 4)}
        for record, sound_s in zip(records, durations)
        if sound_s > min_s
    ]
    if not kept:
        raise ValueError(
            f"expected recordings with more than {min_s} s of sound; none of "
            f"{len(records)} is"
        )
    if len(kept) < len(records):
        num_short = len(records) - len(kept)
        logger.info(f"Left out {num_short} files of at most {min_s} s of sound")
    return kept


def _sound_s(record, gain):
    """Seconds of sound of a record."""
    wav = read_audio(
        record["wav"],
        record.get("start"),
        record.get("stop"),
        allow_silence=True,
    )
    stretches = sound_stretches(gain * wav)
    return sum(stop - start for start, stop in stretches) / 16000
