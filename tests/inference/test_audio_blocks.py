"""Blocks of a recording are the recording; batches hold every item once."""

import ctypes
import math
import threading
from functools import partial
from operator import itemgetter
from pathlib import Path
from threading import Lock

import numpy as np
import pytest
import soundfile
import torch
from speechbrain.dataio.preprocess import AudioNormalizer

from tests.forks import run_script
from unispeech_sb.dataio.audio import AudioError
from unispeech_sb.inference import audio_blocks
from unispeech_sb.inference.audio_blocks import (
    Reading,
    ahead,
    check_blocks,
    duration_s,
    padded_batches,
    read_ahead,
    read_blocks,
    run_files,
)


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


def cut_short(suffix, share, folder):
    """The first bytes of a file."""
    path = write(folder / f"cut.{suffix}", 3, 16000)
    with open(path, "rb+") as file:
        file.truncate(int(share * path.stat().st_size))
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


def test_what_is_no_waveform_is_refused():
    bad = [torch.zeros(3), torch.tensor([1.0, float("nan")])]
    with pytest.raises(AudioError, match="stream: some samples are NaN"):
        list(check_blocks(bad, "stream"))
    with pytest.raises(AudioError, match=r"stream: .*expected shape \[N\]"):
        list(check_blocks([torch.zeros(2, 3)], "stream"))


def test_batches_hold_no_more_than_asked_but_one_item():
    lengths = [(n / 2, n) for n in range(1, 20)]
    batches = list(padded_batches(lengths, lambda pair: pair[0], 6.0))
    assert [pair for batch in batches for pair in batch] == lengths
    for batch in batches:
        assert len(batch) == 1 or batch[-1][0] * len(batch) <= 6.0
    assert max(len(batch) for batch in batches) == 3
    assert list(padded_batches([], len, 3)) == []


def test_padding_counts_whatever_the_order():
    batches = list(padded_batches(["a", "bbb", "c", "d", "ee"], len, 4))
    assert batches == [["a"], ["bbb"], ["c", "d"], ["ee"]]
    alone = list(padded_batches(["a", "bb"], lambda item: math.inf, 100))
    assert alone == [["a"], ["bb"]]


def test_a_full_batch_does_not_wait_for_the_next_item():
    read = []
    items = (read.append(n) or n for n in range(7))
    for batch in padded_batches(items, lambda item: 2, 6):
        assert read[-1] == batch[-1]


def test_freed_memory_goes_back_after_each_batch(tmp_path, monkeypatch):
    """Or resident memory grows with the variety of lengths."""
    paths = [write(tmp_path / f"{n}.wav", n, 8000) for n in (1, 2, 9)]
    events = []
    monkeypatch.setattr(
        audio_blocks, "return_memory", lambda: events.append("trim")
    )
    found = run_files(
        paths,
        lambda path: path.name,
        lambda pairs: pairs,
        lambda longer: ((path, "long") for path in longer),
        3.0,
        2.0,
    )
    events += [path.name for path, _ in found]
    assert events.count("trim") == 3
    monkeypatch.undo()
    audio_blocks.return_memory()  # runs wherever the tests do


@pytest.mark.parametrize(
    "fault",
    [RuntimeError("CUDA out of memory"), MemoryError(), OSError(5, "x")],
)
def test_a_batch_that_fails_fails_for_its_bad_file_only(fault, tmp_path):
    paths = [write(tmp_path / f"{n}.wav", 1.0, 8000) for n in range(4)]
    sizes = []

    def run_batch(pairs):
        sizes.append(len(pairs))
        if paths[2] in [path for path, _ in pairs]:
            raise fault
        return [path.name for path, _ in pairs]

    found = dict(run_files(paths, lambda path: 0, run_batch, list, 3.0, 60.0))
    assert sizes == [4, 1, 1, 1, 1]
    error = found.pop(paths[2])
    assert isinstance(error, AudioError)
    assert str(error).startswith(f"{paths[2]}: ")
    assert error.__traceback__ is None
    assert found == {path: path.name for path in found}
    assert len(found) == 3


def test_faults_of_the_program_are_not_faults_of_a_file(tmp_path):
    path = write(tmp_path / "a.wav", 1.0, 8000)
    with pytest.raises(KeyError):
        list(run_files([path], {}.__getitem__, list, list, 3.0, 60.0))


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_items_are_read_ahead_within_limits_and_in_order(workers):
    lengths, begun, used, lock = [1, 2, 3, 9, 1, 1, 4, 2], [], [], Lock()

    def read(item):
        with lock:
            begun.append(item)
        place, length = item
        ahead_by = sum(n for p, n in begun if p not in used and p != place)
        assert ahead_by + length <= 6 or ahead_by <= 9
        return place * 10

    items = [*enumerate(lengths)]
    found = []
    for result in read_ahead(items, read, workers, itemgetter(1), 6):
        found.append(result)
        used.append(result // 10)
        # what is begun and not used is no more than was asked for
        waiting = [n for p, n in begun if p not in used]
        assert sum(waiting) <= 6 or len(waiting) == 1
        assert workers or not waiting
    assert found == [n * 10 for n in range(8)]
    assert sorted(begun) == items


@pytest.mark.parametrize("workers", [0, 2])
def test_what_a_thread_raises_is_raised_at_its_place(workers):
    def read(item):
        if item == 3:
            raise KeyError(item)
        return item

    found = []
    with pytest.raises(KeyError):
        for result in read_ahead(range(9), read, workers, lambda item: 1, 4):
            found.append(result)
    assert found == [0, 1, 2]

    def items():
        yield 1
        raise OSError("gone")

    found = []
    with pytest.raises(OSError, match="gone"):
        for item in ahead(items(), workers):
            found.append(item)
    assert found == [1]
    assert no_reader()


@pytest.mark.parametrize("workers", [0, 1])
def test_one_item_is_made_ahead(workers):
    made = []
    stream = ahead((made.append(n) or n for n in range(5)), workers)
    assert [next(stream), next(stream)] == [0, 1]
    assert len(made) <= 2 + workers
    stream.close()
    assert no_reader()
    assert len(made) <= 2 + workers
    assert list(ahead(range(5), workers)) == [*range(5)]


def test_an_interruption_ends_the_readers(tmp_path):
    paths = [write(tmp_path / f"{n}.wav", 1.0, 8000) for n in range(9)]

    def interrupted(pairs):
        raise KeyboardInterrupt

    reading = Reading(workers=2)
    run = run_files(
        paths, lambda path: path, interrupted, list, 3.0, 2.0, None, reading
    )
    with pytest.raises(KeyboardInterrupt):
        list(run)
    assert no_reader()


def no_reader():
    """Whether no thread reads ahead any more."""
    return not [t for t in threading.enumerate() if "read-ahead" in t.name]


@pytest.mark.parametrize("workers", [0, 2])
def test_files_go_through_once_by_their_lengths(workers, tmp_path):
    paths = [
        write(tmp_path / f"{n}.wav", seconds, 8000)
        for n, seconds in enumerate((3.0, 0.5, 0.6, 9.0, 1.0, 0.7))
    ]
    broken, absent = not_audio(tmp_path), tmp_path / "absent.wav"
    unread = paths[5]
    batches, progress = [], []

    def read(path):
        if path == unread:
            raise AudioError(f"{path}: damaged")
        return path.name

    def run_batch(pairs):
        batches.append([name for _, name in pairs])
        return [name.upper() for _, name in pairs]

    def run_long(longer):
        return ((path, "long") for path in longer)

    given = [absent, *paths, broken]
    found = list(
        run_files(
            given, read, run_batch, run_long, 3.0, 2.4, progress.append,
            Reading(workers=workers),
        )
    )  # fmt: skip
    assert batches == [["1.wav", "2.wav"], ["4.wav"], ["0.wav"]]
    order = [absent, broken, unread, *(paths[n] for n in (1, 2, 4, 0, 3))]
    assert [path for path, _ in found] == order
    assert all(isinstance(found[n][1], AudioError) for n in range(3))
    names = ["1.WAV", "2.WAV", "4.WAV", "0.WAV", "long"]
    assert [result for _, result in found[3:]] == names
    assert progress == pytest.approx([1.8, 1.0, 3.0])


def test_compiled_convolutions_do_not_pile_up():
    if not hasattr(ctypes.CDLL(None), "mallinfo2"):
        pytest.skip("needs glibc 2.33")
    script = Path(__file__).with_name("compiled_convolutions.py")
    result = run_script(script)  # in which nothing else takes memory
    assert result.returncode == 0, result.stderr
    # by default 1,024 stay; 300 lengths are 5 MB or more
    assert float(result.stdout) < 2
