"""Recordings that a batch may hold, good and bad, for the tests of commands."""

import os
import struct

import numpy as np
import soundfile


def hostile_files(folder):
    """Names of files -> what their error says; "" for those that are good."""
    noise = 0.1 * np.random.default_rng(0).normal(size=12_000)
    samples = {
        "good.wav": (noise, 16000, "WAV", "PCM_16"),
        "gsm.WAV": (noise, 8000, "WAV", "GSM610"),
        "tracker.xi": (noise, 44100, "XI", "DPCM_16"),
        "prime.wav": (noise, 44101, "WAV", "PCM_16"),
        "cut.aiff": (noise, 16000, "AIFF", "PCM_16"),
        "cut-short.ogg": (noise, 16000, "OGG", "VORBIS"),
        "claims.flac": (noise, 16000, "FLAC", "PCM_16"),
        "slow.wav": (noise, 1, "WAV", "PCM_16"),
        "none.wav": (noise[:0], 16000, "WAV", "PCM_16"),
        "nan.wav": (noise * np.nan, 16000, "WAV", "FLOAT"),
        os.fsdecode(b"caf\xe9.wav"): (noise, 16000, "WAV", "PCM_16"),
    }
    for name, (wav, rate, form, subtype) in samples.items():
        plain = folder / "plain"  # soundfile takes names in Unicode only
        soundfile.write(plain, wav, rate, subtype, format=form)
        content = plain.read_bytes()
        if name.startswith("cut"):
            content = content[: len(content) // 2]
        if name == "claims.flac":  # 2**36 - 1 samples
            content = content[:21] + b"\xff" * 5 + content[26:]
        (folder / name).write_bytes(content)
    (folder / "text.wav").write_text("no audio")
    (folder / "a.m4a").write_bytes(struct.pack(">I4s", 8, b"ftyp"))
    said = {
        "cut.aiff": "truncated",
        "cut-short.ogg": "truncated",
        "claims.flac": "truncated",
        "slow.wav": "sampling rate from 1000",
        "none.wav": "the recording is empty",
        "nan.wav": "NaN",
        "text.wav": "not readable as audio",
        "a.m4a": "not readable as audio",
        "gone.wav": "there is no such file",
        "g" * 300 + ".wav": "there is no such file",
    }
    names = [*said, *[name for name in samples if name not in said]]
    return {str(folder / name): said.get(name, "") for name in names}


def check_report(files, stderr, command):
    """Asserts that the end of a run names what failed, and nothing else."""
    bad = {name: said for name, said in files.items() if said}
    lines = stderr.splitlines()
    first = f"{command}: {len(bad)} of {len(files)} files failed:"
    assert lines[-len(bad) - 1] == first
    for line, (name, said) in zip(lines[-len(bad) :], bad.items()):
        assert line.startswith(f"  {name}: ")
        assert said in line
    assert "Traceback" not in stderr, stderr
