"""A recognizer aligns recordings of any length with what is spoken."""

from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch

from tests.inference.models import recognizer, recut, uneven_speech
from unispeech_sb.dataio.audio import AudioError
from unispeech_sb.decoding import ForcedAligner
from unispeech_sb.inference.formats import ALIGNMENT_FORMATS

TEXT = "Ab, ba!\n(cab) a"


@pytest.fixture(scope="module")
def asr():
    """A recognizer of the letters a, b and c."""
    return recognizer(window_s=2.0, context_s=0.5)


def test_the_alignment_is_that_of_the_models_log_posteriors(asr):
    wav = uneven_speech(1.5)
    aligner = ForcedAligner(asr.tokenizer, 0.02, TEXT)
    aligner.push(asr.log_probs(wav))
    assert asr.align_file(wav, TEXT) == aligner.finish(1.5)
    assert asr.align_file(wav.numpy(), TEXT) == asr.align_file(wav, TEXT)


def test_a_long_recording_is_aligned_as_a_short_one(asr):
    wav = uneven_speech(7.0)
    seconds = []
    found = asr.align_file(wav, TEXT, on_progress=seconds.append)
    assert len(seconds) > 3 and sum(seconds) == pytest.approx(7.0, abs=0.1)
    whole = recut(asr, 20.0, 0.5).align_file(wav, TEXT)
    assert [w.text for w in found.words] == ["Ab,", "ba!", "(cab)", "a"]
    for word, other in zip(found.words, whole.words, strict=True):
        assert abs(word.start_s - other.start_s) <= 0.04
    assert found.duration_s == 7.0


def test_files_give_the_same_alone_and_in_a_batch(asr, tmp_path):
    texts = {}
    for number, seconds in enumerate((1.0, 1.3, 5.0, 0.9, 6.0)):
        path = str(tmp_path / f"{number}.wav")
        soundfile.write(path, uneven_speech(seconds).numpy(), 16000)
        texts[path] = ["ab", "ba", "cab cab", "c", "a b c"][number]
    texts[str(tmp_path / "gone.wav")] = "ab"
    found = dict(asr.align_files(texts, batch_seconds=20.0))
    assert set(found) == set(texts)
    assert isinstance(found.pop(str(tmp_path / "gone.wav")), AudioError)
    for path, alignment in found.items():
        alone = asr.align_file(path, texts[path])
        for word, other in zip(alignment.words, alone.words, strict=True):
            assert word.confidence == pytest.approx(other.confidence, rel=1e-4)
            assert replace(word, confidence=other.confidence) == other
        assert alignment.duration_s == alone.duration_s


def test_one_bad_text_is_not_the_others(asr, tmp_path, monkeypatch):
    paths = [str(tmp_path / f"{name}.wav") for name in "abcd"]
    for path in paths:
        soundfile.write(path, uneven_speech(1.0).numpy(), 16000)
    texts = ["ab", "5", "abc " * 60, "ba"]
    sizes = []
    encode = asr._windows.encode

    def watched(wavs, lens):
        sizes.append(len(wavs))
        return encode(wavs, lens)

    monkeypatch.setattr(asr._windows, "encode", watched)
    found = dict(asr.align_files(dict(zip(paths, texts, strict=True))))
    assert sizes == [3]  # what cannot be spelt is not computed, once the rest
    assert "cannot spell 5" in str(found[paths[1]])
    assert "49 frames can hold" in str(found[paths[2]])
    assert [w.text for w in found[paths[3]].words] == ["ba"]


def test_errors_name_the_recording(asr):
    with pytest.raises(AudioError, match="^waveform: text, line 1"):
        asr.align_file(torch.randn(16000), "x")
    with pytest.raises(AudioError, match="^waveform: text: expected what is"):
        asr.align_file(torch.randn(16000), 5)
    with pytest.raises(AudioError, match="gone.wav: there is no such file"):
        asr.align_file("gone.wav", "ab")


def write(asr, name, text=TEXT):
    """One of the formats of an alignment."""
    found = asr.align_file(uneven_speech(1.5), text)
    return found, ALIGNMENT_FORMATS[name].write(found, "x/talk 1.wav")


def test_subtitles_are_the_lines_of_the_text(asr):
    found, srt = write(asr, "srt")
    blocks = [block.split("\n") for block in srt.strip().split("\n\n")]
    assert [block[2:] for block in blocks] == [["Ab, ba!"], ["(cab) a"]]
    assert [block[0] for block in blocks] == ["1", "2"]
    start, end = blocks[1][1].split(" --> ")
    assert start.endswith(f"{found.words[2].start_s:06.3f}".replace(".", ","))
    assert end.endswith(f"{found.words[3].end_s:06.3f}".replace(".", ","))
    _, vtt = write(asr, "vtt")
    assert vtt.startswith("WEBVTT\n\n00:00:") and "\n(cab) a\n" in vtt
    _, tsv = write(asr, "tsv")
    assert [row.split("\t")[2] for row in tsv.splitlines()] == [
        "Ab, ba!",
        "(cab) a",
    ]


def test_a_text_of_one_line_is_cut_into_subtitles(asr):
    text = " ".join(["ab -"] * 25)
    found = asr.align_file(uneven_speech(4.0), text)
    srt = ALIGNMENT_FORMATS["srt"].write(found, "a")
    lines = [line for block in srt.strip().split("\n\n")
             for line in block.split("\n")[2:]]  # fmt: skip
    assert len(lines) > 2 and max(map(len, lines)) <= 42
    assert " ".join(lines) == text


def read_textgrid(text):
    """Name -> (start, end, text) of a TextGrid."""
    tiers, times = {}, {}
    for line in text.splitlines():
        key, _, value = line.strip().partition(" = ")
        if key == "name":
            tier = tiers.setdefault(value.strip('"'), [])
        elif key in ("xmin", "xmax"):
            times[key] = float(value)
        elif key == "text":
            name = value[1:-1].replace('""', '"')
            tier.append((times["xmin"], times["xmax"], name))
    return tiers


def test_a_textgrid_tiles_the_recording(asr):
    found, text = write(asr, "textgrid", 'Ab "ba" cab')
    tiers = read_textgrid(text)
    assert [*tiers] == ["words", "letters"]
    for tier in tiers.values():
        assert tier[0][0] == 0 and tier[-1][1] == 1.5
        for one, other in zip(tier, tier[1:]):
            assert one[1] == other[0] and one[0] < one[1]
    named = [entry for entry in tiers["words"] if entry[2]]
    assert named == [
        (word.start_s, word.end_s, word.text) for word in found.words
    ]
    spelt = [entry[2] for entry in tiers["letters"] if entry[2]]
    assert "".join(spelt) == "abbacab"
    sizes = [int(line.split()[-1]) for line in text.splitlines()
             if "intervals: size" in line]  # fmt: skip
    assert sizes == [len(tier) for tier in tiers.values()]


def test_the_times_are_ordered_and_within_the_recording(asr):
    found = asr.align_file(uneven_speech(3.0), TEXT)
    times = [t for word in found.words for t in (word.start_s, word.end_s)]
    assert times == sorted(times) and times[-1] <= 3.0
    inner = [
        t for row in found.letters for w in row for t in (w.start_s, w.end_s)
    ]
    assert inner == sorted(inner)
    assert np.mean([word.confidence for word in found.words]) <= 1
