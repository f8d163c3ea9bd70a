"""The weights that are found are the best that were tried."""

import pytest

from tests.decoding.posteriors import arpa, letters, saying
from unispeech_sb.decoding import LanguageModel, PrefixBeamSearch
from unispeech_sb.decoding.tuning import ALPHAS, BETAS, tune, word_error_rate

TEXTS = ["ab c", "ab ab", "c ba ab", "b", "ab c ba"]


@pytest.fixture
def recordings():
    """Five texts that are hard to read."""
    return [
        saying(text.replace(" ", "|"), sharpness=2.2, seed=seed)
        for seed, text in enumerate(TEXTS)
    ]


@pytest.fixture
def model(tmp_path):
    """A language model of them."""
    pytest.importorskip("kenlm", reason="the extra lm is not installed")
    return LanguageModel(arpa(tmp_path, TEXTS))


def rate(recordings, **options):
    """Word error rate of a search."""
    search = PrefixBeamSearch(letters(), **options)
    found = [search.decode(row)[0].text for row in recordings]
    return word_error_rate(found, TEXTS)


@pytest.mark.slow
def test_a_language_model_of_the_texts_helps(recordings, model):
    points = []
    best, tried = tune(
        recordings, TEXTS, letters(), model, on_point=points.append
    )
    assert points == tried
    assert best.wer == min(point.wer for point in tried)
    assert len(tried) >= len(ALPHAS) * len(BETAS)
    assert len(set(tried)) == len(tried)
    assert (model.alpha, model.beta) == (best.alpha, best.beta)
    assert rate(recordings, language_model=model) == best.wer
    assert best.wer < rate(recordings)


@pytest.mark.slow
def test_tuning_again_gives_the_same_and_rounds_go_on_around_the_best(
    recordings, model
):
    _, coarse = tune(
        recordings, TEXTS, letters(), model, rounds=0, beam_size=10
    )
    assert {(p.alpha, p.beta) for p in coarse} == {
        (alpha, beta) for alpha in ALPHAS for beta in BETAS
    }
    best = min(coarse, key=lambda point: point.wer)
    _, tried = tune(recordings, TEXTS, letters(), model, rounds=1, beam_size=10)
    assert tried[: len(coarse)] == coarse
    for point in tried[len(coarse) :]:
        assert abs(point.alpha - best.alpha) <= 0.15 + 1e-6
        assert abs(point.beta - best.beta) <= 0.5


def test_word_errors_are_counted_over_all_texts():
    found, texts = ["a b", "", "c"], ["a x", "b", "c d e f"]
    assert word_error_rate(found, texts) == pytest.approx(100 * 5 / 7)


def test_what_cannot_be_scored_is_refused(recordings, model):
    with pytest.raises(ValueError, match="one text for each.*got 1 for 5"):
        tune(recordings, TEXTS[:1], letters(), model)
    with pytest.raises(ValueError, match="expected texts with words"):
        word_error_rate(["a"], [" "])
