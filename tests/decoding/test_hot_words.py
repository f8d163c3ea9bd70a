"""Hot words count whole and from their beginnings on."""

import pytest

from unispeech_sb.decoding.hot_words import HotWords


def scores(hot_words, text):
    """Score after each letter; a space ends a word, and so does the end."""
    state, found = hot_words.start(), []
    for letter in text:
        if letter == " ":
            state = hot_words.end_word(state)
        else:
            state = hot_words.add(state, letter)
        found.append(hot_words.score(state))
    return [*found, hot_words.final_score(hot_words.end_word(state))]


def test_a_word_counts_by_the_share_of_its_letters():
    assert scores(HotWords(["yes"], 9.0), "yes") == [3.0, 6.0, 9.0, 9.0]


def test_a_longer_word_gives_back_what_its_beginning_got():
    assert scores(HotWords(["yes"], 9.0), "yesx") == [3.0, 6.0, 9.0, 0.0, 0.0]
    assert scores(HotWords(["yes"], 9.0), "xyes")[-1] == 0.0


def test_words_count_as_often_as_they_are_said():
    assert scores(HotWords(["a", "b"], 2.0), "a x b a")[-1] == 6.0


def test_the_shortest_word_tells_the_share():
    assert scores(HotWords(["abcd", "ab"], 4.0), "a")[0] == 2.0


def test_phrases_count_word_by_word_and_only_whole():
    new_york = HotWords(["new york"], 8.0)
    assert scores(new_york, "new york")[2:] == [8, 8, 10, 12, 14, 16, 16]
    assert scores(new_york, "new")[-1] == 0.0
    assert scores(new_york, "york")[-1] == 0.0
    assert scores(new_york, "new old york")[-1] == 0.0
    assert scores(new_york, "new new york")[-1] == 16.0


def test_phrases_may_begin_with_words_that_count_alone():
    both = HotWords(["new", "new york", "york x"], 8.0)
    assert scores(both, "new")[-1] == 8.0
    assert scores(both, "new york")[-1] == 16.0
    assert scores(both, "york new york x")[-1] == 24.0


def test_words_have_to_be_a_list_without_empty_ones():
    for wrong in ("yes", ["yes", ""]):
        with pytest.raises(ValueError, match="hot words: expected a list"):
            HotWords(wrong)
