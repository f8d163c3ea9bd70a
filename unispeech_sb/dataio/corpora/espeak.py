"""Drives the formant synthesiser espeak-ng through ctypes: text in, speech at
16 kHz out, with the times of its words and phones.

espeak-ng is free software under the GPL-3.0. It is no part of this package:
the optional package ``espeakng-loader`` brings library and data
(``pip install 'unispeech_sb[demo]'``). What it speaks serves demos, tests and
examples; it is never reported as a result.
"""

import _ctypes
import ctypes
import string
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

SAMPLE_RATE = 16000

LANGUAGES = (
    "en",
    "en-us",
    "en-us-nyc",
    "en-029",
    "en-gb-scotland",
    "en-gb-x-rp",
    "en-gb-x-gbclan",
    "en-gb-x-gbcwmd",
)
"""The accents that ``draw_voices`` draws from; "en" is British."""

# Left out of what the package holds: effects (whisper, robots, croak, echo)
# and near copies of a voice that is here.
VARIANTS = tuple(
    """
    f1 f2 f3 f4 f5 m1 m2 m3 m4 m5 m6 m7 m8 adam Alex Alicia Andrea Annie
    announcer aunty belinda benjamin boris david Diogo edward gustave ian iven3
    john kaukovalta klatt klatt2 klatt3 Lee linda marcelo Mario max Michael
    michel Mike norbert Nguyen quincy rob robert sandro shelby steph
    travis victor zac
    """.split()
)
"""The speaker variants that ``draw_voices`` draws from."""

# Names and values of espeak-ng's speak_lib.h.
_OUTPUT_SYNCHRONOUS = 2
_OPTIONS = 0x8003  # report phones, as IPA, and do not exit() on an error
_WORD, _END, _PHONEME, _LIST_TERMINATED = 1, 5, 7, 0
_RATE, _PITCH, _RANGE = 1, 3, 4
_CHARS_UTF8, _POS_CHARACTER = 1, 1


class _EventId(ctypes.Union):
    _fields_ = [
        ("number", ctypes.c_int),
        ("name", ctypes.c_char_p),
        ("string", ctypes.c_char * 8),
    ]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    ]


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.POINTER(ctypes.c_short),
    ctypes.c_int,
    ctypes.POINTER(_Event),
)


class Voice(NamedTuple):
    """How espeak-ng shall sound.

    Language or accent and speaker variant are espeak-ng's names, such as
    "en-us" and "f2"; the pitch is 0 to 99, and 50 leaves the variant's own; its
    range is 0 (monotonous) to 99, the speed 80 to 450 words a minute.
    """

    language: str = "en-us"
    variant: str = "m1"
    pitch: int = 50
    pitch_range: int = 50
    speed: int = 160


class Span(NamedTuple):
    """A word as written, or a phone in IPA without stress marks; in seconds."""

    text: str
    start_s: float
    stop_s: float


class Speech(NamedTuple):
    """What ``speak`` returns: a waveform at 16 kHz, [N], its words and phones.

    Words that espeak-ng runs together ("of the") are one span; pauses are left
    out of the phones.
    """

    samples: torch.Tensor
    words: list[Span]
    phones: list[Span]


def draw_voices(num_voices, seed=0):
    """Draws voices; no two share both accent and variant.

    The voices of a smaller number are the first of a larger.
    """
    num_pairs = len(LANGUAGES) * len(VARIANTS)
    if not 0 <= num_voices <= num_pairs:
        raise ValueError(
            f"expected 0 to {num_pairs} voices to draw, got {num_voices}"
        )
    generator = torch.Generator().manual_seed(seed)

    def draw(low, high):
        size = (num_pairs,)
        return torch.randint(low, high, size, generator=generator).tolist()

    pairs = torch.randperm(num_pairs, generator=generator).tolist()
    # Drawn for all pairs, so that fewer voices are the first of more.
    prosodies = zip(draw(25, 76), draw(30, 91), draw(115, 181), strict=True)
    voices = []
    for pair, prosody in list(zip(pairs, prosodies, strict=True))[:num_voices]:
        variant, language = divmod(pair, len(LANGUAGES))
        voices.append(Voice(LANGUAGES[language], VARIANTS[variant], *prosody))
    return voices


def speak(text, voice=None):
    """Speaks a text, in which digits and abbreviations are read out.

    The same text and voice give the same samples, whatever was spoken before:
    each call loads the library anew, as it keeps the phase of its slow pitch
    flutter between utterances and offers no way to reset it, and seeds its
    random numbers, the C library's ``rand`` too. Nothing else in the process
    may hold the library. Not for several threads at once; not on Windows.
    """
    voice = voice or Voice()
    with _fresh_library() as (library, rate):
        _set_voice(library, voice)
        pcm, events = _synthesise(library, text)
    words, phones = _read_events(events, text, rate)
    if not phones:
        raise ValueError(f"expected a text that can be spoken, got {text!r}")
    samples = np.frombuffer(pcm, dtype=np.int16).astype(np.float32) / 32768
    from scipy.signal import resample_poly

    common = np.gcd(SAMPLE_RATE, rate)
    samples = resample_poly(samples, SAMPLE_RATE // common, rate // common)
    return Speech(torch.from_numpy(samples).clamp_(-1, 1), words, phones)


@contextmanager
def _fresh_library():
    """Loads espeak-ng with pristine global state and unloads it afterwards."""
    package = _find_package()
    library = ctypes.CDLL(package.get_library_path())
    data = package.get_data_path()
    try:
        rate = library.espeak_Initialize(
            _OUTPUT_SYNCHRONOUS, 0, data.encode(), _OPTIONS
        )
        if rate <= 0:
            raise RuntimeError(f"espeak-ng could not read its data in {data}")
        # Noise comes from two generators: its own, which the time of day has
        # seeded, for breathy voices, and the C library's for Klatt's kind 6.
        library.espeak_ng_SetRandSeed(ctypes.c_long(1))
        ctypes.CDLL(None).srand(1)
        yield library, rate
    finally:
        library.espeak_Terminate()
        _ctypes.dlclose(library._handle)


def _find_package():
    """Imports the package that brings the library."""
    try:
        import espeakng_loader
    except ImportError as error:
        raise ImportError(
            "synthetic speech needs the package espeakng-loader:"
            " pip install 'unispeech_sb[demo]'"
        ) from error
    return espeakng_loader


def _set_voice(library, voice):
    # espeak-ng says nothing of an unknown variant and clips unknown numbers.
    """Chooses the voice, which has to exist."""
    variants = Path(_find_package().get_data_path()) / "voices" / "!v"
    if not (variants / voice.variant).is_file():
        raise ValueError(f"espeak-ng has no speaker variant {voice.variant!r}")
    in_range = 0 <= min(voice.pitch, voice.pitch_range) and (
        max(voice.pitch, voice.pitch_range) <= 99 and 80 <= voice.speed <= 450
    )
    if not in_range:
        raise ValueError(
            "expected pitch and pitch_range of 0 to 99 and a speed of 80 to"
            f" 450, got {voice}"
        )
    name = f"{voice.language}+{voice.variant}".encode()
    if library.espeak_ng_SetVoiceByName(name) != 0:
        raise ValueError(f"espeak-ng has no language {voice.language!r}")
    library.espeak_SetParameter(_RATE, voice.speed, 0)
    library.espeak_SetParameter(_PITCH, voice.pitch, 0)
    library.espeak_SetParameter(_RANGE, voice.pitch_range, 0)


def _synthesise(library, text):
    """Returns 16-bit samples as bytes, and the events as
    (type, text position, sample, phone) in the order of time."""
    chunks, events = [], []

    def collect(wav, num_samples, event):
        if wav and num_samples:
            chunks.append(ctypes.string_at(wav, 2 * num_samples))
        index = 0
        while event[index].type != _LIST_TERMINATED:
            kind, position = event[index].type, event[index].text_position
            name = event[index].id.string if kind == _PHONEME else b""
            # espeak-ng cuts a name at 8 bytes, be it within a letter.
            name = name.decode(errors="ignore")
            events.append((kind, position, event[index].sample, name))
            index += 1
        return 0

    callback = _Callback(collect)
    library.espeak_SetSynthCallback(callback)
    data = text.encode()
    library.espeak_Synth(
        data,
        ctypes.c_size_t(len(data) + 1),
        0,
        _POS_CHARACTER,
        0,
        _CHARS_UTF8,
        None,
        None,
    )
    return b"".join(chunks), events


def _read_events(events, text, rate):
    """Turns events into spans of words and of phones."""
    # A phone lasts until the next one, a pause, or the end.
    times = [event[2] for event in events if event[0] in (_PHONEME, _END)]
    stops = iter(times[1:] + times[-1:])
    # A word reaches to where the next one begins: "didn't" is announced as
    # "didn", and "of the" as "of".
    begins = [event[1] - 1 for event in events if event[0] == _WORD]
    ends = iter(begins[1:] + [len(text)])
    words, phones, name = [], [], None
    for kind, position, sample, phone in events:
        if kind == _WORD:
            name = text[position - 1 : next(ends)]
            name = name.strip(string.whitespace + '.,;:!?"()')
            words.append(None)
        if kind not in (_PHONEME, _END):
            continue
        stop_s = next(stops) / rate
        # An empty name is a pause, "(de)" a change of language.
        if not phone or phone.startswith("("):
            continue
        phone = phone.strip("ˈˌ").replace(":", "ː")
        phones.append(Span(phone, sample / rate, stop_s))
        start_s = words[-1].start_s if words[-1] else sample / rate
        words[-1] = Span(name, start_s, stop_s)
    return [word for word in words if word], phones
