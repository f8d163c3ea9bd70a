"""Quality measures of trials: what, beside the score, tells how sure it is
(Mandasari et al. 2013; Thienpondt et al. 2020).
"""

import numpy as np

from unispeech_sb.metrics.verification import as_scores


def quality_measures(durations=None, magnitudes=None):
    """Quality measures of trials for which the order of a pair is the same.

    Arguments
    ---------
    durations : tuple, optional
        Seconds of speech of the left and of the right side, each [N].
    magnitudes : tuple, optional
        Norm of the embedding of the left and of the right side, before it is
        normalised, each [N].

    Returns
    -------
    dict
        The lesser and the greater logarithm of both durations, and the lesser
        and the greater magnitude: name -> array [N].

    Raises
    ------
    ValueError
        When a value is not above 0.

    Example
    -------
    >>> measures = quality_measures(magnitudes=([1.0, 4.0], [3.0, 2.0]))
    >>> {name: values.tolist() for name, values in measures.items()}
    {'magnitude_min': [1.0, 2.0], 'magnitude_max': [3.0, 4.0]}
    """
    measures = {}
    for name, sides in (
        ("log_duration", durations),
        ("magnitude", magnitudes),
    ):
        if sides is None:
            continue
        left, right = (as_scores(side, name) for side in sides)
        if left.shape != right.shape or min(left.min(), right.min()) <= 0:
            raise ValueError(
                f"expected two sides of one length for {name}, above 0"
            )
        if name == "log_duration":
            left, right = np.log(left), np.log(right)
        measures[f"{name}_min"] = np.minimum(left, right)
        measures[f"{name}_max"] = np.maximum(left, right)
    return measures
