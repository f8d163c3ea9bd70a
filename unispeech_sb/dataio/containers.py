"""What a file of audio says of itself, format by format: where its samples end,
and who can decode it where libsndfile cannot.

libsndfile takes the end of a file for the end of its samples in most formats,
whatever the header says, so that half a recording looks like a whole one.
``missing`` compares the two. A program that writes into a pipe cannot know the
length and puts zero or a very high number there, which counts as unknown.
"""

import functools
import importlib
import io
import itertools
import os
import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

SUFFIXES = (".aif", ".aiff", ".flac", ".mp3", ".ogg", ".opus", ".sph", ".wav")
"""Endings of names, in small letters, by which folders are searched."""

OTHER_SUFFIXES = (".aac", ".au", ".caf", ".m4a", ".mp4", ".oga", ".w64",
                  ".webm", ".wma")  # fmt: skip
"""Endings of what is read, too, but seldom is a corpus."""

_UNKNOWN_32 = 0x7F000000
"""Least of the lengths in 32 bits that stand for an unknown one: SoX writes
0x7F000000 (AIFF) and 0x7FFFF000 (WAV), FFmpeg 0xFFFFFFFF."""
_UNKNOWN_64 = 2**62
"""The same in 64 bits: 2**63 - 1 (W64 of FFmpeg), or a negative number."""
_MOST_CHUNKS, _MOST_TAGS = 10_000, 100
_PAGE_BYTES = 65307
"""Most bytes of a page of Ogg."""
ENDLESS = 2**40
"""Bytes, or samples, of a file whose end is not known."""


def is_recording(
    path: str | Path, suffixes: tuple[str, ...] = SUFFIXES
) -> bool:
    """Whether a lister takes a path below its folder: of audio by its suffix,
    and not hidden, as the ``._name`` that macOS leaves beside each file."""
    parts = Path(path).parts
    hidden = any(part.startswith(".") for part in parts)
    return not hidden and Path(path).suffix.lower() in suffixes


def recordings_below(
    folder: str | Path, suffixes: tuple[str, ...] = SUFFIXES
) -> list[Path]:
    """The recordings in a folder, at any depth, sorted."""
    return sorted(
        file
        for file in Path(folder).rglob("*")
        if is_recording(file.relative_to(folder), suffixes) and file.is_file()
    )


def missing(path: str | Path) -> str | None:
    """Says what a file lacks of what its header states; None if nothing."""
    size, end = os.path.getsize(path), _end(path)
    if isinstance(end, str):
        return end
    if not isinstance(end, int) or end <= size:
        return None
    return f"{end - size} bytes less than its header says"


class _Unstated(NamedTuple):
    """A length that a header leaves open: its place, its form as of ``struct``,
    and the place where the samples begin."""

    place: int
    form: str
    start: int


class _Filled(io.FileIO):
    """A file that reads as if its header stated its length."""

    def __init__(self, path: str | Path, unstated: _Unstated) -> None:
        super().__init__(path)
        self._place = unstated.place
        length = os.path.getsize(path) - unstated.start
        self._new = struct.pack(unstated.form, length)

    def readinto(self, buffer: Any) -> int:
        """Reads into a buffer; gives the number of bytes."""
        first = self.tell()
        count = super().readinto(buffer) or 0
        for place, byte in enumerate(self._new, self._place - first):
            if 0 <= place < count:
                buffer[place : place + 1] = bytes([byte])
        return count


class _Endless(io.FileIO):
    """A file whose size libsndfile cannot find out: it would guess from it how
    long an MP3 without a Xing header is, and read no further."""

    _at_end = False

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Goes to a place; the end is far away."""
        self._at_end = whence == os.SEEK_END
        return ENDLESS if self._at_end else super().seek(offset, whence)

    def tell(self) -> int:
        """The place."""
        return ENDLESS if self._at_end else super().tell()


def without_length(path: str | Path) -> io.FileIO | None:
    """A file as libsndfile has to see it to read all of it, where the file does
    not say how long it is; None where libsndfile can have the file itself."""
    if _is_bare_mpeg(path):
        return _Endless(path)
    end = _end(path)
    if not isinstance(end, _Unstated):
        return None
    most = 2**32 - 1 if end.form[1] == "I" else _UNKNOWN_64
    fits = end.start < os.path.getsize(path) < most
    return _Filled(path, end) if fits else None


def _is_bare_mpeg(path):
    """Whether a file is an MP3 that does not say how long it is."""
    with open(path, "rb") as file:
        start = 0
        for _ in range(_MOST_TAGS):
            file.seek(start)
            head = file.read(10)
            if head[:3] != b"ID3" or len(head) < 10:
                break
            size = sum((b & 127) << 7 * n for n, b in enumerate(head[:5:-1]))
            start += 10 + size
        file.seek(start)
        frame = file.read(256)
    if not re.match(rb"\xff[\xe2-\xe7\xf2-\xf7\xfa-\xff]", frame):
        return False
    return not re.search(b"Xing|Info|VBRI", frame)


def _end(path):
    """Where a file should end, what it lacks, or the length it leaves open."""
    with open(path, "rb") as file:
        head = file.read(1024)
        if head[:4] == b"OggS":
            return _missing_pages(file, os.path.getsize(path))
        find_end = _row_of(_ENDS, head)
        try:
            return None if find_end is None else find_end(file, head)
        except (struct.error, IndexError, ValueError):
            return None  # the header itself is cut: libsndfile refuses it


def _row_of(table, head):
    """The entry of a table whose key is how a file begins; None without."""
    for magic, row in table.items():
        if re.match(magic, head, re.DOTALL):
            return row
    return None


def _missing_pages(file, size):
    """Whether an Ogg file ends in a whole page that is marked as the last."""
    file.seek(max(0, size - 2 * _PAGE_BYTES))
    tail = file.read()
    page = tail[tail.rfind(b"OggS") :]
    sizes = page[27 : 27 + page[26]] if len(page) > 26 else b""
    if len(page) < 27 or len(page) < 27 + page[26] + sum(sizes):
        return "its last page is not whole"
    return None if page[5] & 4 else "its last page does not end the stream"


def _chunks(file, start, form, align=1, counts_itself=False):
    """Yields name, offset of the content and its length of each chunk."""
    header = struct.Struct(form)
    for _ in range(_MOST_CHUNKS):
        file.seek(start)
        content = file.read(header.size)
        if len(content) < header.size:
            return
        name, length = header.unpack(content)
        inside = length - header.size if counts_itself else length
        begin = start + header.size
        yield name, begin, inside
        if not 0 <= inside < _UNKNOWN_64:
            return
        start = begin + inside + -(begin + inside - start) % align
        if start >= _UNKNOWN_64:
            return


def _known(length, least_unknown=_UNKNOWN_32):
    """Whether a length that is stated is one."""
    return 0 < length < least_unknown


def _riff(file, head, form="<4sI"):
    """End of the samples of a WAV file; RF64 has the length in ``ds64``."""
    long, place = None, 0
    for name, begin, length in _chunks(file, 12, form, align=2):
        if name == b"ds64":
            place = begin + 8
            file.seek(place)
            (long,) = struct.unpack("<Q", file.read(8))
        elif name == b"data" and long is not None and length == 2**32 - 1:
            known = _known(long, _UNKNOWN_64)
            return begin + long if known else _Unstated(place, "<Q", begin)
        elif name == b"data" and not length and _is_chunk(file, begin, form):
            return begin
        elif name == b"data":
            field = _Unstated(begin - 4, form[0] + "I", begin)
            return begin + length if _known(length) else field
    return None


def _is_chunk(file, start, form):
    """Whether what stands at a place is the rest of a file in chunks."""
    for name, begin, length in _chunks(file, start, form, align=2):
        if not re.fullmatch(rb"[\w ]{4}", name) or begin + length > _size(file):
            return False
    return True


def _size(file):
    """Bytes of an open file."""
    return os.fstat(file.fileno()).st_size


def _form(file, head):
    """End of the samples of AIFF, AIFF-C and 8SVX."""
    for name, begin, length in _chunks(file, 12, ">4sI", align=2):
        if name in (b"SSND", b"BODY"):
            return begin + length if _known(length) else None
    return None


def _wave64(file, head):
    """End of the samples of Sony's W64, whose chunks have names of 16 bytes."""
    for name, begin, length in _chunks(file, 40, "<16sQ", 8, True):
        if name[:4] == b"data":
            return begin + length if _known(length, _UNKNOWN_64) else None
    return None


def _core_audio(file, head):
    """End of the last chunk of Apple's CAF: the table of packets, without
    which nothing can be decoded, may follow the samples."""
    end = None
    for name, begin, length in _chunks(file, 8, ">4sQ"):
        if name == b"data" and length == 2**64 - 1:
            return _Unstated(begin - 8, ">Q", begin)
        if not re.fullmatch(rb"[\w ]{4}", name):
            return end  # something was appended
        end = begin + length
    return end


def _sun(file, head, order=">"):
    """End of the samples of Sun's AU."""
    start, length = struct.unpack(f"{order}II", head[4:12])
    field = _Unstated(8, f"{order}I", start)
    return start + length if _known(length) else field


def _sphere(file, head):
    """End of the samples of NIST's SPHERE, whose header is a text."""
    numbers = dict(re.findall(rb"\n(\w+) -(?:i|s1) (\d+)", head))
    count = int(numbers.get(b"sample_count", 0))
    width = int(numbers.get(b"sample_n_bytes", 0))
    channels = int(numbers.get(b"channel_count", 1))
    if not count or not width or b"shorten" in head:
        return None
    return int(head.split(b"\n")[1]) + count * width * channels


def _creative(file, head):
    """End of the last block of Creative's VOC; the length has 24 bits."""
    (start,) = struct.unpack("<H", head[20:22])
    for _ in range(_MOST_CHUNKS):
        file.seek(start)
        block = file.read(4)
        if len(block) < 4 or block[0] == 0:
            return start
        start += 4 + int.from_bytes(block[1:], "little")
    return None


def _psion(file, head):
    """End of the samples of Psion's WVE."""
    return 32 + struct.unpack(">I", head[18:22])[0]


def _instrument(file, head):
    """End of the samples of FastTracker's XI."""
    (length,) = struct.unpack("<I", head[298:302])
    return 338 + length if _known(length) else None


def _audio_visual_research(file, head):
    """End of the samples of AVR, whose flag of stereo is all ones."""
    stereo, bits, count = struct.unpack(">hH10xI", head[12:30])
    return 128 + count * bits // 8 * (2 if stereo else 1)


def _akai(file, head):
    """End of the samples of Akai's MPC 2000."""
    stereo, count = head[21], struct.unpack("<I", head[30:34])[0]
    return 42 + 2 * count * (1 + stereo)


def _dump(file, head):
    """End of the last packet of MIDI's sample dump."""
    width = -(-head[6] // 7)  # bytes of 7 bits a sample
    count = head[10] | head[11] << 7 | head[12] << 14
    return 21 + 127 * -(-count // (120 // width))


def _matlab4(file, head):
    """End of the last matrix of a level 4 MAT file."""
    start, order = 0, ">" if head[0] == 0 and head[3] else "<"
    for _ in range(_MOST_CHUNKS):
        file.seek(start)
        content = file.read(20)
        if len(content) < 20:
            return start
        kind, rows, columns, _, name = struct.unpack(f"{order}5I", content)
        width = (8, 4, 4, 2, 2, 1)[kind % 100 // 10]
        start += 20 + name + rows * columns * width
    return None


def _matlab5(file, head):
    """End of the matrix ``wavedata`` of a level 5 MAT file."""
    order = "<" if head[126:128] == b"IM" else ">"
    start = head.index(b"wavedata") + 16
    return start + struct.unpack(f"{order}I", head[start - 4 : start])[0]


_ATOMS = b"ftyp|styp|moov|moof|mdat|mfra|free|skip|wide|udta|uuid|meta|sidx"


def _atoms(file, head):
    """End of the last atom of MPEG-4; 64 bits follow a length of 1."""
    start = 0
    for _ in range(_MOST_CHUNKS):
        file.seek(start)
        content = file.read(16)
        if not re.match(_ATOMS, content[4:8]):
            return start  # the end, or something was appended
        (length,) = struct.unpack(">I", content[:4])
        if length == 1:
            (length,) = struct.unpack(">Q", content[8:16])
        if length < 8:  # 0: up to the end of the file
            return None
        start += length
    return None


def _matroska(file, head):
    """End of the segment of Matroska or WebM; all ones are an unknown end."""
    end = 0
    for name in (b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"):
        file.seek(end)
        content = file.read(12)
        if not content.startswith(name) or content[4] == 0:
            return None
        width = 9 - content[4].bit_length()
        length = int.from_bytes(content[4 : 4 + width], "big")
        length &= (1 << 7 * width) - 1
        if length == (1 << 7 * width) - 1:
            return None
        end += 4 + width + length
    return end


_ENDS: dict[bytes, Callable[[IO[bytes], bytes], int | _Unstated | None]] = {
    b"RIFF|RF64": _riff,
    b"RIFX": functools.partial(_riff, form=">4sI"),
    b"FORM": _form,
    b"riff\x2e\x91\xcf\x11": _wave64,
    b"caff": _core_audio,
    rb"\.snd": _sun,
    rb"dns\.": functools.partial(_sun, order="<"),
    b"NIST_1A": _sphere,
    b"Creative Voice File": _creative,
    b"ALawSoundFile": _psion,
    b"Extended Instrument: ": _instrument,
    b"2BIT": _audio_visual_research,
    b"\x01\x04.{17}": _akai,
    b"\xf0\x7e.\x01": _dump,
    b"MATLAB 5.0 MAT": _matlab5,
    b".{20}samplerate": _matlab4,
    b".{4}ftyp": _atoms,
    b"\x1a\x45\xdf\xa3": _matroska,
}
"""How a file begins -> what finds the end of its samples."""

_DEMUXERS = {
    b".{4}(ftyp|moov|mdat|wide)": ("mov", "MPEG-4 (m4a, mp4)"),
    b"\x1a\x45\xdf\xa3": ("matroska", "Matroska or WebM"),
    b"\xff[\xf0\xf1\xf8\xf9]": ("aac", "AAC"),
    b"\x30\x26\xb2\x75": ("asf", "Windows Media Audio"),
    b"#!AMR": ("amr", "AMR"),
    b"\x0b\x77": ("ac3", "AC-3"),
    b"OggS": ("ogg", ""),
    b"caff": ("caf", ""),
}
"""How a file begins -> FFmpeg's name of the format, and its name in errors, ""
where libsndfile reads most of its kind."""


class ForeignFile:
    """A file that libsndfile does not know, decoded by FFmpeg's libraries: by
    PyAV where it is installed, else by the program ``ffmpeg``.

    The format is fixed by how the file begins, so that no playlist or network
    protocol is followed. The length is not known before the end.
    """

    num_samples = None

    def __init__(self, path: str | Path) -> None:
        with open(path, "rb") as file:
            head = file.read(64)
        demuxer, name = _row_of(_DEMUXERS, head) or ("", "")
        if not demuxer:
            raise LookupError(f"{path}: of no known format")
        decode = _decoder()
        if decode is None and not name:
            raise LookupError(f"{path}: of a format that libsndfile knows")
        if decode is None:
            raise ValueError(
                f"{name} needs PyAV (pip install av) or the program ffmpeg, "
                "neither of which is installed"
            )
        self._decoded = decode(path, demuxer)
        first = next(self._decoded, None)
        if first is None:
            raise ValueError("no samples in it can be decoded")
        self.samplerate = first[0]
        self._rest = itertools.chain([first], self._decoded)

    def __enter__(self) -> "ForeignFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the decoding."""
        self._decoded.close()

    def blocks(
        self, start: int, stop: float, size: int
    ) -> Iterator[np.ndarray]:
        """Yields the samples of a stretch, as many at a time as the format has
        in a packet, [N, C]."""
        place = 0
        for _, block in self._rest:
            block = block[: int(min(len(block), stop - place))]
            if start < place + len(block):
                yield block[max(0, start - place) :]
            place += len(block)
            if place >= stop:
                return


def _decoder():
    """What decodes with FFmpeg's libraries here; None where nothing does."""
    try:
        importlib.import_module("av")
    except ImportError:
        found = shutil.which("ffmpeg") is not None
        return _decode_by_program if found else None
    return _decode_by_pyav


def _decode_by_pyav(path, demuxer):
    """Yields rate and samples [N, C] of a file's first stream of audio."""
    av = importlib.import_module("av")
    try:
        with open(path, "rb") as raw, av.open(raw, format=demuxer) as container:
            if not container.streams.audio:
                raise ValueError("it has no audio")
            yield from _pyav_blocks(container)
    except av.FFmpegError as error:
        raise ValueError(
            f"truncated or damaged: {error.strerror or error}"
        ) from error


def _pyav_blocks(container):
    """Rate and samples [N, C] of each frame; the rate is the first one's."""
    converter, av = None, importlib.import_module("av")
    for frame in container.decode(audio=0):
        if converter is None:
            converter = av.AudioResampler("fltp", rate=frame.sample_rate)
        for part in converter.resample(frame):
            yield part.sample_rate, part.to_ndarray().T


def _decode_by_program(path, demuxer):
    """The same by ``ffmpeg``, which writes an AU stream into a pipe."""
    command = ["ffmpeg", "-v", "error", "-nostdin", "-f", demuxer]
    command += ["-protocol_whitelist", "file,pipe", "-i"]
    command += [b"file:" + os.fsencode(path), "-map", "0:a:0"]
    command += ["-c:a", "pcm_f32be", "-f", "au", "-"]
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log) as run,
    ):
        try:
            yield from _au_blocks(run.stdout)
            run.wait()
        finally:
            run.kill()
        log.seek(0)
        said = log.read(2000).decode("utf-8", "replace").strip().split("\n")
        if run.returncode or said[-1]:
            raise ValueError(f"truncated or damaged: {said[-1]}")


def _au_blocks(stream):
    """Rate and samples [N, C] of an AU stream of 32 bits."""
    head = stream.read(24)
    if len(head) < 24:
        return
    start, _, _, rate, channels = struct.unpack(">4x5I", head)
    stream.read(start - 24)
    step = 4 * channels
    while block := stream.read(step * 2**16):
        block = block[: len(block) // step * step]
        values = np.frombuffer(block, ">f4").astype("float32")
        yield rate, values.reshape(-1, channels)
