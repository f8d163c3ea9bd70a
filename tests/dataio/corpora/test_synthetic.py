"""The embedded corpus: spoken once, the same for a seed, splits apart."""

import signal
from pathlib import Path

import pytest
import soundfile
import torch

from tests.forks import run_script
from unispeech_sb.dataio.audio import read_audio
from unispeech_sb.dataio.corpora import read_corpus, synthetic
from unispeech_sb.dataio.corpora.synthetic import (
    SPLITS,
    aligned_sentences,
    cache_corpus,
    draw_sentences,
    synthetic_keywords,
    synthetic_sentences,
)
from unispeech_sb.dataio.units import read_spans

pytest.importorskip(
    "espeakng_loader", reason="espeakng-loader is not installed"
)

MAKERS = {
    "keywords": lambda folder, seed: synthetic_keywords(
        folder, ["yes", "no"], (2, 1, 1), seed
    ),
    "sentences": lambda folder, seed: synthetic_sentences(
        folder, (3, 1, 1), (2, 1, 1), seed
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


def test_every_voice_says_every_keyword_once(tmp_path):
    records = MAKERS["keywords"](tmp_path, 5)
    said = {(record["spk_id"], record["label"]) for record in records}
    assert len(records) == len(said) == 4 * 2
    assert {record["split"]: 0 for record in records}.keys() == set(SPLITS)
    for record in records:
        assert 0.15 < record["duration"] < 1.5
        assert record["phn"][0] == {"yes": "j", "no": "n"}[record["wrd"]]


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


def test_a_count_is_needed_for_each_split(tmp_path):
    with pytest.raises(ValueError, match="each of .*got"):
        synthetic_keywords(tmp_path, ["yes"], (1, 1))


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Five sentences by three voices."""
    folder = tmp_path_factory.mktemp("aligned")
    return aligned_sentences(folder, (3, 2, 0), (2, 1, 0))


def test_no_two_splits_share_a_voice_or_a_sentence(records):
    assert [record["split"] for record in records] == [
        *(["train"] * 3), *(["valid"] * 2),
    ]  # fmt: skip
    voices = [record["spk_id"] for record in records]
    assert voices == ["v000", "v001", "v000", "v002", "v002"]
    assert len({record["wrd"] for record in records}) == 5


def test_phones_are_in_order_and_within_the_recording(records):
    for record in records:
        spans = read_spans(record)
        assert [phone for phone, _, _ in spans] == record["phn"].split()
        times = [time for _, *own in spans for time in own]
        assert times == sorted(times)
        assert 0 <= times[0] < times[-1] <= record["duration"] + 1e-3


def test_it_sounds_where_there_are_phones(records):
    for record in records:
        wav = read_audio(record["wav"])
        stops = [0.0] + [stop for _, _, stop in read_spans(record)]
        start = read_spans(record)[0][1]
        heard = wav[round(start * 16000) : round(stops[-1] * 16000)]
        assert heard.square().mean() > 10 * wav[-320:].square().mean()


def test_a_second_call_finds_the_first_ones(records, tmp_path):
    first = aligned_sentences(tmp_path, (1, 0, 0), (1, 0, 0), seed=4)
    assert first == aligned_sentences(tmp_path, (1, 0, 0), (1, 0, 0), seed=4)
    other = aligned_sentences(tmp_path, (1, 0, 0), (1, 0, 0), seed=5)
    assert other[0]["wrd"] != first[0]["wrd"]


def test_sentences_without_a_voice_are_refused(tmp_path):
    with pytest.raises(ValueError, match="valid: expected a voice for 2"):
        aligned_sentences(tmp_path, (1, 2, 0), (1, 0, 0))


def ramp():
    yield {"ID": "a", "label": "é"}, torch.linspace(-1, 1, 800)
    yield {"ID": "b", "label": "x"}, torch.linspace(0, 0.5, 1600)


def untouchable():
    raise AssertionError("the clips of a finished corpus were made again")
    yield


def test_files_hold_the_samples_and_records_say_where(tmp_path):
    records = cache_corpus(tmp_path, "ramp", [1], ramp())
    assert [record["duration"] for record in records] == [0.05, 0.1]
    assert records[0]["label"] == "é"
    info = soundfile.info(records[0]["wav"])
    assert (info.samplerate, info.subtype, info.channels) == (
        16000,
        "PCM_16",
        1,
    )
    samples = torch.from_numpy(soundfile.read(records[0]["wav"])[0])
    assert (samples - torch.linspace(-1, 1, 800)).abs().max() < 1e-4


def test_the_same_arguments_make_no_clip_again(tmp_path):
    records = cache_corpus(tmp_path, "ramp", [1], ramp())
    assert cache_corpus(tmp_path, "ramp", [1], untouchable()) == records


def test_other_arguments_do_not_mix(tmp_path):
    first = cache_corpus(tmp_path, "ramp", [1], ramp())
    second = cache_corpus(tmp_path, "ramp", [2], ramp())
    assert not {r["wav"] for r in first} & {r["wav"] for r in second}


def test_paths_are_absolute_and_follow_a_moved_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cache_corpus("old", "ramp", [1], ramp())
    (tmp_path / "old").rename(tmp_path / "new")
    records = cache_corpus("new", "ramp", [1], untouchable())
    assert records[0]["wav"].startswith(str(tmp_path / "new"))


def test_a_failed_call_leaves_nothing(tmp_path):
    def broken():
        yield from ramp()
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        cache_corpus(tmp_path, "ramp", [1], broken())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_killed_call_leaves_nothing_that_a_later_one_trusts(tmp_path):
    script = tmp_path / "killed.py"
    script.write_text(
        "import os, signal, sys, torch\n"
        "from unispeech_sb.dataio.corpora.synthetic import cache_corpus\n"
        "def clips():\n"
        "    yield {'ID': 'a', 'label': 'half'}, torch.zeros(800)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "cache_corpus(sys.argv[1], 'ramp', [1], clips())"
    )
    tmp_path = tmp_path / "corpora"
    assert run_script(script, tmp_path).returncode == signal.SIGKILL
    assert len(list(tmp_path.rglob("a.wav"))) == 1
    records = cache_corpus(tmp_path, "ramp", [1], ramp())
    assert [record["label"] for record in records] == ["é", "x"]
    assert not list(tmp_path.glob(".*"))


def test_one_process_writes_a_corpus(tmp_path):
    def clips():
        with pytest.raises(BlockingIOError, match="being written by process"):
            cache_corpus(tmp_path, "ramp", [1], ramp())
        yield from ramp()

    assert len(cache_corpus(tmp_path, "ramp", [1], clips())) == 2


def read_task(task, folder, **options):
    """Records of a task, of few sentences."""
    hparams = {"data_folder": folder, "synthetic": True, "seed": 0}
    hparams |= {"synthetic_sentences": (3, 1, 1), "synthetic_voices": (2, 1, 1)}
    return list(read_corpus(task, {**hparams, **options}))


def test_sentences_have_intents_and_tags(tmp_path):
    intents = read_task("intent_classification", tmp_path)
    slots = read_task("slot_filling", tmp_path)
    assert len(intents) == len(slots) == 5
    for intent, tagged in zip(intents, slots, strict=True):
        words = tagged["wrd"].split()
        tags = tagged["slots"].split()
        spoken = {
            part: " ".join(
                word.lower() for word, tag in zip(words, tags) if tag == part
            )
            for part in ("subject", "object", "location")
        }
        assert [intent[s] for s in ("object", "location")] == [
            spoken["object"], spoken["location"],
        ]  # fmt: skip
        assert intent["action"] in synthetic._VERBS
        whole = f"{spoken['subject']} {intent['action']} {spoken['object']}"
        assert intent["wrd"] == f"{whole} {spoken['location']}"


def test_emotions_are_spoken_by_other_voices_in_each_session(tmp_path):
    records = read_task(
        "emotion_recognition", tmp_path, synthetic_sentences=1, fold=2,
        protocol="clean",
    )  # fmt: skip
    assert len(records) == 5 * 2 * 4
    sessions = {}
    for record in records:
        sessions.setdefault(record["session"], set()).add(record["spk_id"])
    assert len(sessions) == 5
    assert len(set.union(*sessions.values())) == 10
    tested = [r for r in records if r["split"] == "test"]
    assert {r["session"] for r in tested} == {"2"}
    assert {r["label"] for r in tested} == {"neu", "hap", "ang", "sad"}
