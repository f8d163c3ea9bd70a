"""Tests unispeech_sb.dataio.corpora.synthetic."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
import soundfile
import torch

from unispeech_sb.dataio.corpora import synthetic
from unispeech_sb.dataio.corpora.noise import Noise
from unispeech_sb.dataio.corpora.synthetic import (
    SPLITS,
    Turns,
    draw_sentences,
    synthetic_keywords,
    synthetic_overlaps,
    synthetic_sentences,
)

pytest.importorskip(
    "espeakng_loader", reason="espeakng-loader is not installed"
)

MAKERS = {
    "keywords": lambda folder, seed: synthetic_keywords(
        folder, ["yes", "no"], (2, 1, 1), seed, Noise()
    ),
    "sentences": lambda folder, seed: synthetic_sentences(
        folder, (3, 1, 1), (2, 1, 1), seed, Noise()
    ),
    "overlaps": lambda folder, seed: synthetic_overlaps(
        folder, (1, 1, 1), (3, 2, 2), seed
    ),
}


def read(record):
    samples, rate = soundfile.read(record["wav"], dtype="float32")
    assert rate == 16000
    return torch.from_numpy(samples)


def contents(records):
    return [Path(record["wav"]).read_bytes() for record in records]


@pytest.fixture
def spoken(monkeypatch):
    """Collects the texts that are spoken, and the voices."""
    calls = []

    def counting_speak(text, voice):
        calls.append((text, voice))
        return real_speak(text, voice)

    real_speak = synthetic.speak
    monkeypatch.setattr(synthetic, "speak", counting_speak)
    return calls


@pytest.mark.parametrize("kind", MAKERS)
def test_the_same_seed_gives_the_same_bytes(kind, tmp_path):
    make = MAKERS[kind]
    first, second, other = (
        contents(make(tmp_path / name, seed))
        for name, seed in (("a", 5), ("b", 5), ("c", 6))
    )
    assert first == second
    assert not set(first) & set(other)


@pytest.mark.parametrize("kind", MAKERS)
def test_a_second_call_speaks_nothing(kind, tmp_path, spoken):
    records = MAKERS[kind](tmp_path, 5)
    assert len(spoken) > 0
    spoken.clear()
    assert MAKERS[kind](tmp_path, 5) == records
    assert spoken == []
    MAKERS[kind](tmp_path, 6)
    assert len(spoken) > 0


@pytest.mark.parametrize("kind", MAKERS)
def test_no_two_splits_share_a_voice_and_every_clip_is_sound(kind, tmp_path):
    records = MAKERS[kind](tmp_path, 5)
    voices = {split: set() for split in SPLITS}
    for record in records:
        voices[record["split"]].update(record["spk_id"].split())
        samples = read(record)
        assert len(samples) == round(record["duration"] * 16000) > 400
        assert samples.abs().max().item() == pytest.approx(0.7, abs=1e-3)
        assert samples.square().mean().sqrt() > 0.03
    assert all(voices.values())
    assert sum(map(len, voices.values())) == len(set.union(*voices.values()))
    assert len({record["ID"] for record in records}) == len(records)


def test_each_speaker_and_the_babble_have_voices_of_their_own(tmp_path, spoken):
    MAKERS["keywords"](tmp_path, 5)
    of_words = [voice for text, voice in spoken if text in ("yes", "no")]
    of_babble = [voice for text, voice in spoken if text not in ("yes", "no")]
    assert len(of_words) == 4 * 2
    assert len(set(of_words)) == 4
    assert len(set(of_babble)) == 6
    assert not set(of_words) & set(of_babble)


def test_every_voice_says_every_keyword_once(tmp_path):
    records = MAKERS["keywords"](tmp_path, 5)
    said = {(record["spk_id"], record["label"]) for record in records}
    assert len(records) == len(said) == 4 * 2
    assert {record["split"]: 0 for record in records}.keys() == set(SPLITS)
    for record in records:
        assert 0.15 < record["duration"] < 1.5
        assert record["phn"][0] == {"yes": "j", "no": "n"}[record["wrd"]]


def test_noise_changes_the_clips_only(tmp_path):
    words, counts = ["yes"], (1, 1, 1)
    clean = synthetic_keywords(tmp_path, words, counts)
    noisy = synthetic_keywords(tmp_path, words, counts, 0, Noise(("pink",)))
    for ours, theirs in zip(clean, noisy, strict=True):
        assert ours | {"wav": ""} == theirs | {"wav": ""}
        assert not torch.equal(read(ours), read(theirs))


@pytest.mark.parametrize("words", [[], ["yes", "yes"]])
def test_keywords_must_be_distinct(words, tmp_path):
    with pytest.raises(ValueError, match="distinct keywords"):
        synthetic_keywords(tmp_path, words)


def test_no_split_repeats_a_sentence_of_another(tmp_path):
    records = synthetic_sentences(tmp_path, (4, 2, 2), (2, 1, 1))
    assert len({record["wrd"] for record in records}) == len(records) == 8
    for record in records:
        assert record["label"] in record["wrd"].split()
        assert len(record["phn"].split()) > len(record["wrd"].split())


def test_drawn_sentences_repeat_with_the_seed_and_end():
    sentences = draw_sentences(4096, seed=1)
    assert len(set(sentences)) == 4096
    assert sentences[:9] == draw_sentences(9, seed=1) != draw_sentences(9)
    with pytest.raises(ValueError, match="4096 sentences to draw, got 4097"):
        draw_sentences(4097)


@pytest.fixture(scope="module")
def mixtures(tmp_path_factory):
    turns = Turns(num_speakers=3, num_turns=7, gap_s=(-3.0, 0.3))
    folder = tmp_path_factory.mktemp("mixtures")
    return synthetic_overlaps(folder, (3, 0, 0), (4, 0, 0), 0, turns)


def test_segments_overlap_but_never_with_their_own_speaker(mixtures):
    num_overlaps = 0
    for record in mixtures:
        segments = json.loads(record["segments"])
        speakers = {segment["spk_id"] for segment in segments}
        assert (len(segments), len(speakers)) == (7, 3)
        assert record["spk_id"].split() == sorted(speakers)
        assert segments[-1]["stop"] <= record["duration"]
        for spk_id in speakers:
            own = [s for s in segments if s["spk_id"] == spk_id]
            for before, after in pairwise(own):
                assert before["stop"] <= after["start"] + 1e-4
        for before, after in pairwise(segments):
            num_overlaps += after["start"] < before["stop"]
    assert num_overlaps >= 5


def test_sound_is_where_the_segments_say(tmp_path):
    turns = Turns(num_turns=4, gap_s=(0.5, 1.0))
    (record,) = synthetic_overlaps(tmp_path, (1, 0, 0), (2, 0, 0), 0, turns)
    samples = read(record)
    speech = torch.zeros(len(samples), dtype=torch.bool)
    segments = json.loads(record["segments"])
    speakers = [segment["spk_id"] for segment in segments]
    assert all(map(str.__ne__, speakers, speakers[1:]))
    for segment in segments:
        start, stop = segment["start"] * 16000, segment["stop"] * 16000
        speech[round(start) : round(stop) + 800] = True
        assert samples[round(start) : round(stop)].square().mean() > 1e-3
    assert (~speech).sum() > 4 * 0.4 * 16000
    assert samples[~speech].abs().max() < 0.01


def test_a_mixture_needs_enough_voices_and_turns(tmp_path):
    with pytest.raises(ValueError, match="at least 2 voices for train, got 1"):
        synthetic_overlaps(tmp_path, (1, 0, 0), (1, 0, 0))
    with pytest.raises(ValueError, match="speakers, got Turns"):
        synthetic_overlaps(tmp_path, turns=Turns(num_speakers=7))
    assert list(tmp_path.iterdir()) == []


def test_a_count_is_needed_for_each_split(tmp_path):
    with pytest.raises(ValueError, match="each of .*got"):
        synthetic_keywords(tmp_path, ["yes"], (1, 1))
