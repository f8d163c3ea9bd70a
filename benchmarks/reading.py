"""Time of reading many recordings ahead of a model, by threads and processes.

    python benchmarks/reading.py [--files 64] [--rounds 3]

Noise of 2 to 16 s in two forms, written into a temporary folder: FLAC at 16
kHz, and stereo MP3 at 44.1 kHz, which is decoded, averaged and resampled.
Sides: one after the other in the process itself; threads of ``read_ahead``;
processes, which send the waveforms back. A second table: ``extract_files`` of
a model on the same files in batches of 60 s with ``num_workers`` of 0 and more,
where the model has all cores already, and in other batches, of which 1 s takes
files one by one. Seconds of audio in a second of wall time, medians.
"""

import argparse
import datetime
import multiprocessing
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
import torch
from speechbrain.dataio.preprocess import AudioNormalizer

from unispeech_sb.inference.audio_blocks import read_ahead, read_blocks
from unispeech_sb.inference.features import SpeechFeatures
from unispeech_sb.lobes.backbone import Backbone

FORMS = {"FLAC, 16 kHz": ("flac", 16000, 1), "MP3, 44.1 kHz": ("mp3", 44100, 2)}


def write(folder, form, number):
    """Recordings of a form, and their seconds in all."""
    suffix, rate, channels = FORMS[form]
    generator, paths, total = np.random.default_rng(0), [], 0.0
    for i in range(number):
        seconds = 2 + 14 * i / max(1, number - 1)
        noise = generator.normal(
            scale=0.1, size=(int(seconds * rate), channels)
        )
        paths.append(str(Path(folder, f"{i}.{suffix}")))
        soundfile.write(paths[-1], noise, rate)
        total += seconds
    return paths, total


def read(path):
    """A recording at 16 kHz."""
    return torch.cat([*read_blocks(path, AudioNormalizer(16000))])


def read_array(path):
    """The same, to be sent to another process."""
    torch.set_num_threads(1)
    return read(path).numpy()


def by_threads(workers):
    """A function that reads files by so many threads."""
    return lambda paths: sum(
        map(len, read_ahead(paths, read, workers, lambda path: 10.0, 120.0))
    )


def by_processes(pool):
    """A function that reads files by a pool of processes."""
    return lambda paths: sum(map(len, pool.imap(read_array, paths)))


def features(model, workers=0, batch_seconds=60.0):
    """A function that extracts features of files."""

    def run(paths):
        model.num_workers = workers
        found = model.extract_files(paths, batch_seconds=batch_seconds)
        return sum(1 for _ in found)

    return run


def measure(sides, paths, rounds):
    """Name -> median seconds of sides that run in turn, the first time left
    out."""
    times = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, run in sides.items():
            start = time.perf_counter()
            run(paths)
            if number:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(found) for name, found in times.items()}


def main():
    """Prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--files", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default="small")
    arguments = parser.parse_args()
    backbone = Backbone.from_preset(arguments.model)
    model = SpeechFeatures({"encoder": backbone}, {}).eval()
    counts = (0, 1, 2, 4)
    print(f"{datetime.date.today()}, {os.cpu_count()} cores, load "
          f"{os.getloadavg()[0]:.1f}, {arguments.files} files\n")  # fmt: skip
    with (
        multiprocessing.get_context("spawn").Pool(2) as pool,
        tempfile.TemporaryDirectory(prefix="reading-") as folder,
    ):
        sides = {f"{n} threads": by_threads(n) for n in counts}
        sides["2 processes"] = by_processes(pool)
        models = {
            f"{arguments.model}, {n} threads": features(model, n)
            for n in counts
        }
        models |= {
            f"{arguments.model}, batches of {s} s": features(model, 0, s)
            for s in (1, 30, 240)
        }
        for form in FORMS:
            paths, seconds = write(folder, form, arguments.files)
            times = measure(sides, paths, arguments.rounds)
            times |= measure(models, paths, arguments.rounds)
            print(f"| {form} | audio s per s |\n|---|---|")
            for name, found in times.items():
                print(f"| {name} | {seconds / found:.0f} |", flush=True)
            print()


if __name__ == "__main__":
    main()
