"""Blocks of a recording are the recording."""

from functools import partial

import numpy as np
import pytest
import soundfile
import torch
from speechbrain.dataio.preprocess import AudioNormalizer

from unispeech_sb.dataio.audio import AudioError
from unispeech_sb.inference.recordings import duration_s, read_blocks


def write(path, seconds, rate, channels=1, **options):
    """A file of noise."""
    samples = np.random.default_rng(0).normal(
        scale=0.1, size=(int(seconds * rate), channels)
    )
    soundfile.write(path, samples, rate, **options)
    return path


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000])
@pytest.mark.parametrize("seconds", [0.05, 2.0, 3.7001])
def test_blocks_equal_the_file_read_at_once(rate, seconds, tmp_path):
    path = write(tmp_path / "a.wav", seconds, rate, channels=2)
    samples, _ = soundfile.read(path, dtype="float32")
    normalizer = AudioNormalizer(16000)
    whole = normalizer(torch.from_numpy(samples), rate)
    blocks = list(read_blocks(path, normalizer, block_s=0.5))
    assert len(blocks) >= seconds // 0.6
    torch.testing.assert_close(torch.cat(blocks), whole, atol=1e-6, rtol=0)


def test_blocks_are_small(tmp_path):
    path = write(tmp_path / "a.flac", 20, 44100)
    blocks = list(read_blocks(path, AudioNormalizer(16000), block_s=1.0))
    assert max(map(len, blocks)) <= 16160
    assert sum(map(len, blocks)) == 320000


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "aiff"])
def test_what_soundfile_reads_is_read(suffix, tmp_path):
    path = write(tmp_path / f"a.{suffix}", 2, 16000)
    blocks = read_blocks(path, AudioNormalizer(16000))
    assert sum(map(len, blocks)) == 32000
    assert duration_s(path) == 2.0


def test_blocks_may_be_shorter_than_what_they_share(tmp_path):
    path = write(tmp_path / "a.wav", 0.5, 8000)
    normalizer = AudioNormalizer(16000)
    (whole,) = read_blocks(path, normalizer)
    blocks = list(read_blocks(path, normalizer, block_s=0.001))
    assert len(blocks) > 50
    torch.testing.assert_close(torch.cat(blocks), whole, atol=1e-6, rtol=0)


def test_a_tensor_is_taken_as_it_is():
    wav = torch.randn(5000, dtype=torch.float64)
    blocks = list(read_blocks(wav, AudioNormalizer(16000), block_s=0.1))
    assert [len(block) for block in blocks] == [1600, 1600, 1600, 200]
    assert torch.equal(torch.cat(blocks), wav.float())
    with pytest.raises(ValueError, match=r"expected shape \[N\]; got \[2, 9"):
        next(read_blocks(torch.randn(2, 9), AudioNormalizer(16000)))


def cut_short(suffix, share, folder):
    """The first bytes of a file."""
    path = write(folder / f"cut.{suffix}", 3, 16000)
    with open(path, "rb+") as file:
        file.truncate(int(share * path.stat().st_size))
    return path


def without_length(folder):
    """A FLAC stream, as encoders write it into a pipe."""
    path = write(folder / "stream.flac", 2, 16000)
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0  # the 36 bits of STREAMINFO that count samples
    content[22:26] = bytes(4)
    path.write_bytes(content)
    return path


def not_audio(folder):
    """A text."""
    (folder / "a.wav").write_text("hello")
    return folder / "a.wav"


def empty(folder):
    """No bytes."""
    (folder / "e.wav").touch()
    return folder / "e.wav"


def not_finite(folder):
    """A sample that is no number."""
    samples = np.array([0.0, np.nan] * 1000, dtype=np.float32)
    soundfile.write(folder / "n.wav", samples, 16000, subtype="FLOAT")
    return folder / "n.wav"


def absent(folder):
    """Nothing."""
    return folder / "absent.wav"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (partial(cut_short, "flac", 0.5), "truncated"),
        (partial(cut_short, "flac", 0.95), "truncated"),
        (partial(cut_short, "mp3", 0.5), "truncated"),
        (partial(cut_short, "wav", 0.5), "truncated"),
        (partial(cut_short, "wav", 0.9999), "truncated"),
        (without_length, "does not say how long"),
        (not_audio, "not readable as audio"),
        (empty, "the file is empty"),
        (not_finite, "NaN or infinite"),
        (absent, "there is no such file"),
    ],
)
def test_a_bad_file_is_named(make, said, tmp_path):
    path = make(tmp_path)
    with pytest.raises(AudioError, match=said) as caught:
        list(read_blocks(path, AudioNormalizer(16000)))
    assert str(caught.value).startswith(f"{path}: ")
