"""Who is active in each frame: labels of chunks of conversations for training,
from segments, and SUPERB's to the letter.
"""

import math

import torch

from unispeech_sb.dataio.rttm import Segment

HOP_SAMPLES, WINDOW_SAMPLES = 320, 400
"""Of the frames of every published backbone, at 16 kHz."""

_DIGITS = 6  # of frame numbers: times in seconds are not exact


def count_frames(num_samples, frame_s=0.02):
    """Counts the frames of a waveform, as the backbone has them.

    Arguments
    ---------
    num_samples : int
        Samples at 16 kHz.
    frame_s : float
        Seconds of a frame: 0.02 of the backbone itself, 0.04 of
        ``EENDVCHead``.

    Returns
    -------
    int
        Number of frames.

    Raises
    ------
    ValueError
        When there are no such frames.

    Example
    -------
    >>> count_frames(16000), count_frames(16000, frame_s=0.04)
    (49, 25)
    """
    frames = (num_samples - WINDOW_SAMPLES) // HOP_SAMPLES + 1
    if frame_s == 0.02:
        return frames
    if frame_s == 0.04:
        return (frames + 1) // 2
    raise ValueError(f"expected frame_s 0.02 or 0.04, got {frame_s}")


def clipped(segments, start_s, end_s):
    """Segments as a chunk of the recording has them.

    Arguments
    ---------
    segments : iterable of Segment
        Of the recording.
    start_s : float
        Where the chunk begins, in seconds.
    end_s : float
        Where it ends, in seconds.

    Returns
    -------
    list of Segment
        Those inside, cut, in seconds from the beginning of the chunk.

    Example
    -------
    >>> clipped([(0.0, 3.0, "anna"), (5.0, 6.0, "ben")], 2.0, 5.0)
    [Segment(start=0.0, end=1.0, speaker='anna')]
    """
    return [
        Segment(
            max(start, start_s) - start_s, min(end, end_s) - start_s, speaker
        )
        for start, end, speaker in segments
        if start < end_s and end > start_s
    ]


def longest_speakers(segments, num_speakers):
    """Chooses the speakers that have an output of their own.

    Arguments
    ---------
    segments : iterable of Segment
        Of a chunk; those of one speaker do not overlap.
    num_speakers : int
        Most speakers.

    Returns
    -------
    list of str
        Those that speak longest, sorted by name.

    Example
    -------
    >>> segments = [(0.0, 3.0, "ben"), (1.0, 2.0, "cleo"), (5.0, 7.0, "anna")]
    >>> longest_speakers(segments, 2)
    ['anna', 'ben']
    """
    lengths = {}
    for start, end, speaker in segments:
        lengths[speaker] = lengths.get(speaker, 0.0) + end - start
    order = sorted(lengths, key=lambda speaker: (-lengths[speaker], speaker))
    return sorted(order[:num_speakers])


def frame_labels(segments, speakers, num_frames, frame_s=0.02):
    """Labels frames by who is active in their centres.

    Arguments
    ---------
    segments : iterable of Segment
        In seconds from the beginning of the chunk.
    speakers : list of str
        Speaker of each column; segments of others are passed over.
    num_frames : int
        Number of frames T.
    frame_s : float
        Seconds of a frame; the centre of frame i is at ``(i + 0.5) frame_s``.

    Returns
    -------
    torch.Tensor
        1 where a speaker is active, else 0, float32, [T, S].

    Example
    -------
    >>> frame_labels([(0.01, 0.05, "anna")], ["anna"], 4)[:, 0]
    tensor([1., 1., 0., 0.])
    """
    labels = torch.zeros(num_frames, len(speakers))
    for start, end, speaker in segments:
        if speaker in speakers:
            first, last = (
                max(0, math.ceil(round(time / frame_s - 0.5, _DIGITS)))
                for time in (start, end)
            )
            labels[first:last, speakers.index(speaker)] = 1.0
    return labels


def superb_labels(segments, speakers, first_frame, num_frames):
    """Labels the frames of a chunk as s3prl does for SUPERB.

    Times are rounded to frames of 20 ms, halves to the even one. A segment is
    labelled if it begins or ends in the chunk: one that covers the whole
    chunk, and more, is not.

    Arguments
    ---------
    segments : iterable of Segment
        Of the recording, in seconds.
    speakers : list of str
        Speaker of each column; segments of others are passed over.
    first_frame : int
        Where the chunk begins in the recording.
    num_frames : int
        Number of frames T of the chunk.

    Returns
    -------
    torch.Tensor
        1 where a speaker is active, else 0, float32, [T, S].

    Example
    -------
    >>> segments = [(0.0, 9.0, "anna"), (0.06, 9.0, "ben")]
    >>> superb_labels(segments, ["anna", "ben"], 2, 4)
    tensor([[0., 0.],
            [0., 1.],
            [0., 1.],
            [0., 1.]])
    """
    labels = torch.zeros(num_frames, len(speakers))
    for start, end, speaker in segments:
        # In single precision, as its numbers are read
        times = torch.tensor([start, end], dtype=torch.float32)
        times = times * 16000 / HOP_SAMPLES
        begin, finish = (times.round().long() - first_frame).tolist()
        begins, ends = 0 <= begin < num_frames, 0 < finish <= num_frames
        if speaker in speakers and (begins or ends):
            column = speakers.index(speaker)
            labels[
                begin if begins else 0 : finish if ends else num_frames, column
            ] = 1.0
    return labels
