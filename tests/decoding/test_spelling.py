"""Tokens make words in each of the ways there are."""

import numpy as np
import pytest
import torch

from tests.decoding.posteriors import letters, noise
from unispeech_sb.dataio.tokenizers import CTCTokenizer, pieces
from unispeech_sb.decoding.spelling import Spelling

PHONES = ["<pad>", "h", "aɪ", "|"]
PIECES = ["-", "▁so", "▁i", "t", "s", "<unk>"]


def phones():
    return CTCTokenizer.from_tokens(PHONES, 0, separator=" ")


def test_letters_make_words_between_delimiters():
    spelling = Spelling(letters())
    assert spelling.split([1, 2, 3, 1, 1, 4]) == [[2, 3], [4]]
    assert [spelling.num_whole(t) for t in ([2, 1, 3], [2, 3], [])] == [2, 0, 0]
    assert spelling.joint == " "


def test_pieces_make_words_from_their_mark_on():
    spelling = Spelling(CTCTokenizer.from_tokens(PIECES, 0))
    assert spelling.split([1, 2, 3, 2, 4]) == [[1], [2, 3], [2, 4]]
    assert spelling.word([2, 3]) == "it"
    assert spelling.num_whole([1, 2, 3]) == 1
    assert spelling.texts[1:4] == ["so", "i", "t"]
    assert spelling.joint == " "


def test_pieces_of_a_sentencepiece_model_make_its_words():
    model = pieces.train(["so it is", "so is it"], num_pieces=8)
    tokenizer = CTCTokenizer.from_pieces(model)
    spelling = Spelling(tokenizer)
    indices = tokenizer.encode("it is so")
    words = [spelling.word(word) for word in spelling.split(indices)]
    assert words == ["it", "is", "so"]


def test_phones_are_words_and_have_no_delimiter():
    spelling = Spelling(phones())
    assert spelling.split([1, 2, 2]) == [[1], [2], [2]]
    assert spelling.delimiter is None
    assert spelling.hidden == [3]
    assert spelling.joint == " "


def test_what_has_no_text_counts_as_blank():
    spelling, rows = Spelling(letters()), noise(7, 6)
    folded = spelling.fold(rows)
    np.testing.assert_allclose(
        np.exp(folded[:, 0]), rows.exp()[:, [0, 5]].sum(-1), rtol=1e-6
    )
    assert (folded[:, 5] == -np.inf).all()
    np.testing.assert_allclose(np.exp(folded).sum(-1), 1.0, rtol=1e-6)


def test_numbers_that_are_no_log_posteriors_are_refused():
    spelling = Spelling(letters())
    with pytest.raises(ValueError, match=r"\[T, 6\].*got \[3, 5\]"):
        spelling.fold(torch.zeros(3, 5))
    for value in (float("nan"), -float("inf")):
        rows = torch.zeros(3, 6)
        rows[1] = value
        with pytest.raises(ValueError, match="got NaN, or a frame of -inf"):
            spelling.fold(rows)


def test_texts_are_split_as_a_model_would_write_them():
    upper = letters(["-", "|", "A", "B"])
    assert Spelling(upper).words_of("ab Ba") == ["AB", "BA"]
    lower = CTCTokenizer.from_tokens(["-", "|", "A", "B"], 0, lowercase=True)
    assert Spelling(lower).words_of("AB ba") == ["ab", "ba"]
    assert Spelling(phones()).words_of("h aɪ") == ["h", "aɪ"]
    chinese = CTCTokenizer.from_tokens(["-", "你", "好"], 0)
    assert Spelling(chinese).words_of("你好") == ["你", "好"]


@pytest.mark.parametrize("text", ["abx", "", "a-b"])
def test_texts_that_the_tokens_cannot_write_are_refused(text):
    with pytest.raises(ValueError, match="symbols that have tokens; got"):
        Spelling(letters()).words_of(text)
