"""Words go to the speakers whose turns they are in."""

import pytest
import torch

from tests.inference.speaker_models import load_model, save_model, voice
from unispeech_sb.decoding import Transcript, Word
from unispeech_sb.inference.attribution import (
    EnrolledSpeakers,
    attribute_words,
)
from unispeech_sb.inference.embedding_store import EmbeddingStore
from unispeech_sb.inference.formats import SPEAKER_FORMATS
from unispeech_sb.inference.segments import Diarization, Turn


def transcript(*times):
    """Words w0, w1, ... with such times."""
    words = tuple(
        Word(f"w{number}", start, end, 0.5)
        for number, (start, end) in enumerate(times)
    )
    text = " ".join(word.text for word in words)
    return Transcript(text, words, 20.0)


def diarization(*turns):
    """Turns of (start, end, speaker)."""
    return Diarization("talk", 20.0, tuple(Turn(*turn, 0.9) for turn in turns))


TURNS = diarization((0, 2, "ann"), (2, 4, "bob"), (3, 6, "ann"), (9, 10, "bob"))


@pytest.mark.parametrize(
    ("words", "speakers"),
    [
        ([(0.5, 1)], ["ann"]),
        ([(1.5, 2.2)], ["ann"]),  # most of it
        ([(1.9, 2.8)], ["bob"]),
        ([(2.5, 2.9), (3.2, 3.8)], ["bob", "bob"]),  # who spoke before
        ([(4.5, 4.9), (3.2, 3.8)], ["ann", "ann"]),
        ([(6.5, 6.6), (8.7, 8.8)], ["ann", "bob"]),  # the nearest
        ([(15, 16)], ["bob"]),
        ([(1.0, 1.0)], ["ann"]),
        ([], []),
    ],
)
def test_a_word_is_of_who_speaks_most_of_it(words, speakers):
    found = attribute_words(transcript(*words), TURNS)
    assert [*found.speakers] == speakers
    assert found.text == transcript(*words).text


def test_without_turns_nobody_is_known():
    found = attribute_words(transcript((0, 1), (1, 2)), diarization())
    assert found.speakers == ("unknown", "unknown")


def test_segments_end_with_a_speaker_or_a_long_pause():
    words = transcript((0, 1), (1, 1.5), (2.2, 2.4), (9.1, 9.2), (9.3, 9.5))
    found = attribute_words(words, TURNS)
    shown = [(s.speaker, s.text, s.start_s, s.end_s) for s in found.segments]
    assert shown == [
        ("ann", "w0 w1", 0, 1.5),
        ("bob", "w2", 2.2, 2.4),
        ("bob", "w3 w4", 9.1, 9.5),
    ]
    shown = found._repr_html_()
    assert "<bdi>ann</bdi>" in shown and 'title="1.00 to 1.50 s' in shown
    assert shown.count("<p ") == 3 and "9.1 s" in shown


def test_a_notebook_shows_some_of_many_words():
    words = transcript(*((n, n + 0.5) for n in range(1000)))
    turns = [(n, n + 5.0, f"s{n % 10}") for n in range(0, 1000, 5)]
    shown = attribute_words(words, diarization(*turns))._repr_html_()
    assert shown.count("<span") == 400 and "600 more words" in shown
    empty = attribute_words(transcript(), diarization())._repr_html_()
    assert "(no words)" in empty


TALK = attribute_words(
    transcript((0, 1), (1, 1.5), (2.2, 2.4)),
    diarization((0, 2, "ann"), (2, 4, "<b>")),
)
EXPECTED = {
    "text": "ann: w0 w1\n<b>: w2\n",
    "srt": "1\n00:00:00,000 --> 00:00:01,500\nann: w0 w1\n\n"
    "2\n00:00:02,200 --> 00:00:02,400\n<b>: w2\n\n",
    "vtt": "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\n<v ann>w0 w1\n\n"
    "00:00:02.200 --> 00:00:02.400\n<v &lt;b&gt;>w2\n",
    "tsv": "0\t1500\tann\tw0 w1\n2200\t2400\t<b>\tw2\n",
    "ctm": "a 1 0.000 1.000 w0 0.500 lex ann\n"
    "a 1 1.000 0.500 w1 0.500 lex ann\na 1 2.200 0.200 w2 0.500 lex <b>\n",
    "stm": "a 1 ann 0.000 1.500 w0 w1\na 1 <b> 2.200 2.400 w2\n",
    "rttm": "SPEAKER a 1 0.000 2.000 <NA> <NA> ann <NA> <NA>\n"
    "SPEAKER a 1 2.000 2.000 <NA> <NA> <b> <NA> <NA>\n",
    "json": '{"name": "x/a.wav", "duration": 20.0, "text": "w0 w1 w2", '
    '"words": [{"word": "w0", "start": 0, "end": 1, "confidence": 0.5, '
    '"speaker": "ann"}, {"word": "w1", "start": 1, "end": 1.5, '
    '"confidence": 0.5, "speaker": "ann"}, {"word": "w2", "start": 2.2, '
    '"end": 2.4, "confidence": 0.5, "speaker": "<b>"}], '
    '"speakers": ["ann", "<b>"], "segments": [{"start": 0, "end": 1.5, '
    '"speaker": "ann", "text": "w0 w1"}, {"start": 2.2, "end": 2.4, '
    '"speaker": "<b>", "text": "w2"}]}\n',
}


@pytest.mark.parametrize("name", SPEAKER_FORMATS)
def test_each_format_says_who_speaks(name):
    assert SPEAKER_FORMATS[name].write(TALK, "x/a.wav") == EXPECTED[name]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A speaker model that tells noises by their spectrum."""
    return load_model(save_model(tmp_path_factory.mktemp("voices") / "sv"))


@pytest.fixture(scope="module")
def store(model):
    """Two people of three."""
    found = EmbeddingStore()
    for number, name in ((0, "in/ann.wav"), (1, "bob")):
        found.add(name, model.embed(voice(number, 2.0)))
    return found


def test_speakers_are_called_as_those_enrolled(model, store):
    parts = [voice(n, 2.0) for n in (1, 0, 2)]
    wav = torch.cat([*parts, torch.zeros(16000)])
    turns = [(0, 2, "speaker1"), (2, 4, "speaker2"), (4, 6, "speaker3")]
    found = diarization(*turns, (6.2, 6.4, "speaker4"))  # in silence
    others = [model.score(parts[2], store[name]) for name in store.names]
    assert max(others) < 0.9  # the voices of the test can be told apart
    named = EnrolledSpeakers(store, model, 0.95).name(found, wav)
    assert named.speakers == ["bob", "ann", "speaker3", "speaker4"]
    assert [turn[:2] for turn in named.segments] == [
        turn[:2] for turn in found.segments
    ]
    nobody = EnrolledSpeakers(store, model, 1.1).name(found, wav)
    assert nobody == found


def test_the_threshold_is_the_calibrations(model, store):
    assert EnrolledSpeakers(store, model).threshold == pytest.approx(0.5)
    model.calibration, calibration = None, model.calibration
    try:
        with pytest.raises(ValueError, match="expected a speaker model with"):
            EnrolledSpeakers(store, model)
    finally:
        model.calibration = calibration
    with pytest.raises(ValueError, match="expected some; got none"):
        EnrolledSpeakers(EmbeddingStore(), model)
