"""Tests of ``unispeech_sb.dataio.audio``."""

import os
import signal
import struct

import numpy as np
import pytest
import soundfile
import torch
from speechbrain.dataio.preprocess import AudioNormalizer
from torchaudio.transforms import Resample

from unispeech_sb.dataio import audio
from unispeech_sb.dataio.audio import (
    AudioError,
    Resampler,
    attempt,
    check_audio,
    read_audio,
    read_header,
    write_audio,
)
from unispeech_sb.dataio.containers import is_recording

READERS = [read_audio, check_audio]


def cut(path, share):
    """Keep the first part of a file."""
    with open(path, "rb+") as file:
        file.truncate(int(share * file.seek(0, 2)))
    return path


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_samples_come_back_as_written(tmp_path, write_noise, name):
    path = write_noise(tmp_path / name)
    expected, _ = soundfile.read(path, dtype="float32")
    wav = read_audio(path)
    assert wav.dtype == torch.float32
    assert torch.equal(wav, torch.from_numpy(expected))
    assert check_audio(path) == 1.0
    assert read_header(path) == (16000, 16000)


def test_channels_and_rates_convert_as_speechbrain_does(tmp_path, write_noise):
    path = write_noise(tmp_path / "a.wav", 8000, rate=8000, channels=2)
    samples, rate = soundfile.read(path, dtype="float32")
    expected = AudioNormalizer(16000)(torch.from_numpy(samples), rate)
    wav = read_audio(path)
    assert wav.shape == (16000,)
    torch.testing.assert_close(wav, expected, atol=1e-7, rtol=0)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 24000, 32000, 44100])
@pytest.mark.parametrize("sample_rate", [8000, 16000])
def test_usual_rates_convert_to_the_bit_as_speechbrain_does(rate, sample_rate):
    for num_samples in (1, 7, rate // 3, rate + 1):
        wav = torch.randn(num_samples)
        expected = AudioNormalizer(sample_rate)(wav, rate)
        found = Resampler(rate, sample_rate).finish(wav)
        assert torch.equal(found, expected), num_samples


def test_lengths_are_rounded_as_torchaudio_does():
    """In float32, so that a last sample may be missing."""
    num_samples = 441 * 600 + pow(160, -1, 441)  # 1/441 of a sample too long
    wav = torch.randn(num_samples)
    found = Resampler(44100, 16000).finish(wav)
    assert len(found) == 160 * num_samples // 441
    assert torch.equal(found, AudioNormalizer(16000)(wav, 44100))


@pytest.mark.slow
@pytest.mark.parametrize("rate", [4001, 5512, 12345, 44101])
def test_other_rates_convert_by_the_same_filters(rate, monkeypatch):
    """Where torchaudio's table is affordable: in bands of 2000 Hz."""
    sample_rate = 16000 if rate < 44101 else 10
    wav = torch.randn(rate // 2)
    expected = Resample(rate, sample_rate)(wav)
    monkeypatch.setattr(audio, "_TABLE", 0)
    found = Resampler(rate, sample_rate).finish(wav)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("rate", [1000, 8000, 16000, 22050, 44101, 383999])
@pytest.mark.parametrize("num_blocks", [2, 9, 40])
def test_blocks_convert_to_what_the_whole_does(rate, num_blocks):
    wav = torch.randn(rate // 2)
    whole = Resampler(rate, 16000).finish(wav)
    resampler = Resampler(rate, 16000)
    size = -(-len(wav) // num_blocks)
    parts = [resampler.push(block) for block in wav.split(size)]
    found = torch.cat([*parts, resampler.finish()])
    torch.testing.assert_close(found, whole, atol=1e-6, rtol=0)
    assert len(resampler._buffer) <= rate + 2 * resampler._reach + 2


def test_no_rate_makes_a_table(monkeypatch):
    """The largest tensor is of the order of the samples, at any rate."""
    sizes, arange = [], torch.arange
    monkeypatch.setattr(
        torch, "arange", lambda *a: (sizes.append(a[-1]), arange(*a))[1]
    )
    for rate in (11027, 44101, 191999, 383999):
        Resampler(rate, 16000).finish(torch.randn(rate // 10))
    assert max(sizes) <= 16000 * 2


@pytest.mark.parametrize("rate", [1, 999, 384001, 2**31 - 1])
def test_rates_that_are_none_are_refused(tmp_path, rate):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(100), 8000)
    content = bytearray(path.read_bytes())
    content[24:28] = struct.pack("<I", rate)
    path.write_bytes(content)
    with pytest.raises(AudioError, match=f"from 1000 to 384000 Hz, got {rate}"):
        read_header(path)


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_a_stretch_equals_that_part_of_the_whole(tmp_path, write_noise, name):
    path = write_noise(tmp_path / name)
    whole = read_audio(path)
    assert torch.equal(read_audio(path, 5000, 9000), whole[5000:9000])
    assert torch.equal(read_audio(path, start=15000), whole[15000:])
    assert torch.equal(read_audio(path, stop=1000), whole[:1000])
    assert check_audio(path, 5000, 9000) == 0.25


def test_of_a_stretch_only_the_stretch_is_decoded(
    tmp_path, write_noise, monkeypatch
):
    path = write_noise(tmp_path / "a.flac", 64000)
    decoded = []
    read = soundfile.SoundFile.read

    def spy(file, frames=-1, **kwargs):
        samples = read(file, frames, **kwargs)
        decoded.append(len(samples))
        return samples

    monkeypatch.setattr(soundfile.SoundFile, "read", spy)
    read_audio(path, 32000, 33000)
    assert decoded == [1000]


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("stretch", [(0, 16001), (-1, 500), (700, 700)])
def test_a_stretch_outside_the_file_is_an_error(
    tmp_path, write_noise, read, stretch
):
    path = write_noise(tmp_path / "a.wav")
    with pytest.raises(AudioError, match=r"a\.wav: expected a stretch of its"):
        read(path, *stretch)


@pytest.mark.parametrize("read", [*READERS, read_header])
def test_missing_files_are_named(tmp_path, read):
    with pytest.raises(AudioError, match=r"gone\.wav: there is no such file"):
        read(tmp_path / "gone.wav")
    with pytest.raises(AudioError, match="a recording; it is a folder"):
        read(tmp_path)
    os.mkfifo(tmp_path / "pipe.wav")  # which is read once, and no wait is due
    with pytest.raises(AudioError, match=r"pipe\.wav: .*; it is a pipe"):
        read(tmp_path / "pipe.wav")


@pytest.mark.parametrize("read", [*READERS, read_header])
def test_unreadable_files_are_named(tmp_path, read):
    (tmp_path / "text.wav").write_text("no audio " * 100)
    with pytest.raises(AudioError, match=r"text\.wav: not readable as audio"):
        read(tmp_path / "text.wav")
    (tmp_path / "text.mp3").write_text("no audio " * 100)
    with pytest.raises(AudioError, match="not readable as audio: Format not"):
        read(tmp_path / "text.mp3")
    soundfile.write(tmp_path / "rate.wav", np.zeros(900), 16000)
    content = bytearray((tmp_path / "rate.wav").read_bytes())
    content[24:28] = bytes(4)  # the rate
    (tmp_path / "rate.wav").write_bytes(content)
    with pytest.raises(AudioError, match="not readable as audio: Format not"):
        read(tmp_path / "rate.wav")


@pytest.mark.parametrize("read", [*READERS, read_header])
def test_empty_files_and_recordings_are_named(tmp_path, read):
    (tmp_path / "zero.wav").touch()
    with pytest.raises(AudioError, match=r"zero\.wav: the file is empty"):
        read(tmp_path / "zero.wav")
    soundfile.write(tmp_path / "none.wav", np.zeros(0), 16000)
    with pytest.raises(AudioError, match=r"none\.wav: the recording is empty"):
        read(tmp_path / "none.wav")


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_truncated_files_are_named(tmp_path, write_noise, read, name, share):
    path = cut(write_noise(tmp_path / name, 48000), share)
    with pytest.raises(AudioError, match=rf"{name}: truncated"):
        read(path)


def test_a_wav_that_lost_one_sample_is_truncated(tmp_path, write_noise):
    path = write_noise(tmp_path / "a.wav", subtype="PCM_16")
    with open(path, "rb+") as file:
        file.truncate(file.seek(0, 2) - 2)
    with pytest.raises(AudioError, match="truncated, 2 bytes less"):
        read_audio(path)


@pytest.mark.parametrize("placeholder", [0xFFFFFFFF, 0x7FFFF000])
def test_a_wav_from_a_pipe_is_not_truncated(tmp_path, write_noise, placeholder):
    path = tmp_path / "a.wav"
    whole = read_audio(write_noise(path))
    content = path.read_bytes()
    at = content.index(b"data") + 4
    size = struct.pack("<I", placeholder)
    path.write_bytes(content[:at] + size + content[at + 4 :])
    assert torch.equal(read_audio(path), whole)


def test_chunks_after_the_samples_do_not_matter(tmp_path, write_noise):
    path = tmp_path / "a.wav"
    whole = read_audio(write_noise(path))
    path.write_bytes(path.read_bytes() + b"LIST\x04\x00\x00\x00INFO")
    assert torch.equal(read_audio(path), whole)


def with_length(path, count):
    """Puts a number of samples into a FLAC's STREAMINFO: 36 bits."""
    content = bytearray(path.read_bytes())
    content[21] = content[21] & 0xF0 | count >> 32
    content[22:26] = struct.pack(">I", count & (2**32 - 1))
    path.write_bytes(content)


def test_a_flac_of_unknown_length_is_read_to_its_end(tmp_path, write_noise):
    path = tmp_path / "a.flac"
    whole = read_audio(write_noise(path))
    with_length(path, 0)
    assert torch.equal(read_audio(path), whole)
    assert torch.equal(read_audio(path, 100, 900), whole[100:900])
    assert read_header(path) == (16000, 16000)
    with pytest.raises(
        AudioError, match="its 16000 samples, got start 5, stop"
    ):
        read_audio(path, 5, 16001)
    with pytest.raises(AudioError, match="truncated"):
        read_audio(cut(path, 0.6))


def test_a_length_in_a_header_allocates_nothing(tmp_path, write_noise):
    path = tmp_path / "a.flac"
    write_noise(path)
    with_length(path, 2**36 - 1)
    for read in (read_audio, check_audio):
        with pytest.raises(AudioError, match="only 16000 can be decoded"):
            read(path)


def bare_mpeg(path, write_noise, num_samples=48000):
    """An MP3 without the frame that says how long it is, as FFmpeg writes it
    into a pipe: its bit rate changes, so that its size says nothing."""
    draw = np.random.default_rng(0)
    loudness = np.repeat(draw.choice([0, 1e-3, 0.3], 12), num_samples // 12)
    wav = draw.normal(size=num_samples) * loudness
    soundfile.write(path, wav, 16000)
    content = path.read_bytes()
    frame = content.index(b"Info") if b"Info" in content else 0
    frame = frame or content.index(b"Xing")
    start = content.index(b"\xff\xf3", frame)
    path.write_bytes(content[start:])


def test_an_mp3_without_its_length_is_read_to_its_end(tmp_path, write_noise):
    path = tmp_path / "a.mp3"
    bare_mpeg(path, write_noise)
    num_samples, rate = read_header(path)
    assert rate == 16000
    assert 48000 <= num_samples <= 48000 + 3 * 1152
    assert len(read_audio(path)) == num_samples
    with soundfile.SoundFile(path) as file:
        assert file.frames != num_samples  # what libsndfile guesses
    tag = b"ID3\4\0\0\0\0\1\2" + bytes(130)
    path.write_bytes(tag + tag + path.read_bytes() + b"TAG" + bytes(125))
    assert read_header(path) == (num_samples, rate)


def test_memory_that_fails_is_an_error_of_the_file(
    tmp_path, write_noise, monkeypatch
):
    path = write_noise(tmp_path / "a.wav")
    for fault, said in (
        (MemoryError("Unable to allocate 256 GiB"), "256 GiB"),
        (MemoryError(), "not enough memory"),
        (RuntimeError("alloc_cpu.cpp:124\nframe #0"), "cpp:124$"),
        (OSError(5, "Input/output error"), "a.wav: Input/output error$"),
    ):

        def read(*arguments, fault=fault, **options):
            raise fault

        monkeypatch.setattr(soundfile.SoundFile, "read", read)
        with pytest.raises(AudioError, match=said):
            read_audio(path)


def test_names_that_are_not_unicode_are_read(tmp_path, write_noise):
    name = os.fsdecode(b"caf\xe9.wav")
    try:
        (tmp_path / name).touch()
    except OSError:
        pytest.skip("this file system takes Unicode only")
    write_noise(tmp_path / "a.wav")
    os.replace(tmp_path / "a.wav", tmp_path / name)
    assert len(read_audio(tmp_path / name)) == 16000


def test_names_that_are_too_long_are_those_of_no_file(tmp_path):
    with pytest.raises(AudioError, match="there is no such file"):
        read_audio(tmp_path / ("a" * 300 + ".wav"))


def test_samples_without_a_header_are_refused(tmp_path, write_noise):
    (tmp_path / "a.raw").write_bytes(bytes(1000))
    with pytest.raises(AudioError, match="samples without a header"):
        read_audio(tmp_path / "a.raw")


def test_one_bad_file_is_its_own_error():
    def work(name):
        if name == "bad":
            raise OSError(36, "File name too long")
        return name.upper()

    assert attempt("good", work, "good") == "GOOD"
    found = attempt("bad", work, "bad")
    assert isinstance(found, AudioError)
    assert (str(found), found.__traceback__) == (
        "bad: File name too long",
        None,
    )
    with pytest.raises(KeyError):
        attempt("a", {}.__getitem__, "a")


@pytest.mark.parametrize("name", ["a.wav", "b/A.WAV", "x.Flac", "y.opus"])
def test_listers_take_recordings(name):
    assert is_recording(name)


@pytest.mark.parametrize(
    "name", ["._a.wav", ".DS_Store", "b/.wav", ".trash/a.wav", "a.txt"]
)
def test_listers_pass_over_hidden_files_and_others(name):
    assert not is_recording(name)


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_must_be_finite(tmp_path, read, value):
    samples = np.linspace(-1, 1, 16000)
    samples[800] = value
    soundfile.write(tmp_path / "a.wav", samples, 16000, subtype="FLOAT")
    with pytest.raises(AudioError, match=r"a\.wav: some samples are NaN"):
        read(tmp_path / "a.wav", allow_silence=True)


@pytest.mark.parametrize("read", READERS)
def test_less_than_one_frame_is_an_error(tmp_path, write_noise, read):
    short = write_noise(tmp_path / "short.wav", 399)
    with pytest.raises(AudioError, match=r"short\.wav: too short.* 400 "):
        read(short)
    read(short, min_samples=399)
    read(write_noise(tmp_path / "enough.wav", 400))


@pytest.mark.parametrize("read", READERS)
def test_least_length_counts_after_resampling(tmp_path, write_noise, read):
    read(write_noise(tmp_path / "enough.wav", 200, rate=8000))
    with pytest.raises(AudioError, match="too short"):
        read(write_noise(tmp_path / "short.wav", 199, rate=8000))


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("level", [0.0, 0.25])
def test_silence_is_an_error_unless_allowed(tmp_path, read, level):
    soundfile.write(tmp_path / "a.wav", np.full(16000, level), 16000)
    with pytest.raises(AudioError, match=r"a\.wav: all silent"):
        read(tmp_path / "a.wav")
    read(tmp_path / "a.wav", allow_silence=True)


def test_channels_that_cancel_are_silence(tmp_path):
    left = np.linspace(-0.5, 0.5, 16000)
    samples = np.stack([left, -left], axis=1)
    soundfile.write(tmp_path / "a.wav", samples, 16000, subtype="FLOAT")
    with pytest.raises(AudioError, match="all silent"):
        check_audio(tmp_path / "a.wav")


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_a_written_recording_is_whole_or_not_there(tmp_path, suffix):
    resource = pytest.importorskip("resource")
    path, samples = tmp_path / f"a.{suffix}", np.sin(np.arange(8000))
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        with pytest.raises(OSError, match=f"a.{suffix}"):
            write_audio(path, samples, 16000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert not any(tmp_path.iterdir())
    write_audio(path, samples, 16000)
    found = soundfile.info(path)
    assert (found.subtype, found.samplerate) == ("PCM_16", 16000)
    np.testing.assert_allclose(read_audio(path), samples, atol=2**-14)
