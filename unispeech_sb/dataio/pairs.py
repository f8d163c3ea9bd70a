"""Trials made of a set of utterances whose speakers are known: each pair of
utterances, or as many as are asked for.
"""

import numpy as np
import torch

from unispeech_sb.dataio.trials import Trials


def pair_trials(names, speakers, max_trials=None, seed=0):
    """Pairs utterances: all of them, or a sample with as many target as
    non-target trials, as far as there are.

    Arguments
    ---------
    names : sequence of str
        Utterances, [U].
    speakers : sequence of str
        The speaker of each, [U].
    max_trials : int, optional
        How many trials at most; all pairs when omitted.
    seed : int
        Seed of the sample.

    Returns
    -------
    Trials
        Each pair once, in the order of the utterances.

    Raises
    ------
    ValueError
        When no speaker has two utterances, when there is one speaker only, or
        when less than two trials are asked for.

    Example
    -------
    >>> trials = pair_trials(["a1", "a2", "b1"], ["a", "a", "b"])
    >>> list(zip(trials.left.tolist(), trials.right.tolist()))
    [(0, 1), (0, 2), (1, 2)]
    >>> trials.targets.tolist()
    [True, False, False]
    """
    if max_trials is not None and max_trials < 2:
        raise ValueError(f"expected 2 trials or more, got {max_trials}")
    names, counts = list(names), {}
    for speaker in speakers:
        counts[speaker] = counts.get(speaker, 0) + 1
    if len(counts) < 2 or max(counts.values()) < 2:
        alone = ", ".join(map(repr, list(counts)[:3])) or "none"
        raise ValueError(
            "expected two speakers or more, one of them with two utterances, "
            f"to compare; got {len(names)} utterances of {len(counts)} "
            f"speakers, such as {alone}"
        )
    owners = np.unique(list(speakers), return_inverse=True)[1]
    total = len(names) * (len(names) - 1) // 2
    if max_trials is None or total <= max_trials:
        left, right = _pair(np.arange(total))
    else:
        generator = torch.Generator().manual_seed(seed)
        left, right = _sample(owners, max_trials, generator)
    order = np.lexsort((right, left))
    left, right = left[order], right[order]
    return Trials(
        names,
        left.astype(np.int32),
        right.astype(np.int32),
        owners[left] == owners[right],
    )


def _pair(numbers):
    """Numbers 0, 1, 2, ... -> the pairs (0, 1), (0, 2), (1, 2), (0, 3), ..."""
    right = ((1 + np.sqrt(1 + 8 * numbers.astype(np.float64))) / 2).astype(
        np.int64
    )
    # The root is rounded, so that its integer may be one off
    right -= right * (right - 1) // 2 > numbers
    right += right * (right + 1) // 2 <= numbers
    return numbers - right * (right - 1) // 2, right


def _sample(owners, max_trials, generator):
    """Both sides of drawn pairs, of one speaker and of two."""
    targets = _draw_targets(owners, max_trials // 2, generator)
    total = len(owners) * (len(owners) - 1) // 2
    num_targets = sum(n * (n - 1) // 2 for n in np.bincount(owners).tolist())
    wanted = min(max_trials - targets.shape[1], total - num_targets)
    found = np.empty(0, np.int64)
    while len(found) < wanted:
        # As many again as are missing, for those of one speaker and doubles
        drawn = _draw_numbers(total, 2 * (wanted - len(found)) + 16, generator)
        left, right = _pair(drawn)
        drawn = drawn[owners[left] != owners[right]]
        fresh = drawn[~np.isin(drawn, found)]
        found = np.concatenate([found, fresh])[:wanted]
    return np.concatenate([targets, np.stack(_pair(found))], axis=1)


def _draw_targets(owners, wanted, generator):
    """Distinct pairs of one speaker, smaller side first, [2, N]."""
    by_speaker = np.argsort(owners, kind="stable")
    sizes = np.bincount(owners).astype(np.int64)
    firsts = np.cumsum(sizes) - sizes
    ends = np.cumsum(sizes * (sizes - 1) // 2)
    drawn = _draw_numbers(int(ends[-1]), wanted, generator)
    # Number of a pair -> its speaker, then its number among those of that one
    speaker = np.searchsorted(ends, drawn, side="right")
    local = drawn - np.append(0, ends)[speaker]
    return np.stack(
        [by_speaker[firsts[speaker] + side] for side in _pair(local)]
    )


def _draw_numbers(total, wanted, generator):
    """Distinct numbers below a total, as many as wanted or there are."""
    if total <= 8 * wanted:
        return torch.randperm(total, generator=generator)[:wanted].numpy()
    drawn = torch.randint(total, (2 * wanted,), generator=generator).numpy()
    _, firsts = np.unique(drawn, return_index=True)
    return drawn[np.sort(firsts)][:wanted]
