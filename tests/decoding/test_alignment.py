"""Alignments are the best of all there are."""

from itertools import groupby, product

import numpy as np
import pytest

from tests.decoding.posteriors import noise
from unispeech_sb.decoding.alignment import align


def best_by_trying(rows, tokens):
    """Score of the best path that merges to the tokens."""
    best = -np.inf
    for path in product(range(rows.shape[1]), repeat=len(rows)):
        merged = [token for token, _ in groupby(path) if token]
        if merged == tokens:
            best = max(best, sum(row[t] for row, t in zip(rows, path)))
    return best


def score_of(spans, rows):
    """Score of a path, blanks between the spans."""
    path = np.zeros(len(rows), dtype=int)
    for span in spans:
        path[span.first : span.last] = span.token
        assert span.log_prob == pytest.approx(
            rows[span.first : span.last, span.token].sum()
        )
    assert [t for t, _ in groupby(path.tolist()) if t] == [
        span.token for span in spans
    ]
    return sum(row[t] for row, t in zip(rows, path))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("tokens", [[1], [1, 2], [1, 1], [2, 1, 1], [2, 2, 2]])
def test_the_path_is_the_best(tokens, seed):
    rows = noise(6, 3, seed, sharpness=2.0).double().numpy()
    spans = align(rows, tokens, blank=0)
    assert score_of(spans, rows) == pytest.approx(best_by_trying(rows, tokens))


def test_a_token_like_the_one_before_begins_after_a_blank():
    rows = np.log([[0.1, 0.9], [0.4, 0.6], [0.4, 0.6]])
    (span,) = align(rows, [1], blank=0, before=1)
    assert span.first == 1
    assert align(rows, [1], blank=0)[0].first == 0


def test_second_delimiters_are_gaps():
    # blank, delimiter, a
    rows = np.log([[0.1, 0.8, 0.1], [0.1, 0.1, 0.8], [0.1, 0.8, 0.1]])
    rows = np.concatenate([rows, rows[:2]])
    spans = align(rows, [2, 1, 2], 0, delimiter=1, before=1)
    assert [(s.first, s.last) for s in spans] == [(1, 2), (2, 3), (4, 5)]


def test_impossible_frames_are_crossed_where_nothing_else_is_left():
    rows = np.full((3, 2), -np.inf)
    rows[:, 0] = 0.0
    assert len(align(rows, [1], blank=0)) == 1


def test_nothing_aligns_to_nothing():
    assert align(np.zeros((0, 2)), [], blank=0) == []


def test_more_tokens_than_frames_are_refused():
    with pytest.raises(ValueError, match="at least 3 frames for 2.*got 2"):
        align(np.zeros((2, 2)), [1, 1], blank=0)
