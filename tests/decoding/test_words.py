"""Tokens make words in each of the ways there are; greedy paths give the
tokenizer's text, with times and confidences."""

import math

import numpy as np
import pytest
import torch

from tests.decoding.posteriors import letters, noise
from tests.inference.models import TOKENS, characters
from unispeech_sb.dataio.tokenizers import CTCTokenizer, sentencepiece
from unispeech_sb.decoding.words import (
    TokenToWordMapping,
    Transcript,
    Word,
    WordDecoder,
    greedy_transcript,
)

PHONES = ["<pad>", "h", "aɪ", "|"]
PIECES = ["-", "▁so", "▁i", "t", "s", "<unk>"]


def phones():
    return CTCTokenizer.from_tokens(PHONES, 0, separator=" ")


def test_letters_make_words_between_delimiters():
    mapping = TokenToWordMapping(letters())
    assert mapping.split([1, 2, 3, 1, 1, 4]) == [[2, 3], [4]]
    assert [mapping.num_complete(t) for t in ([2, 1, 3], [2, 3], [])] == [
        2,
        0,
        0,
    ]
    assert mapping.separator == " "


def test_pieces_make_words_from_their_mark_on():
    mapping = TokenToWordMapping(CTCTokenizer.from_tokens(PIECES, 0))
    assert mapping.split([1, 2, 3, 2, 4]) == [[1], [2, 3], [2, 4]]
    assert mapping.spell([2, 3]) == "it"
    assert mapping.num_complete([1, 2, 3]) == 1
    assert mapping.texts[1:4] == ["so", "i", "t"]
    assert mapping.separator == " "


def test_pieces_of_a_sentencepiece_model_make_its_words():
    model = sentencepiece.train(["so it is", "so is it"], num_pieces=8)
    tokenizer = CTCTokenizer.from_pieces(model)
    mapping = TokenToWordMapping(tokenizer)
    indices = tokenizer.encode("it is so")
    words = [mapping.spell(word) for word in mapping.split(indices)]
    assert words == ["it", "is", "so"]


def test_phones_are_words_and_have_no_delimiter():
    mapping = TokenToWordMapping(phones())
    assert mapping.split([1, 2, 2]) == [[1], [2], [2]]
    assert mapping.delimiter is None
    assert mapping.specials == [3]
    assert mapping.separator == " "


def test_tags_of_slots_are_words_of_their_own():
    tokenizer = CTCTokenizer.from_slots(["GO B-city A B E-city B-x A E-x"])
    mapping = TokenToWordMapping(tokenizer)
    text = "GO B-city A B E-city GO"
    indices = tokenizer.encode(text)
    words = [mapping.spell(word) for word in mapping.split(indices)]
    assert words == ["GO", "B-city", "A", "B", "E-city", "GO"]
    complete = mapping.num_complete(tokenizer.encode("GO B-city A"))
    assert complete == len(tokenizer.encode("GO B-city "))
    frames = torch.eye(len(tokenizer))[indices].log()
    for size in (1, 2, len(indices)):
        decoder = WordDecoder(tokenizer, 0.02)
        found = [w for rows in frames.split(size) for w in decoder.push(rows)]
        found += decoder.finish()
        assert [word.text for word in found] == words
    transcript = greedy_transcript(frames, tokenizer, 0.02, 1.0)
    assert transcript.text == text
    assert transcript.slots == [("city", "A B")]


def test_what_has_no_text_counts_as_blank():
    mapping, rows = TokenToWordMapping(letters()), noise(7, 6)
    folded = mapping.merge_into_blank(rows)
    np.testing.assert_allclose(
        np.exp(folded[:, 0]), rows.exp()[:, [0, 5]].sum(-1), rtol=1e-6
    )
    assert (folded[:, 5] == -np.inf).all()
    np.testing.assert_allclose(np.exp(folded).sum(-1), 1.0, rtol=1e-6)


def test_numbers_that_are_no_log_posteriors_are_refused():
    mapping = TokenToWordMapping(letters())
    with pytest.raises(ValueError, match=r"\[T, 6\].*got \[3, 5\]"):
        mapping.merge_into_blank(torch.zeros(3, 5))
    for value in (float("nan"), -float("inf")):
        rows = torch.zeros(3, 6)
        rows[1] = value
        with pytest.raises(ValueError, match="got NaN, or a frame of -inf"):
            mapping.merge_into_blank(rows)


def test_texts_are_split_as_a_model_would_write_them():
    upper = letters(["-", "|", "A", "B"])
    assert TokenToWordMapping(upper).split_text("ab Ba") == ["AB", "BA"]
    lower = CTCTokenizer.from_tokens(["-", "|", "A", "B"], 0, lowercase=True)
    assert TokenToWordMapping(lower).split_text("AB ba") == ["ab", "ba"]
    assert TokenToWordMapping(phones()).split_text("h aɪ") == ["h", "aɪ"]
    chinese = CTCTokenizer.from_tokens(["-", "你", "好"], 0)
    assert TokenToWordMapping(chinese).split_text("你好") == ["你", "好"]


@pytest.mark.parametrize("text", ["abx", "", "a-b"])
def test_texts_that_the_tokens_cannot_write_are_refused(text):
    with pytest.raises(ValueError, match="symbols that have tokens; got"):
        TokenToWordMapping(letters()).split_text(text)


def frames_of(tokens, labels=TOKENS, probability=1.0):
    """Log-posteriors with one sure token per frame."""
    rest = (1 - probability) / (len(labels) - 1)
    frames = torch.full((len(tokens), len(labels)), rest)
    for row, token in enumerate(tokens):
        frames[row, labels.index(token)] = probability
    return frames.log()


def spoken(tokens, tokenizer=None, **options):
    """The transcript of one token per frame, 20 ms each."""
    frames = frames_of(tokens, **options)
    return greedy_transcript(
        frames, tokenizer or characters(), 0.02, len(tokens) * 0.02
    )


def test_repeats_merge_and_blanks_part_them():
    transcript = spoken("--aa-ab||-|cc--")
    assert transcript.text == "aab c"
    first, second = transcript.words
    assert (first.text, first.start_s, first.end_s) == ("aab", 0.04, 0.14)
    assert (second.text, second.start_s, second.end_s) == ("c", 0.22, 0.26)
    assert transcript.duration_s == pytest.approx(0.3)


def test_confidence_is_the_geometric_mean_over_the_tokens_frames():
    frames = frames_of("a-b|c")
    for row, probability in enumerate([0.9, 0.3, 0.4, 0.2, 0.7]):
        frames[row] = math.log(probability / 10)
        frames[row, TOKENS.index("a-b|c"[row])] = math.log(probability)
    words = greedy_transcript(frames, characters(), 0.02, 0.1).words
    assert words[0].confidence == pytest.approx(math.sqrt(0.9 * 0.4), rel=1e-5)
    assert words[1].confidence == pytest.approx(0.7, rel=1e-5)


def test_specials_make_no_word():
    assert spoken(["<unk>", "|", "a", "<unk>", "b"]).text == "ab"
    assert spoken(["-", "<unk>", "|", "-"]).words == ()
    assert spoken([]).text == ""


def test_phones_are_words_of_their_own():
    tokens = ["h", "h", "aɪ", "<pad>", "aɪ", "|", "h"]
    transcript = spoken(tokens, phones(), labels=PHONES)
    assert transcript.text == "h aɪ aɪ h"
    assert transcript.text == phones().decode([1, 2, 2, 3, 1])
    starts = [word.start_s for word in transcript.words]
    assert starts == [0.0, 0.04, 0.08, 0.12]


def test_tokens_are_words_where_there_is_no_delimiter():
    labels = ["-", "你", "好"]
    tokenizer = CTCTokenizer.from_tokens(labels, 0)
    transcript = spoken("你-好好", tokenizer, labels=labels)
    assert transcript.text == "你好"
    assert [word.text for word in transcript.words] == ["你", "好"]


@pytest.mark.parametrize("separator", ["", " "])
@pytest.mark.parametrize("case", range(20))
def test_pieces_give_what_the_whole_gives(separator, case):
    tokenizer = CTCTokenizer.from_tokens(TOKENS, 0, separator=separator)
    frames = torch.randn(300, len(TOKENS)).log_softmax(-1)
    whole = greedy_transcript(frames, tokenizer, 0.02, 6.0)
    text = tokenizer.decode_frames(frames.argmax(-1))
    assert whole.text.split() == text.split()
    decoder, words = WordDecoder(tokenizer, 0.02), []
    sizes = torch.randint(0, 20, (200,)).cumsum(0)
    for piece in frames.tensor_split(sizes[sizes < 300]):
        words += decoder.push(piece)
    early = len(words)
    words += decoder.finish()
    assert tuple(words) == whole.words
    assert early >= len(words) - 2
    assert all(0 < word.confidence <= 1 for word in words)
    times = [time for word in words for time in (word.start_s, word.end_s)]
    assert times == sorted(times)


def test_a_notebook_shows_words_with_times_small_and_escaped():
    words = tuple(Word(f"<{n}>", n, n + 0.5, 0.25) for n in range(5000))
    shown = Transcript("", words, 5000.0)._repr_html_()
    assert '<span title="1.00 to 1.50 s, 25%">&lt;1&gt;</span>' in shown
    assert "4600 more words" in shown and len(shown) < 40_000
    assert "<1>" not in shown
    two = Transcript(
        "你好", (Word("你", 0, 1, 1), Word("好", 1, 2, 1)), 2.0, ""
    )
    assert "</span><span" in two._repr_html_()


def test_a_notebook_shows_a_transcript_without_words():
    assert "(no words)" in Transcript("", (), 1.0)._repr_html_()
    shown = Transcript("a <b> $x$", (), 1.0)._repr_html_()
    assert "a &lt;b&gt; $x$" in shown and "(no words)" not in shown
    # else Jupyter typesets what is between dollar signs
    assert shown.startswith('<div class="tex2jax_ignore mathjax_ignore">')


def test_a_space_among_letters_is_the_delimiter():
    tokenizer = CTCTokenizer.from_tokens(["-", " ", "a", "b"], 0)
    frames = torch.eye(4)[[2, 3, 1, 0, 3]].log()
    found = greedy_transcript(frames, tokenizer, 0.02, 0.1)
    assert [word.text for word in found.words] == ["ab", "b"]
    assert (found.text, found.separator) == ("ab b", " ")
