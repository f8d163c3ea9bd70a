"""Damages recordings in every format that libsndfile writes, and reads them.

    python -m tests.fuzz.audio --count 5000 --seed 1

A damaged recording is read, or refused by an ``AudioError`` of one line that
begins with its name. Anything else is a failure, and so are over 5 s, or
300 MB above what the process had. Needs Linux, whose /proc tells the
memory.
"""

import argparse
import random
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
from speechbrain.dataio.preprocess import AudioNormalizer

from unispeech_sb.dataio.audio import (
    AudioError,
    check_audio,
    read_audio,
    read_header,
)
from unispeech_sb.inference.audio_blocks import read_blocks

MOST_S, MOST_MB = 5.0, 300
NORMALIZER = AudioNormalizer(16000)
READERS = [
    read_audio,
    check_audio,
    read_header,
    lambda path: read_audio(path, 100, 900),
    lambda path: list(read_blocks(path, NORMALIZER, block_s=0.05)),
]
NUMBERS = (b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f")
NUMBERS += (b"\xff" * 8, b"\0" * 8, b"\x80\0\0\0", b"\x10\0\0\0")
"""Lengths, counts and rates that headers may claim."""
NOT_WRITTEN = {"RAW", "SDS"}
"""SDS is read, but libsndfile prints what is wrong with it."""


def write_recordings(folder):
    """Writes whole recordings; gives their paths."""
    draw, paths = np.random.default_rng(0), []
    for form in sorted(set(soundfile.available_formats()) - NOT_WRITTEN):
        for subtype in soundfile.available_subtypes(form):
            path = folder / f"{form}-{subtype}.{form.lower()}"
            wav = 0.1 * draw.normal(size=4000)
            try:
                soundfile.write(path, wav, 8000, subtype, format=form)
            except soundfile.LibsndfileError:  # read only
                path.unlink(missing_ok=True)
            else:
                paths.append(path)
    return paths


def damaged(content, draw):
    """The bytes of a recording with one fault."""
    if draw.random() < 0.25:
        return content[: draw.randrange(len(content))]
    most = min(len(content), draw.choice([64, 64, 600, len(content)]))
    place, kind = draw.randrange(max(1, most)), draw.randrange(4)
    if kind == 0:
        new = bytes([draw.randrange(256)])
        return content[:place] + new + content[place + 1 :]
    if kind == 1:
        new = draw.choice(NUMBERS)
        return content[:place] + new + content[place + len(new) :]
    if kind == 2:
        return content[:place] + content[place + draw.choice([1, 2, 4, 100]) :]
    return content[:place] + draw.randbytes(4) + content[place:]


def peak_mb(anew=False):
    """The most resident memory of this process, since the last time anew."""
    if anew:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def fuzz(count, seed, folder):
    """Reads so many damaged files: number of those read, and failures."""
    draw, num_read, failures = random.Random(seed), 0, []
    wholes = {path: path.read_bytes() for path in write_recordings(folder)}
    before = peak_mb(anew=True)
    for case in range(count):
        path = draw.choice(list(wholes))
        content = wholes[path]
        for _ in range(draw.randrange(1, 4)):
            content = damaged(content, draw) or b"\0"
        path.write_bytes(content)
        began, fault = time.process_time(), None
        try:
            draw.choice(READERS)(path)
            num_read += 1
        except AudioError as error:
            text = str(error)
            if "\n" in text or not text.startswith(f"{path}: "):
                fault = text
        except Exception as error:  # what this looks for
            fault = f"{type(error).__name__}: {error}"
        if time.process_time() - began > MOST_S:
            fault = "slow"
        if peak_mb() - before > MOST_MB:
            before, fault = peak_mb(anew=True), "memory"
        if fault:
            failures.append(f"case {case}, {path.name}: {fault}")
    return num_read, failures


def main():
    """Runs the cases of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = fuzz(arguments.count, arguments.seed, Path(folder))
    num_read, failures = found
    refused = arguments.count - num_read - len(failures)
    print(f"{num_read} read, {refused} refused, {len(failures)} failed")
    for failure in failures[:20]:
        print(failure)
    raise SystemExit(bool(failures))


if __name__ == "__main__":
    main()
