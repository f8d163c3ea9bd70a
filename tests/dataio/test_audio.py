"""Tests of ``unispeech_sb.dataio.audio``."""

import struct

import numpy as np
import pytest
import soundfile
import torch
from speechbrain.dataio.preprocess import AudioNormalizer

from unispeech_sb.dataio.audio import (
    AudioError,
    check_audio,
    read_audio,
    read_header,
)

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
    assert torch.equal(wav, expected)


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
    with pytest.raises(AudioError, match="there is no such file"):
        read(tmp_path)


@pytest.mark.parametrize("read", [*READERS, read_header])
def test_unreadable_files_are_named(tmp_path, read):
    (tmp_path / "text.wav").write_text("no audio " * 100)
    with pytest.raises(AudioError, match=r"text\.wav: not readable as audio"):
        read(tmp_path / "text.wav")


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


def test_a_flac_of_unknown_length_is_an_error(tmp_path, write_noise):
    path = tmp_path / "a.flac"
    write_noise(path)
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0  # upper four of the 36 bits of STREAMINFO's length
    content[22:26] = bytes(4)
    path.write_bytes(content)
    with pytest.raises(AudioError, match="does not say how long"):
        read_audio(path)


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
