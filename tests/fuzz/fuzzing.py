"""Random damage to small valid files of every kind that is read.

    python -m tests.fuzz.fuzzing [--count 2000] [--seed 0] [--kind NAME]

Each damaged file has to convert into a folder that loads, or be refused by
one printable line that names the file, with nothing written. All else fails:
another exception, a crash, over 10 s of CPU, over 2 GB, planted code that ran.
A failed case is printed and kept; ``--kind NAME --case NUMBER`` runs one again
and shows the traceback. Needs Linux, whose /proc shows memory and time.
"""

import argparse
import faulthandler
import io
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
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import torch
import transformers
from hyperpyyaml import load_hyperpyyaml

from tests.fuzz import files
from tests.fuzz.mutations import CANARY, mutate
from unispeech_sb import commands
from unispeech_sb.lobes.adapters import load_adapter
from unispeech_sb.lobes.backbone import Backbone

LIMIT_S, LIMIT_MB = 10, 2048
OVER_TIME = signal.SIGPROF, signal.SIGALRM
HARD_LIMIT_MB = 3 * LIMIT_MB
"""Address space beyond which allocations fail: it protects the machine."""
CASES_PER_PROCESS = 50
MOST_TEXT = 1500
"""Characters of a refusal, the path included."""


class Unfit(Exception):
    """A refusal that is not one short line that names the file."""


def command(*arguments):
    """Runs a command line; a refusal becomes an error with what it printed."""
    printed = io.StringIO()
    with redirect_stdout(io.StringIO()), redirect_stderr(printed):
        code = commands.main([str(argument) for argument in arguments])
    if code:
        line = printed.getvalue().removesuffix("\n")
        if not line.isprintable():
            raise Unfit(f"not one printable line: {ascii(line)[:300]}")
        raise ValueError(line.removeprefix("unispeech-sb: "))


def convert(source, target):
    """Describes and converts; what was written has to load."""
    _, refusal = attempts(
        source,
        lambda: command("info", source),
        lambda: command("convert", source, target),
    )
    if refusal:
        raise refusal
    hparams = load_hyperpyyaml((target / "hyperparams.yaml").read_text())
    hparams["pretrainer"].set_collect_in(str(target))
    hparams["pretrainer"].collect_files(default_source=str(target))
    hparams["pretrainer"].load_collected()


def serve(source, target):
    """Describes, loads and converts back; what does not load, does not."""
    _, not_loaded, refusal = attempts(
        source,
        lambda: command("info", source),
        lambda: Backbone.from_pretrained(source),
        lambda: command("to-hf", source, target),
    )
    if refusal:
        raise refusal
    if not_loaded:
        raise AssertionError(f"written for transformers, but: {not_loaded}")


def attempts(source, *actions):
    """The refusal of each action, its words checked; None where it went."""
    found = []
    for action in actions:
        try:
            action()
            found.append(None)
        except (ValueError, OSError) as error:
            check_refusal(error, source)
            found.append(error)
    return found


def check_refusal(error, source):
    """Checks the words of an error, as the command line folds them."""
    text = " ".join(str(error).split())
    folder = source if source.is_dir() else source.parent
    if len(text) > MOST_TEXT:
        raise Unfit(f"{len(text)} characters: {text[:300]}") from error
    if str(folder) not in text:
        raise Unfit(f"does not name the file: {text[:600]}") from error


def switch(source, target):
    """Switches modules to a language; refused, they stay as they were."""
    backbone, head = files.adapted()
    before = [p.clone() for p in (*backbone.parameters(), *head.parameters())]
    try:
        load_adapter(source, "eng", backbone, head)
    except (ValueError, OSError):
        after = (*backbone.parameters(), *head.parameters())
        if not all(map(torch.equal, before, after)):
            raise AssertionError("refused, but the modules changed") from None
        raise


class Kind(NamedTuple):
    """A kind of file.

    ``writers`` make folders, ``damaged`` are names of files that they may
    have, ``run`` takes the folder (or its only file) and a place to write to.
    """

    writers: tuple
    damaged: tuple
    run: object = convert


SPEAKER, CTC = "UniSpeechSatForXVector", "UniSpeechForCTC"
HUGGING_FACE = tuple(files.huggingface(name) for name in files.HEADS)
OWN = tuple(files.own(name) for name in (SPEAKER, CTC))
KINDS = {
    "hf-safetensors": Kind(HUGGING_FACE, ("model.safetensors",)),
    "hf-config": Kind(HUGGING_FACE, ("config.json",)),
    "hf-preprocessor": Kind(
        HUGGING_FACE, ("preprocessor_config.json", "processor_config.json")
    ),
    "hf-vocabulary": Kind(
        (files.huggingface(CTC),),
        ("vocab.json", "tokenizer_config.json"),
    ),
    "hf-bin": Kind(
        (files.huggingface(SPEAKER, "pytorch_model.bin"),),
        ("pytorch_model.bin",),
    ),
    "hf-bin-legacy": Kind(
        (files.huggingface(SPEAKER, "legacy"),), ("pytorch_model.bin",)
    ),
    "hf-shards": Kind(
        (files.huggingface(SPEAKER, files.INDEX),), (files.INDEX,)
    ),
    "fairseq": Kind((files.fairseq,), ("checkpoint.pt",)),
    "fairseq-2021": Kind((files.fairseq_2021,), ("checkpoint.pt",)),
    "speaker-verification": Kind((files.speaker_verification,), ("model.th",)),
    "diarization": Kind((files.diarization,), ("model.th",)),
    "s3prl": Kind((files.s3prl,), ("states.ckpt",)),
    "adapter": Kind((files.adapter,), ("adapter.eng.safetensors",), switch),
    "own-backbone": Kind((*OWN, files.own_backbone), ("backbone.ckpt",), serve),
    "own-head": Kind(OWN, ("head.ckpt",), serve),
    "own-labels": Kind(OWN[:1], ("label_encoder.ckpt",), serve),
    "own-tokenizer": Kind(OWN[1:], ("tokenizer.ckpt",), serve),
    "own-origin": Kind(OWN, ("origin.json",), serve),
}


class Result(NamedTuple):
    """What became of a case."""

    case: int
    outcome: str
    text: str
    seconds: float
    megabytes: float


def write_sources(kind, folder):
    """Valid files of a kind, one folder for each writer; each converts."""
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
        if outcome != "converted":
            raise RuntimeError(f"{kind}: a whole file is {outcome}: {text}")
    return sources


def damaged_copy(kind, sources, seed, case, place):
    """Copies a valid folder and damages a file of it, unless case is None."""
    rng = random.Random(f"{seed} {kind} {case}")
    folder = place / f"{kind}-{case}"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(rng.choice(sources), folder / "source")
    if case is not None:
        names = [folder / "source" / name for name in KINDS[kind].damaged]
        mutate(rng.choice([path for path in names if path.exists()]), rng)
    return folder


def run_case(kind, folder):
    """Runs one case in this process: outcome and text."""
    source, target = folder / "source", folder / "target"
    inside = list(source.iterdir())
    if KINDS[kind].run is convert and len(inside) == 1:
        source = inside[0]
    os.chdir(folder)
    outcome, text = "converted", ""
    try:
        KINDS[kind].run(source, target)
    except (ValueError, OSError) as error:
        outcome, text = "refused", str(error)
        try:
            check_refusal(error, source)
        except Unfit as fault:
            return "failed", str(fault) + "\n" + traceback.format_exc()
        if {path.name for path in folder.iterdir()} - {"source", CANARY}:
            return "failed", f"left something behind after: {text}"
    except BaseException:  # whatever it is, it is what is looked for
        return "failed", traceback.format_exc()
    if (folder / CANARY).exists():
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
    signal.setitimer(signal.ITIMER_PROF, LIMIT_S)
    signal.setitimer(signal.ITIMER_REAL, 30 * LIMIT_S)
    outcome, text = run_case(kind, folder)
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)
    seconds = time.process_time() - start
    grown = memory("VmHWM") - before
    if grown > LIMIT_MB or "MemoryError" in text or "allocate" in text:
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
        self.left = list(cases)
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
                late = -code in OVER_TIME
                why = f"over {LIMIT_S} s" if late else f"died: {code}"
                case = self.left.pop(0)
                found.append(Result(case, "failed", why, LIMIT_S, 0.0))
            return found, False
        return found, True


def fuzz(kind, count, seed, place, processes):
    """Runs all cases of a kind, some processes at a time."""
    sources = write_sources(kind, place)
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
        for outcome in ("converted", "refused", "failed")
    }
    slowest = max(result.seconds for result in results)
    peak = max(result.megabytes for result in results)
    cells = [kind, len(results), *counts.values(), f"{slowest:.1f}"]
    return "| " + " | ".join(map(str, [*cells, f"{peak:.0f}"])) + " |"


def print_failures(results):
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
        print(f"  {len(found)} x {where} {text} (cases {cases})",
              file=sys.stderr)  # fmt: skip
    return sum(map(len, alike.values()))


def main():
    """Prints the table; exits with 1 where a case failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--count", type=int, default=2000)
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
    print("| kind | cases | converted | refused | failed | slowest s | MB |")
    print("|---|---|---|---|---|---|---|")
    for kind in arguments.kind or KINDS:
        results = fuzz(
            kind, arguments.count, arguments.seed, place, arguments.processes
        )
        print(table_row(kind, results), flush=True)
        failures += print_failures(results)
    if failures:
        print(f"{failures} failed; their files are in {place}", file=sys.stderr)
    else:
        shutil.rmtree(place)
    return min(failures, 1)


if __name__ == "__main__":
    sys.exit(main())
