"""Phones with their times."""

import numpy as np
import pytest

from unispeech_sb.dataio.alignments import NO_PHONE, phone_frames, read_spans


def test_spans_of_a_manifest_are_read():
    record = {"ID": "a", "phone_spans": '[["h", 0, 0.1], ["aɪ", 0.1, 0.25]]'}
    assert read_spans(record) == [("h", 0.0, 0.1), ("aɪ", 0.1, 0.25)]
    assert read_spans({"ID": "a"}) is None
    assert read_spans({"ID": "a", "phone_spans": ""}) is None


@pytest.mark.parametrize(
    "text", ["h 0 1", "[1]", '[["h", 0.2, 0.1]]', '[["h", -1, 0]]', '{"h": 1}']
)
def test_a_damaged_column_is_named(text):
    with pytest.raises(ValueError, match=r"utt7: expected a list of \[phone"):
        read_spans({"ID": "utt7", "phone_spans": text})


@pytest.mark.parametrize("rate", [50, 100])
def test_a_frame_has_the_phone_at_its_centre(rate):
    spans = [("a", 0.1, 0.3), ("b", 0.3, 0.5), ("a", 0.6, 0.7)]
    found = phone_frames(spans, rate, rate, 0.025, {"a": 4, "b": 2})
    for index, phone in enumerate(found):
        at_s = index / rate + 0.0125
        expected = [{"a": 4, "b": 2}[p] for p, s, e in spans if s <= at_s < e]
        assert [phone] == (expected or [NO_PHONE])


def test_phones_beyond_the_last_frame_are_cut():
    found = phone_frames([("a", 0.0, 9.0)], 3, 50, 0.025, {"a": 0})
    assert np.array_equal(found, [0, 0, 0])
