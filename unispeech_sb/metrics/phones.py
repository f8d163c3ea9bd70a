"""How well features and units tell phones apart.

*Features* by the error of ABX discriminability (Schatz 2016), as ZeroSpeech
2021 measures it. Of two items A and X of one phone and B of another, in one
context, X should be nearer to A than to B. Within speakers all three are of
one; across, X is of another. The error of a cell, all triples of two phones, a
context and the speakers, is averaged over contexts, then over speakers, then
over pairs of phones. Items are compared by dynamic time warping: the mean
angle, in half-turns, along the cheapest path.

*Units* as HuBERT's authors do (Hsu et al. 2021). ``phone_purity`` is the share
of frames whose phone is the most frequent one of their unit,
``cluster_purity`` that of frames whose unit is the most frequent one of their
phone, ``pnmi`` the share of the phones' entropy that the units explain,
I(phone; unit) / H(phone), 1 where there is but one phone. More units alone
raise the first and the third and lower the second. ``perplexity`` is the number
of equally frequent units that would be as hard to guess.
"""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import entropy

NO_PHONE = -1
"""Stands for the phone of a frame that is to be left out."""


def abx_error(
    feats: Sequence[np.ndarray],
    phones: Sequence[Hashable],
    contexts: Sequence[Hashable],
    speakers: Sequence[Hashable],
    across: bool = False,
) -> float | None:
    """Share of triples in which X is nearer to B, ties counting a half.

    Arguments
    ---------
    feats : list of numpy.ndarray
        Frames of each item, [T, D].
    phones, contexts, speakers : list
        Those of each item; a context is the phones around it.
    across : bool
        Whether X is of another speaker than A and B.

    Returns
    -------
    float or None
        0 to 1, 0.5 by chance; None where no two phones share a context so.
    """
    if not len(feats) == len(phones) == len(contexts) == len(speakers):
        raise ValueError(
            "expected a phone, a context and a speaker of each item; got "
            f"{len(phones)}, {len(contexts)} and {len(speakers)} of "
            f"{len(feats)}"
        )
    groups = defaultdict(list)
    for number, context in enumerate(contexts):
        groups[context].append(number)
    # (phone of A, phone of B) -> speaker of both -> errors of cells
    errors: dict[Any, Any] = defaultdict(lambda: defaultdict(list))
    for numbers in groups.values():
        if len({phones[n] for n in numbers}) < 2:
            continue
        distances = pair_distances([feats[n] for n in numbers])
        tokens = defaultdict(list)  # (speaker, phone) -> places in the group
        for place, n in enumerate(numbers):
            tokens[speakers[n], phones[n]].append(place)
        for a, b, x in _cells(tokens, across):
            speaker, pair = a[0], (a[1], b[1])
            places = (tokens[key] for key in (a, b, x))
            errors[pair][speaker].append(_cell_error(distances, *places))
    means = [
        np.mean([np.mean(cells) for cells in by_speaker.values()])
        for by_speaker in errors.values()
    ]
    return float(np.mean(means)) if means else None


def _cells(tokens, across):
    """Keys of A, B and X, (speaker, phone) each, of all cells of a group."""
    for a, b in product(tokens, tokens):
        if a[0] != b[0] or a[1] == b[1]:
            continue
        if not across:
            if len(tokens[a]) > 1:
                yield a, b, a
            continue
        for x in tokens:
            if x[1] == a[1] and x[0] != a[0]:
                yield a, b, x


def _cell_error(distances, a, b, x):
    """The error of a cell; an item is not compared with itself."""
    to_a, to_b = distances[np.ix_(x, a)], distances[np.ix_(x, b)]
    worse = 0.5 * (1 + np.sign(to_a[:, :, None] - to_b[:, None, :]))
    different = np.not_equal.outer(x, a)
    return worse[different].mean()


def pair_distances(feats: Sequence[np.ndarray]) -> np.ndarray:
    """Distances of all pairs of items, [T, D] each, float32, [N, N]."""
    lengths = np.array([len(one) for one in feats])
    if not lengths.all():
        raise ValueError("expected at least one frame of each item; got none")
    rows = np.concatenate(feats).astype(np.float32)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    ends = np.cumsum(lengths)
    places = np.arange(lengths.max()) + (ends - lengths)[:, None]
    places = np.minimum(places, len(rows) - 1)  # what pads counts nowhere
    found = np.zeros((len(feats), len(feats)), np.float32)
    for number, end in enumerate(ends):
        own = rows[end - lengths[number] : end]
        angles = np.arccos(np.clip(own @ rows.T, -1, 1)) / np.pi  # [t, M]
        costs = angles[:, places[number:]].swapaxes(0, 1)  # [N - n, t, T]
        found[number, number:] = _warped(costs, lengths[number:])
    return np.maximum(found, found.T)


def _warped(costs, lengths):
    """Mean cost along the cheapest path through each of some matrices, [N, t,
    T], whose first ``lengths`` columns count."""
    _, num_rows, num_columns = costs.shape
    total, steps = costs.copy(), np.ones(costs.shape, np.int64)
    for i, j in product(range(num_rows), range(num_columns)):
        if not i and not j:
            continue
        up = total[:, i - 1, j] if i else np.inf
        left = total[:, i, j - 1] if j else np.inf
        slant = total[:, i - 1, j - 1] if i and j else np.inf
        total[:, i, j] += np.minimum(np.minimum(up, left), slant)
        slants = np.less_equal(slant, left) & np.less_equal(slant, up)
        lefts = np.less_equal(left, up)
        before = np.where(
            slants if i and j else False,
            steps[:, i - 1, j - 1],
            np.where(lefts, steps[:, i, j - 1], steps[:, i - 1, j]),
        )
        steps[:, i, j] = before + 1
    last = np.arange(len(costs)), num_rows - 1, lengths - 1
    return total[last] / steps[last]


def count_pairs(
    units: ArrayLike, phones: ArrayLike, num_units: int, num_phones: int
) -> np.ndarray:
    """Number of frames of each phone and unit, int64, [P, K], of the unit and
    the phone of each frame, both [T], whose phone is not ``NO_PHONE``."""
    units, phones = np.asarray(units), np.asarray(phones)
    if units.shape != phones.shape or units.ndim != 1:
        raise ValueError(
            "expected one unit and one phone for each frame, got "
            f"{list(units.shape)} and {list(phones.shape)}"
        )
    labelled = phones != NO_PHONE
    pairs = {"units": units[labelled], "phones": phones[labelled]}
    for (name, values), size in zip(pairs.items(), (num_units, num_phones)):
        if values.size and not 0 <= values.min() <= values.max() < size:
            raise ValueError(
                f"expected {name} from 0 to {size - 1}, got "
                f"{values.min()} to {values.max()}"
            )
    # Small integers, as of files of units, would overflow
    places = pairs["phones"].astype(np.int64) * num_units + pairs["units"]
    counts = np.bincount(places, minlength=num_phones * num_units)
    return counts.reshape(num_phones, num_units)


def unit_quality(counts: ArrayLike) -> dict[str, float]:
    """Purities, PNMI and number of frames, by counts of frames, [P, K]."""
    counts = np.asarray(counts, dtype=np.float64)
    num_frames = counts.sum()
    if not num_frames:
        raise ValueError("expected frames with phones to score units, got none")
    share = counts / num_frames
    of_phones, of_units = share.sum(axis=1), share.sum(axis=0)
    mutual = entropy(of_phones) + entropy(of_units) - entropy(share.ravel())
    uncertain = entropy(of_phones)
    return {
        "phone_purity": float(share.max(axis=0).sum()),
        "cluster_purity": float(share.max(axis=1).sum()),
        "pnmi": float(max(mutual, 0.0) / uncertain) if uncertain > 0 else 1.0,
        "num_frames": int(num_frames),
    }


def unit_use(counts: ArrayLike) -> dict[str, float]:
    """Number of units that occur, and perplexity, by counts of frames, [K]."""
    counts = np.asarray(counts, dtype=np.float64)
    return {
        "used_units": int((counts > 0).sum()),
        "perplexity": float(np.exp(entropy(counts / counts.sum()))),
    }
