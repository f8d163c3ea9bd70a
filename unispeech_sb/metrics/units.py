"""How well units fit phones, as HuBERT's authors measure it (Hsu et al. 2021).

``phone_purity`` is the share of frames whose phone is the most frequent one of
their unit, ``cluster_purity`` that of frames whose unit is the most frequent
one of their phone, ``pnmi`` the share of the phones' entropy that the units
explain, I(phone; unit) / H(phone), 1 where there is but one phone. More units
alone raise the first and the third and lower the second. ``perplexity`` is the
number of equally frequent units that would be as hard to guess.
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
