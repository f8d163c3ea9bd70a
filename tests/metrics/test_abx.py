"""ABX by its definition, pair by pair and triple by triple."""

from itertools import permutations, product

import numpy as np
import pytest

from unispeech_sb.metrics.abx import abx_error, pair_distances


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
