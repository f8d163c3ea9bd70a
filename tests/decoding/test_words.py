"""Greedy paths give the tokenizer's text, with times and confidences."""

import math

import pytest
import torch

from tests.inference.models import TOKENS, characters
from unispeech_sb.dataio.tokenizers import CTCTokenizer
from unispeech_sb.decoding.words import WordDecoder, greedy_transcript


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
    labels = ["<pad>", "h", "aɪ", "|"]
    phones = CTCTokenizer.from_tokens(labels, 0, separator=" ")
    tokens = ["h", "h", "aɪ", "<pad>", "aɪ", "|", "h"]
    transcript = spoken(tokens, phones, labels=labels)
    assert transcript.text == "h aɪ aɪ h"
    assert transcript.text == phones.decode([1, 2, 2, 3, 1])
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
