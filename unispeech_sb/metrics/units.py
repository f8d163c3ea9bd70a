"""How well units fit phones: purities and normalised mutual information, as
HuBERT's authors measure their clusters (Hsu et al. 2021).
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import entropy

NO_PHONE = -1
"""Stands for the phone of a frame that is to be left out."""


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
    """Scores units by the phones with which they occur.

    Arguments
    ---------
    counts : numpy.ndarray
        Number of frames of each phone and unit, [P, K].

    Returns
    -------
    dict
        ``phone_purity``, the share of frames whose phone is the most frequent
        one of their unit; ``cluster_purity``, the share of frames whose unit
        is the most frequent one of their phone; ``pnmi``, the share of the
        phones' entropy that the units explain, ``I(phone; unit) / H(phone)``
        (1 where there is but one phone); ``num_frames``. More units alone
        raise the first and the third and lower the second.

    Raises
    ------
    ValueError
        When there are no frames.

    Example
    -------
    >>> quality = unit_quality([[2, 0, 0], [0, 1, 1]])
    >>> quality["phone_purity"], quality["cluster_purity"]
    (1.0, 0.75)
    """
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
    """How evenly units are used, for which no phones are needed.

    Arguments
    ---------
    counts : numpy.ndarray
        Number of frames of each unit, [K].

    Returns
    -------
    dict
        ``used_units``, how many occur at all; ``perplexity``, the number of
        equally frequent units that would be as hard to guess.

    Example
    -------
    >>> unit_use([4, 4, 0])["used_units"]
    2
    """
    counts = np.asarray(counts, dtype=np.float64)
    return {
        "used_units": int((counts > 0).sum()),
        "perplexity": float(np.exp(entropy(counts / counts.sum()))),
    }
