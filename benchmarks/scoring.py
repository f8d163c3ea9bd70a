"""Time and memory of EER and minDCF, beside SpeechBrain's functions.

    python benchmarks/scoring.py [--trials 37720 100000] [--limit-s 300]

Each figure is of a new process that may use --limit-gb of memory and --limit-s
of time; half of the trials are targets. Only the calls are timed, the imports
and the random scores excluded. The memory is the whole process's at its peak,
of which about 0.5 GB are the imports. Needs Linux, whose kernel keeps the limit
and whose /proc tells the memory.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from speechbrain.utils.metric_stats import EER, minDCF

from unispeech_sb.metrics.verification import eer, min_dcf

TRIALS = (37_720, 100_000, 1_000_000, 10_000_000)
FUNCTIONS = {
    "unispeech_sb": {"EER": eer, "minDCF": min_dcf},
    "SpeechBrain": {"EER": EER, "minDCF": minDCF},
}
OUT_OF_MEMORY = 3
"""Exit status of a process that asked for more memory than it may have."""


def draw_scores(num_trials):
    """Cosine-like scores in float32 with an EER near 2 %."""
    generator = torch.Generator().manual_seed(0)
    scores = 0.12 * torch.randn(num_trials, generator=generator)
    half = num_trials // 2
    return scores[:half] + 0.5, scores[half:]


def peak_memory_gb():
    """The most that this process has had in memory."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 2**20


def measure(side, metric, num_trials, limit_gb):
    """Prints what one call took, as JSON; runs in its own process."""
    limit = int(limit_gb * 2**30)
    # Not RLIMIT_AS: libraries map gigabytes that they never touch.
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    torch.set_num_threads(1)
    function = FUNCTIONS[side][metric]
    scores = draw_scores(num_trials)
    try:
        start = time.perf_counter()
        value, threshold = function(*scores)
        seconds = time.perf_counter() - start
    except MemoryError:
        sys.exit(OUT_OF_MEMORY)
    except RuntimeError as error:
        # What torch raises where an allocation fails.
        print(error, file=sys.stderr)
        sys.exit(OUT_OF_MEMORY)
    print(json.dumps([seconds, peak_memory_gb(), value, threshold]))


def in_new_process(side, metric, num_trials, arguments):
    """Figures of one call, or why there are none."""
    command = [sys.executable, __file__, "--measure", side, metric]
    command += ["--trials", str(num_trials)]
    command += ["--limit-gb", str(arguments.limit_gb)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=arguments.limit_s
        )
    except subprocess.TimeoutExpired:
        return f"over {arguments.limit_s:g} s"
    if done.returncode == OUT_OF_MEMORY:
        return f"over {arguments.limit_gb:g} GB"
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout)


def cells(figures):
    """Seconds and memory as text."""
    if isinstance(figures, str):
        return f"{figures} | "
    seconds, memory, *_ = figures
    return f"{seconds:.3f} | {memory:.2f}"


def check_values(metric, num_trials, ours, theirs):
    """Both sides have to mean the same, where both came to an end."""
    if isinstance(ours, str) or isinstance(theirs, str):
        return
    # Theirs of EER is a step of the curve, and of minDCF not normalised.
    expected = theirs[2] if metric == "EER" else theirs[2] / 0.01
    if not np.isclose(ours[2], expected, rtol=1e-4, atol=2 / num_trials):
        raise ValueError(f"expected one {metric}, got {ours} and {theirs}")


def main():
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--trials", type=int, nargs="+", default=TRIALS)
    parser.add_argument("--limit-gb", type=float, default=4)
    parser.add_argument("--limit-s", type=float, default=300)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(*arguments.measure, arguments.trials[0], arguments.limit_gb)
        return
    print("| trials | metric | unispeech_sb (s) | GB | SpeechBrain (s) | GB |")
    print("|---|---|---|---|---|---|")
    for num_trials in arguments.trials:
        for metric in ("EER", "minDCF"):
            ours, theirs = (
                in_new_process(side, metric, num_trials, arguments)
                for side in FUNCTIONS
            )
            check_values(metric, num_trials, ours, theirs)
            row = f"| {num_trials:,} | {metric} | {cells(ours)}"
            print(f"{row} | {cells(theirs)} |", flush=True)


if __name__ == "__main__":
    main()
