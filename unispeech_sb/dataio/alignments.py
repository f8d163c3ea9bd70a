"""Phones with their times: the column ``phone_spans`` of a manifest, and the
phone of each frame.
"""

import json

import numpy as np

COLUMN = "phone_spans"
"""A JSON list of [phone, start, stop], times in seconds from the beginning of
what the record stands for."""

NO_PHONE = -1
"""Stands for a frame outside all phones."""


def read_spans(record):
    """Reads the phones of a record and their times.

    Arguments
    ---------
    record : dict
        Utterance record.

    Returns
    -------
    list of tuple or None
        (phone, start in s, stop in s); None where the record has no column
        ``phone_spans``, or an empty one.

    Raises
    ------
    ValueError
        When the column says anything else; the message names the recording.

    Example
    -------
    >>> read_spans({"ID": "a", "phone_spans": '[["h", 0.0, 0.08]]'})
    [('h', 0.0, 0.08)]
    """
    text = record.get(COLUMN)
    if not text:
        return None
    try:
        spans = [
            (str(phone), float(start), float(stop))
            for phone, start, stop in json.loads(text)
        ]
        right = all(0 <= start <= stop for _, start, stop in spans)
    except (ValueError, TypeError, RecursionError):
        right = False
    if not right:
        raise ValueError(
            f"{record['ID']}: expected a list of [phone, start, stop], in "
            f"seconds, in {COLUMN}; got {text[:60]!r}"
        )
    return spans


def phone_frames(spans, num_frames, frame_rate, window_s, phones):
    """Finds the phone at the centre of each frame.

    Frame i sees ``window_s`` from ``i / frame_rate`` on.

    Arguments
    ---------
    spans : list of tuple
        (phone, start in s, stop in s).
    num_frames : int
        Number of frames T.
    frame_rate : float
        Frames a second.
    window_s : float
        What one frame sees, in seconds.
    phones : dict
        Phone -> index.

    Returns
    -------
    numpy.ndarray
        Index of the phone, ``NO_PHONE`` outside all, int64, [T].

    Example
    -------
    >>> spans = [("h", 0.0, 0.02), ("a", 0.02, 0.05)]
    >>> phone_frames(spans, 5, 100, 0.025, {"a": 0, "h": 1})
    array([ 1,  0,  0,  0, -1])
    """
    found = np.full(num_frames, NO_PHONE, dtype=np.int64)
    centres = np.arange(num_frames) / frame_rate + window_s / 2
    for phone, start, stop in spans:
        first, last = np.searchsorted(centres, [start, stop])
        found[first:last] = phones[phone]
    return found
