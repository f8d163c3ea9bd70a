"""Simulated mixtures: conversations made of recordings of single speakers.
Speakers, turns, overlap, levels, room and noise are drawn from one seed.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from scipy.signal import fftconvolve
from tqdm import tqdm

from unispeech_sb.atomic import OneWriter
from unispeech_sb.dataio.audio import read_audio, read_header, write_audio
from unispeech_sb.dataio.manifest import read_manifest
from unispeech_sb.dataio.noises import find_recordings
from unispeech_sb.dataio.rttm import (
    Segment,
    normalized,
    write_files,
    write_kaldi_segments,
    write_rttm,
)
from unispeech_sb.dataio.samplers import numbered_generator
from unispeech_sb.dataio.vad import sound_stretches

__all__ = ["MixtureOptions", "MixtureSimulator", "write_mixtures"]

_SAMPLE_RATE = 16000
_FADE_S = 0.005  # of a turn that is cut out of running speech
_PEAK = 0.99
_LONGEST_S = 3600.0  # turn or pause
_LONGEST_RT60_S = 30.0  # of the largest halls: 15
_MOST_DB = 200.0
_STEPS = 20  # of tightness to try, first coarse, then fine about the best
_DIRECT_DB = (0.0, 10.0)  # energy of the direct sound over that of the rest
_FIRST_REFLECTION_S = 0.002
_DECAY = 6.9078  # ln(1000): 60 dB


@dataclasses.dataclass(frozen=True)
class MixtureOptions:
    """What simulated mixtures are like.

    Each pair is the least and the greatest of what is drawn, uniformly, for
    every mixture, turn or speaker anew.

    Arguments
    ---------
    num_speakers : sequence of int
        Speakers of a mixture; a short one may end before all have spoken.
    turn_s : sequence of float
        Seconds of a turn, less where the recording has less.
    pause_s : sequence of float
        Seconds between turns that do not overlap, and before the first.
    overlap : sequence of float
        Share of the speech of a mixture in which two speakers are active; more
        than about a half cannot be had.
    level_db : sequence of float
        Root mean square of a speaker's speech, before the room, in dB of full
        scale.
    snr_db : sequence of float, optional
        Energy of the speech over that of the noise, in dB, where there is
        speech. None: no noise.
    noise_list : str or path-like, optional
        List of noises that ``prepare_noises`` made, or a folder of them. White
        noise when omitted.
    rt60_s : sequence of float, optional
        Reverberation time of random rooms: the seconds in which the sound
        falls by 60 dB. None: no reverberation.
    rir_list : str or path-like, optional
        List of impulse responses that ``prepare_noises`` made, or a folder of
        them, to take instead of random ones. Each speaker has another one.

    Example
    -------
    >>> MixtureOptions(num_speakers=(1, 3)).overlap
    (0.0, 0.3)
    >>> MixtureOptions(overlap=(0.3, 0.2))
    Traceback (most recent call last):
    ...
    ValueError: mixtures: expected overlap as two numbers from 0.0 to 1.0, ...
    """

    num_speakers: Sequence[int] = (2, 2)
    turn_s: Sequence[float] = (1.0, 4.0)
    pause_s: Sequence[float] = (0.0, 1.0)
    overlap: Sequence[float] = (0.0, 0.3)
    level_db: Sequence[float] = (-33.0, -23.0)
    snr_db: Sequence[float] | None = (10.0, 30.0)
    noise_list: str | Path | None = None
    rt60_s: Sequence[float] | None = (0.1, 0.5)
    rir_list: str | Path | None = None

    def __post_init__(self) -> None:
        _check_pair("num_speakers", self.num_speakers, 1, 1000)
        _check_pair("turn_s", self.turn_s, 0.1, _LONGEST_S)
        _check_pair("pause_s", self.pause_s, 0.0, _LONGEST_S)
        _check_pair("overlap", self.overlap, 0.0, 1.0)
        _check_pair("level_db", self.level_db, -_MOST_DB, 0.0)
        if self.snr_db is not None:
            _check_pair("snr_db", self.snr_db, -_MOST_DB, _MOST_DB)
        if self.rt60_s is not None:
            _check_pair("rt60_s", self.rt60_s, 0.01, _LONGEST_RT60_S)


def _check_pair(name, pair, least, greatest):
    """Raises unless a pair is one, in order and in range."""
    fits = isinstance(pair, Sequence) and len(pair) == 2
    fits = fits and all(isinstance(value, (int, float)) for value in pair)
    if not (fits and least <= pair[0] <= pair[1] <= greatest):
        raise ValueError(
            f"mixtures: expected {name} as two numbers from {least} to "
            f"{greatest}, the smaller one first; got {pair!r:.60}"
        )


class Mixture(NamedTuple):
    """A simulated mixture: its waveform at 16 kHz, [N], and sorted segments."""

    wav: torch.Tensor
    segments: list[Segment]


class MixtureSimulator:
    """Simulated mixtures by number, as many as are wanted.

    One is the same whenever it is made: it depends on the records, the
    options, the seed and its number alone.

    Arguments
    ---------
    records : iterable of dict
        Utterance records with ``spk_id``; a recording has one speaker.
    options : MixtureOptions or dict
        What mixtures are like.
    duration_s : float
        Length of each in seconds.
    seed : int
        Runs with other seeds make others.

    Raises
    ------
    ValueError
        When there are fewer speakers than a mixture may have, or an
        option is unknown or out of range.

    Example
    -------
    >>> import soundfile
    >>> path = str(getfixture("tmpdir") / "noise.wav")
    >>> soundfile.write(path, 0.1 * torch.randn(32000).numpy(), 16000)
    >>> records = [{"ID": n, "wav": path, "spk_id": n} for n in "ab"]
    >>> mixtures = MixtureSimulator(records, MixtureOptions(), duration_s=5.0)
    >>> mixtures[0].wav.shape
    torch.Size([80000])
    >>> torch.equal(mixtures[0].wav, mixtures[0].wav)
    True
    """

    def __init__(
        self,
        records: Iterable[dict[str, Any]],
        options: MixtureOptions | Mapping[str, Any],
        duration_s: float,
        seed: int = 0,
    ) -> None:
        self.options = _checked_options(options)
        self.duration_s = duration_s
        self.seed = seed
        self.recordings: dict[str, list[dict[str, Any]]] = {}
        for record in records:
            self.recordings.setdefault(record["spk_id"], []).append(record)
        self.speakers = sorted(self.recordings)
        wanted = self.options.num_speakers[1]
        if len(self.speakers) < wanted:
            raise ValueError(
                f"mixtures: expected recordings of {wanted} speakers or more, "
                f"got {len(self.speakers)}"
            )
        self.noises = _noise_records(self.options.noise_list)
        self.responses = _noise_records(self.options.rir_list)
        self._stretches: dict[str, list[tuple[float, float]]] = {}

    def __getitem__(self, number: int) -> Mixture:
        """Makes a mixture.

        Arguments
        ---------
        number : int
            Which one, from 0 on.

        Returns
        -------
        Mixture
            Its waveform and annotation.

        Raises
        ------
        AudioError
            When a recording cannot be read.
        ValueError
            When there is no speech in one.
        """
        generator = numbered_generator(self.seed, number)
        wanted = uniform(self.options.overlap, generator)
        turns, crops = self._turns(wanted, generator)
        starts = arrange_turns(
            turns, self.duration_s, wanted, self.options.pause_s, generator
        )
        segments = turn_segments(turns, starts, self.duration_s)
        wav = sum(
            self._track(speaker, turns, crops, starts, generator)
            for speaker in sorted({segment.speaker for segment in segments})
        )
        if self.options.snr_db is not None:
            wav = wav + self._noise(wav, segments, generator)
        peak = float(wav.abs().max())
        return Mixture(wav * min(1.0, _PEAK / peak), segments)

    def _turns(self, overlap, generator):
        """Draws turns, enough of them, and where each is cut out."""
        least, most = self.options.num_speakers
        count = int(torch.randint(least, most + 1, (), generator=generator))
        order = torch.randperm(len(self.speakers), generator=generator)
        speakers = [self.speakers[index] for index in order[:count]]
        turns, crops, length, index = [], [], 0.0, -1
        # Twice the overlap is room for that and for pauses
        needed = self.duration_s * (1 + 2 * overlap)
        # Who goes on does not overlap, so few do where much overlap is wanted
        going_on = max(0.0, 1 - 2 * overlap) / count
        while length < needed:
            if len(turns) < count:
                index = len(turns)
            elif uniform((0, 1), generator) >= going_on and count > 1:
                step = torch.randint(1, count, (), generator=generator)
                index = (index + int(step)) % count
            record = _one_of(self.recordings[speakers[index]], generator)
            start, turn = self._crop(record, generator)
            turns.append(Turn(speakers[index], *turn))
            crops.append((record, start))
            length += turns[-1].duration
        return turns, crops

    def _crop(self, record, generator):
        """Draws a turn out of a recording: its start, length and speech."""
        speech = self._speech(record)
        length = uniform(self.options.turn_s, generator)
        start, end = _one_of(speech, generator)
        # At least the 0.1 s of a stretch are left, or its end is inside
        start = uniform((start, end - 0.1), generator)
        start = min(start, max(speech[0][0], speech[-1][1] - length))
        kept = [
            (max(first, start), min(last, start + length))
            for first, last in speech
            if min(last, start + length) - max(first, start) > 0.05
        ]
        start, end = kept[0][0], kept[-1][1]
        inside = [(first - start, last - start) for first, last in kept]
        return start, (end - start, inside)

    def _speech(self, record):
        """Where there is speech in a recording; looked for once."""
        if record["ID"] not in self._stretches:
            found = speech_stretches(
                read_audio(
                    record["wav"], record.get("start"), record.get("stop")
                )
            )
            if not found:
                raise ValueError(
                    f"{record['wav']}: expected speech of 0.1 s or more in a "
                    "recording to mix; found none"
                )
            self._stretches[record["ID"]] = found
        return self._stretches[record["ID"]]

    def _track(self, speaker, turns, crops, starts, generator):
        """All turns of one speaker, at a level and in the room, [N]."""
        size = round(self.duration_s * _SAMPLE_RATE)
        track, energy, active = torch.zeros(size), 0.0, 0
        for turn, (record, start), begin in zip(turns, crops, starts):
            place = round(begin * _SAMPLE_RATE)
            if turn.speaker != speaker or place >= size:
                continue
            wav = _read_turn(record, start, turn.duration)
            for first, last in turn.speech:
                first, last = (round(t * _SAMPLE_RATE) for t in (first, last))
                energy += float(wav[first:last].square().sum())
                active += last - first
            wav = wav[: size - place]
            track[place : place + len(wav)] += wav
        level = uniform(self.options.level_db, generator)
        track *= 10 ** (level / 20) / math.sqrt(energy / active)
        if self.responses:
            response = read_audio(_one_of(self.responses, generator)["wav"])
            return reverberate(track, response)
        if self.options.rt60_s is not None:
            rt60_s = uniform(self.options.rt60_s, generator)
            return reverberate(track, room_response(rt60_s, generator))
        return track

    def _noise(self, wav, segments, generator):
        """Noise for a waveform, [N]."""
        spoken = torch.zeros(len(wav), dtype=torch.bool)
        for start, end, _ in segments:
            spoken[round(start * _SAMPLE_RATE) : round(end * _SAMPLE_RATE)] = 1
        if self.noises:
            noise = read_audio(_one_of(self.noises, generator)["wav"])
            shift = torch.randint(len(noise), (), generator=generator)
            noise = noise.roll(int(shift)).repeat(-(-len(wav) // len(noise)))
            noise = noise[: len(wav)]
        else:
            noise = torch.randn(len(wav), generator=generator)
        snr = 10 ** (uniform(self.options.snr_db, generator) / 10)
        energy = wav[spoken].square().mean() / snr
        return noise * (energy / noise.square().mean()).sqrt()


def _checked_options(options):
    """Options of a yaml, checked."""
    if isinstance(options, MixtureOptions):
        return options
    known = [field.name for field in dataclasses.fields(MixtureOptions)]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(
            f"mixtures: expected the options {', '.join(known)}; got "
            f"{', '.join(unknown)} too"
        )
    return MixtureOptions(**options)


def _noise_records(path):
    """Records of a list, or a folder, of noises or impulse responses."""
    if path is None:
        return []
    if Path(path).is_dir():
        return [{"wav": str(file)} for file in find_recordings(path)]
    return read_manifest(path)


def _one_of(items, generator):
    """Draws one of several."""
    return items[int(torch.randint(len(items), (), generator=generator))]


def _read_turn(record, start, duration):
    """Reads a turn of a recording, faded in and out."""
    _, rate = read_header(record["wav"])
    first = (record.get("start") or 0) + round(start * rate)
    last = first + round(duration * rate)
    wav = read_audio(record["wav"], first, last, allow_silence=True)
    fade = min(len(wav) // 2, round(_FADE_S * _SAMPLE_RATE))
    slope = torch.linspace(0.0, 1.0, fade)
    wav[:fade] *= slope
    wav[len(wav) - fade :] *= slope.flip(0)
    return wav


def write_mixtures(
    mixtures: MixtureSimulator,
    count: int,
    folder: str | Path,
    prefix: str = "mixture",
) -> None:
    """Writes mixtures as recordings with their annotations, a Kaldi folder.

    ``wav.scp``, with paths relative to the folder, is written last: a folder
    with one is whole.

    Arguments
    ---------
    mixtures : MixtureSimulator
        Makes them; those with the numbers from 0 on are written.
    count : int
        How many.
    folder : str or path-like
        Where they go; made if needed.
    prefix : str
        How the names of the recordings begin.

    Raises
    ------
    ValueError
        When there are mixtures in the folder already.
    BlockingIOError
        When another process is writing there.

    Example
    -------
    >>> import torch
    >>> made = [Mixture(torch.zeros(16000), [(0.25, 0.5, "anna")])]
    >>> folder = getfixture("tmp_path")
    >>> write_mixtures(made, 1, folder)
    >>> print((folder / "segments").read_text(), end="")
    anna_mixture_00000_000250_000500 mixture_00000 0.250 0.500
    """
    folder = Path(folder)
    if (folder / "wav.scp").exists():
        raise ValueError(
            f"{folder}: expected a folder without mixtures; it has a wav.scp"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with OneWriter(folder / "wav.scp"):
        _write_mixtures(mixtures, count, folder, prefix)


def _write_mixtures(mixtures, count, folder, prefix):
    """Writes recordings, annotations, and at last the list of both."""
    annotations, files, durations = {}, [], []
    for number in tqdm(range(count), desc="Mixing", unit="file", disable=None):
        name = f"{prefix}_{number:05d}"
        wav, annotations[name] = mixtures[number]
        write_audio(folder / f"{name}.flac", wav.numpy(), _SAMPLE_RATE)
        files.append(f"{name} {name}.flac")
        durations.append(f"{name} {len(wav) / _SAMPLE_RATE:.6f}")
    write_rttm(folder / "rttm", annotations)
    write_kaldi_segments(folder, annotations)
    write_files({folder / "reco2dur": durations})
    write_files({folder / "wav.scp": files})


def speech_stretches(wav, below_peak_db=30.0, min_pause_s=0.5):
    """Finds the speech of a clean recording by its energy: (start, end) in s.

    ``sound_stretches`` with a threshold that follows the recording's level:
    ``below_peak_db`` below the loudest 20 ms, but for the loudest twentieth of
    them. Pauses shorter than ``min_pause_s`` count as speech.
    """
    frame = _SAMPLE_RATE // 50
    if len(wav) < frame:
        return []
    levels = wav.unfold(0, frame, frame).square().mean(1).sqrt()
    loud = levels.quantile(0.95) if len(levels) > 1 else levels[0]
    threshold = float(loud) * 10 ** (-below_peak_db / 20)
    joined = []
    for start, stop in sound_stretches(wav, _SAMPLE_RATE, threshold):
        start, stop = start / _SAMPLE_RATE, stop / _SAMPLE_RATE
        if joined and start - joined[-1][1] < min_pause_s:
            joined[-1] = (joined[-1][0], stop)
        else:
            joined.append((start, stop))
    return joined


class Turn(NamedTuple):
    """One turn of a speaker: seconds, and (start, end) of the speech in it."""

    speaker: str
    duration: float
    speech: list[tuple[float, float]]


def uniform(limits, generator):
    """Draws a number between the least and the greatest, uniformly."""
    least, greatest = limits
    draw = torch.rand((), generator=generator, dtype=torch.double).item()
    return least + draw * (greatest - least)


def overlap_ratio(segments):
    """Share of the speech in which two speakers or more are active."""
    edges = sorted(
        edge for start, end, _ in segments for edge in ((start, 1), (end, -1))
    )
    speech = overlap = 0.0
    active = 0
    for (time, step), (following, _) in pairwise(edges):
        active += step
        speech += (following - time) * (active > 0)
        overlap += (following - time) * (active > 1)
    return overlap / speech if speech else 0.0


def arrange_turns(turns, duration_s, overlap, pause_s, generator):
    """Decides when each turn begins, in seconds; some may be behind the end.

    Between two turns is a pause or an overlap. Each has a random point from
    which on it shrinks, turns into an overlap and grows up to half of the
    shorter turn, so that no more than two are active at once; of arrangements
    from all pauses to all overlaps that is taken whose overlap is nearest to
    what is wanted. A speaker who goes on pauses first, always. More overlap
    than about a half cannot be had, less for two turns.
    """
    pauses = [uniform(pause_s, generator) for _ in turns]
    points = torch.rand(len(turns), generator=generator).tolist()

    def miss(tightness):
        starts = _starts(turns, pauses, points, tightness)
        segments = _segments(turns, starts, duration_s)
        return abs(overlap_ratio(segments) - overlap)

    best = min((step / _STEPS for step in range(_STEPS + 1)), key=miss)
    fine = [step / _STEPS**2 for step in range(-_STEPS, _STEPS + 1)]
    best = min((min(max(best + s, 0.0), 1.0) for s in fine), key=miss)
    return _starts(turns, pauses, points, best)


def turn_segments(turns, starts, duration_s):
    """The annotation of turns that begin at ``starts``, up to the end."""
    return normalized(_segments(turns, starts, duration_s))


def _segments(turns, starts, duration_s):
    """Yields stretches of speech, those of a turn after those of the last."""
    for turn, begin in zip(turns, starts):
        for start, end in turn.speech:
            if begin + start < duration_s:
                end = min(begin + end, duration_s)
                yield Segment(begin + start, end, turn.speaker)


def _starts(turns, pauses, points, tightness):
    """When turns begin, for a tightness in [0, 1]."""
    starts = pauses[:1]
    for place, (before, turn) in enumerate(pairwise(turns), 1):
        gap = pauses[place]
        if before.speaker != turn.speaker:
            most = min(before.duration, turn.duration) / 2
            share = (tightness - points[place]) / (1 - points[place])
            gap -= max(0.0, share) * (gap + most)
        starts.append(starts[-1] + before.duration + gap)
    return starts


def room_response(rt60_s, generator, sample_rate=16000):
    """Draws an impulse response: the direct sound, then decaying noise, [N].

    The noise is Gaussian, loses 60 dB in ``rt60_s`` and begins 2 ms behind the
    direct sound, a 1, which has 0 to 10 dB more energy. A response from a
    speaker to a microphone in a diffuse field looks like that (Lehmann and
    Johansson 2008).
    """
    size = max(1, round(rt60_s * sample_rate))
    first = round(_FIRST_REFLECTION_S * sample_rate)
    times = torch.arange(size) / sample_rate
    tail = torch.randn(size, generator=generator)
    tail *= torch.exp(-_DECAY * times / rt60_s)
    tail[:first] = 0.0
    direct = 10 ** (uniform(_DIRECT_DB, generator) / 10)
    energy = tail.square().sum()
    if energy > 0:
        tail *= (direct * energy).rsqrt()
    tail[0] = 1.0
    return tail


def reverberate(wav, response):
    """A waveform, [N], as a microphone in a room receives it, [N].

    The direct sound, taken for the response's largest sample, keeps its place
    and its level; what is behind the end of the waveform is cut off.
    """
    peak = int(response.abs().argmax())
    # SciPy's transform is of a length that is fast, torchaudio's of any
    received = fftconvolve(wav.numpy(), (response / response[peak]).numpy())
    return torch.from_numpy(received[peak : peak + len(wav)])
