"""Random damage to small valid inputs of every kind that is read, and faults.

    python -m tests.fuzz.fuzzing [--share 1.0] [--seed 0] [--kind NAME]

Every damaged input has to be taken rightly or refused by one printable line
that names it. All else fails: a traceback, an error without a name, a lost
result, a crash, over 10 s of CPU, over 1.5 GB, planted code that ran. A failed
case is printed and kept; ``--kind NAME --case NUMBER`` runs one again and shows
the traceback. Needs Linux, whose /proc shows memory and time.
"""

import argparse
import faulthandler
import logging
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch
import transformers

from tests.fuzz import checkpoints, faults, folders, recordings, tables
from tests.fuzz.mutations import CANARY

KINDS = (
    checkpoints.KINDS
    | recordings.KINDS
    | tables.KINDS
    | folders.KINDS
    | faults.KINDS
)
"""Name -> kind, of all."""
if find_spec("kenlm") is None:
    for name in ("text-arpa", "kill-tune-lm", "full-tune-lm"):
        del KINDS[name]

LIMIT_MB = 1536
OVER_TIME = signal.SIGPROF, signal.SIGALRM
HARD_LIMIT_MB = 4 * LIMIT_MB
"""Address space beyond which allocations fail: it protects the machine."""
CASES_PER_PROCESS = 50


class Result(NamedTuple):
    """What became of a case."""

    case: int
    outcome: str
    text: str
    seconds: float
    megabytes: float


def write_sources(kind, folder):
    """Whole inputs of a kind, one folder for each writer; each is taken."""
    sources = []
    for number, write in enumerate(KINDS[kind].writers):
        source = folder / f"whole-{kind}-{number}"
        shutil.rmtree(source, ignore_errors=True)
        source.mkdir(parents=True)
        torch.manual_seed(0)
        write(source)
        sources.append(source)
        copy = damaged_copy(kind, sources[-1:], 0, None, folder)
        outcome, text = run_case(kind, copy)
        if outcome != "accepted":
            raise RuntimeError(f"{kind}: a whole one is {outcome}: {text}")
    return sources


def damaged_copy(kind, sources, seed, case, place):
    """Copies a whole input and damages the copy, unless case is None."""
    rng = random.Random(f"{seed} {kind} {case}")
    folder = place / f"{kind}-{case}"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(rng.choice(sources), folder / "source", symlinks=True)
    if case is not None:
        KINDS[kind].damage(folder / "source", rng)
    return folder


def run_case(kind, folder):
    """Runs one case in this process: outcome and text."""
    os.chdir(folder)
    try:
        outcome, text = KINDS[kind].judge(folder)
    except BaseException:  # whatever it is, it is what is looked for
        outcome, text = "failed", traceback.format_exc()
    if list(folder.rglob(CANARY)):
        return "failed", "planted code has run"
    return outcome, text


def memory(name):
    """A line of /proc/self/status, in MB."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition(name + ":")[2].split()[0]) / 1024


def measured_case(kind, folder):
    """Runs one case; adds seconds and megabytes to what it gave."""
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before, start = memory("VmRSS"), time.process_time()
    # These end this process: the second one where it waits for ever.
    limit_s = KINDS[kind].limit_s
    signal.setitimer(signal.ITIMER_PROF, limit_s)
    signal.setitimer(signal.ITIMER_REAL, 6 * limit_s)
    outcome, text = run_case(kind, folder)
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)
    seconds = time.process_time() - start
    grown = memory("VmHWM") - before
    if grown > LIMIT_MB or "MemoryError" in text:
        outcome, text = "failed", f"{grown:.0f} MB\n{text}"
    return outcome, text, seconds, grown


def work(kind, sources, seed, cases, place, sender):
    """Body of a worker process: runs cases, sends each result."""
    quieten()
    for number in OVER_TIME:
        signal.signal(number, signal.SIG_DFL)
    most = int((memory("VmSize") + HARD_LIMIT_MB) * 2**20)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for case in cases:
        folder = damaged_copy(kind, sources, seed, case, place)
        sender.send(Result(case, "started", "", 0.0, 0.0))
        result = Result(case, *measured_case(kind, folder))
        sender.send(result)
        os.chdir(place)
        if result.outcome != "failed":
            shutil.rmtree(folder)


class Worker:
    """A process on some cases; what it was on when it died is known."""

    def __init__(self, kind, sources, seed, cases, place):
        self.receiver, sender = multiprocessing.Pipe(duplex=False)
        self.left, self.limit_s = list(cases), KINDS[kind].limit_s
        context = multiprocessing.get_context("fork")
        arguments = (kind, sources, seed, self.left, place, sender)
        self.process = context.Process(target=work, args=arguments)
        self.process.start()
        sender.close()

    def results(self):
        """Results that came, and whether more may come."""
        found = []
        try:
            while self.receiver.poll():
                result = self.receiver.recv()
                if result.outcome != "started":
                    found.append(result)
                    self.left.remove(result.case)
        except EOFError:
            self.process.join()
            code = self.process.exitcode
            if self.left:
                late, limit_s = -code in OVER_TIME, self.limit_s
                why = f"over {limit_s:g} s" if late else f"died: {code}"
                case = self.left.pop(0)
                found.append(Result(case, "failed", why, limit_s, 0.0))
            return found, False
        return found, True


def fuzz(kind, count, seed, place, processes):
    """Runs all cases of a kind, some processes at a time."""
    try:
        sources = write_sources(kind, place)
    except Exception:  # whole ones that are not taken
        return [Result(-1, "failed", traceback.format_exc(), 0.0, 0.0)]
    pending = [
        range(start, min(count, start + CASES_PER_PROCESS))
        for start in range(0, count, CASES_PER_PROCESS)
    ]
    workers, results = [], []
    while pending or workers:
        while pending and len(workers) < processes:
            cases = pending.pop(0)
            workers.append(Worker(kind, sources, seed, cases, place))
        multiprocessing.connection.wait([w.receiver for w in workers])
        for worker in list(workers):
            found, alive = worker.results()
            results += found
            if not alive:
                workers.remove(worker)
                pending += [worker.left] if worker.left else []
    return sorted(results)


def quieten():
    """No warnings, logs, bars or traces: a case shows by its outcome."""
    faulthandler.disable()
    logging.disable(logging.CRITICAL)
    transformers.utils.logging.disable_progress_bar()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)


def replay(kind, seed, case, place):
    """Runs one case in this process and shows what it does."""
    sources = write_sources(kind, place)
    folder = damaged_copy(kind, sources, seed, case, place)
    outcome, text = run_case(kind, folder)
    print(f"{kind}, case {case}: {outcome}\n{text}\nfiles: {folder}")


def table_row(kind, results):
    """A line of the table."""
    counts = {
        outcome: sum(result.outcome == outcome for result in results)
        for outcome in ("accepted", "refused", "failed")
    }
    slowest = max(result.seconds for result in results)
    peak = max(result.megabytes for result in results)
    cells = [kind, len(results), *counts.values(), f"{slowest:.1f}"]
    return "| " + " | ".join(map(str, [*cells, f"{peak:.0f}"])) + " |"


def print_failures(name, seed, results):
    """Prints failed cases, those that failed alike together; counts them."""
    alike = {}
    for result in results:
        if result.outcome == "failed":
            *_, last = result.text.strip().splitlines()
            places = re.findall(r'File ".*?/(\w+/\w+\.py)", line (\d+)',
                                result.text)  # fmt: skip
            where = ":".join(places[-1]) if places else ""
            kind = re.sub(r"\S*/source\S*|\d+", "...", last)[:60]
            alike.setdefault((where, kind), []).append((result.case, last))
    for (where, _), found in alike.items():
        cases = ", ".join(str(case) for case, _ in found[:8])
        text = ascii(found[0][1])[1:-1][:400]
        print(f"  {len(found)} x {where} {text} (--kind {name} --seed {seed} "
              f"--case {cases})", file=sys.stderr)  # fmt: skip
    return sum(map(len, alike.values()))


def main():
    """Prints the table; exits with 1 where a case failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--count", type=int, help="cases of each kind")
    parser.add_argument(
        "--share", type=float, default=1.0, help="of the full counts"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=KINDS, action="append")
    parser.add_argument("--case", type=int, help="run this one again")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="folder of failed cases")
    arguments = parser.parse_args()
    place = arguments.keep or Path(tempfile.mkdtemp(prefix="fuzzing-"))
    place = place.resolve()
    quieten()
    if arguments.case is not None:
        for kind in arguments.kind:
            replay(kind, arguments.seed, arguments.case, place)
        return 0
    failures = 0
    print("| kind | cases | accepted | refused | failed | slowest s | MB |")
    print("|---|---|---|---|---|---|---|")
    for kind in arguments.kind or KINDS:
        full = KINDS[kind].count
        count = arguments.count or max(1, round(arguments.share * full))
        results = fuzz(kind, count, arguments.seed, place, arguments.processes)
        print(table_row(kind, results), flush=True)
        failures += print_failures(kind, arguments.seed, results)
    if failures:
        print(f"{failures} failed; their files are in {place}", file=sys.stderr)
    else:
        shutil.rmtree(place)
    return min(failures, 1)


if __name__ == "__main__":
    sys.exit(main())
