"""What a corpus of speakers is validated and tested on, where it has no split
of its own: ends of recordings, a share of each speaker's, or other speakers.
"""

import torch

from unispeech_sb.dataio.audio import read_header


def with_valid(records, ways):
    """Takes the corpus's own validation set, or the one way to make one.

    Arguments
    ---------
    records : iterable of dict
        Utterance records.
    ways : dict
        Name of an option -> what makes a validation set of the records, or
        None where the option is not given.

    Returns
    -------
    list of dict
        The records, some of them in valid.

    Raises
    ------
    ValueError
        Unless there is a validation set, or one way to make it.

    Example
    -------
    >>> with_valid([{"split": "train"}], {"valid_share": None})
    Traceback (most recent call last):
    ...
    ValueError: expected a validation set: recordings of the split valid, ...
    """
    records = list(records)
    given = [name for name, way in ways.items() if way is not None]
    found = any(record["split"] == "valid" for record in records)
    if found + len(given) != 1:
        options = " or ".join(f"--{name}" for name in ways)
        got = ["the split valid"] * found + [f"--{name}" for name in given]
        raise ValueError(
            "expected a validation set: recordings of the split valid, or one "
            f"way to make it ({options}); got {' and '.join(got) or 'none'}"
        )
    return records if found else ways[given[0]](records)


def take_tails(records, tail_s):
    """Cuts the end off each training recording, for validation.

    Arguments
    ---------
    records : iterable of dict
        Utterance records.
    tail_s : float
        Seconds of an end.

    Returns
    -------
    list of dict
        The records, those of train shorter, and behind each of them its end,
        as ``<ID>_tail`` in valid.

    Raises
    ------
    ValueError
        When a recording is not longer than its end would be.

    Example
    -------
    >>> import numpy as np, soundfile
    >>> path = str(getfixture("tmpdir") / "tone.wav")
    >>> soundfile.write(path, np.sin(np.arange(32000)), 16000)
    >>> found = take_tails([{"ID": "a", "wav": path, "split": "train"}], 0.5)
    >>> [(record["ID"], record["duration"]) for record in found]
    [('a', 1.5), ('a_tail', 0.5)]
    """
    found = []
    for record in records:
        if record["split"] != "train":
            found.append(record)
            continue
        start, stop, rate = _stretch(record)
        middle = stop - round(tail_s * rate)
        if not start < middle < stop:
            raise ValueError(
                f"{record['wav']}: expected more than {tail_s} s, to cut so "
                f"much off for validation; got {(stop - start) / rate:g} s"
            )
        found.append(_cut(record, start, middle, rate))
        tail = {"ID": f"{record['ID']}_tail", "split": "valid"}
        found.append(_cut(record, middle, stop, rate) | tail)
    return found


def take_share(records, share, seed=0, split="valid"):
    """Moves a share of each speaker's training recordings to another split.

    Of two recordings or more at least one is moved and one stays; of a single
    one none is.

    Arguments
    ---------
    records : iterable of dict
        Utterance records with ``spk_id``.
    share : float
        How much of them, in (0, 1).
    seed : int
        What the draw depends on, beside the records.
    split : str
        Where they go.

    Returns
    -------
    list of dict
        The records in their order.

    Raises
    ------
    ValueError
        When the share is out of range.

    Example
    -------
    >>> names = ["a1", "a2", "a3", "a4", "b1"]
    >>> records = [{"ID": n, "spk_id": n[0], "split": "train"} for n in names]
    >>> found = take_share(records, share=0.25)
    >>> sorted(record["split"] for record in found)
    ['train', 'train', 'train', 'train', 'valid']
    """
    if not 0 < share < 1:
        raise ValueError(
            f"expected a share of the recordings in (0, 1), got {share}"
        )
    records = list(records)
    places = {}
    for place, record in enumerate(records):
        if record["split"] == "train":
            places.setdefault(record["spk_id"], []).append(place)
    generator = torch.Generator().manual_seed(seed)
    moved = set()
    for _, own in sorted(places.items()):
        order = torch.randperm(len(own), generator=generator).tolist()
        count = min(max(round(share * len(own)), 1), len(own) - 1)
        moved.update(own[place] for place in order[:count])
    return [
        {**record, "split": split} if place in moved else record
        for place, record in enumerate(records)
    ]


def hold_out_speakers(records, num_speakers, seed=0):
    """Moves all that some speakers of train say to valid.

    A verification model is selected on speakers that it was not trained on.
    They are drawn from those with two recordings or more, as trials need them.

    Arguments
    ---------
    records : iterable of dict
        Utterance records with ``spk_id``.
    num_speakers : int
        How many to hold out.
    seed : int
        What the draw depends on, beside the speakers' names.

    Returns
    -------
    list of dict
        The records in their order.

    Raises
    ------
    ValueError
        When there are no such speakers, or less than two would be left to
        train on.

    Example
    -------
    >>> records = [{"spk_id": s, "split": "train"} for s in "aabbcc"]
    >>> found = hold_out_speakers(records, num_speakers=1)
    >>> sorted(record["split"] for record in found)
    ['train', 'train', 'train', 'train', 'valid', 'valid']
    """
    records = list(records)
    counts = {}
    for record in records:
        if record["split"] == "train":
            counts[record["spk_id"]] = counts.get(record["spk_id"], 0) + 1
    names = sorted(name for name, count in counts.items() if count > 1)
    if num_speakers > min(len(names), len(counts) - 2):
        raise ValueError(
            f"expected {num_speakers} speakers with two recordings or more to "
            f"hold out, and two others to train on; got {len(counts)} "
            f"speakers, {len(names)} of them with two recordings or more"
        )
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randperm(len(names), generator=generator)[:num_speakers]
    held_out = {names[index] for index in drawn.tolist()}
    return [
        {**record, "split": "valid"}
        if record["split"] == "train" and record["spk_id"] in held_out
        else record
        for record in records
    ]


def hold_out(records, num_speakers, piece_s=None, seed=0):
    """Moves all that some training speakers say to valid.

    Arguments
    ---------
    records : iterable of dict
        Utterance records with ``spk_id``.
    num_speakers : int
        How many to hold out.
    piece_s : float, optional
        Cut what they say into pieces of so many seconds, so that a speaker
        with one recording has several. Whole recordings when omitted.
    seed : int
        What the draw depends on, beside the speakers' names.

    Returns
    -------
    list of dict
        The records; pieces are ``<ID>_0``, ``<ID>_1``, ...

    Raises
    ------
    ValueError
        As ``hold_out_speakers``.

    Example
    -------
    >>> import numpy as np, soundfile
    >>> path = str(getfixture("tmpdir") / "tone.wav")
    >>> soundfile.write(path, np.sin(np.arange(32000)), 16000)
    >>> records = [
    ...     {"ID": name, "spk_id": name, "wav": path, "split": "train"}
    ...     for name in "abc"
    ... ]
    >>> found = hold_out(records, num_speakers=1, piece_s=1.0)
    >>> sorted(record["split"] for record in found)
    ['train', 'train', 'valid', 'valid']
    """
    records = list(records)
    if piece_s is None:
        return hold_out_speakers(records, num_speakers, seed)
    cut = []
    for record in records:
        is_train = record["split"] == "train"
        cut += _pieces(record, piece_s) if is_train else [record]
    parted = hold_out_speakers(cut, num_speakers, seed)
    pieces = [
        new
        for new, old in zip(parted, cut, strict=True)
        if new["split"] != old["split"]
    ]
    held_out = {record["spk_id"] for record in pieces}
    return pieces + [
        record
        for record in records
        if record["split"] != "train" or record["spk_id"] not in held_out
    ]


def _pieces(record, piece_s):
    """Whole pieces of a recording; all of it where it is shorter."""
    start, stop, rate = _stretch(record)
    size = round(piece_s * rate)
    if stop - start < size:
        return [record]
    return [
        {
            **_cut(record, first, first + size, rate),
            "ID": f"{record['ID']}_{number}",
        }
        for number, first in enumerate(range(start, stop - size + 1, size))
    ]


def _stretch(record):
    """First sample of a record, the one after its last, and their rate."""
    num_samples, rate = read_header(record["wav"])
    start, stop = record.get("start"), record.get("stop")
    return start or 0, num_samples if stop is None else stop, rate


def _cut(record, start, stop, rate):
    """A stretch of a record."""
    duration = (stop - start) / rate
    return {**record, "start": start, "stop": stop, "duration": duration}
