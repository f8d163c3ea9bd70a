"""Old names are found where they are now, with a warning."""

import importlib
import pydoc
from operator import attrgetter

import pytest

from unispeech_sb import moved


@pytest.fixture
def rows(monkeypatch):
    """Adds rows to the table for one test."""

    def add(**added):
        for name, new in added.items():
            monkeypatch.setitem(moved.MOVED, f"unispeech_sb.{name}", new)

    return add


def test_a_module_that_moved_is_found_with_a_warning(rows):
    rows(old_lengths="unispeech_sb.nnet.lengths")
    with pytest.warns(DeprecationWarning, match="nnet.lengths.length_mask"):
        found = pydoc.locate("unispeech_sb.old_lengths.length_mask")
    lengths = importlib.import_module("unispeech_sb.nnet.lengths")
    assert found is lengths.length_mask


def test_a_name_that_changed_is_found(rows):
    rows(old_words={"Span": "unispeech_sb.nnet.masking:SpanMasks"})
    with pytest.warns(DeprecationWarning, match="SpanMasks"):
        found = pydoc.locate("unispeech_sb.old_words.Span")
    assert found.__name__ == "SpanMasks"
    old_words = importlib.import_module("unispeech_sb.old_words")
    with pytest.raises(AttributeError, match="Other"):
        old_words.Other  # noqa: B018


def test_every_row_leads_somewhere():
    assert moved.MOVED
    for old, new in moved.MOVED.items():
        importlib.import_module(old)
        if isinstance(new, str):
            importlib.import_module(new)
            continue
        for place in new.values():
            module, _, name = place.partition(":")
            assert attrgetter(name)(importlib.import_module(module)), place
