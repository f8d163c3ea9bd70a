"""Tests unispeech_sb.dataio.corpora.cache."""

import subprocess
import sys

import pytest
import soundfile
import torch

from unispeech_sb.dataio.corpora.cache import cache_corpus


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


def test_a_killed_call_leaves_nothing_that_a_later_one_trusts(tmp_path):
    code = (
        "import os, signal, sys, torch\n"
        "from unispeech_sb.dataio.corpora.cache import cache_corpus\n"
        "def clips():\n"
        "    yield {'ID': 'a', 'label': 'half'}, torch.zeros(800)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "cache_corpus(sys.argv[1], 'ramp', [1], clips())"
    )
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path)])
    assert run.returncode == -9
    assert len(list(tmp_path.rglob("a.wav"))) == 1
    records = cache_corpus(tmp_path, "ramp", [1], ramp())
    assert [record["label"] for record in records] == ["é", "x"]
