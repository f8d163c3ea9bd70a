"""Forced alignment is torchaudio's, in less memory, and keeps the text."""

import numpy as np
import pytest
import torch
from torchaudio.functional import forced_align, merge_tokens

from unispeech_sb.dataio.tokenizers import CTCTokenizer, sentencepiece
from unispeech_sb.decoding import ForcedAligner, forced_alignment
from unispeech_sb.decoding.forced_alignment import align_tokens

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ'"


def letters(tokens=LETTERS):
    """A tokenizer of letters, with a blank, a delimiter and an unknown."""
    return CTCTokenizer.from_tokens(["<pad>", "|", "<unk>", *tokens], 0)


def frames(tokenizer, indices, sure=8.0):
    """Log-posteriors that are sure of one token for each frame."""
    logits = torch.zeros(len(indices), len(tokenizer))
    logits[range(len(indices)), indices] = sure
    return logits.log_softmax(-1)


def spoken(tokenizer, text, pause=3):
    """Log-posteriors of a text: each token for two frames, then blanks."""
    rows = [0] * 5
    for token in tokenizer.encode(text):
        rows += [token, token] + [0] * pause
    return frames(tokenizer, rows)


def align(tokenizer, text, log_probs, **options):
    """The alignment of all frames at once."""
    aligner = ForcedAligner(tokenizer, 0.02, text, **options)
    aligner.push(log_probs)
    return aligner.finish(0.02 * len(log_probs))


def random_case(generator, most=40):
    """Log-posteriors, and tokens with repeats that fit into them."""
    size = int(torch.randint(2, 7, (), generator=generator))
    count = int(torch.randint(1, most, (), generator=generator))
    tokens = torch.randint(1, size, (count,), generator=generator)
    repeats = int((tokens[1:] == tokens[:-1]).sum())
    extra = int(torch.randint(0, 60, (), generator=generator)) * (count % 3)
    logits = torch.randn(count + repeats + extra, size, generator=generator)
    return (2 * logits).log_softmax(-1), tokens


def theirs(log_probs, tokens):
    """Spans of torchaudio, [L, 2], and the score of its path."""
    path, scores = forced_align(log_probs[None], tokens[None].int(), blank=0)
    spans = merge_tokens(path[0], scores[0].exp(), blank=0)
    return [[s.start, s.end] for s in spans], float(scores.double().sum())


def score_of(log_probs, tokens, spans):
    """Score of the path of some spans."""
    path = torch.zeros(len(log_probs), dtype=torch.long)
    for token, (first, last) in zip(tokens, spans, strict=True):
        path[first:last] = token
    return float(log_probs.double().gather(1, path[:, None]).sum())


@pytest.mark.parametrize("most_cells", [2**25, 200, 1])
def test_paths_are_those_of_torchaudio(most_cells, monkeypatch):
    monkeypatch.setattr(forced_alignment, "_MOST_CELLS", most_cells)
    generator, tight = torch.Generator().manual_seed(3), 0
    for _ in range(60):
        log_probs, tokens = random_case(generator)
        spans, best = theirs(log_probs, tokens)
        found = align_tokens(log_probs.numpy(), tokens.numpy(), 0)
        assert found.tolist() == spans
        own = score_of(log_probs, tokens, found.tolist())
        assert own == pytest.approx(best, abs=1e-4)
        tight += len(log_probs) <= len(tokens) + 8
    assert tight > 9  # cases without much choice are among them


def test_a_token_that_is_impossible_has_a_place_all_the_same():
    log_probs = torch.tensor([[0.0, -np.inf]] * 6)
    tokenizer = CTCTokenizer.from_tokens(["-", "a"], 0)
    ((letter,),) = align(tokenizer, "a", log_probs).letters
    assert letter.end_s - letter.start_s == pytest.approx(0.02)
    assert letter.confidence == 0.0


def test_a_word_goes_on_for_a_moment_after_its_last_letter():
    tokenizer = letters("AB")
    a, b = tokenizer.encode("AB")
    rows = [0, a, 1, 0, b, *[0] * 9, 1, a, 0]
    found = align(tokenizer, "a b a", frames(tokenizer, rows))
    times = [(word.start_s, word.end_s) for word in found.words]
    assert times == [(0.02, 0.08), (0.08, 0.18), (0.3, 0.34)]
    ends = [row[-1].end_s for row in found.letters]
    assert ends == [0.04, 0.1, 0.32]


def test_long_recordings_need_no_product_of_text_and_frames(monkeypatch):
    """Rows go to the disk, and pointers are kept for few states at a time."""
    monkeypatch.setattr(forced_alignment, "_IN_MEMORY", 1000)
    monkeypatch.setattr(forced_alignment, "_MOST_CELLS", 500)
    tokenizer = letters()
    text = " ".join(["NO", "ALL"] * 40)
    log_probs = spoken(tokenizer, text)
    aligner = ForcedAligner(tokenizer, 0.02, text)
    sizes = []
    traced = forced_alignment._traced

    def watched(rows, states):
        sizes.append(len(rows) * len(states.labels))
        return traced(rows, states)

    monkeypatch.setattr(forced_alignment, "_traced", watched)
    for block in log_probs.split(97):
        assert aligner.push(block) == []
    found = aligner.finish(1.0)
    assert max(sizes) <= 500 and len(sizes) > 20
    starts = [word.start_s for word in found.words]
    assert starts == sorted(starts) and len(starts) == 80
    assert min(word.confidence for word in found.words) > 0.9


@pytest.mark.parametrize(
    ("text", "written", "spelt"),
    [
        ("Hello, world!", ["Hello,", "world!"], ["HELLO", "WORLD"]),
        ("DON’T  stop", ["DON’T", "stop"], ["DON'T", "STOP"]),
        ("well-known “fact”", ["well-known", "“fact”"], ["WELLKNOWN", "FACT"]),
        ("a naïve Café", ["a", "naïve", "Café"], ["A", "NAIVE", "CAFE"]),
        ("Ready? — Yes …", ["Ready?", "Yes"], ["READY", "YES"]),
        ("ﬁne ＡＢ", ["ﬁne", "ＡＢ"], ["FINE", "AB"]),
    ],
)
def test_words_keep_their_form_and_are_spelt_as_the_model_does(
    text, written, spelt
):
    tokenizer = letters()
    log_probs = spoken(tokenizer, " ".join(spelt))
    found = align(tokenizer, text, log_probs)
    assert found.text == text
    assert [word.text for word in found.words] == written
    own = ["".join(letter.text for letter in row) for row in found.letters]
    assert own == spelt


def test_a_model_without_an_apostrophe_aligns_words_with_one():
    tokenizer = letters("DONT")
    found = align(tokenizer, "Don't", spoken(tokenizer, "DONT"))
    assert [letter.text for letter in found.letters[0]] == [*"DONT"]


def test_a_model_with_punctuation_and_case_is_given_both():
    tokenizer = letters("aAbB,.")
    found = align(tokenizer, "Ab, a.", spoken(tokenizer, "Ab, a."))
    own = ["".join(letter.text for letter in row) for row in found.letters]
    assert own == ["Ab,", "a."]


def test_turkish_letters_keep_their_dots():
    tokenizer = letters("IİRKTAŞL")
    found = align(tokenizer, "Irak, İtilaş", spoken(tokenizer, "IRAK İTİLAŞ"))
    own = ["".join(letter.text for letter in row) for row in found.letters]
    assert own == ["IRAK", "İTİLAŞ"]


def test_phones_are_words():
    tokens = ["<s>", "h", "aɪ", "tʃ", "<unk>"]
    tokenizer = CTCTokenizer.from_tokens(tokens, 0, separator=" ")
    found = align(tokenizer, "h aɪ", spoken(tokenizer, "h aɪ"))
    assert [word.text for word in found.words] == ["h", "aɪ"]


def test_scripts_without_spaces_have_a_word_for_each_character():
    tokenizer = CTCTokenizer.from_tokens(["<pad>", "你", "好", "吗"], 0)
    found = align(tokenizer, "你好，好吗？", spoken(tokenizer, "你好好吗"))
    assert [word.text for word in found.words] == [*"你好好吗"]
    assert found.separator == ""
    (line,) = found.lines
    assert [word.text for word in line.words] == ["你", "好，", "好", "吗？"]


def test_pieces_make_words():
    model = sentencepiece.train(["so it is", "so is it"] * 9, num_pieces=8)
    tokenizer = CTCTokenizer.from_pieces(model)
    found = align(tokenizer, "So it, is.", spoken(tokenizer, "so it is"))
    assert [word.text for word in found.words] == ["So", "it,", "is."]
    assert all(found.letters)


def test_tags_of_slots_and_special_tokens_are_silence():
    tokenizer = CTCTokenizer.from_slots(["PLAY B-artist ABBA E-artist"])
    tags = tokenizer.encode("PLAY B-artist ABBA E-artist")
    rows = [row for token in tags for row in (token, token, 0)]
    found = align(tokenizer, "play Abba", frames(tokenizer, rows + [1, 1]))
    assert [word.text for word in found.words] == ["play", "Abba"]
    assert min(word.confidence for word in found.words) > 0.9


def test_lines_are_kept_with_the_punctuation_between_words():
    tokenizer = letters()
    text = " - One two - three\n\n * * * \nfour.\r\n"
    found = align(tokenizer, text, spoken(tokenizer, "ONE TWO THREE FOUR"))
    assert [line.text for line in found.lines] == ["- One two - three", "four."]
    shown = [[word.text for word in line.words] for line in found.lines]
    assert shown == [["- One", "two -", "three"], ["four."]]
    first, second = found.lines
    assert first.end_s < second.start_s
    assert found.lines[0].words[0].start_s == found.words[0].start_s


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected words; got ''"),
        (" \n--\n", "expected words; got '--'"),
        ("so\nit costs 20 €", r"line 2: .* cannot spell 20 \(no token for 2 0"),
        ("да", r"line 1: .* cannot spell да \(no token for д а\)"),
        (None, "got NoneType"),
    ],
)
def test_what_cannot_be_aligned_is_one_sentence(text, said):
    with pytest.raises(ValueError, match=f"^text.*{said}") as caught:
        ForcedAligner(letters(), 0.02, text)
    assert "\n" not in str(caught.value)


def test_a_text_that_is_too_long_says_how_long_it_is():
    tokenizer = letters()
    with pytest.raises(ValueError, match="3 frames can hold, 0.06 s; its 1 "):
        align(tokenizer, "ALL", frames(tokenizer, [0, 3, 4]))
    align(tokenizer, "ALL", frames(tokenizer, [3, 4, 0, 4]))


def test_an_unknown_word_takes_what_is_between_its_neighbours():
    tokenizer = letters()
    log_probs = spoken(tokenizer, "IT COSTS TWENTY EUROS")
    whole = align(tokenizer, "it costs twenty euros", log_probs).words
    found = align(tokenizer, "It costs 20 euros", log_probs, skip_unknown=True)
    assert [word.text for word in found.words] == ["It", "costs", "20", "euros"]
    for word, other in zip(found.words, whole, strict=True):
        assert word.start_s == other.start_s and word.end_s == other.end_s
    assert [word.confidence > 0 for word in found.words] == [1, 1, 0, 1]
    assert [len(row) for row in found.letters] == [2, 5, 0, 5]
    alone = align(tokenizer, "20", log_probs, skip_unknown=True).words
    assert (alone[0].start_s, alone[0].end_s) == (
        whole[0].start_s,
        whole[-1].end_s,
    )


def test_confidences_are_those_of_the_tokens_on_their_frames():
    tokenizer = letters()
    a, b = tokenizer.encode("AB")
    log_probs = torch.full((4, len(tokenizer)), -20.0)
    log_probs[[0, 1, 2, 3], [0, a, b, 0]] = torch.tensor([0, -0.5, -1.5, 0.0])
    (word,) = align(tokenizer, "ab", log_probs).words
    assert word.confidence == pytest.approx(np.exp(-1.0), rel=1e-6)
