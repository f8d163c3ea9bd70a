"""How the speakers of an artificial conversation take turns: pauses, and as
much overlap as is wanted.
"""

from itertools import pairwise
from typing import NamedTuple

import torch

from unispeech_sb.dataio.rttm import Segment, normalized

_STEPS = 20  # of tightness to try, first coarse, then fine about the best


class Turn(NamedTuple):
    """What one speaker says at a stretch.

    Arguments
    ---------
    speaker : str
        Name of the speaker.
    duration : float
        Length in seconds.
    speech : list of tuple of float
        Where there is speech in it: start and end in seconds, in order.

    Example
    -------
    >>> Turn("anna", 2.0, [(0.0, 0.75), (1.25, 2.0)]).speaker
    'anna'
    """

    speaker: str
    duration: float
    speech: list


def uniform(limits, generator):
    """Draws a number.

    Arguments
    ---------
    limits : sequence of float
        The least and the greatest.
    generator : torch.Generator
        What it is drawn from.

    Returns
    -------
    float
        Of a uniform distribution.

    Example
    -------
    >>> uniform([2.0, 2.0], torch.Generator())
    2.0
    """
    least, greatest = limits
    draw = torch.rand((), generator=generator, dtype=torch.double).item()
    return least + draw * (greatest - least)


def overlap_ratio(segments):
    """Share of the speech in which two speakers or more are heard.

    Arguments
    ---------
    segments : iterable of Segment
        Or of tuples (start, end, speaker); those of one speaker do not
        overlap.

    Returns
    -------
    float
        In [0, 1]; 0 without speech.

    Example
    -------
    >>> overlap_ratio([(0.0, 3.0, "anna"), (2.0, 5.0, "ben")])
    0.2
    """
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
    """Decides when each turn begins.

    Between two turns is a pause or an overlap. Each has a random point from
    which on it shrinks, turns into an overlap and grows up to half of the
    shorter turn, so that no more than two are heard at once; of arrangements
    from all pauses to all overlaps that is taken whose overlap is nearest to
    what is wanted. A speaker who goes on pauses first, always.

    Arguments
    ---------
    turns : list of Turn
        In their order.
    duration_s : float
        Length of the conversation, in seconds; what is behind is cut off.
    overlap : float
        Share of the speech in which two are heard, as ``overlap_ratio`` tells
        it. More than about a half cannot be had, less for two turns.
    pause_s : sequence of float
        Shortest and longest pause in seconds, also before the first turn.
    generator : torch.Generator
        What the pauses are drawn from.

    Returns
    -------
    list of float
        Start of each turn, in seconds. Some may be behind the end.

    Example
    -------
    >>> turns = [
    ...     Turn("anna", 3.0, [(0.0, 3.0)]),
    ...     Turn("ben", 3.0, [(0.0, 3.0)]),
    ... ]
    >>> arrange_turns(turns, 6.0, 0.0, [0.5, 0.5], torch.Generator())
    [0.5, 4.0]
    >>> starts = arrange_turns(turns, 6.0, 0.2, [0.5, 0.5], torch.Generator())
    >>> round(overlap_ratio(turn_segments(turns, starts, 6.0)), 1)
    0.2
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
    """The annotation of turns.

    Arguments
    ---------
    turns : list of Turn
        What is said.
    starts : list of float
        When each begins, in seconds.
    duration_s : float
        Where the conversation ends, in seconds.

    Returns
    -------
    list of Segment
        Where there is speech, as ``normalized`` gives it.

    Example
    -------
    >>> turn_segments([Turn("anna", 3.0, [(0.0, 3.0)])], [1.0], 2.0)
    [Segment(start=1.0, end=2.0, speaker='anna')]
    """
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
