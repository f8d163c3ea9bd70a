"""Decisions: hand-worked pieces of recordings."""

import numpy as np
import pytest

from unispeech_sb.brains.decisions import (
    Decision,
    Piece,
    compare_decisions,
    decision_error,
    found_segments,
    joined,
    score_pieces,
    within,
)

SAID = [(0.0, 2.0, "ann"), (2.0, 4.0, "bob")]


def piece(*columns, reference=SAID, uem=None, **fields):
    """A piece whose frames are half a second."""
    activities = np.array(columns, float).T
    named = {"name": "a", "recording": "a", "start_s": 0.0, **fields}
    return Piece(activities=activities, reference=reference, uem=uem, **named)


RIGHT = piece([0, 0, 0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0, 0, 0])


def test_the_order_of_the_speakers_does_not_matter():
    times = decision_error([RIGHT], Decision(), frame_s=0.5)
    assert times.rate == 0.0 and times.total_s == 4.0


def test_segments_are_at_the_piece_s_place_and_bear_its_name():
    later = RIGHT._replace(start_s=10.0, name="a_00001")
    assert found_segments(later, Decision(), 0.5) == [
        (10.0, 12.0, "a_00001_1"),
        (12.0, 14.0, "a_00001_0"),
    ]


def test_only_the_scored_stretch_counts():
    half = piece([1, 1, 1, 1], [0, 0, 0, 0], uem=[(0.0, 2.0)])
    assert decision_error([half], Decision(), frame_s=0.5).rate == 0.0
    whole = half._replace(uem=None)
    assert decision_error([whole], Decision(), frame_s=0.5).miss_s == 2.0


@pytest.mark.parametrize(
    ("uem", "wanted"),
    [
        (None, [(3.0, 6.0)]),
        ([(0.0, 4.0), (5.0, 9.0)], [(3.0, 4.0), (5.0, 6.0)]),
        ([(0.0, 3.0), (6.0, 9.0)], []),
    ],
)
def test_a_stretch_is_scored_where_its_recording_is(uem, wanted):
    assert within(uem, 3.0, 6.0) == wanted


def test_pieces_are_joined_by_recording_and_time():
    parts = [
        RIGHT._replace(name=f"{recording}_{start}", recording=recording,
                       start_s=float(start), activities=np.full((1, 2), start))
        for recording, start in (("b", 1), ("a", 40), ("a", 0), ("a", 120))
    ]  # fmt: skip
    found = joined(parts)
    assert [(p.name, p.start_s) for p in found] == [("a", 0.0), ("b", 1.0)]
    assert found[0].activities[:, 0].tolist() == [0, 40, 120]


def test_the_decision_with_the_least_error_comes_first():
    noisy = piece(
        [0.35] * 3 + [0.1] + [0.35] * 4,  # a gap that a median filter closes
        [0.15] * 8,
        reference=[(0.0, 4.0, "ann")],
    )
    errors = compare_decisions([noisy], [0.1, 0.3, 0.5], [1, 3], frame_s=0.5)
    assert len(errors) == 6
    best = next(iter(errors))
    assert best == Decision(0.3, 3) and errors[best].rate == 0.0
    rates = [times.rate for times in errors.values()]
    assert rates == sorted(rates)


def test_of_equal_decisions_the_plainest_is_taken():
    errors = compare_decisions([RIGHT], [0.1, 0.9, 0.6], [3, 1], frame_s=0.5)
    assert next(iter(errors)) == Decision(0.6, 1)


def test_scores_are_shares_of_the_reference_speech():
    one = piece([1] * 8, reference=SAID)
    scores = score_pieces([one, RIGHT], Decision(), thorough=True, frame_s=0.5)
    assert scores == pytest.approx(
        {
            "DER": 25.0, "miss": 0.0, "false alarm": 0.0, "confusion": 25.0,
            "JER": 100 * (0.5 + 1.0) / 4, "speakers off": 0.5,
        }
    )  # fmt: skip


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_silent_references_and_silent_hypotheses_are_scored(level):
    silent = piece([level] * 4, reference=[])
    scores = score_pieces([silent], Decision(), thorough=True, frame_s=0.5)
    assert scores["DER"] == (0.0 if level == 0.0 else np.inf)
    deaf = piece([0] * 4)
    assert score_pieces([deaf], Decision(), frame_s=0.5)["miss"] == 100.0


def test_a_decision_comes_back_from_its_file_and_another_file_is_named(
    tmp_path,
):
    path = tmp_path / "decision.ckpt"
    Decision(0.35, 11).save(path)
    assert Decision.read(path) == Decision(0.35, 11)
    assert [p.name for p in tmp_path.iterdir()] == ["decision.ckpt"]
    for text in ("", "[]", '{"threshold": "x"}', '{"threshold": 0.5}'):
        path.write_text(text)
        with pytest.raises(ValueError, match="decision.ckpt: expected a thre"):
            Decision.read(path)
