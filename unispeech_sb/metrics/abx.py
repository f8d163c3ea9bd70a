"""ABX discriminability of phones (Schatz 2016), as ZeroSpeech 2021 measures it.

Of two items A and X of one phone and B of another, in one context, X should be
nearer to A than to B. Within speakers all three are of one; across, X is of
another. The error of a cell, all triples of two phones, a context and the
speakers, is averaged over contexts, then over speakers, then over pairs of
phones. Items are compared by dynamic time warping: the mean angle, in
half-turns, along the cheapest path.
"""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from itertools import product
from typing import Any

import numpy as np


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
