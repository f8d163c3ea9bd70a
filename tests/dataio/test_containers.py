"""Every format that libsndfile writes here is read, whole or in parts; a file
that lost its end is refused; other formats go to FFmpeg's libraries."""

import shutil
import struct
import sys

import numpy as np
import pytest
import soundfile
import torch

from unispeech_sb.dataio import containers
from unispeech_sb.dataio.audio import (
    AudioError,
    read_audio,
    read_header,
)

RATE = 8000
FORMATS = [
    (form, subtype)
    for form in soundfile.available_formats()
    for subtype in soundfile.available_subtypes(form)
    if form != "RAW" and (form, subtype) != ("AIFF", "DWVW_12")
    and subtype not in ("MPEG_LAYER_I", "MPEG_LAYER_II")
    and (form, subtype) != ("WAV", "MPEG_LAYER_III")
]  # fmt: skip
"""What libsndfile writes; of the others it only reads."""

SILENT = {"IRCAM", "PAF", "PVF", "SD2", "XI"}
"""Formats in which libsndfile does not write how long the recording is."""


def noise(seconds=1.0):
    """A waveform, [N]."""
    draw = np.random.default_rng(0)
    return 0.1 * draw.normal(size=int(RATE * seconds))


def written(path, form, subtype, seconds=1.0):
    """A file of noise in a format."""
    soundfile.write(path, noise(seconds), RATE, subtype, format=form)
    return path


def cut(path, size):
    """The first bytes of a file."""
    with open(path, "rb+") as file:
        file.truncate(size)
    return path


def test_there_are_formats_to_look_at():
    assert len({form for form, _ in FORMATS}) >= 20


@pytest.mark.parametrize(("form", "subtype"), FORMATS)
def test_every_format_is_read_whole_and_in_parts(form, subtype, tmp_path):
    path = written(tmp_path / f"a.{form.lower()}", form, subtype)
    _, rate = read_header(path)  # another one in XI, which has none
    whole = read_audio(path, sample_rate=rate)
    assert abs(len(whole) - RATE) <= 1024  # ADPCM fills its last packet
    assert read_header(path) == (len(whole), rate)
    part = read_audio(path, 3001, 5000, rate)
    torch.testing.assert_close(part, whole[3001:5000], atol=2e-6, rtol=0)


@pytest.mark.parametrize(("form", "subtype"), FORMATS)
def test_what_has_lost_its_end_is_refused(form, subtype, tmp_path):
    path = written(tmp_path / f"a.{form.lower()}", form, subtype)
    content = path.read_bytes()
    draw = np.random.default_rng(1)
    shares = [0.5, 0.93, *draw.uniform(0.01, 0.99, 4)]
    for share in shares:
        path.write_bytes(content[: int(share * len(content))])
        if form in SILENT:
            continue
        with pytest.raises(AudioError) as caught:
            read_audio(path, sample_rate=RATE)
        said = str(caught.value)
        assert said.startswith(f"{path}: ")
        assert "\n" not in said
        if share > 0.2 and form != "HTK":
            assert "truncated" in said, (share, said)


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_an_ogg_file_ends_with_its_last_page(subtype, tmp_path):
    path = written(tmp_path / "a.ogg", "OGG", subtype, 8.0)
    content = path.read_bytes()
    pages = [
        place
        for place in range(len(content) - 3)
        if content[place : place + 4] == b"OggS"
    ]
    path.write_bytes(content[: pages[-1]])
    with pytest.raises(AudioError, match="does not end the stream"):
        read_audio(path)
    path.write_bytes(content[: pages[-1] + 20])
    with pytest.raises(AudioError, match="its last page is not whole"):
        read_audio(path)
    path.write_bytes(content + b"appended")
    assert len(read_audio(path, sample_rate=RATE)) == 8 * RATE


LENGTHS = {
    "WAV": (b"data", "<I", (0xFFFFFFFF, 0x7FFFF000, 0x7FFFFFFF, 0)),
    "AU": (b".snd\0\0\0\x18", ">I", (0xFFFFFFFF, 0)),
    "AIFF": (b"SSND", ">I", (0x7F000008,)),
    "W64": (b"data\xf3\xac\xd3\x11\x8c\xd1\0\xc0O\x8e\xdb\x8a", "<Q",
            (2**63 - 1, 2**64 - 1)),
}  # fmt: skip
"""Format -> what stands before the length, its form, and lengths that programs
write into pipes: FFmpeg, SoX, GStreamer."""


LENGTHS["CAF"] = (b"data", ">Q", (2**64 - 1,))
LENGTHS["RF64"] = (b"ds64\x1c\0\0\0" + bytes(8), "<Q", (0, 2**64 - 1))


@pytest.mark.parametrize("form", LENGTHS)
def test_a_file_from_a_pipe_is_read_to_its_end(form, tmp_path):
    mark, kind, lengths = LENGTHS[form]
    path = written(tmp_path / "a", form, "PCM_16")
    whole, content = read_audio(path), path.read_bytes()
    if form == "RF64":
        content = content.replace(content[20:28], bytes(8))
    place = content.index(mark) + len(mark)
    for length in lengths:
        new = struct.pack(kind, length)
        path.write_bytes(content[:place] + new + content[place + len(new) :])
        assert torch.equal(read_audio(path), whole), hex(length)


def test_a_rf64_states_its_length_where_the_chunk_cannot(tmp_path):
    path = written(tmp_path / "a.wav", "RF64", "PCM_16")
    content = path.read_bytes()
    at = content.index(b"data") + 4
    path.write_bytes(content[:at] + b"\xff" * 4 + content[at + 4 :])
    assert len(read_audio(path, sample_rate=RATE)) == RATE
    cut(path, len(content) - 2)
    with pytest.raises(AudioError, match="truncated, 2 bytes less"):
        read_audio(path)


def test_lengths_that_make_no_sense_are_passed_over(tmp_path):
    """No chunk is looked for for ever, and no length is an error by itself."""
    heads = {
        "caf": b"caff\0\1\0\0" + b"free" + struct.pack(">Q", 2**62 - 1),
        "wav": b"RIFF\0\0\0\0WAVE" + b"abcd\0\0\0\0" * 20_000,
        "w64": b"riff\x2e\x91\xcf\x11" + bytes(300),
        "voc": b"Creative Voice File\x1a\x1a\x00" + b"\x05\0\0\0" * 20_000,
        "mkv": b"\x1a\x45\xdf\xa3\0" + bytes(50),
        "au": b".snd",
        "au behind": b".snd" + struct.pack(">5I", 2**31, 0, 3, 8000, 1),
        "sph": b"NIST_1A\n",
    }
    for name, head in heads.items():
        (tmp_path / name).write_bytes(head)
        containers.missing(tmp_path / name)
        with pytest.raises(AudioError, match=f"{name}: "):
            read_audio(tmp_path / name)


def box(name, content):
    """An atom of MPEG-4."""
    return struct.pack(">I", 8 + len(content)) + name + content


M4A = box(b"ftyp", b"M4A \0\0\0\0M4A ") + box(b"mdat", bytes(500))


def test_without_a_decoder_the_error_says_what_to_install(
    tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    starts = {
        "a.m4a": M4A,
        "a.webm": b"\x1a\x45\xdf\xa3\x80" + bytes(100),
        "a.aac": b"\xff\xf1\x60\x40" + bytes(100),
        "a.wma": b"\x30\x26\xb2\x75" + bytes(100),
    }
    for name, content in starts.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(
            AudioError, match=rf"{name}: .* needs PyAV \(pip install av\) or"
        ):
            read_audio(tmp_path / name)


def test_a_cut_m4a_is_truncated_whoever_would_decode_it(tmp_path):
    (tmp_path / "a.m4a").write_bytes(M4A[:-7])
    with pytest.raises(AudioError, match="truncated, 7 bytes less"):
        read_audio(tmp_path / "a.m4a")


FFMPEG = """#!{python}
import struct, sys
arguments = sys.argv[1:]
assert arguments[arguments.index("-f") + 1] == "mov", arguments
assert arguments[arguments.index("-i") + 1].startswith("file:"), arguments
out = sys.stdout.buffer
out.write(b".snd" + struct.pack(">5I", 28, 2**32 - 1, 6, 8000, 2) + bytes(4))
out.write(struct.pack(">16000f", *[n / 16000 for n in range(16000)]))
sys.exit({code})
"""


@pytest.mark.parametrize("code", [0, 1])
def test_the_program_ffmpeg_decodes(code, tmp_path, monkeypatch):
    """A stand-in that writes what FFmpeg does; without a decoder of Python."""
    program, path = tmp_path / "ffmpeg", tmp_path / "a.m4a"
    text = FFMPEG.format(python=sys.executable, code=code)
    program.write_text(text)
    program.chmod(0o755)
    path.write_bytes(M4A)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setitem(sys.modules, "av", None)
    if code:
        with pytest.raises(AudioError, match=r"a\.m4a: truncated or damaged"):
            read_audio(path, sample_rate=RATE)
        return
    expected = (torch.arange(16000) / 16000).reshape(-1, 2).mean(1)
    whole = read_audio(path, sample_rate=RATE)
    torch.testing.assert_close(whole, expected)
    assert torch.equal(read_audio(path, 100, 900, RATE), whole[100:900])
    assert read_header(path) == (8000, RATE)


@pytest.mark.parametrize("name", ["a.m4a", "a.webm", "a.aac", "a.mp4"])
def test_pyav_decodes(name, tmp_path):
    av = pytest.importorskip("av", reason="PyAV is not installed")
    path, samples = tmp_path / name, noise(2.0).astype("float32")
    codec = "libopus" if name == "a.webm" else "aac"
    rate = 48000 if name == "a.webm" else 16000
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], "fltp", "mono")
        frame.sample_rate = rate
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    found = read_audio(path, sample_rate=rate)
    assert abs(len(found) - len(samples)) <= 4096
    assert read_header(path) == (len(found), rate)
    if name != "a.aac":  # which states no length
        cut(path, path.stat().st_size // 2)
        with pytest.raises(AudioError, match=f"{name}: truncated"):
            read_audio(path)
