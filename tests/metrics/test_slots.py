"""Scores of slots by hand; texts with tags."""

import pytest

from unispeech_sb.metrics.slots import slot_type_f1, slot_value_cer
from unispeech_sb.text import find_slots, without_tags

TRUTH = ["PLAY B-artist QUEEN E-artist AND B-artist ABBA E-artist", "STOP"]
FOUND = ["PLAY B-artist QUEN E-artist IN B-city ROME E-city", "STOP"]


def test_the_worked_example_of_superb():
    assert slot_type_f1(TRUTH, FOUND) == pytest.approx(0.8333, abs=5e-5)
    assert slot_value_cer(TRUTH, FOUND) == pytest.approx(0.5556, abs=5e-5)


@pytest.mark.parametrize(
    ("truth", "found", "score"),
    [
        ("STOP", "GO", 1.0),  # neither has a slot
        ("STOP", "B-a X E-a", 0.0),
        ("B-a X E-a", "STOP", 0.0),
        ("B-a X E-a", "B-a Y E-a B-a Z E-a", 1.0),  # values do not matter
        ("B-a X E-a B-b X E-b", "B-a X E-a B-c X E-c", 0.5),
        ("B-a X E-a", "B-a X", 0.0),  # not closed
    ],
)
def test_types_are_compared_as_sets(truth, found, score):
    assert slot_type_f1([truth], [found]) == score


@pytest.mark.parametrize(
    ("truth", "found", "rate"),
    [
        ("B-a ABCD E-a", "B-a ABCD E-a B-b ROME E-b", 0.0),  # nothing to pay
        ("B-a ABCD E-a", "ABCD", 1.0),  # nothing found: all deleted
        ("B-a ABCD E-a B-a ABCE E-a", "B-a ABCD E-a", 1 / 8),  # serves twice
        ("B-a ABCD E-a", "B-a XY E-a B-a ABCE E-a B-a Z E-a", 1 / 4),
        ("B-a A B E-a", "B-a AB E-a", 1 / 3),  # a space is a character
        ("B-a AB E-a", "B-a B-b AB E-a", 0.0),  # tags in a value go
        ("STOP", "B-a AB E-a", None),
    ],
)
def test_values_are_compared_with_the_nearest_found(truth, found, rate):
    if rate is None:
        with pytest.raises(ValueError, match="expected references with slots"):
            slot_value_cer([truth], [found])
        pairs = [truth, "B-a XY E-a"], [found, "B-a XY E-a"]
        assert slot_value_cer(*pairs) == 0.0
        return
    assert slot_value_cer([truth], [found]) == pytest.approx(rate)


def test_no_texts_have_no_score():
    with pytest.raises(ValueError, match="expected texts; got none"):
        slot_type_f1([], [])


@pytest.mark.parametrize(
    ("text", "slots"),
    [
        ("B-a  X   Y E-a", [("a", "X Y")]),  # spaces collapse
        ("B-a X E-a Y E-a", [("a", "X")]),  # the nearest end
        ("B-playlist X E-playlist_owner", [("playlist", "X")]),
        ("B-a B-b X E-b E-a", [("a", "X")]),  # no overlap
        ("B-a B-x E-y Z E-a", [("a", "E-y Z")]),  # B- goes first, as in s3prl
        ("B-a E-a", []),  # no character between
        ("B-a X E-b", []),
        ("X B-a Y E-a B-a Z E-a", [("a", "Y"), ("a", "Z")]),
    ],
)
def test_slots_are_found_from_left_to_right(text, slots):
    assert find_slots(text) == slots


def test_a_reference_keeps_the_tags_within_a_value():
    text = "B-a X B-b Y E-a"
    assert find_slots(text, keep_tags=True) == [("a", "X B-b Y")]
    assert find_slots(text) == [("a", "X Y")]


def test_a_text_without_its_tags():
    text = "PLAY B-artist THE QUEEN E-artist B-city ROME E-city NOW"
    assert without_tags(text) == "PLAY THE QUEEN ROME NOW"
