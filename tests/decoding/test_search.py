"""The search is exact where nothing is pruned, and the same however it runs;
alignments are the best of all there are."""

import gc
import math
from itertools import groupby, product

import numpy as np
import pytest
import torch

from tests.decoding.posteriors import (
    LETTERS,
    OPEN,
    all_texts,
    arpa,
    letters,
    noise,
    saying,
)
from unispeech_sb.dataio.tokenizers import CTCTokenizer
from unispeech_sb.decoding import (
    BeamWordDecoder,
    HotWords,
    LanguageModel,
    PrefixBeamSearch,
    greedy_transcript,
)
from unispeech_sb.decoding.beams import Beams
from unispeech_sb.decoding.search import align

PHONES = CTCTokenizer.from_tokens(["-", "h", "aɪ", "|"], 0, separator=" ")
PIECES = CTCTokenizer.from_tokens(["▁a", "-", "b", "▁ab"], 1)
KINDS = {
    "letters": (letters(), None),
    "lower": (
        CTCTokenizer.from_tokens(["-", "|", "A", "B"], 0, lowercase=True),
        None,
    ),
    "blank last": (letters(["a", "|", "b", "-"]), None),
    "phones": (PHONES, None),
    "no words": (
        letters(["-", "a", "b"]),
        lambda t: " ".join("-ab"[i] for i in t if i),
    ),
    "pieces": (
        PIECES,
        lambda t: PIECES.decode(t).replace("▁", " "),
    ),
}
each_kind = pytest.mark.parametrize(
    ("tokenizer", "spell"), KINDS.values(), ids=KINDS
)


def scored(log_probs, tokenizer, **options):
    """Text -> score, and the texts in order."""
    search = PrefixBeamSearch(tokenizer, **OPEN, **options)
    made = search.decode(log_probs, num_best=10**6)
    joint = search.mapping.separator
    texts = [" ".join(h.text.split(joint or None)) for h in made]
    if not joint:
        texts = [" ".join(h.text) for h in made]
    assert len(set(texts)) == len(made)
    return dict(zip(texts, made))


@each_kind
@pytest.mark.parametrize("seed", range(4))
def test_scores_are_sums_over_every_alignment(tokenizer, spell, seed):
    log_probs = noise(6 if len(tokenizer) < 6 else 5, len(tokenizer), seed)
    expected = all_texts(log_probs, tokenizer, spell)
    found = scored(log_probs, tokenizer)
    assert set(found) == set(expected)
    for text, made in found.items():
        assert made.score == pytest.approx(expected[text], abs=1e-9)
        assert made.lm_score == 0.0
    ranks = [made.score for made in found.values()]
    assert ranks == sorted(ranks, reverse=True)


@pytest.mark.parametrize("seed", range(4))
def test_a_language_model_adds_the_score_of_the_sentence(tmp_path, seed):
    kenlm = pytest.importorskip("kenlm", reason="the extra lm is missing")
    path = arpa(tmp_path)
    theirs, alpha, beta, unknown = kenlm.Model(str(path)), 0.7, 0.9, -2.0
    model = LanguageModel(path, alpha, beta, unknown)
    tokenizer = letters()
    log_probs = noise(5, len(tokenizer), seed)
    acoustic = all_texts(log_probs, tokenizer)
    found = scored(log_probs, tokenizer, language_model=model)
    assert set(found) == set(acoustic)
    for text, made in found.items():
        words = text.split()
        score = theirs.score(text)
        score += unknown * sum(word not in theirs for word in words)
        bonus = alpha * math.log(10) * score + beta * len(words)
        assert made.acoustic_score == pytest.approx(acoustic[text], abs=1e-9)
        assert made.lm_score == pytest.approx(bonus, abs=1e-5)
        assert made.score == made.acoustic_score + made.lm_score


def test_hot_words_add_their_weight_to_the_texts_that_hold_them():
    log_probs = noise(5, 6, seed=3)
    plain = scored(log_probs, letters())
    hot = scored(log_probs, letters(), hot_words=HotWords(["ab", "c a"], 3.0))
    assert set(plain) == set(hot)
    assert sum(made.lm_score > 0 for made in hot.values()) > 10
    for text, made in hot.items():
        num_words = text.split().count("ab") + 2 * f" {text} ".count(" c a ")
        assert made.lm_score == 3.0 * num_words
        assert made.acoustic_score == pytest.approx(plain[text].score)


@pytest.mark.parametrize("seed", range(10))
def test_one_beam_on_sure_frames_is_greedy(seed):
    text = "".join(np.random.default_rng(seed).choice(list("abc|"), 40))
    log_probs = saying(text, sharpness=15.0, seed=seed)
    log_probs[::7] = torch.tensor([0.0, 0, 0, 0, 0, 15]).log_softmax(-1)
    search = PrefixBeamSearch(letters(), beam_size=1)
    (ours,) = search.decode(log_probs, frame_s=0.02)
    theirs = greedy_transcript(log_probs, letters(), 0.02, 1.0)
    assert ours.text == theirs.text
    for one, other in zip(ours.words, theirs.words, strict=True):
        assert one.text == other.text
        assert one.start_s == other.start_s
        assert one.end_s == other.end_s
        assert one.confidence == pytest.approx(other.confidence, abs=1e-4)


def test_pruning_finds_what_trying_everything_finds():
    same = 0
    for seed in range(20):
        log_probs = noise(5, 6, seed, sharpness=2.0)
        expected = all_texts(log_probs, letters())
        (ours,) = PrefixBeamSearch(letters(), beam_size=30).decode(log_probs)
        same += ours.text == max(expected, key=expected.get)
        assert ours.score > max(expected.values()) - 0.3
    assert same >= 19


def steps_by_hand(prefix, ended, said, shares):
    """The texts that a frame makes of a prefix -> their masses that end in
    blank, and in the last token."""
    last = prefix[-1:] or "|"
    ways = {prefix: [(ended + said) * shares["-"], said * shares[last]]}
    if last == "|":  # two delimiters mean the same as one
        ways[prefix][1] = (ended + said) * shares["|"]
    for token in "|abc":
        if token != last:
            ways[prefix + token] = [0.0, (ended + said) * shares[token]]
        elif token != "|":
            ways[prefix + token] = [0.0, ended * shares[token]]
    return ways


def beams_by_hand(log_probs, beam_size, bonus=lambda text: 0.0):
    """The texts that a beam search keeps -> their scores, best first: every
    token after every prefix, then the best of them all."""
    beams = {"": (1.0, 0.0)}  # prefix -> mass that ends in blank, in its last

    def rank(prefix):
        mass = sum(beams[prefix])
        return math.log(mass) + bonus(prefix) if mass else -math.inf

    for row in log_probs.exp().double().tolist():
        new, shares = {}, dict(zip("-|abc", row))
        for prefix, masses in beams.items():
            ways = steps_by_hand(prefix, *masses, shares)
            for text, masses in ways.items():
                old = new.get(text, (0.0, 0.0))
                new[text] = tuple(map(sum, zip(old, masses)))
        beams = new
        kept = sorted(beams, key=rank, reverse=True)[:beam_size]
        beams = {prefix: beams[prefix] for prefix in kept}
    return {prefix: rank(prefix) for prefix in beams}


@pytest.mark.parametrize("hot", [None, "ab", "ba"])
@pytest.mark.parametrize("beam_size", [1, 2, 3, 7])
def test_few_beams_are_mostly_those_that_trying_every_token_keeps(
    beam_size, hot
):
    # Mostly: a prefix with its own last token again counts as a better one
    tokenizer, hot_words = letters(["-", "|", "a", "b", "c"]), None
    if hot:
        hot_words = HotWords([hot], 1.5)

    def bonus(text):
        if hot_words is None:
            return 0.0
        state = hot_words.start()
        for letter in text:
            step = hot_words.end_word if letter == "|" else hot_words.add
            state = step(state, *letter.strip("|"))
        return hot_words.score(state)

    settings = OPEN | {"beam_size": beam_size}
    search = PrefixBeamSearch(tokenizer, hot_words=hot_words, **settings)
    kept = wanted = 0
    for seed in range(20):
        log_probs = noise(9, 5, seed, sharpness=1.5)
        beams = Beams(search)
        beams.push(log_probs.double().numpy())
        expected = beams_by_hand(log_probs, beam_size, bonus)
        wanted += len(expected)
        for node in beams.alive:
            names = [tokenizer.ind2lab[token] for token in node.tokens()]
            score = expected.get("".join(names), math.inf)
            kept += abs(beams.score(node) + node.bonus - score) < 0.01
    # ... and a hot word may lift what its rank had ruled out
    assert kept >= (0.65 if hot else 0.95) * wanted


@pytest.mark.parametrize(
    ("text", "kept"),
    [("ab|c|", {"ab|c|", "cb|c|"}), ("ab|c|a|", {"ab|c|a|"})],
)
def test_history_that_is_dropped_is_older_than_a_whole_word(text, kept):
    log_probs = saying(text, sharpness=12.0, gap=1)
    log_probs[0] = torch.tensor([0.01, 0.01, 0.5, 0.01, 0.46, 0.01]).log()
    beams = Beams(PrefixBeamSearch(letters(), beam_threshold=3.0))
    beams.push(log_probs.double().numpy())
    found = []
    for step in (lambda: None, beams.prune_history):
        step()
        tokens = [node.tokens() for node in beams.alive]
        found.append({"".join(LETTERS[t] for t in each) for each in tokens})
    assert found == [{text, text.replace("a", "c", 1)}, kept]


def test_hot_words_change_a_close_call_and_nothing_else():
    log_probs = saying("ab|cab|b", sharpness=6.0, gap=1)
    log_probs[2] = torch.tensor([0.02, 0.02, 0.02, 0.5, 0.42, 0.02]).log()
    assert PrefixBeamSearch(letters()).decode(log_probs)[0].text == "ab cab b"
    for hot_words in (["ac"], ["ac cab"], HotWords(["ac"], 4.0)):
        (best,) = PrefixBeamSearch(letters(), hot_words=hot_words).decode(
            log_probs
        )
        assert best.text == "ac cab b"
    (best,) = PrefixBeamSearch(letters(), hot_words=["bac"]).decode(log_probs)
    assert best.text == "ab cab b"


def test_a_language_model_changes_a_close_call(tmp_path):
    pytest.importorskip("kenlm", reason="the extra lm is not installed")
    log_probs = saying("ab|c", sharpness=6.0, gap=1)
    log_probs[2] = torch.tensor([0.02, 0.02, 0.02, 0.4, 0.52, 0.02]).log()
    assert PrefixBeamSearch(letters()).decode(log_probs)[0].text == "ac c"
    model = LanguageModel(arpa(tmp_path))
    search = PrefixBeamSearch(letters(), language_model=model)
    assert search.decode(log_probs)[0].text == "ab c"


def test_words_have_times_and_confidences():
    frames = torch.full((6, 6), 0.01)
    for row, (token, probability) in enumerate(
        [("a", 0.9), ("-", 0.9), ("b", 0.6), ("|", 0.9), ("-", 0.9), ("c", 0.8)]
    ):
        frames[row, LETTERS.index(token)] = probability
    log_probs = (frames / frames.sum(-1, keepdim=True)).log()
    (made,) = PrefixBeamSearch(letters()).decode(log_probs, frame_s=0.02)
    first, second = made.words
    assert (first.text, first.start_s, first.end_s) == ("ab", 0.0, 0.06)
    assert (second.text, second.start_s, second.end_s) == ("c", 0.1, 0.12)
    shares = log_probs.exp()
    expected = math.sqrt(shares[0, 2] * shares[2, 3])
    assert first.confidence == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("sharpness", [1.0, 4.0, 9.0])
@pytest.mark.parametrize("hot_words", [None, ["ab", "c a"]])
def test_pieces_give_what_the_whole_gives(sharpness, hot_words):
    text = "".join(np.random.default_rng(1).choice(list("abc|"), 200))
    log_probs = saying(text, sharpness=sharpness)
    search = PrefixBeamSearch(letters(), hot_words=hot_words, beam_size=20)
    whole = search.decode(log_probs, frame_s=0.02)[0]
    for size in (1, 7, 50, 333):
        decoder, words = BeamWordDecoder(search, 0.02), []
        for piece in log_probs.split(size):
            words += decoder.push(piece)
        early = len(words)
        words += decoder.finish()
        assert tuple(words) == whole.words
        assert decoder.join(words) == whole.text
        assert early > len(words) * 0.7 or sharpness < 9
    times = [t for word in words for t in (word.start_s, word.end_s)]
    assert times == sorted(times)


def test_the_unfinished_can_be_read_on_the_way():
    search = PrefixBeamSearch(letters())
    decoder = BeamWordDecoder(search, 0.02)
    log_probs = saying("ab|cab|b" * 10, sharpness=9.0)
    for piece in log_probs.split(30):
        words = decoder.push(piece)
        seen = [word.text for word in decoder.partial()]
        assert words or seen
    assert [word.text for word in decoder.finish()] == seen


@pytest.mark.parametrize("silent", [0, 500])
def test_memory_stays_bounded_where_nothing_is_agreed_on(silent):
    sure = torch.full((1, 6), -20.0)
    sure[0, 0] = 0.0
    log_probs = noise(400, 6, sharpness=0.2)
    log_probs = torch.cat([log_probs, sure.expand(silent, 6), log_probs])
    search = PrefixBeamSearch(letters(), beam_size=50, patience=100)
    decoder, words = BeamWordDecoder(search, 0.02), []
    for piece in log_probs.split(10):
        words += decoder.push(piece)
        assert sum(map(len, decoder._rows)) <= 100 + 50
        depths = [len(node.tokens()) for node in decoder._beams.alive]
        assert max(depths) <= 150
    words += decoder.finish()
    assert tuple(words) == search.decode(log_probs, frame_s=0.02)[0].words


def test_long_recordings_keep_their_scores():
    log_probs = saying("ab|c" * 500, sharpness=9.0)
    (made,) = PrefixBeamSearch(letters()).decode(log_probs)
    assert made.text == " ".join(["ab"] + ["cab"] * 499 + ["c"])
    greedy = log_probs.max(-1).values.double().sum()
    assert greedy < made.score < greedy + 50


@pytest.mark.parametrize("enabled", [True, False])
def test_garbage_collection_is_as_before_afterwards(enabled):
    assert gc.isenabled()
    try:
        if not enabled:
            gc.disable()
        PrefixBeamSearch(letters()).decode(saying("ab"))
        assert gc.isenabled() == enabled
    finally:
        gc.enable()


def test_no_frames_give_no_text():
    (made,) = PrefixBeamSearch(letters()).decode(torch.zeros(0, 6))
    assert (made.text, made.words, made.score) == ("", (), 0.0)


@pytest.mark.parametrize(
    "options", [{"beam_size": 0}, {"beam_threshold": -1.0}]
)
def test_settings_without_a_meaning_are_refused(options):
    with pytest.raises(ValueError, match="beam_size from 1 and thresholds"):
        PrefixBeamSearch(letters(), **options)


def best_by_trying(rows, tokens):
    """Score of the best path that merges to the tokens."""
    best = -np.inf
    for path in product(range(rows.shape[1]), repeat=len(rows)):
        merged = [token for token, _ in groupby(path) if token]
        if merged == tokens:
            best = max(best, sum(row[t] for row, t in zip(rows, path)))
    return best


def score_of(spans, rows):
    """Score of a path, blanks between the spans."""
    path = np.zeros(len(rows), dtype=int)
    for span in spans:
        path[span.first : span.last] = span.token
        assert span.log_prob == pytest.approx(
            rows[span.first : span.last, span.token].sum()
        )
    assert [t for t, _ in groupby(path.tolist()) if t] == [
        span.token for span in spans
    ]
    return sum(row[t] for row, t in zip(rows, path))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("tokens", [[1], [1, 2], [1, 1], [2, 1, 1], [2, 2, 2]])
def test_the_path_is_the_best(tokens, seed):
    rows = noise(6, 3, seed, sharpness=2.0).double().numpy()
    spans = align(rows, tokens, blank=0)
    assert score_of(spans, rows) == pytest.approx(best_by_trying(rows, tokens))


def test_a_token_like_the_one_before_begins_after_a_blank():
    rows = np.log([[0.1, 0.9], [0.4, 0.6], [0.4, 0.6]])
    (span,) = align(rows, [1], blank=0, before=1)
    assert span.first == 1
    assert align(rows, [1], blank=0)[0].first == 0


def test_second_delimiters_are_gaps():
    # blank, delimiter, a
    rows = np.log([[0.1, 0.8, 0.1], [0.1, 0.1, 0.8], [0.1, 0.8, 0.1]])
    rows = np.concatenate([rows, rows[:2]])
    spans = align(rows, [2, 1, 2], 0, delimiter=1, before=1)
    assert [(s.first, s.last) for s in spans] == [(1, 2), (2, 3), (4, 5)]


def test_impossible_frames_are_crossed_where_nothing_else_is_left():
    rows = np.full((3, 2), -np.inf)
    rows[:, 0] = 0.0
    assert len(align(rows, [1], blank=0)) == 1


def test_nothing_aligns_to_nothing():
    assert align(np.zeros((0, 2)), [], blank=0) == []


def test_more_tokens_than_frames_are_refused():
    with pytest.raises(ValueError, match="at least 3 frames for 2.*got 2"):
        align(np.zeros((2, 2)), [1, 1], blank=0)
