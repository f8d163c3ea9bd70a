"""Kills processes of bulk jobs on Ray at random moments, until a job is done.

    python -m tests.fuzz.bulk --count 20 --seed 1

A job classifies a few hundred short clips, one of which is no audio. While it
runs, its driver, an actor, its raylet or the GCS is killed, and when the job
has ended for that the same command goes on, up to ``--kills`` times; the last
one is left alone. In the end the rows have to be those of the command without
Ray, each once, in parts that read, with nothing beside them. Needs Linux, whose
/proc tells the processes.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pyarrow.parquet
import soundfile

from benchmarks.bulk import processes
from tests.fuzz import models

VICTIMS = {
    "driver": "-m\0unispeech_sb\0classify\0",
    "actor": "MapBatches(Worker",
    "raylet": "/raylet/raylet",
    "GCS": "/gcs/gcs_server",
}
"""What is killed -> what its command line has."""
LIMIT_S = 600.0
"""Seconds after which a job hangs."""
AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
"""Processes of Ray's that wait a minute for a GCS that has ended."""


def programs_in(folder):
    """Number -> command line of the processes whose environment has a folder
    for Ray."""
    found = {}
    for number, (_, line, _) in processes().items():
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            text = Path(f"/proc/{number}/environ").read_bytes()
            if f"RAY_TMPDIR={folder}\0".encode() in text:
                found[number] = line
    return found


def kill(numbers):
    """Kills processes, of which some may have ended."""
    for number in numbers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)


def await_end(folder, seconds=120.0):
    """Waits until nothing of a Ray runs any more, but for its agents, which
    are ended."""
    end = time.monotonic() + seconds
    while left := programs_in(folder):
        if all(line.startswith(AGENTS) for line in left.values()):
            kill(left)
        if time.monotonic() > end:
            raise AssertionError(f"left running: {left}")
        time.sleep(0.05)


def write_clips(folder, count):
    """Writes short clips, and a file that is no audio."""
    folder.mkdir()
    for number in range(count):
        samples = models.speech(0.3 + 0.001 * number, 16000, number)
        soundfile.write(folder / f"{number}.wav", samples, 16000)
    (folder / "bad.wav").write_text("no audio")


def run_with_kills(line, folder, most, draw):
    """Runs a command until it ends by itself; gives what was killed."""
    killed = []
    while True:
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(line, stdout=log, stderr=log)
        end = time.monotonic() + LIMIT_S
        moment = time.monotonic() + draw.uniform(0.0, 30.0)
        victim = draw.choice([*VICTIMS]) if len(killed) < most else None
        while process.poll() is None:
            assert time.monotonic() < end, "hangs"
            time.sleep(0.05)
            if victim is None or time.monotonic() < moment:
                continue
            if any_killed(folder, VICTIMS[victim], draw):
                killed.append(victim)
                is_over = len(killed) == most
                victim = None if is_over else draw.choice([*VICTIMS])
                moment = time.monotonic() + draw.uniform(0.0, 10.0)
        await_end(str(folder))
        if process.returncode == 1 and "Wrote " in last_lines(folder):
            return killed
        assert killed, f"{process.returncode}: {last_lines(folder)}"
        assert len(killed) <= most


def any_killed(folder, mark, draw):
    """Kills a process of a kind, where there is one."""
    there = programs_in(folder).items()
    found = [number for number, line in there if mark in line]
    kill([draw.choice(sorted(found))] if found else [])
    return bool(found)


def last_lines(folder):
    """What the last driver wrote."""
    return (folder / "log").read_text()[-1500:]


def check_rows(out, expected):
    """Compares the parts with what the command alone gives."""
    beside = [p.name for p in out.iterdir() if not p.name.startswith("part-")]
    assert not beside, f"left over: {beside}"
    rows = [
        row
        for file in out.iterdir()
        for row in pyarrow.parquet.read_table(file).to_pylist()
    ]
    twice = [n for n, c in Counter(r["id"] for r in rows).items() if c > 1]
    assert not twice, f"twice: {twice[:9]}"
    names = {row["id"]: row for row in rows if row["error"] is None}
    assert names.keys() == expected.keys(), names.keys() ^ expected.keys()
    assert len(rows) == len(names) + 1, "the bad file has no row"
    for name, one in expected.items():
        same = names[name]["label"] == one["label"]
        near = abs(names[name]["posterior"] - one["posterior"]) <= 1.1e-6
        assert same and near, (name, names[name], one)


def alone(program, model, clips):
    """Path -> what the command without Ray gives."""
    line = [*program, "classify", model, str(clips), "-f", "json"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr  # for the bad file
    rows = map(json.loads, done.stdout.splitlines())
    return {str(clips / f"{row['name']}.wav"): row for row in rows}


def main():
    """Runs the jobs of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--clips", type=int, default=300)
    parser.add_argument("--kills", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    program = [sys.executable, "-m", "unispeech_sb"]
    model, failures, kills = str(models.model("classifier")), [], Counter()
    with tempfile.TemporaryDirectory(prefix="ray-") as name:
        folder, draw = Path(name), random.Random(arguments.seed)
        os.environ["RAY_TMPDIR"] = name
        write_clips(folder / "in", arguments.clips)
        expected = alone(program, model, folder / "in")
        line = [*program, "classify", model, str(folder / "in")]
        line += ["-o", str(folder / "out"), "--engine", "ray"]
        line += ["--actors", "2", "--part-seconds", "3"]
        for job in range(arguments.count):
            try:
                found = run_with_kills(line, folder, arguments.kills, draw)
                check_rows(folder / "out", expected)
            except AssertionError as error:
                failures.append(f"job {job}: {error}")
                await_end(name)
            else:
                kills.update(found)
                print(f"job {job}: killed {', '.join(found)}", flush=True)
            shutil.rmtree(folder / "out", ignore_errors=True)
    print(f"{arguments.count} jobs, {len(failures)} failed; killed: {kills}")
    for failure in failures:
        print(failure)
    raise SystemExit(bool(failures))


if __name__ == "__main__":
    main()
