"""Chunks of conversations: cut out of recordings, read with who is active in
each frame, and drawn for training, anew in every pass and the same in any run.
"""

import math
from dataclasses import dataclass

import torch
import torchaudio
from torch.utils.data import Dataset

from unispeech_sb.dataio.activity import (
    HOP_SAMPLES,
    clipped,
    count_frames,
    frame_labels,
    longest_speakers,
    superb_labels,
)
from unispeech_sb.dataio.audio import read_audio, read_header
from unispeech_sb.dataio.labels import LabelEncoder
from unispeech_sb.dataio.samplers import numbered_generator

NOBODY = -1
"""Label of a column without a speaker, or with one that is not known."""

_SAMPLE_RATE, _NARROW_RATE = 16000, 8000
_LEAST_S = 0.025  # one frame of the backbone


def chunk_rows(rows, chunk_s=None):
    """Cuts recordings into chunks that follow one another.

    Arguments
    ---------
    rows : iterable of dict
        Rows with ``id`` and ``duration``.
    chunk_s : float, optional
        Length of the chunks in seconds; the last of a recording is shorter,
        and left out if no frame is in it. Whole recordings when omitted.

    Returns
    -------
    list of dict
        For each chunk its recording's row, with the chunk's own ``id`` and
        ``duration``, ``recording``, ``start_s``, ``end_s``, and ``whole_s``,
        the length of the recording.

    Example
    -------
    >>> rows = chunk_rows([{"id": "talk", "duration": 5.0}], chunk_s=2.0)
    >>> [(row["id"], row["duration"]) for row in rows]
    [('talk_00000', 2.0), ('talk_00001', 2.0), ('talk_00002', 1.0)]
    """
    chunks = []
    for row in rows:
        whole = row["duration"]
        size = whole if chunk_s is None else chunk_s
        count = max(1, math.ceil((whole - _LEAST_S) / size))
        for number in range(count):
            start, end = number * size, min((number + 1) * size, whole)
            named = row["id"] if chunk_s is None else f"{row['id']}_{number:05}"
            place = {"id": named, "recording": row["id"]}
            place |= {"start_s": start, "end_s": end, "whole_s": whole}
            chunks.append({**row, **place, "duration": end - start})
    return chunks


@dataclass(frozen=True)
class ChunkReader:
    """Reads a chunk of a conversation and labels it.

    Arguments
    ---------
    label_encoder : LabelEncoder
        The speakers of the training.
    num_speakers : int
        Number of columns S. Of more speakers those are labelled that speak
        longest in the chunk.
    frame_s : float
        Seconds of a frame, see ``count_frames``.
    superb : bool
        Label as s3prl does for SUPERB; a chunk is cut to whole 20 ms then,
        and each of them has a label.
    narrow_band : bool
        Take speech through 8 kHz, as the authors' diarization has it.

    Example
    -------
    >>> reader = ChunkReader(LabelEncoder.from_labels(["anna", "ben"]), 3)
    >>> segments = [(0.0, 0.4, "ben"), (0.5, 1.0, "eve")]
    >>> item = reader.labelled(torch.zeros(16000), segments)
    >>> item["activity"].shape, item["speaker_labels"]
    (torch.Size([49, 3]), tensor([ 1, -1, -1]))
    """

    label_encoder: LabelEncoder
    num_speakers: int
    frame_s: float = 0.02
    superb: bool = False
    narrow_band: bool = False

    def read(self, row):
        """Reads a chunk.

        Arguments
        ---------
        row : dict
            As ``chunk_rows`` gives them, with wav and segments.

        Returns
        -------
        dict
            id, and what ``labelled`` gives.
        """
        num_samples, rate = read_header(row["wav"])
        start = round(row["start_s"] * rate)
        stop = min(round(row["end_s"] * rate), num_samples)
        read_rate = _NARROW_RATE if self.narrow_band else _SAMPLE_RATE
        wav = read_audio(
            row["wav"],
            start,
            stop,
            read_rate,
            min_samples=read_rate // 40,
            allow_silence=True,
        )
        if self.narrow_band:
            wav = _resampled(wav, _NARROW_RATE, _SAMPLE_RATE)
        item = self.labelled(wav, row["segments"], row["start_s"])
        return {"id": row["id"], **item}

    def simulate(self, mixtures, number):
        """Makes an artificial conversation.

        Arguments
        ---------
        mixtures : MixtureSimulator
            Makes them.
        number : int
            Which one.

        Returns
        -------
        dict
            id, and what ``labelled`` gives.
        """
        wav, segments = mixtures[number]
        if self.narrow_band:
            wav = _resampled(wav, _SAMPLE_RATE, _NARROW_RATE)
            wav = _resampled(wav, _NARROW_RATE, _SAMPLE_RATE)
        return {"id": f"mixture_{number}", **self.labelled(wav, segments)}

    def labelled(self, wav, segments, start_s=0.0):
        """Labels a chunk.

        Arguments
        ---------
        wav : torch.Tensor
            Waveform of the chunk at 16 kHz, [N].
        segments : list of Segment
            Of the recording.
        start_s : float
            Where the chunk begins in the recording, in seconds.

        Returns
        -------
        dict
            sig, [N], activity, [T, S], and speaker_labels: the index of each
            column's speaker, ``NOBODY`` where nobody is labelled, int64, [S].
        """
        inside = clipped(segments, start_s, start_s + len(wav) / _SAMPLE_RATE)
        speakers = longest_speakers(inside, self.num_speakers)
        if self.superb:
            frames = len(wav) // HOP_SAMPLES
            wav = wav[: frames * HOP_SAMPLES]
            first = round(start_s * _SAMPLE_RATE / HOP_SAMPLES)
            labels = superb_labels(segments, speakers, first, frames)
        else:
            frames = count_frames(len(wav), self.frame_s)
            labels = frame_labels(inside, speakers, frames, self.frame_s)
        activity = torch.zeros(frames, self.num_speakers)
        activity[:, : len(speakers)] = labels
        indices = torch.full((self.num_speakers,), NOBODY)
        for column, speaker in enumerate(speakers):
            if labels[:, column].any():
                indices[column] = self.label_encoder.lab2ind.get(
                    speaker, NOBODY
                )
        return {"sig": wav, "activity": activity, "speaker_labels": indices}


def _resampled(wav, rate, wanted):
    """A waveform at another rate, by torchaudio's filter."""
    return torchaudio.functional.resample(wav, rate, wanted)


class TrainingChunks(Dataset):
    """What is trained on: chunks of recordings, and artificial conversations.

    An item's number says which pass it is of too: ``number // len(self)``.
    So a random place, or a conversation, is the same in a run that was
    stopped and resumed, with any number of workers.

    Arguments
    ---------
    rows : list of dict
        Chunks as ``chunk_rows`` gives them.
    read : callable
        Row -> item, of the stretch from ``start_s`` to ``end_s``.
    chunk_s : float, optional
        Take this much of a recording at a random place, for each of its
        chunks. Chunks stay where they are when omitted.
    simulate : callable, optional
        Number -> item of an artificial conversation.
    num_simulated : int
        How many of them are in a pass.
    seed : int
        What is drawn depends on it.

    Example
    -------
    >>> rows = chunk_rows([{"id": "talk", "duration": 5.0}], chunk_s=2.0)
    >>> chunks = TrainingChunks(rows, lambda row: row["start_s"])
    >>> [chunks[number] for number in range(4)]
    [0.0, 2.0, 4.0, 0.0]
    """

    def __init__(
        self,
        rows,
        read,
        chunk_s=None,
        simulate=None,
        num_simulated=0,
        seed=0,
    ):
        self.rows = rows
        self.read = read
        self.chunk_s = chunk_s
        self.simulate = simulate
        self.num_simulated = num_simulated
        self.seed = seed

    def __len__(self):
        return len(self.rows) + self.num_simulated

    def __getitem__(self, number):
        """Reads an item.

        Arguments
        ---------
        number : int
            Pass times length, plus place in the pass.

        Returns
        -------
        dict
            What ``read`` or ``simulate`` gives.
        """
        passed, place = divmod(number, len(self))
        if place >= len(self.rows):
            mixture = place - len(self.rows) + passed * self.num_simulated
            return self.simulate(mixture)
        row = self.rows[place]
        if self.chunk_s is not None:
            row = self._moved(row, number)
        return self.read(row)

    def _moved(self, row, number):
        """A row of a random stretch of the same recording."""
        whole = row["whole_s"]
        size = min(self.chunk_s, whole)
        generator = numbered_generator(self.seed, number)
        draw = torch.rand((), generator=generator, dtype=torch.double).item()
        start = draw * (whole - size)
        return {**row, "start_s": start, "end_s": start + size}
