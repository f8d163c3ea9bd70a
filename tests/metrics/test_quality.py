"""Quality measures of pairs."""

import numpy as np
import pytest

from unispeech_sb.metrics.quality import quality_measures


def test_the_order_of_a_pair_does_not_matter():
    sides = [2.0, 8.0, 3.0], [4.0, 1.0, 3.0]
    measures = quality_measures(durations=sides, magnitudes=sides)
    swapped = quality_measures(durations=sides[::-1], magnitudes=sides[::-1])
    assert list(measures) == [
        "log_duration_min",
        "log_duration_max",
        "magnitude_min",
        "magnitude_max",
    ]
    for name, values in measures.items():
        assert (values == swapped[name]).all()
    assert measures["magnitude_max"].tolist() == [4, 8, 3]
    assert np.exp(measures["log_duration_min"]).tolist() == (
        pytest.approx([2, 1, 3])
    )


def test_only_what_is_given_is_measured():
    assert quality_measures() == {}
    assert len(quality_measures(durations=([1.0], [2.0]))) == 2


@pytest.mark.parametrize("sides", [([1.0], [0.0]), ([1.0, 2.0], [1.0])])
def test_bad_sides_are_refused(sides):
    with pytest.raises(ValueError, match="one length for magnitude, above 0"):
        quality_measures(magnitudes=sides)
