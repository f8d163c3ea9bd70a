"""Language models score as KenLM does and know beginnings of words; hot words
count whole and from their beginnings on."""

import bz2
import gzip
import importlib.util
import math
import sys

import pytest
from speechbrain.utils.parameter_transfer import Pretrainer

from tests.decoding.posteriors import arpa
from unispeech_sb.dataio.tokenizers import CTCTokenizer
from unispeech_sb.decoding import HotWords, LanguageModel, PrefixBeamSearch
from unispeech_sb.decoding.words import TokenToWordMapping

needs_kenlm = pytest.mark.skipif(
    importlib.util.find_spec("kenlm") is None,
    reason="the extra lm is not installed",
)


def score_by_kenlm(path, text, boundary):
    """KenLM's own score of a sentence, as log10."""
    import kenlm

    return kenlm.Model(str(path)).score(text, bos=boundary, eos=boundary)


def whole_score(model, text):
    """Score of a sentence word by word."""
    state, total = model.start(), 0.0
    for word in text.split():
        score, state = model.score(state, word)
        total += score
    return total + model.score_end(state)


@needs_kenlm
@pytest.mark.parametrize("text", ["ab c", "c ba ab ab", "b", ""])
@pytest.mark.parametrize("boundary", [True, False])
def test_words_add_up_to_the_score_of_the_sentence(tmp_path, text, boundary):
    path = arpa(tmp_path)
    model = LanguageModel(path, alpha=1.0, beta=0.0, boundary=boundary)
    theirs = score_by_kenlm(path, text, boundary)
    assert whole_score(model, text) / math.log(10) == pytest.approx(theirs)


@needs_kenlm
def test_weights_scale_the_score_and_count_words(tmp_path):
    model = LanguageModel(arpa(tmp_path), alpha=1.0, beta=0.0)
    plain = whole_score(model, "ab c ab")
    model.alpha, model.beta = 0.5, 2.0
    ours = whole_score(model, "ab c ab")
    assert ours == pytest.approx(0.5 * plain + 3 * 2.0)


@needs_kenlm
def test_unknown_words_score_less_and_so_do_their_beginnings(tmp_path):
    path = arpa(tmp_path)
    model = LanguageModel(path, alpha=0.5, beta=0.0, unk_offset=-3.0)
    loss = 0.5 * math.log(10) * -3.0
    free = LanguageModel(path, alpha=0.5, beta=0.0, unk_offset=0.0)
    assert whole_score(model, "xy c") == pytest.approx(
        whole_score(free, "xy c") + loss
    )
    assert whole_score(model, "ab c") == whole_score(free, "ab c")
    for known in ("a", "ab", "b", "c"):
        assert model.score_beginning(known) == 0.0
    for unknown in ("x", "abc", "ac", "<", "s"):
        assert model.score_beginning(unknown) == pytest.approx(loss)


@needs_kenlm
def test_the_known_words_may_be_given(tmp_path):
    model = LanguageModel(arpa(tmp_path), words=["zoo"])
    assert model.score_beginning("z") == 0.0
    assert model.score_beginning("a") < 0.0


@needs_kenlm
def test_words_are_looked_up_in_the_case_of_the_model(tmp_path):
    path = arpa(tmp_path)
    lower = LanguageModel(path, case="lower")
    plain = LanguageModel(path)
    assert whole_score(lower, "AB C") == whole_score(plain, "ab c")
    assert whole_score(lower, "AB C") > whole_score(plain, "AB C")
    assert lower.score_beginning("AB") == 0.0
    with pytest.raises(ValueError, match="upper or lower; got title"):
        LanguageModel(path, case="title")


@needs_kenlm
def test_the_pretrainer_loads_a_folders_file(tmp_path):
    arpa(tmp_path).rename(tmp_path / "language_model.ckpt")
    model = LanguageModel()
    with pytest.raises(ValueError, match="none is loaded"):
        model.start()
    pretrainer = Pretrainer(loadables={"language_model": model})
    pretrainer.collect_files(default_source=str(tmp_path))
    pretrainer.load_collected()
    assert model.score_beginning("a") == 0.0
    assert model.score_beginning("x") < 0.0


@needs_kenlm
def test_files_of_other_kinds_are_refused(tmp_path):
    other = tmp_path / "other.arpa"
    for content in (b"", b"words\n", b"\\data\\\nngram 1=9\n\n"):
        other.write_bytes(content)
        with pytest.raises(ValueError, match=f"{other}: expected an ARPA"):
            LanguageModel(other)
    with pytest.raises(ValueError, match="no.arpa: there is no such file"):
        LanguageModel(tmp_path / "no.arpa")


def letters(text, extra=()):
    """The rules of a recogniser of letters."""
    tokens = ["-", "|", *dict.fromkeys(text), *extra]
    return TokenToWordMapping(CTCTokenizer.from_tokens(tokens, 0))


@needs_kenlm
@pytest.mark.parametrize(
    ("change", "packed"),
    [
        (str.encode, False),
        (lambda text: text.replace("\n", "\r\n").encode(), False),
        (lambda text: b"\xef\xbb\xbf" + text.encode(), False),
        (lambda text: gzip.compress(text.encode()), True),
        (lambda text: bz2.compress(text.encode()), True),
    ],
)
def test_a_file_is_read_however_it_is_written(tmp_path, change, packed):
    path = arpa(tmp_path)
    expected = LanguageModel(path)
    other = tmp_path / ("words.arpa.gz" if packed else "words.arpa")
    other.write_bytes(change(path.read_text()))
    model = LanguageModel(other)
    assert whole_score(model, "ab c") == whole_score(expected, "ab c")
    assert model.score_beginning("a") == 0.0 > model.score_beginning("x")


@needs_kenlm
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\tab\t", "\tür\t", "line 10: expected text in UTF-8, .* 0xfc"),
        ("ngram 1=", "ngram 1=1000000000000", "it claims 1.* n-grams in"),
        ("ngram 2=", "ngram 2=9000000000", "it claims 9.* n-grams in"),
        ("ngram 1=", "ngram 1=-", "line 2 is no count: 'ngram 1=-"),
        ("ngram 1=", "ngram 1=9", "claims [19]"),
        ("\\data\\", "<html>", "does not begin"),
        ("\tab\t", "\ta b c\t", "line 10 is no 1-gram"),
    ],
)
def test_a_damaged_arpa_is_named_with_its_line(tmp_path, old, new, message):
    path = arpa(tmp_path)
    text = path.read_text()
    assert old in text
    path.write_bytes(text.replace(old, new).encode("latin-1"))
    with pytest.raises(ValueError, match=message) as error:
        LanguageModel(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)
    path.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(ValueError, match=message):
        LanguageModel(path)


@needs_kenlm
def test_a_gz_that_is_cut_is_named(tmp_path):
    path = arpa(tmp_path)
    path.write_bytes(gzip.compress(path.read_bytes())[:-12])
    with pytest.raises(ValueError, match=f"{path}"):
        LanguageModel(path)


@needs_kenlm
def test_case_is_folded_where_the_tokens_have_the_other(tmp_path, caplog):
    model, plain = (LanguageModel(arpa(tmp_path)) for _ in range(2))
    model.check_words(letters("ABC"))
    assert model.case == "lower"
    assert whole_score(model, "AB C") == whole_score(plain, "ab c")
    assert model.score_beginning("A") == 0.0
    plain.check_words(letters("abc"))
    assert plain.case is None
    assert not caplog.records


@needs_kenlm
def test_turkish_case_is_folded_by_its_own_rules(tmp_path):
    path = arpa(tmp_path)
    text = path.read_text().replace("ab", "kız").replace("ba", "biri")
    path.write_text(text, encoding="utf-8")
    model = LanguageModel(path)
    model.check_words(letters("KIZBİRC"))
    assert model.case == "lower"
    assert model.score_beginning("KI") == model.score_beginning("Bİ") == 0.0
    assert model.score_beginning("Kİ") < 0.0


@needs_kenlm
def test_words_that_cannot_be_spelt_are_counted_or_refused(tmp_path, caplog):
    model = LanguageModel(arpa(tmp_path))
    model.check_words(letters("ab"))
    assert "can spell 3 of 4 words, not c" in caplog.text
    model.check_words(letters("ab"))
    assert len(caplog.records) == 1
    message = "got ab, b, ba and 1 more, but the tokens are x, y"
    with pytest.raises(ValueError, match=message):
        PrefixBeamSearch(letters("xyz").tokenizer, LanguageModel(model.path))


@needs_kenlm
def test_a_binary_that_knows_no_word_is_logged(tmp_path, caplog):
    unknown, known = (LanguageModel(arpa(tmp_path)) for _ in range(2))
    for model in (unknown, known):
        model._words = []  # as of a binary
    for _ in range(1000):
        unknown.score(unknown.start(), "AB")
        known.score(known.start(), "ab")
        known.score(known.start(), "AB")
    assert len(caplog.records) == 1
    assert "it knows none of the first 500 words, such as AB" in caplog.text


@needs_kenlm
def test_phones_are_words(tmp_path):
    tokenizer = CTCTokenizer.from_tokens(["-", "ab", "c"], 0, separator=" ")
    model = LanguageModel(arpa(tmp_path))
    model.check_words(TokenToWordMapping(tokenizer))
    other = CTCTokenizer.from_tokens(["-", "a", "bab"], 0, separator=" ")
    with pytest.raises(ValueError, match="expected words that"):
        model.check_words(TokenToWordMapping(other))


def test_hot_words_are_folded_as_the_tokens_are():
    assert letters("ABC").split_text("ab c") == ["AB", "C"]
    assert letters("KIİZ").split_text("kız ki") == ["KIZ", "Kİ"]
    assert letters("abcı").split_text("CAI") == ["caı"]
    assert letters("abC").split_text("abC") == ["abC"]


def test_without_kenlm_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "kenlm", None)
    with pytest.raises(ImportError, match=r"unispeech_sb\[lm\]"):
        LanguageModel(arpa(tmp_path))


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
