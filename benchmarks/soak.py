"""Resident memory of one process that transcribes the same files many times.

    python benchmarks/soak.py [--files 1000] [--rounds 12]

Writes files of noise of many lengths and a tiny model with random weights into
a temporary folder, and runs ``unispeech-sb transcribe`` on all files in each
round. Prints the resident memory after each: all of it, and without the pages
of files, which the system takes away and gives back as it likes. Exits with 1
where either ends more than ``--limit`` percent above where it stood after the
first quarter of the rounds. Needs Linux, whose /proc tells the memory.
"""

import argparse
import contextlib
import io
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
import torch

from unispeech_sb.checkpoints.pretrained_folder import write_pretrained
from unispeech_sb.commands.transcribe import transcribe
from unispeech_sb.dataio.tokenizers import CTCTokenizer
from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.lobes.heads import FrameHead

RATES = (16000, 8000, 44100)
TOKENS = ["-", "|", *"abcdefgh"]


def write_model(folder):
    """A tiny recogniser with random weights."""
    torch.manual_seed(0)
    backbone = Backbone.from_preset("tiny")
    lobes = {"backbone": backbone, "head": FrameHead(16, len(TOKENS))}
    tokenizer = CTCTokenizer.from_tokens(TOKENS, 0)
    write_pretrained(
        folder, lobes, "EncoderASR", "Random.", tokenizer, blank_index=0
    )


def write_files(folder, count, longest_s):
    """Noise of many lengths, at three rates; gives the names."""
    draw, paths = np.random.default_rng(0), []
    for number in range(count):
        rate = RATES[number % len(RATES)]
        samples = draw.normal(size=int(draw.uniform(0.1, longest_s) * rate))
        paths.append(str(folder / f"{number}.wav"))
        soundfile.write(paths[-1], 0.1 * samples, rate)
    return paths


def resident_mb(what="VmRSS"):
    """Resident memory of this process; ``RssAnon`` is its own part of it."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{what}:")[2].split()[0]) / 1024


def main():
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--longest-s", type=float, default=2.0)
    parser.add_argument("--limit", type=float, default=2.0, help="percent")
    arguments = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        folder = Path(name)
        write_model(folder / "model")
        paths = write_files(folder, arguments.files, arguments.longest_s)
        print("| round | MB | of its own | s |\n|---|---|---|---|", flush=True)
        for number in range(1, arguments.rounds + 1):
            start, texts = time.perf_counter(), io.StringIO()
            errors = contextlib.redirect_stderr(io.StringIO())
            with contextlib.redirect_stdout(texts), errors:
                transcribe([str(folder / "model"), *paths])
            assert texts.getvalue().count("\n") == len(paths)
            found.append((resident_mb(), resident_mb("RssAnon")))
            cells = [*found[-1], time.perf_counter() - start]
            texts = " | ".join(f"{cell:.1f}" for cell in cells)
            print(f"| {number} | {texts} |", flush=True)
    first = (len(found) - 1) // 4
    grown = [
        100 * (end / begin - 1) for begin, end in zip(found[first], found[-1])
    ]
    print(f"\n{grown[0]:+.2f} %, {grown[1]:+.2f} % since round {first + 1}")
    sys.exit(1 if max(grown) > arguments.limit else 0)


if __name__ == "__main__":
    main()
