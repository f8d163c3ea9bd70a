"""Reading shards beside single files, and the simulator beside both.

    python benchmarks/shards.py [--hours 1.0] [--rounds 3] [--no-training]

Utterances of 4 to 16 s of noise whose level follows that of syllables, which
FLAC packs about as well as speech, as single files and in shards, written into
a temporary folder. Sides: ``SpeechCrops`` of single files in the batches of
``dynamic_batches``, and of shards, both through torch's loader with 0, 1 and 2
worker processes into padded batches. "Cold" has its files dropped from the page
cache before each round (``posix_fadvise``; directories stay). Seconds of audio
in a second of wall time, and in one of processor time of the reading processes;
medians. Then a training step of Base without an objective, forward and back,
for the ratio; and one and two workers between their first batch and their last,
as ``loader_simulator`` predicts them from what one takes of a processor.
"""

import argparse
import datetime
import multiprocessing
import os
import resource
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
import torch
from loader_simulator import Setting, predict
from speechbrain.dataio.dataloader import SaveableDataLoader

from unispeech_sb.dataio.pretraining import SpeechCrops, add_batches
from unispeech_sb.dataio.shard_batches import ShardLoader
from unispeech_sb.dataio.shard_writer import make_shards
from unispeech_sb.dataio.shards import ShardRows
from unispeech_sb.lobes.backbone import Backbone

WORKERS = (0, 1, 2)


def write_files(folder, hours):
    """Utterance records of single files."""
    generator, records, total = np.random.default_rng(0), [], 0.0
    while total < 3600 * hours:
        seconds = generator.uniform(4, 16)
        count = int(16000 * seconds)
        level = 0.05 * np.abs(np.sin(np.arange(count) / 1800)) ** 3
        noise = level * generator.normal(size=count)
        place = folder / f"{len(records) % 50}"
        place.mkdir(exist_ok=True)
        path = str(place / f"{len(records)}.flac")
        soundfile.write(path, noise, 16000)
        record = {"ID": str(len(records)), "wav": path, "split": "train"}
        records.append({**record, "duration": count / 16000})
        total += seconds
    return records


def drop_cache(folder):
    """Drops the files below a folder from the page cache."""
    os.sync()
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def make_loader(rows, workers, buffer_s):
    """A loader of the training batches of rows."""
    options = {"num_workers": workers}
    hparams = {"max_batch_s": 87.5, "num_buckets": 10, "seed": 1}
    hparams |= {"shuffle_buffer_s": buffer_s, "train_dataloader_opts": options}
    crops = SpeechCrops(rows)
    add_batches(crops, "train", hparams)
    kind = ShardLoader if isinstance(rows, ShardRows) else SaveableDataLoader
    return kind(crops, **options)


def used():
    """Processor seconds of this process, and of those that have ended."""
    found = [
        resource.getrusage(who)
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    ]
    return [one.ru_utime + one.ru_stime for one in found]


def read_all(loader, epoch):
    """Seconds, seconds of the processor, and batches of an epoch."""
    loader.batch_sampler.set_epoch(epoch)
    start, before = time.perf_counter(), sum(used())
    count = sum(1 for _ in loader)
    return time.perf_counter() - start, sum(used()) - before, count


def measure(sides, folders, rounds, cold, hours):
    """Name -> medians of audio a second, of wall and of processor time."""
    found = {name: [] for name in sides}
    for number in range(rounds + (not cold)):
        for name, loader in sides.items():
            if cold:
                drop_cache(folders[name.split(",")[0]])
            seconds, busy, _ = read_all(loader, number + 1)
            if cold or number:
                found[name].append((seconds, busy))
    audio = 3600 * hours
    return {
        name: tuple(audio / statistics.median(side) for side in zip(*times))
        for name, times in found.items()
    }


def step_rate():
    """Seconds of audio that Base trains on in a second, on one thread."""
    torch.set_num_threads(1)
    model, wavs = (
        Backbone.from_preset("unispeech_sat_base"),
        torch.randn(2, 8 * 16000),
    )
    times = []
    for _ in range(2):
        start = time.perf_counter()
        model(wavs, torch.ones(2)).square().mean().backward()
        times.append(time.perf_counter() - start)
    return 16 / min(times)


def read_bandwidth(folder):
    """Bytes a second that cold shards are read at, in the loader's requests."""
    drop_cache(folder)
    start, total = time.perf_counter(), 0
    for path in folder.glob("*.tar"):
        with open(path, "rb", buffering=0) as file:
            while block := file.read(2**22):
                total += len(block)
    return total / (time.perf_counter() - start), total


def _spin(seconds, barrier):
    """Keeps a core busy."""
    barrier.wait()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def free_cores(seconds=1.0):
    """Processor seconds that as many processes as there are cores get in a
    second, which other jobs leave them."""
    count = os.cpu_count()
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(count)
    before = used()[1]
    own = [
        context.Process(target=_spin, args=(seconds, barrier))
        for _ in range(count)
    ]
    for process in own:
        process.start()
    for process in own:
        process.join()
    return (used()[1] - before) / seconds


def steady_rate(loader, audio, epoch):
    """Seconds of audio in a second from the first batch to the last, without
    what it takes to start and to end workers."""
    loader.batch_sampler.set_epoch(epoch)
    times = [time.perf_counter() for _ in loader]
    return audio * (1 - 1 / len(times)) / (times[-1] - times[0]), len(times)


def simulated(loaders, hours, bandwidth, size, buffer_s):
    """Measured and simulated audio a second of one and two workers, of the
    seconds that one worker and the process beside it have of a processor."""
    audio, rows = 3600 * hours, []
    before = used()
    read_all(loaders[1], 20)
    own, theirs = (now - then for now, then in zip(used(), before))
    for workers in WORKERS[1:]:
        found, cores = [], []
        for number in range(5):
            cores.append(free_cores())
            found.append(steady_rate(loaders[workers], audio, 30 + number))
        # Where there are more processes than cores, all of them wait
        share = statistics.median(cores)
        seconds = max(theirs, workers * (own + theirs) / share)
        count = found[0][1] // workers
        setting = Setting(
            readers=workers,
            batches=count,
            batch_s=audio / (count * workers),
            bytes_per_s=size / audio,
            decode_rate=audio / seconds,
            step_s=0.0,
            bandwidth=bandwidth,
            stream_bandwidth=bandwidth,
            latency_s=0.0,
            buffer_s=min(buffer_s, audio / workers),
        )
        guess = predict(setting).audio_per_s * (1 - 1 / (count * workers))
        measured = statistics.median(rate for rate, _ in found)
        rows.append((workers, share, measured, guess))
    return rows


def print_rates(measured, cold):
    """Rows of the table of sides."""
    for side, rates in measured.items():
        state = "cold" if cold else "warm"
        print(f"| {side} | {state} | {rates[0]:.0f} | {rates[1]:.0f} |")


def main():
    """Prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--buffer-s", type=float, default=600.0)
    parser.add_argument("--no-training", action="store_true")
    arguments = parser.parse_args()
    print(f"{datetime.date.today()}, {os.cpu_count()} cores, load "
          f"{os.getloadavg()[0]:.1f}, torch {torch.__version__}, "
          f"{arguments.hours} h\n")  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="shards-") as name:
        single, packed = Path(name, "single"), Path(name, "packed")
        single.mkdir()
        records = write_files(single, arguments.hours)
        hours = sum(record["duration"] for record in records) / 3600
        for workers in (1, 2):
            start = time.perf_counter()
            make_shards(
                records, packed / str(workers), hours=0.1, workers=workers
            )
            took = time.perf_counter() - start
            print(f"shards make, {workers} threads: {3600 * hours / took:.0f} "
                  "s of audio in a second")  # fmt: skip
        own = packed / "2"
        rows = {"single files": records, "shards": ShardRows(own, "train")}
        sides = {
            f"{side}, {workers} workers": make_loader(
                found, workers, arguments.buffer_s
            )
            for side, found in rows.items()
            for workers in WORKERS
        }
        folders = {"single files": single, "shards": own}
        print("\n| side | page cache | audio s per s | per processor s |\n"
              "|---|---|---|---|")  # fmt: skip
        for cold in (True, False):
            found = measure(sides, folders, arguments.rounds, cold, hours)
            print_rates(found, cold)
        bandwidth, size = read_bandwidth(own)
        rate = size / hours / 3600
        print(f"\ncold shards alone: {bandwidth / 1e6:.0f} MB/s; a second "
              f"of audio has {rate / 1e3:.1f} kB")  # fmt: skip
        loaders = [sides[f"shards, {n} workers"] for n in WORKERS]
        table = simulated(loaders, hours, bandwidth, size, arguments.buffer_s)
        print("\n| workers | cores free | measured | simulated | ratio |\n"
              "|---|---|---|---|---|")  # fmt: skip
        for workers, cores, measured, guess in table:
            print(f"| {workers} | {cores:.2f} | {measured:.0f} | {guess:.0f} | "
                  f"{guess / measured:.2f} |")  # fmt: skip
        if not arguments.no_training:
            rate = step_rate()
            best = found["shards, 0 workers"][1]
            print(f"\nBase, forward and back, one thread: {rate:.2f} s of "
                  f"audio in a second; the loader, per processor second: "
                  f"{best / rate:.0f} times that")  # fmt: skip


if __name__ == "__main__":
    main()
