"""ABX by its definition, triple by triple; scores of units by hand."""

import math
from itertools import permutations, product

import numpy as np
import pytest
from sklearn.metrics import homogeneity_score, mutual_info_score

from unispeech_sb.metrics.phones import (
    abx_error,
    count_pairs,
    pair_distances,
    unit_quality,
    unit_use,
)


def slow_distance(one, other):
    """Mean angle along the cheapest path, by recursion and by backtracking."""
    one, other = (
        x / np.linalg.norm(x, axis=1, keepdims=True) for x in (one, other)
    )
    costs = (np.arccos(np.clip(one @ other.T, -1, 1)) / np.pi).astype("f4")
    total = np.full((len(one) + 1, len(other) + 1), np.inf, "f4")
    total[0, 0] = 0
    for i, j in product(range(len(one)), range(len(other))):
        total[i + 1, j + 1] = costs[i, j] + min(
            total[i, j], total[i, j + 1], total[i + 1, j]
        )
    i, j, steps = len(one), len(other), 1
    while (i, j) != (1, 1):
        ways = [(i - 1, j - 1), (i, j - 1), (i - 1, j)]
        i, j = min(ways, key=lambda place: total[place])
        steps += 1
    return total[-1, -1] / steps


def items(seed=0, num=60):
    """Random items of three phones, two contexts, three speakers."""
    draw = np.random.default_rng(seed)
    phones, contexts, speakers = (
        draw.integers(most, size=num).tolist() for most in (3, 2, 3)
    )
    feats = [
        draw.normal(size=(draw.integers(1, 7), 5)) + 0.5 * phone
        for phone in phones
    ]
    return feats, phones, contexts, speakers


def slow_abx(feats, phones, contexts, speakers, across):
    """The same with a loop over all triples."""
    cells = {}
    numbers = range(len(feats))
    distance = [[slow_distance(feats[i], feats[j]) for j in numbers]
                for i in numbers]  # fmt: skip
    for a, b, x in product(numbers, numbers, numbers):
        if not contexts[a] == contexts[b] == contexts[x] or a == x:
            continue
        if phones[a] != phones[x] or phones[a] == phones[b]:
            continue
        if speakers[a] != speakers[b] or across != (speakers[x] != speakers[a]):
            continue
        cell = phones[a], phones[b], speakers[a], speakers[x], contexts[a]
        margin = distance[x][a] - distance[x][b]
        error = 0.5 if abs(margin) < 1e-6 else float(margin > 0)
        cells.setdefault(cell, []).append(error)
    by_speaker, by_pair = {}, {}
    for cell, errors in cells.items():
        by_speaker.setdefault(cell[:3], []).append(np.mean(errors))
    for cell, errors in by_speaker.items():
        by_pair.setdefault(cell[:2], []).append(np.mean(errors))
    return np.mean([np.mean(errors) for errors in by_pair.values()])


def test_distances_are_those_of_the_definition():
    feats = items(num=12)[0]
    found = pair_distances(feats)
    for i, j in permutations(range(12), 2):
        expected = slow_distance(feats[min(i, j)], feats[max(i, j)])
        assert found[i, j] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("across", [False, True])
def test_errors_are_those_of_all_triples(across):
    found = abx_error(*items(), across=across)
    assert found == pytest.approx(slow_abx(*items(), across), abs=1e-3)


def test_a_cell_by_hand():
    east, north, between = ([[1.0, 0.0]], [[0.0, 1.0]], [[1.0, 1.0]])
    feats = [np.array(x) for x in (east, between, north)]
    phones, contexts, speakers = ["a", "a", "b"], ["c"] * 3, ["s"] * 3
    # X between, A east: as far from B as from A. X east, A between: nearer
    assert abx_error(feats, phones, contexts, speakers) == 0.25
    assert abx_error(feats, phones, contexts, speakers, across=True) is None
    speakers = ["s", "t", "s"]
    assert abx_error(feats, phones, contexts, speakers) is None
    assert abx_error(feats, phones, contexts, speakers, across=True) == 0.5


def test_what_makes_no_items_is_refused():
    with pytest.raises(ValueError, match="a phone, a context and a speaker"):
        abx_error([np.ones((1, 2))], ["a"], [], ["s"])
    with pytest.raises(ValueError, match="at least one frame"):
        pair_distances([np.ones((0, 2))])


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
