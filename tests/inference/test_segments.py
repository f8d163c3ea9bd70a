"""Turns must be the same whether activities come whole or in pieces, and come
back from every kind of file.
"""

import json

import numpy as np
import pytest

from unispeech_sb.dataio.rttm import Segment, read_audacity, read_rttm
from unispeech_sb.inference.segments import (
    Binarizer,
    Diarization,
    SpeakerNames,
    Turn,
    exclusive_turns,
)
from unispeech_sb.nnet.binarize import BinarizeConfig, binarize

FOUND = Diarization(
    "talk",
    4000.0,
    (
        Turn(0.04, 1.52, "speaker1", 0.75),
        Turn(1.0, 2.5, "speaker2", 0.9),
        Turn(3600.5, 3601.0, "speaker1", 0.61),
    ),
)
ANNOTATION = [
    Segment(0.04, 1.52, "speaker1"),
    Segment(1.0, 2.5, "speaker2"),
    Segment(3600.5, 3601.0, "speaker1"),
]
RULES = [
    BinarizeConfig(),
    BinarizeConfig(0.4, 25, frame_s=0.04),
    BinarizeConfig(0.6, 5, min_speech_s=0.1, min_pause_s=0.2),
    BinarizeConfig(0.5, 1, min_speech_s=0.06, min_pause_s=0.06),
]


def talk(frames, speakers, seed):
    """Probabilities that change every few frames."""
    draw = np.random.default_rng(seed)
    rows = draw.random((frames // 4 + 1, speakers)) ** 0.7
    return np.repeat(rows, 4, 0)[:frames] * draw.uniform(
        0.9, 1, (frames, speakers)
    )


def expected(activities, rule):
    """What the whole gives, with confidences."""
    found = binarize(
        activities, rule.threshold, rule.median_filter, rule.frame_s,
        rule.min_speech_s, rule.min_pause_s,
    )  # fmt: skip
    return [
        (start, end, who, activities[round(start / rule.frame_s) : round(
            end / rule.frame_s), who].mean())
        for start, end, who in found
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("most", [1, 7, 300, 5000])
def test_pieces_give_the_turns_of_the_whole(most, rule):
    for seed in range(2):
        activities = talk(1500, 3, seed)
        binarizer, found, begin = Binarizer(rule), [], 0
        draw = np.random.default_rng(seed)
        while begin < len(activities):
            end = begin + draw.integers(1, most + 1)
            found += binarizer.push(activities[begin:end])
            begin = end
        found += binarizer.finish()
        wanted = expected(activities, rule)
        assert len(wanted) > 20
        np.testing.assert_allclose(sorted(found), wanted, atol=2e-6)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_turn_is_given_as_soon_as_nothing_can_change_it(rule):
    activities = talk(600, 2, seed=7)
    binarizer = Binarizer(rule)
    latest = 0
    for place, row in enumerate(activities):
        for _, end, _, _ in binarizer.push(row[None]):
            late = place + 1 - round(end / rule.frame_s)
            assert late == rule.half + rule.pause
            latest = max(latest, late)
    assert latest <= rule.reach


def test_only_turns_that_go_on_are_held():
    binarizer = Binarizer(RULES[1])
    for _ in range(2000):
        binarizer.push(np.zeros((5, 2)))
    assert len(binarizer._buffer) <= 2 * (RULES[1].half + RULES[1].pause) + 5


def test_speakers_may_join_later():
    binarizer = Binarizer(BinarizeConfig(frame_s=1.0))
    found = binarizer.push(np.zeros((3, 0)))
    found += binarizer.push(np.array([[0.9]] * 2))
    found += binarizer.push(np.array([[0.9, 0.0], [0.0, 0.8]]))
    found += binarizer.finish()
    assert [turn[:3] for turn in found] == [(3, 6, 0), (6, 7, 1)]
    assert Binarizer(BinarizeConfig()).finish() == []


def test_names_follow_the_order_of_asking():
    names = SpeakerNames()
    assert [names[n] for n in (3, 0, 3, 5)] == [
        "speaker1", "speaker2", "speaker1", "speaker3",
    ]  # fmt: skip


def test_speakers_and_segments_are_told():
    assert FOUND.speakers == ["speaker1", "speaker2"]
    assert FOUND.annotation == ANNOTATION
    start, end, speaker, confidence = FOUND.segments[0]
    assert (start, end, speaker, confidence) == (0.04, 1.52, "speaker1", 0.75)


def test_files_hold_what_is_returned_and_read_back(tmp_path):
    for kind in ("rttm", "audacity", "json"):
        write = getattr(FOUND, f"to_{kind}")
        text = write()
        assert write(tmp_path / kind) == text
        assert (tmp_path / kind).read_text() == text
    assert read_rttm(tmp_path / "rttm") == {"talk": ANNOTATION}
    assert read_audacity(tmp_path / "audacity") == ANNOTATION
    content = json.loads((tmp_path / "json").read_text())
    assert content["name"] == "talk" and content["duration"] == 4000.0
    assert [Turn(**segment) for segment in content["segments"]] == list(
        FOUND.segments
    )


def test_text_is_for_reading():
    assert FOUND.to_text().splitlines()[-1] == (
        "1:00:00.50  1:00:01.00  speaker1"
    )
    assert Diarization("a", 1.0, ()).to_text() == ""


@pytest.mark.slow
@pytest.mark.parametrize("reference", [None, ANNOTATION])
def test_the_timeline_is_drawn(reference, tmp_path):
    FOUND.plot(tmp_path / "a.png", reference)
    assert (tmp_path / "a.png").read_bytes()[1:4] == b"PNG"


def test_without_overlap_the_most_active_remains():
    activities = np.zeros((200, 2))
    activities[10:120, 0] = 0.9
    activities[80:180, 1] = 0.8
    activities[100:120, 1] = 0.97
    activities[105, 1] = 0.6  # for one frame, which changes nothing
    config = BinarizeConfig(0.5, 1, frame_s=0.02)
    turns = [(0.2, 2.4, 0, 0.9), (1.6, 3.6, 1, 0.83)]
    first, second = exclusive_turns(turns, activities, config)
    assert (first[0], first[2], second[1], second[2]) == (0.2, 0, 3.6, 1)
    assert first[1] == second[0] == pytest.approx(2.0, abs=0.1)
    assert first[3] == 0.9 and 0.8 < second[3] < 0.9


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("config", RULES)
def test_of_any_overlap_one_speaker_remains(config, seed):
    draw = np.random.default_rng(seed)
    noise = draw.random((300, 4))
    activities = np.stack(
        [np.convolve(row, np.ones(20) / 16, "same") for row in noise.T], 1
    )
    binarizer = Binarizer(config)
    turns = sorted(binarizer.push(activities) + binarizer.finish())
    found = exclusive_turns(turns, activities, config)
    assert all(a[1] <= b[0] for a, b in zip(found, found[1:]))

    def active(segments):
        frames = np.zeros((300, 4), bool)
        for start, end, speaker, _ in segments:
            first, last = (round(t / config.frame_s) for t in (start, end))
            frames[first:last, speaker] = True
        return frames

    before, after = active(turns), active(found)
    assert before.any() and (before.sum(1) > 1).any()
    np.testing.assert_array_equal(before.any(1), after.sum(1))
    assert not (after & ~before).any()
    alone = before.sum(1) == 1
    np.testing.assert_array_equal(before[alone], after[alone])
    assert exclusive_turns([], activities, config) == []


def test_a_notebook_shows_the_timeline():
    shown = FOUND._repr_html_()
    assert "<svg" in shown and "speaker2: 1.5 s" in shown
    assert "nobody speaks" in Diarization("a", 2.0, ())._repr_html_()


def test_the_timeline_says_the_error_rate(monkeypatch):
    titles = []
    monkeypatch.setattr(
        "unispeech_sb.inference.segments.write_timeline",
        lambda *arguments: titles.append(arguments[-1]),
    )
    turns = (Turn(0.0, 4.0, "x", 0.9), Turn(5.0, 8.0, "y", 0.9))
    found = Diarization("talk", 10.0, turns)
    found.plot("a.png")
    found.plot("a.png", [(0.0, 5.0, "ann"), (5.0, 10.0, "bob"), (2, 2, "eve")])
    found.plot("a.png", [])
    assert titles == [
        "talk",
        "talk: DER 30.0 % (missed 30.0 %, false alarm 0.0 %, confused 0.0 %)",
        "talk: no speech in the reference",
    ]
