"""Tests unispeech_sb.dataio.corpora.espeak."""

import builtins
import ctypes
import hashlib
import subprocess
import sys

import pytest
import torch

from unispeech_sb.dataio.corpora.espeak import (
    LANGUAGES,
    VARIANTS,
    Voice,
    draw_voices,
    speak,
)

pytest.importorskip(
    "espeakng_loader", reason="espeakng-loader is not installed"
)

# What outlasts an utterance unless undone: f1's flutter; the noise of klatt's
# voice; f5's breath, seeded by the clock; Reed's breath, from rand().
RESTLESS = tuple(Voice("en", name) for name in ("f1", "klatt", "f5", "Reed"))
TEXT = "six thick shells"


def digest(speech):
    return hashlib.sha256(speech.samples.numpy().tobytes()).hexdigest()


@pytest.mark.parametrize("voice", RESTLESS)
def test_speech_does_not_depend_on_what_was_spoken_before(voice):
    first = digest(speak(TEXT, voice))
    speak("something else", Voice("en-029", "m3"))
    ctypes.CDLL(None).rand()
    assert digest(speak(TEXT, voice)) == first


@pytest.mark.slow
def test_a_fresh_process_speaks_the_same_samples():
    code = (
        "import hashlib\n"
        "from unispeech_sb.dataio.corpora.espeak import Voice, speak\n"
        f"for voice in {RESTLESS}:\n"
        f"    samples = speak({TEXT!r}, voice).samples.numpy()\n"
        "    print(hashlib.sha256(samples.tobytes()).hexdigest())"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == [digest(speak(TEXT, v)) for v in RESTLESS]


@pytest.mark.slow
def test_every_accent_and_variant_speaks_and_sounds_different():
    voices = [Voice(language, "m1") for language in LANGUAGES]
    voices += [
        Voice("en-us", variant) for variant in VARIANTS if variant != "m1"
    ]
    speeches = [speak("no water in seven houses", voice) for voice in voices]
    assert len({digest(speech) for speech in speeches}) == len(voices) == 60
    for speech in speeches:
        assert speech.samples.dtype == torch.float32
        assert 0.8 < len(speech.samples) / 16000 < 2.5
        assert speech.samples.square().mean().sqrt() > 0.01


def test_a_higher_pitch_raises_the_fundamental_frequency():
    def pitch_hz(pitch):
        voice = Voice("en-us", "m1", pitch=pitch, pitch_range=0)
        samples = speak("aaa", voice).samples[2000:6000]
        spectrum = torch.fft.rfft(samples, n=32000).abs().square()
        lags = torch.fft.irfft(spectrum)[40:270]
        return 16000 / (40 + lags.argmax().item())

    low, high = pitch_hz(20), pitch_hz(80)
    assert low < 90 < 110 < high


def test_a_higher_speed_takes_less_time():
    slow, fast = (speak("a test", Voice(speed=speed)) for speed in (120, 200))
    assert len(fast.samples) < 0.8 * len(slow.samples)


def test_spans_are_in_order_within_the_clip_and_words_hold_their_phones():
    speech = speak("She didn't put the blue boat away. Why?", Voice("en-us"))
    words = "She didn't put the blue boat away Why".split()
    assert [word.text for word in speech.words] == words
    for spans in (speech.words, speech.phones):
        times = [time for span in spans for time in (span.start_s, span.stop_s)]
        assert times == sorted(times)
        assert 0 <= times[0] < times[-1] <= len(speech.samples) / 16000
    did = speech.words[1]
    inside = [
        phone.text
        for phone in speech.phones
        if did.start_s <= phone.start_s < did.stop_s
    ]
    assert inside == ["d", "ɪ", "d", "n", "t"]


def test_a_pause_belongs_to_no_word():
    speech = speak("Yes. No.", Voice())
    (_, _, stop_s), (_, start_s, _) = speech.words
    gap = speech.samples[round(stop_s * 16000) + 800 : round(start_s * 16000)]
    assert start_s - stop_s > 0.2
    assert gap.abs().max() < 0.01 < speech.samples.abs().max()


def test_words_said_in_one_breath_are_one_span():
    words = speak("one of the boys", Voice()).words
    assert [word.text for word in words] == ["one", "of the", "boys"]


def test_letters_beyond_ascii_do_not_shift_word_boundaries():
    words = speak("a café there", Voice()).words
    assert [word.text for word in words] == ["a", "café", "there"]


def test_drawn_voices_differ_and_repeat_with_the_seed():
    voices = draw_voices(200, seed=3)
    assert len({voice[:2] for voice in voices}) == 200
    assert voices == draw_voices(200, seed=3) != draw_voices(200, seed=4)
    assert voices[:7] == draw_voices(7, seed=3)


def test_more_voices_than_there_are_is_an_error():
    with pytest.raises(ValueError, match="424 voices to draw, got 425"):
        draw_voices(425)


@pytest.mark.parametrize(
    ("voice", "message"),
    [
        (Voice(language="xx"), "no language 'xx'"),
        (Voice(variant="zz"), "no speaker variant 'zz'"),
        (Voice(pitch=100), "got Voice.*pitch=100"),
        (Voice(speed=20), "got Voice.*speed=20"),
    ],
)
def test_an_unknown_voice_is_an_error(voice, message):
    with pytest.raises(ValueError, match=message):
        speak("yes", voice)


@pytest.mark.parametrize("text", ["", " ", "..."])
def test_a_text_without_sound_is_an_error(text):
    with pytest.raises(ValueError, match="can be spoken"):
        speak(text)


def test_a_missing_package_is_named_with_the_command(monkeypatch):
    real_import = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name == "espeakng_loader":
            raise ModuleNotFoundError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=r"'unispeech_sb\[demo\]'"):
        speak("yes")
