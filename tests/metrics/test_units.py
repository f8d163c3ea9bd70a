"""Scores of units against scikit-learn's and by hand."""

import math

import numpy as np
import pytest
from sklearn.metrics import homogeneity_score, mutual_info_score

from unispeech_sb.metrics.units import count_pairs, unit_quality, unit_use


def test_quality_by_hand():
    # Unit 0 is heard with both phones, units 1 and 2 with one each.
    quality = unit_quality([[3, 2, 0], [1, 0, 2]])
    assert quality["phone_purity"] == pytest.approx((3 + 2 + 2) / 8)
    assert quality["cluster_purity"] == pytest.approx((3 + 2) / 8)
    uncertain = -(5 / 8) * math.log(5 / 8) - (3 / 8) * math.log(3 / 8)
    left = 0.5 * (-(3 / 4) * math.log(3 / 4) - (1 / 4) * math.log(1 / 4))
    assert quality["pnmi"] == pytest.approx((uncertain - left) / uncertain)
    assert quality["num_frames"] == 8


@pytest.mark.parametrize("sizes", [(2, 3), (40, 100), (7, 1)])
def test_pnmi_is_scikit_learns_homogeneity(sizes):
    num_phones, num_units = sizes
    generator = np.random.default_rng(0)
    phones = generator.integers(num_phones, size=2000)
    units = (phones * 3 + generator.integers(4, size=2000)) % num_units
    counts = count_pairs(units, phones, num_units, num_phones)
    pnmi = unit_quality(counts)["pnmi"]
    assert pnmi == pytest.approx(homogeneity_score(phones, units), abs=1e-9)
    shares = np.bincount(phones) / len(phones)
    mutual = pnmi * -(shares * np.log(shares)).sum()
    assert mutual == pytest.approx(mutual_info_score(phones, units), abs=1e-9)


def test_units_that_say_the_phone_are_perfect_and_one_unit_says_nothing():
    phones = np.array([0, 0, 1, 2, 2, 2])
    perfect = unit_quality(count_pairs(2 - phones, phones, 3, 3))
    assert perfect["phone_purity"] == perfect["cluster_purity"] == 1.0
    assert perfect["pnmi"] == pytest.approx(1.0)
    nothing = unit_quality(count_pairs(0 * phones, phones, 3, 3))
    assert nothing["phone_purity"] == 0.5
    assert nothing["cluster_purity"] == 1.0
    assert nothing["pnmi"] == 0.0


def test_frames_without_a_phone_are_left_out():
    counts = count_pairs([0, 1, 1, 0], [-1, 0, -1, 1], 2, 2)
    assert counts.tolist() == [[0, 1], [1, 0]]


def test_small_integers_of_files_do_not_overflow():
    units = np.array([299, 298], np.uint16)
    phones = np.array([299, 299], np.int16)
    counts = count_pairs(units, phones, 300, 300)
    assert counts.sum() == 2
    assert counts[299, 299] == counts[299, 298] == 1


def test_what_is_no_pair_is_refused():
    with pytest.raises(ValueError, match="one unit and one phone for each"):
        count_pairs([0, 1], [0], 2, 1)
    with pytest.raises(ValueError, match="units from 0 to 1, got 0 to 2"):
        count_pairs([0, 2], [0, 0], 2, 1)
    with pytest.raises(ValueError, match="phones from 0 to 0, got -2 to 0"):
        count_pairs([0, 1], [0, -2], 2, 1)
    with pytest.raises(ValueError, match="got none"):
        unit_quality(np.zeros((2, 3)))


def test_perplexity_counts_units_that_are_used_alike():
    use = unit_use([5, 5, 5, 0])
    assert use["used_units"] == 3
    assert use["perplexity"] == pytest.approx(3.0)
    assert unit_use([9, 1])["perplexity"] < 2
