"""Hostile recordings among good ones, through whole commands.

Written from the formats' definitions alone: all that soundfile writes, cut,
with bits and fields of their headers changed, with samples that are no numbers,
with names that no text has. The good recordings of a batch have to come out as
they do alone, each other one with a result or by name on the standard error.
"""

import csv
import functools
import io
import json
import os
import struct
from pathlib import Path

import numpy as np
import soundfile

from tests.fuzz import models
from tests.fuzz.kinds import (
    Kind,
    Unfit,
    command,
    read_note,
    refused_line,
    write_note,
)
from tests.fuzz.mutations import NUMBERS, change_bytes
from unispeech_sb.inference.embedding_store import EmbeddingStore
from unispeech_sb.inference.formats import unicode_name

MARK = "hostile"
"""Begins what a bad recording is found by, in names and messages."""

SUFFIXES = {
    "WAV": "wav", "WAVEX": "wav", "RF64": "wav", "FLAC": "flac", "OGG": "ogg",
    "MP3": "mp3", "AIFF": "aiff", "AU": "au", "CAF": "caf", "W64": "w64",
    "NIST": "sph", "VOC": "voc",
}  # fmt: skip
"""Formats of the field; all of them but MP3 without a header of LAME's state
how long they are."""

RATES = (16000,) * 6 + (8000, 11025, 22050, 44100, 48000, 96000, 192000)
ODD_RATES = (1, 7, 999, 11027, 44101, 65535, 383999, 384001, 10**6, 2**31 - 1)

FOREIGN = {
    "nothing": b"",
    "one byte": b"R",
    "text": b"This is not audio.\n" * 50,
    "page": b"<!DOCTYPE html><html><body>404</body></html>",
    "pointer": b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d1\n"
    b"size 12345\n",
    "picture": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "archive": b"PK\x03\x04" + bytes(100),
    "riff": b"RIFF\xff\xff\xff\xffWAVE",
    "flac": b"fLaC" + bytes(38),
    "ogg": b"OggS" + b"\xff" * 100,
    "aac": b"\x00\x00\x00\x20ftypM4A " + bytes(200),
    "webm": b"\x1a\x45\xdf\xa3" + bytes(200),
    "id3": b"ID3\x04\x00\x00\x7f\x7f\x7f\x7f" + bytes(50),
    "caf": b"caff\x00\x01\x00\x00desc" + b"\xff" * 40,
}
"""What is no recording, or the beginning of one."""


@functools.cache
def forms():
    """Format and subtype of all that soundfile writes here."""
    return [
        (form, subtype)
        for form in soundfile.available_formats()
        for subtype in soundfile.available_subtypes(form)
        if form != "RAW" and soundfile.check_format(form, subtype)
    ]


def save(path, samples, rate, subtype=None, format=None):
    """Writes a recording whose name may be no text."""
    packed = io.BytesIO()
    soundfile.write(packed, samples, rate, subtype, format=format)
    path.write_bytes(packed.getvalue())


def write(path, rng, samples=None):
    """Writes a recording of a random format; gives format and length."""
    wide = [form for form in forms() if form[0] in SUFFIXES]
    form, subtype = rng.choice(wide if rng.random() < 0.75 else forms())
    # libsndfile crashes where it writes OGG at a rate that is no rate
    odd = rng.random() < 0.25 and form != "OGG"
    rate = rng.choice(ODD_RATES if odd else RATES)
    channels = rng.choice((1, 1, 1, 2, 3, 8))
    if samples is None:
        seconds = rng.choice((0.02, 0.1, 0.5, 1.0, 1.5))
        samples = models.speech(
            min(seconds, 2e5 / rate), rate, rng.randrange(9)
        )
    wide = np.repeat(samples[:, None], channels, axis=1)
    for given in ((rate, wide), (16000, wide[:, 0]), (8000, wide[:, 0])):
        try:
            save(path, given[1], given[0], subtype, format=form)
            return form, len(samples)
        except (soundfile.LibsndfileError, ValueError):
            continue  # a format with rates or channels of its own
    save(path, samples, 16000, format="WAV")
    return "WAV", len(samples)


def whole(path, rng):
    """A recording that is right."""
    write(path, rng)
    return False


def cut(path, rng):
    """A recording that ends in the middle, which most formats show."""
    form, length = write(path, rng)
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content) * 9 // 10)])
    return form in SUFFIXES and _decoded(path) < 0.95 * length


def _decoded(path):
    """Samples that a file really has, 0 where it cannot be read."""
    found = 0
    try:
        with soundfile.SoundFile(os.open(path, os.O_RDONLY)) as file:
            while block := len(file.read(2**16)):
                found += block
    except (soundfile.LibsndfileError, ValueError, OSError):
        pass
    return found


def bits(path, rng):
    """Bits of the header, or anything."""
    write(path, rng)
    content = bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 1, 2, 4))):
        place = rng.randrange(min(len(content), rng.choice((48, 128, 4096))))
        content[place] ^= 1 << rng.randrange(8)
    path.write_bytes(content)
    return False


def bytes_(path, rng):
    """Blocks of bytes, anywhere."""
    write(path, rng)
    path.write_bytes(change_bytes(path.read_bytes(), rng))
    return False


def lie(path, rng):
    """A number of the header: rate, channels, width or length."""
    form = rng.choice(tuple(LIES))
    try:
        save(path, models.speech(0.5, 16000, 1), 16000, format=form)
    except soundfile.LibsndfileError:
        save(path, models.speech(0.5, 16000, 1), 16000, format="WAV")
        form = "WAV"
    content = bytearray(path.read_bytes())
    marks = [mark for mark in LIES[form] if content.find(mark[0]) >= 0]
    mark, offset, code = rng.choice(marks)
    place = content.find(mark) + len(mark) + offset
    size = struct.calcsize(code)
    number = rng.choice((*NUMBERS, 3, 16000, 44101, 10**9, 5 * 10**5))
    if code[-1] == "d":
        packed = struct.pack(code, float(number % 2**63))
    else:
        packed = struct.pack(code, number % 2 ** (8 * size))
    content[place : place + size] = packed[: len(content) - place]
    path.write_bytes(content)
    return False


LIES = {
    "WAV": (
        (b"RIFF", 0, "<I"), (b"fmt ", 0, "<I"), (b"fmt ", 4, "<H"),
        (b"fmt ", 6, "<H"), (b"fmt ", 8, "<I"), (b"fmt ", 12, "<I"),
        (b"fmt ", 16, "<H"), (b"fmt ", 18, "<H"), (b"data", 0, "<I"),
    ),
    "RF64": (
        (b"ds64", 4, "<Q"), (b"ds64", 12, "<Q"), (b"ds64", 20, "<Q"),
        (b"fmt ", 8, "<I"), (b"fmt ", 6, "<H"), (b"data", 0, "<I"),
    ),
    "FLAC": (
        # minimum and maximum block; rate, channels, width and samples share
        # the eight bytes from 14 on
        (b"fLaC", 4, ">H"), (b"fLaC", 6, ">H"), (b"fLaC", 14, ">Q"),
        (b"fLaC", 18, ">I"), (b"fLaC", 0, ">I"),
    ),
    "AIFF": (
        (b"FORM", 0, ">I"), (b"COMM", 4, ">H"), (b"COMM", 6, ">I"),
        (b"COMM", 10, ">H"), (b"COMM", 12, ">H"), (b"COMM", 14, ">Q"),
        (b"SSND", 0, ">I"),
    ),
    "AU": (
        (b".snd", 0, ">I"), (b".snd", 4, ">I"), (b".snd", 8, ">I"),
        (b".snd", 12, ">I"), (b".snd", 16, ">I"),
    ),
    "CAF": (
        (b"desc", 8, ">d"), (b"desc", 16, ">I"), (b"desc", 24, ">I"),
        (b"desc", 28, ">I"), (b"desc", 32, ">I"), (b"desc", 36, ">I"),
        (b"desc", 0, ">Q"), (b"data", 0, ">Q"),
    ),
    "W64": (
        (b"riff", 12, "<Q"), (b"fmt ", 12, "<Q"), (b"fmt ", 22, "<H"),
        (b"fmt ", 24, "<I"), (b"fmt ", 32, "<H"), (b"data", 12, "<Q"),
    ),
    "OGG": (
        # granule position, serial number, page number, number of segments
        (b"OggS", 2, "<Q"), (b"OggS", 10, "<I"), (b"OggS", 14, "<I"),
        (b"OggS", 22, "B"), (b"vorbis", 4, "B"), (b"vorbis", 5, "<I"),
    ),
    "VOC": ((b"Voice File\x1a", 0, "<H"), (b"Voice File\x1a", 6, "<I"),
            (b"Voice File\x1a", 10, "<I")),
    "MP3": ((b"Info", 4, ">I"), (b"Xing", 4, ">I"), (b"\xff\xfb", 0, ">H")),
    "SVX": ((b"FORM", 0, ">I"), (b"VHDR", 4, ">I"), (b"VHDR", 16, ">H"),
            (b"BODY", 0, ">I")),
}  # fmt: skip
"""Format -> what stands before a number, bytes between, and how it is packed,
by the formats' specifications."""


def values(path, rng):
    """Samples that are no numbers, or absurd ones."""
    samples = models.speech(0.5, 16000, 2).astype(np.float64)
    value = rng.choice((np.nan, np.inf, -np.inf, 1e30, 3e38, 1e300, 1e-45))
    count = rng.choice((1, 1, 10, len(samples)))
    start = rng.randrange(len(samples) - count + 1)
    samples[start : start + count] = value
    form = rng.choice(("WAV", "AIFF", "CAF", "W64", "AU", "RF64"))
    width = rng.choice(("FLOAT", "DOUBLE"))
    with np.errstate(over="ignore"):
        save(path, samples, 16000, width, format=form)
    return not np.isfinite(value)


def silence(path, rng):
    """Nothing but one value, or no samples."""
    length = rng.choice((0, 0, 1, 399, 8000, 16000))
    value = rng.choice((0.0, 0.0, 0.5, -1.0))
    write(path, rng, np.full(length, value))
    return length == 0


def foreign(path, rng):
    """No recording."""
    path.write_bytes(FOREIGN[rng.choice(sorted(FOREIGN))])
    return True


def no_file(path, rng):
    """No file."""
    what = rng.randrange(5)
    if what == 0:
        path.mkdir()
    elif what == 1:
        path.symlink_to("nowhere")
    elif what == 2:
        path.symlink_to(path.name)
    elif what == 3:
        os.mkfifo(path)
    return True


DAMAGES = {
    whole: 3, cut: 4, bits: 4, bytes_: 3, lie: 5, values: 2, silence: 2,
    foreign: 2, no_file: 1,
}  # fmt: skip
"""Damage -> how often; each gives whether the file must be refused."""

NAMES = (
    *("{}.wav",) * 8,
    *(
        "{}.WAV",
        "{}",
        "{}.txt",
        "{}.tar.gz",
        "-{}.wav",
        "--{}=1.wav",
        ".{}.wav",
    ),
    *("._{}.wav", "{} a  b.wav", "a\n{}.wav", "{}\n.wav", "{}\r.wav"),
    *("\x1b[31m{}.wav", "{}\u202e.wav", "\udcff{}.wav", "{}\udc80\udcfe.wav"),
    *("{}*?[a].wav", "{}'\"$(touch a).wav", "%s%n{}.wav", "{{}}{}.wav"),
    *("{}" + "x" * 180 + ".wav", "{}" + "x" * 230 + ".wav", "{}" + "é" * 115),
    *("{}é.wav", "{}e\u0301.wav", "{}#.wav", "{},b.wav", "{}\t.wav", "~{}.wav"),
)


def damage(most, source, rng):
    """Puts bad recordings between the good ones."""
    names, refused = list(models.GOOD), []
    rng.shuffle(names)
    names = names[: rng.choice((1, 2, 3))]
    for number in range(rng.randrange(1, most + 1)):
        name = rng.choice(NAMES).format(f"{MARK}{number}")
        act = rng.choices(tuple(DAMAGES), tuple(DAMAGES.values()))[0]
        if act(source / name, rng):
            refused.append(number)
        names.insert(rng.randrange(len(names) + 1), name)
    write_note(source, names=names, refused=refused)


def named(case):
    """Names of a case's recordings in their order."""
    note = read_note(case) or {"names": list(models.GOOD), "refused": []}
    return note["names"], note["refused"]


def write_sources(run, folder):
    """Writes the good recordings, and what becomes of each alone."""
    models.write_good(folder)
    os.chdir(folder)
    alone = {}
    for name in models.GOOD:
        place = folder.parent / f"alone-{folder.name}" / name
        code, _, results = run([name], place)
        if code:
            raise RuntimeError(f"{name}: exit code {code}")
        alone |= results
    path = folder / "reference.json"
    path.write_text(json.dumps(alone), encoding="utf-8")


def judge(run, case):
    """What becomes of a batch."""
    source, out = case / "source", case / "out"
    os.chdir(source)
    names, refused = named(case)
    code, printed, results = run(names, out)
    alone = json.loads((source / "reference.json").read_text("utf-8"))
    for name in names:
        if name in models.GOOD:
            check_same(name, results.get(name), alone[name])
    bad = [name for name in names if name not in models.GOOD]
    without = []
    for name in bad:
        number = int(name.partition(MARK)[2][:1])
        if name in results and number in refused:
            raise Unfit(f"{name!r}: taken, but it is damaged")
        if name not in results:
            without.append(f"{MARK}{number}")
    unnamed = [mark for mark in without if mark not in printed]
    if unnamed:
        raise Unfit(f"lost without a word: {unnamed}; {printed[-600:]}")
    if bool(without) != (code == 1):
        raise Unfit(f"exit code {code}, without results: {without}")
    lines = printed[printed.find("files failed:") :] if without else ""
    return ("refused" if without else "accepted"), lines


def check_same(name, found, alone):
    """A good recording's result has to be that of the recording alone."""
    if isinstance(alone, list) and isinstance(found, list):
        same = np.allclose(found, alone, rtol=1e-3, atol=1e-3)
    else:
        same = found == alone
    if not same:
        raise Unfit(f"{name}: {found!r:.200} in a batch, {alone!r:.200} alone")


def transcribe(names, out):
    """Name -> text."""
    code, _, printed = command(
        "transcribe", "--output-dir", out, "--", models.model("asr"), *names
    )
    found = files_of(out)
    by_stem = {f"{Path(name).stem}.txt": name for name in names}
    unknown = set(found) - set(by_stem)
    if unknown:
        raise Unfit(f"left {unknown}")
    texts = {
        by_stem[file]: path.read_text("utf-8") for file, path in found.items()
    }
    return code, printed, texts


def classify(names, out):
    """Name -> posteriors of the classes."""
    code, text, printed = command(
        *("classify", "-f", "csv", "--top-k", 9, "--"),
        *(models.model("classifier"), *names),
    )
    shown = {unicode_name(name): name for name in names}
    found = {}
    for row in csv.DictReader(io.StringIO(text, newline="")):
        scores = found.setdefault(shown[row["name"]], {})
        scores[row["label"]] = float(row["posterior"])
    lists = {n: [s[k] for k in sorted(s)] for n, s in found.items()}
    return code, printed, lists


def features(names, out):
    """Name -> means of the states over time."""
    code, _, printed = command(
        "features", "-o", out, "--", models.model("backbone"), *names
    )
    by_stem = {f"{Path(name).stem}.npy": name for name in names}
    found = files_of(out)
    unknown = set(found) - set(by_stem)
    if unknown:
        raise Unfit(f"left {unknown}")
    means = {
        by_stem[file]: np.load(path).mean(0).tolist()
        for file, path in found.items()
    }
    return code, printed, means


def diarize(names, out):
    """Name -> segments."""
    code, _, printed = command(
        "diarize", "--rttm-dir", out, "--", models.model("diarization"), *names
    )
    found = {}
    for file, path in files_of(out).items():
        keys = [*(f"{MARK}{n}" for n in range(9)), "good0", "good1", "good2"]
        key = next((key for key in keys if key in file), None)
        name = next((n for n in names if key and key in n), None)
        if name is None:
            raise Unfit(f"left {file}")
        lines = path.read_text("utf-8").splitlines()
        found[name] = [
            [float(field) for field in line.split()[3:5]] for line in lines
        ]
    return code, printed, found


def embed(names, out):
    """Name -> embedding."""
    out.mkdir(parents=True, exist_ok=True)
    file = out / "embeddings.safetensors"
    code, _, printed = command(
        "embed", "-o", file, "--", models.model("speaker"), *names
    )
    left = set(files_of(out)) - {file.name}
    if left:
        raise Unfit(f"left {left}")
    store = EmbeddingStore.load(file)
    return (
        code,
        printed,
        {name: store[name].vector.tolist() for name in store.names},
    )


def judge_pair(case):
    """What becomes of a pair of a good and a bad recording."""
    source = case / "source"
    os.chdir(source)
    names, refused = named(case)
    bad = [name for name in names if name not in models.GOOD] or ["good1.flac"]
    pair = ["good0.wav", bad[0]]
    code, out, printed = command("verify", "--", models.model("speaker"), *pair)
    if not code:
        if refused and MARK in bad[0]:
            raise Unfit(f"{bad[0]!r}: taken, but it is damaged")
        values = [float(line.split()[-1]) for line in out.splitlines()[1:]]
        if len(values) != 3 or not np.isfinite(values).all():
            raise Unfit(f"printed {out!r}")
        return "accepted", ""
    line = refused_line(printed)
    if f"{MARK}0" not in line:
        raise Unfit(f"does not name the file: {line}")
    return "refused", line


def files_of(folder):
    """Name -> path of what is in a folder."""
    if not folder.is_dir():
        return {}
    return {path.name: path for path in folder.iterdir()}


def kind(run):
    """A kind of batch."""
    return Kind(
        (functools.partial(write_sources, run),),
        functools.partial(damage, 3),
        functools.partial(judge, run),
        1250,
    )


KINDS = {
    "audio-transcribe": kind(transcribe),
    "audio-diarize": kind(diarize),
    "audio-embed": kind(embed),
    "audio-classify": kind(classify),
    "audio-features": kind(features),
    "audio-verify": Kind(
        (models.write_good,),
        functools.partial(damage, 1),
        judge_pair,
        1250,
    ),
}
