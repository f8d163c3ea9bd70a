"""Time of help and of mistakes on the command line, beside importing torch.

    python benchmarks/start.py [--rounds 7]

Each figure is of whole processes, from their start to their end. A round runs
every case once, and `python -c "import torch"` and an empty program with them.
Ends with 1 where a case imports torch or takes more than --limit-s seconds by
its median.
"""

import argparse
import datetime
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

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
}


def run(arguments, folder):
    """Runs Python; returns the seconds and what was printed as errors."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    return time.perf_counter() - start, done.stderr


def imports_torch(arguments, folder):
    """Whether a run of Python imports torch."""
    _, trace = run(["-X", "importtime", *arguments], folder)
    return re.search(r"\|\s+torch$", trace, re.MULTILINE) is not None


def measure(commands, rounds, folder):
    """Name -> seconds of each round; the first round, which fills the cache of
    files and of compiled modules, is left out."""
    times = {name: [] for name in commands}
    for _ in range(rounds + 1):
        for name, arguments in commands.items():
            times[name].append(run(arguments, folder)[0])
    return {name: seconds[1:] for name, seconds in times.items()}


def main():
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--limit-s", type=float, default=0.5)
    arguments = parser.parse_args()
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
        times = measure({**cases, **REFERENCES}, arguments.rounds, folder)
    print(
        f"{datetime.date.today()}, {os.cpu_count()} cores, load "
        f"{os.getloadavg()[0]:.1f}, Python {sys.version.split()[0]}, torch "
        f"{version('torch')}, medians of {arguments.rounds} rounds\n"
    )
    print("| command | s | least s | import torch / this |\n|---|---|---|---|")
    medians = {name: statistics.median(found) for name, found in times.items()}
    for name, median in medians.items():
        ratio = medians["import torch"] / median
        print(
            f"| {name} | {median:.3f} | {min(times[name]):.3f} | {ratio:.1f} |"
        )
    slow = [name for name in cases if medians[name] > arguments.limit_s]
    for what, names in (("imports torch", guilty), ("is slow", slow)):
        for name in names:
            print(f"{name} {what}", file=sys.stderr)
    sys.exit(1 if guilty or slow else 0)


if __name__ == "__main__":
    main()
