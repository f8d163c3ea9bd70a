"""Resident memory of one process that transcribes the same files many times.

    python benchmarks/soak.py [--files 1000] [--rounds 12]

Writes files of noise of many lengths and a tiny model with random weights into
a temporary folder, and runs ``unispeech-sb transcribe`` on all files in each
round. Prints the resident memory after each; exits with 1 where it ends more
than ``--limit`` percent above where it stood after a quarter of the rounds.
Needs Linux, whose /proc tells the memory.
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


def resident_mb():
    """Resident memory of this process."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


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
        print("| round | MB | s |\n|---|---|---|", flush=True)
        for number in range(1, arguments.rounds + 1):
            start, texts = time.perf_counter(), io.StringIO()
            with contextlib.redirect_stdout(texts):
                with contextlib.redirect_stderr(io.StringIO()):
                    transcribe([str(folder / "model"), *paths])
            assert texts.getvalue().count("\n") == len(paths)
            found.append(resident_mb())
            seconds = time.perf_counter() - start
            print(f"| {number} | {found[-1]:.1f} | {seconds:.1f} |", flush=True)
    grown = 100 * (found[-1] / found[(len(found) - 1) // 4] - 1)
    print(f"\n{grown:+.2f} % since round {(len(found) - 1) // 4 + 1}")
    sys.exit(1 if grown > arguments.limit else 0)


if __name__ == "__main__":
    main()
