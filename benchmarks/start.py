"""Time of help and of mistakes on the command line, beside importing torch;
and, with --first, of a first result.

    python benchmarks/start.py [--rounds 7] [--first]

Each figure is of whole processes, from their start to their end; ``--clock
cpu`` counts the processor's time, for a machine that does other things beside.
A round runs every case once, and `python -c "import torch"`, `import
unispeech_sb` and an empty program with them. Ends with 1 where a case imports
torch or takes more than --limit-s seconds by its median.

A first result is the transcript of 5 s, from random weights of --model on the
disk, on one thread: by the command, by `unispeech_sb.load`, and by a script of
transformers.
"""

import argparse
import datetime
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import soundfile

ROOT = Path(__file__).resolve().parent.parent
CASES = (
    "",
    "--version",
    "transcribe --help",
    "score --help",
    "recipe",
    "recipe asr --help",
    "recipe speaker_verification --help",
    "transcrib",
    "recipe asr --data_foldr=LibriSpeech",
    "recipe asr",
    "recipe asr --data_folder=nowhere",
    "transcribe nowhere talk.wav",
    "transcribe model nowhere.wav",
    "score model --trials nowhere --audio-root .",
    "info nowhere",
)
"""Arguments of unispeech-sb; `model` is a pretrained folder."""

REFERENCES = {
    "an empty program": ["-c", "pass"],
    "import torch": ["-c", "import torch"],
    "`import unispeech_sb`": ["-c", "import unispeech_sb"],
}

THEIRS = """
import soundfile, torch
from transformers import (
    UniSpeechSatForCTC, Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor,
)
extractor = Wav2Vec2FeatureExtractor.from_pretrained("transformers")
tokenizer = Wav2Vec2CTCTokenizer.from_pretrained("transformers")
model = UniSpeechSatForCTC.from_pretrained("transformers").eval()
samples, rate = soundfile.read("talk.wav", dtype="float32")
inputs = extractor(samples, sampling_rate=rate, return_tensors="pt")
with torch.no_grad():
    logits = model(inputs.input_values).logits
print(tokenizer.decode(logits[0].argmax(-1)))
"""
OURS = """
import unispeech_sb
print(unispeech_sb.load("unispeech_sb")("talk.wav").text)
"""
FIRST = {
    "`unispeech-sb transcribe`": [
        *("-m", "unispeech_sb", "transcribe", "unispeech_sb", "talk.wav"),
    ],
    "`unispeech_sb.load`": ["-c", OURS],
    "transformers": ["-c", THEIRS],
}
"""Programs that print the transcript of talk.wav."""


def wall_s():
    """Seconds that have passed."""
    return time.perf_counter()


def cpu_s():
    """Seconds of the processor that ended processes have used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


CLOCKS = {"wall": wall_s, "cpu": cpu_s}


def run(arguments, folder, clock=wall_s):
    """Runs Python; returns the seconds and what was printed as errors."""
    start = clock()
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    return clock() - start, done.stderr


def imports_torch(arguments, folder):
    """Whether a run of Python imports torch."""
    _, trace = run(["-X", "importtime", *arguments], folder)
    return re.search(r"\|\s+torch$", trace, re.MULTILINE) is not None


def measure(commands, rounds, folder, clock):
    """Name -> seconds of each round; the first round, which fills the cache of
    files and of compiled modules, is left out."""
    times = {name: [] for name in commands}
    for _ in range(rounds + 1):
        for name, arguments in commands.items():
            times[name].append(run(arguments, folder, clock)[0])
    return {name: seconds[1:] for name, seconds in times.items()}


def print_first(model, rounds, folder, clock):
    """Prints how long a first result takes."""
    from longform import write_models

    write_models(model, Path(folder))
    noise = np.random.default_rng(0).normal(scale=0.1, size=80000)
    soundfile.write(Path(folder, "talk.wav"), noise, 16000)
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    times = measure(FIRST, rounds, folder, clock)
    print(f"\n| first result, {model} | s | least s |\n|---|---|---|")
    for name, found in times.items():
        print(f"| {name} | {statistics.median(found):.2f} | {min(found):.2f} |")


def main():
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--limit-s", type=float, default=0.5)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--first", action="store_true")
    parser.add_argument("--model", default="unispeech_sat_base")
    arguments = parser.parse_args()
    clock = CLOCKS[arguments.clock]
    named = {
        f"`unispeech-sb {case}`".replace(" `", "`"): case for case in CASES
    }
    cases = {
        name: ["-m", "unispeech_sb", *case.split()]
        for name, case in named.items()
    }
    with tempfile.TemporaryDirectory(prefix="start-") as folder:
        Path(folder, "model").mkdir()
        Path(folder, "model", "hyperparams.yaml").touch()
        guilty = [n for n in cases if imports_torch(cases[n], folder)]
        times = measure(
            {**cases, **REFERENCES}, arguments.rounds, folder, clock
        )
    print(
        f"{datetime.date.today()}, {os.cpu_count()} cores, load "
        f"{os.getloadavg()[0]:.1f}, Python {sys.version.split()[0]}, torch "
        f"{version('torch')}, medians of {arguments.rounds} rounds, "
        f"{arguments.clock} time\n"
    )
    print("| command | s | least s | import torch / this |\n|---|---|---|---|")
    medians = {name: statistics.median(found) for name, found in times.items()}
    for name, median in medians.items():
        ratio = medians["import torch"] / median
        print(
            f"| {name} | {median:.3f} | {min(times[name]):.3f} | {ratio:.1f} |"
        )
    if arguments.first:
        with tempfile.TemporaryDirectory(prefix="start-") as folder:
            print_first(arguments.model, arguments.rounds, folder, clock)
    slow = [name for name in cases if medians[name] > arguments.limit_s]
    for what, names in (("imports torch", guilty), ("is slow", slow)):
        for name in names:
            print(f"{name} {what}", file=sys.stderr)
    sys.exit(1 if guilty or slow else 0)


if __name__ == "__main__":
    main()
