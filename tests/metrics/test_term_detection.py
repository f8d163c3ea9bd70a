"""Query by example: paths against dtw-python, values worked by hand."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from unispeech_sb.metrics.term_detection import (
    BETA,
    cosine_exp,
    max_term_weighted_value,
    normalized_scores,
    subsequence_costs,
    term_weighted_value,
    unit_frames,
)


def normalized_rows(distances):
    """Each row brought to [0, 1], as s3prl does it."""
    low, high = distances.min(1), distances.max(1)
    span = np.clip(high - low, 1e-9, np.inf)
    return (distances - low[:, None]) / span[:, None]


def plain_costs(distances):
    """The recursion, cell by cell."""
    rows = normalized_rows(distances)
    costs = rows.copy()
    for i in range(1, len(rows)):
        for j in range(rows.shape[1]):
            steps = costs[i - 1, max(0, j - 2) : j + 1]
            costs[i, j] = rows[i, j] + steps.min()
    return costs[-1].min() / len(rows)


def pairs(count):
    """Random distances of queries and documents of many lengths."""
    random = np.random.default_rng(0)
    for _ in range(count):
        size = random.integers(1, 30), random.integers(1, 80)
        yield np.expm1(random.uniform(0, 2, size))


def test_costs_are_those_of_dtw_python():
    dtw = pytest.importorskip("dtw", reason="dtw-python is not installed")
    for distances in pairs(60):
        found = dtw.dtw(
            normalized_rows(distances),
            step_pattern="asymmetric",
            open_begin=True,
            open_end=True,
        )
        lengths = np.array([distances.shape[1]])
        (cost,) = subsequence_costs(distances, lengths)
        assert cost == found.normalizedDistance


def test_costs_are_those_of_the_recursion():
    for distances in pairs(60):
        lengths = np.array([distances.shape[1]])
        (cost,) = subsequence_costs(distances, lengths)
        assert cost == plain_costs(distances)


def test_no_path_leads_from_one_document_to_the_next():
    random = np.random.default_rng(1)
    lengths = np.array([1, 7, 2, 40, 1, 3])
    distances = random.uniform(0, 1, (12, lengths.sum()))
    found = subsequence_costs(distances, lengths)
    parts = np.split(distances, lengths.cumsum()[:-1], axis=1)
    assert found.tolist() == [plain_costs(part) for part in parts]
    # All rows of a single frame become 0
    assert found[0] == found[4] == 0.0


def test_a_query_that_is_a_part_of_a_document_costs_nothing():
    random = np.random.default_rng(2)
    document = random.normal(size=(40, 8)).astype(np.float32)
    query = document[13:25]
    distances = cosine_exp(unit_frames(query), unit_frames(document))
    assert distances.shape == (12, 40) and distances.dtype == np.float64
    expected = np.exp(cdist(query, document, "cosine")) - 1
    np.testing.assert_allclose(distances, expected, atol=1e-6)
    (cost,) = subsequence_costs(distances, np.array([40]))
    assert cost == pytest.approx(0, abs=1e-6)
    (other,) = subsequence_costs(distances[::-1], np.array([40]))
    assert other > 0.05


def test_scores_have_deviation_1_over_the_documents():
    found = normalized_scores(np.array([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0]]))
    top = 1.5**0.5  # not rounded: YES is decided before
    np.testing.assert_allclose(found, [[-top, 0, top], [0, 0, 0]], atol=1e-12)
    nothing = normalized_scores(-np.zeros((1, 2)))
    assert not np.signbit(nothing).any()


def test_beta_is_that_of_quesst():
    assert pytest.approx(12.49) == BETA
    prior = 0.0008 * 100 / (0.0008 * 100 + 0.9992)
    assert prior == pytest.approx(0.0741289, abs=1e-7)
    assert 1 / prior - 1 == pytest.approx(BETA)


def test_values_by_hand():
    """Two queries that count, of five documents; a third one nobody holds.

    The first is in documents 0 and 1, the second in 2: a hit of the first is
    worth 1/2 of a query, of the second 1; a false alarm costs 12.49 thirds or
    quarters.
    """
    truth = np.zeros((3, 5), bool)
    truth[0, :2] = truth[1, 2] = True
    scores = np.array(
        [
            [4.0, 1.0, 0.0, 0.0, 0.0],
            [0.0, 2.0, 3.0, 0.0, 0.0],
            [9.0, 9.0, 9.0, 9.0, 9.0],
        ]
    )
    # Above 2.5: a half of the first, all of the second
    assert term_weighted_value(scores, truth, 2.5) == pytest.approx(0.75)
    value, threshold = max_term_weighted_value(scores, truth)
    assert (value, threshold) == (pytest.approx(0.75), 3.0)
    # Above 1.5 the second has a false alarm in one of four documents
    expected = 0.75 - 12.49 / 4 / 2
    assert term_weighted_value(scores, truth, 1.5) == pytest.approx(expected)
    # All that is reported is wrong: 1 - P_miss - beta P_fa
    assert term_weighted_value(scores, truth, -1.0) == pytest.approx(-11.49)


def test_one_threshold_serves_all_queries_and_ties_go_together():
    truth = np.array([[True, False], [True, False]])
    scores = np.array([[2.0, 1.0], [1.0, 0.0]])
    # At 1 the second hit comes with the false alarm of the first
    assert max_term_weighted_value(scores, truth) == (0.5, 2.0)


def test_where_nothing_is_right_nothing_is_best():
    truth = np.array([[True, False]])
    scores = np.array([[0.0, 1.0]])
    assert max_term_weighted_value(scores, truth) == (0.0, float("inf"))
    with pytest.raises(ValueError, match="expected a query that a document"):
        max_term_weighted_value(scores, ~truth & False)
