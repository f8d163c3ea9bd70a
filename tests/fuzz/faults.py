"""Commands and recipes that are killed, that meet, and whose disk is full.

A process is forked from this one, in which all is imported, and killed at a
random moment, or stopped as by Ctrl-C, which it says in one line; then the same
command has to end as if nothing had been, and nothing of the other may be left.
Of two at a time on one output, each that ends well has all its results there.
A file that cannot grow is named, and no part of it stays.
"""

import contextlib
import functools
import json
import logging
import os
import re
import resource
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import torch

from tests.fuzz import files, models
from tests.fuzz.kinds import (
    Kind,
    Unfit,
    check_printed,
    read_note,
    refused_line,
    write_note,
)
from unispeech_sb import commands
from unispeech_sb.inference import embedding_store
from unispeech_sb.inference.embedding_store import EmbeddingStore

LIMIT_S = 20.0
"""Seconds after which a command hangs, above what it took alone."""

TRIALS = (
    "1 good0.wav good1.flac\n0 good0.wav good2.wav\n1 good1.flac good2.wav\n"
    "0 good0.wav more.wav\n"
)
CSV = (
    "id,path,split,wrd\na,good0.wav,valid,a b\nb,good2.wav,valid,b\n"
    "c,good1.flac,valid,b a\n"
)
FILES = tuple(models.GOOD)
ASR, SPEAKER, DIARIZATION = "MODEL/asr", "MODEL/speaker", "MODEL/diarization"
CLASSIFIER = "MODEL/classifier"
RECIPE = ("--device=cpu", "--noprogressbar", "--model=tiny",
          "--number_of_epochs=2", "--output_folder=out")  # fmt: skip

LINES = {
    "transcribe": ("transcribe", ASR, *FILES, "--output-dir", "out"),
    "align": ("align", ASR, *FILES, "--text", "table.csv", "-o", "out"),
    "diarize": ("diarize", DIARIZATION, *FILES, "--rttm-dir", "out"),
    "classify": ("classify", CLASSIFIER, ".", "-o", "out", "-f", "csv"),
    "features": ("features", SPEAKER, *FILES, "-o", "out", "--layers", "all"),
    "embed": ("embed", SPEAKER, *FILES, "-o", "out/e.safetensors"),
    "score": (
        *("score", SPEAKER, "--trials", "trials.txt", "--audio-root", "."),
        *("-o", "out", "--draws", "0"),
    ),
    "similarity": (
        *("similarity", SPEAKER, "--pairs", "trials.txt", "-o", "out"),
        *("--audio-root", ".", "--draws", "0"),
    ),
    "convert": ("convert", "checkpoint", "out"),
    "to-hf": ("to-hf", ASR, "out"),
    "tune-lm": (
        *("tune-lm", ASR, "table.csv", "--lm", "a.arpa", "--to", "out"),
        *("--rounds", "0", "--beam-size", "2"),
    ),
    "keyword_spotting": (
        *("recipe", "keyword_spotting", "--data_folder=words", *RECIPE),
        *("--num_classes=2", "--batch_size=4"),
    ),
    "asr": (
        *("recipe", "asr", "--data_folder=sentences", *RECIPE),
        *("--max_batch_s=3.0", "--num_buckets=2", "--lr=0.01"),
        *("--warmup_updates=0", "--freeze_backbone_updates=0"),
    ),
}
"""Name -> command line; all of them write into ``out``."""

RECIPES = ("keyword_spotting", "asr")
CHANGING = ("log.txt", "env.log", "train_log.txt", "experiment.json")
"""Files that tell of times."""


def write(name, folder):
    """Writes what a command reads, and runs it alone."""
    models.write_good(folder)
    models.write_more(folder)
    (folder / "trials.txt").write_text(TRIALS)
    (folder / "table.csv").write_text(CSV)
    write_arpa(folder / "a.arpa")
    if name == "convert":
        (folder / "checkpoint").mkdir()
        files.huggingface("UniSpeechForCTC")(folder / "checkpoint")
    if name in RECIPES:
        models.write_corpus(
            folder / ("words" if name[0] == "k" else "sentences")
        )
    start = time.monotonic()
    ended = run(name, folder)
    if ended.code:
        raise RuntimeError(f"{name}: {ended.code}: {ended.printed[-2000:]}")
    seconds = time.monotonic() - start
    tree = listing(folder / "out")
    shutil.rmtree(folder / "out")
    about = {"seconds": seconds, "tree": tree}
    (folder / "reference.json").write_text(json.dumps(about))


def write_arpa(path):
    """A language model of two words."""
    path.write_text(
        "\\data\\\nngram 1=5\nngram 2=1\n\n\\1-grams:\n-9\t<unk>\n-9\t<s>\t0\n"
        "-0.5\t</s>\n-0.5\ta\t0\n-0.4\tb\t0\n\n\\2-grams:\n-0.1\ta b\n"
        "\n\\end\\\n"
    )


_NOT_BEGUN = 70
"""Exit code of a process that ended before its command began."""


class Process:
    """A command in a forked process."""

    def __init__(self, line, folder, most_bytes=None):
        # A pipe has no size that a limit applies to
        self._reader, writer = os.pipe()
        os.set_blocking(self._reader, False)
        self._read = b""
        self.id = os.fork()
        if not self.id:
            self._run(line, folder, writer, most_bytes)
        os.close(writer)

    def _run(self, line, folder, writer, most_bytes):
        """Body of the new process; never returns."""
        code = _NOT_BEGUN
        try:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)
            for name, number in (("stdout", 1), ("stderr", 2)):
                os.dup2(writer, number)
                stream = open(number, "w", buffering=1, closefd=False)  # noqa: SIM115
                setattr(sys, name, stream)
            os.chdir(folder)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            logging.disable(logging.NOTSET)
            torch.set_num_threads(1)  # others do not outlive a fork
            embedding_store.PART_S = 0.0
            if most_bytes is not None:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                limits = (most_bytes, resource.RLIM_INFINITY)
                resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            try:
                code = commands.main(list(line))
            except SystemExit as end:
                code = end.code or 0
        finally:
            os._exit(code)

    def wait(self, seconds):
        """Exit code, negative for a signal; a process that hangs is killed."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found, status = os.waitpid(self.id, os.WNOHANG)
            self._drain()
            if found:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.005)
        self.kill()
        raise Unfit(f"hangs for {seconds:.0f} s: {self.printed[-600:]}")

    def stop_at(self, moment, number):
        """Sends a signal at a time of the monotonic clock."""
        while time.monotonic() < moment:
            self._drain()
            time.sleep(0.002)
        if number == signal.SIGKILL:
            self.kill()
        else:
            os.kill(self.id, number)
            check_stopped(self.wait(LIMIT_S), self.printed, number)

    def kill(self):
        """Kills the process."""
        os.kill(self.id, signal.SIGKILL)
        os.waitpid(self.id, 0)
        self._drain()

    def _drain(self):
        """Takes what was printed, so that the pipe is not full."""
        with contextlib.suppress(BlockingIOError):
            while found := os.read(self._reader, 2**16):
                self._read += found

    @property
    def printed(self):
        """What it wrote."""
        return self._read.decode("utf-8", "replace")


def check_stopped(code, printed, number):
    """A process that was asked to stop says so, unless it was done."""
    check_printed(printed)
    if code in (-number, _NOT_BEGUN) and not printed:
        return  # before the command began
    if code == 1 and "expected a new folder" in printed:
        return  # the one before it had finished
    word = "interrupted" if number == signal.SIGINT else "terminated"
    said = printed.rpartition("unispeech-sb: ")[2].startswith(word)
    if code not in (0, 128 + number) or said != (code != 0):
        raise Unfit(f"exit code {code} after signal {number}: {printed[-600:]}")


class Ended:
    """How a process ended."""

    def __init__(self, process, seconds):
        self.code = process.wait(seconds)
        self.printed = process.printed
        check_printed(self.printed)


def words(name, folder):
    """The command line of a name, with the models' places."""
    known = {f"MODEL/{key}": str(models.model(key)) for key in models.MODELS}
    return [known.get(word, word) for word in LINES[name]]


def run(name, folder, seconds=300.0, most_bytes=None):
    """Runs a command to its end."""
    return Ended(Process(words(name, folder), folder, most_bytes), seconds)


def listing(folder):
    """Path -> what is compared of a file, of all in a folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found[str(path.relative_to(folder))] = content(path)
    return found


def content(path):
    """What has to be the same in a file: text, or embeddings."""
    if path.name in CHANGING or "save/CKPT" in str(path):
        return None
    if path.suffix in (".txt", ".rttm", ".csv") and "export" not in path.parts:
        return path.read_text("utf-8")
    if path.name.endswith("e.safetensors") or path.stem == "embeddings":
        store = EmbeddingStore.load(path)
        return [store.names, store.vectors.tolist()]
    return None


def check_result(found, expected, name):
    """What a folder has to have in the end."""
    names = {strip(path) for path in found}
    wanted = {strip(path) for path in expected}
    if names != wanted:
        raise Unfit(
            f"left over: {sorted(names - wanted)[:9]}; "
            f"missing: {sorted(wanted - names)[:9]}"
        )
    for path, value in expected.items():
        if value is None or name in RECIPES:
            continue
        own = found[path]
        if isinstance(value, list):
            same = own[0] == value[0] and np.allclose(
                own[1], value[1], rtol=1e-3, atol=1e-3
            )
        else:
            same = own == value
        if not same:
            raise Unfit(f"{path}: {own!r:.200} in place of {value!r:.200}")


def strip(path):
    """A path in which a checkpoint's time says nothing."""
    parts = Path(path).parts
    return "/".join("CKPT" if p.startswith("CKPT") else p for p in parts)


SIGNALS = (*(signal.SIGKILL,) * 4, signal.SIGINT, signal.SIGTERM)
"""What ends a process."""


def damage_by_kill(folder, rng):
    """Chooses when to kill or to stop: once or twice."""
    moments = [rng.random() for _ in range(rng.choice((1, 1, 2)))]
    signals = [int(rng.choice(SIGNALS)) for _ in moments]
    write_note(folder, moments=moments, signals=signals)


def judge_kill(name, case):
    """A command that is killed, and the same again."""
    folder, note = case / "source", read_note(case)
    about = json.loads((folder / "reference.json").read_text())
    limit = LIMIT_S + 4 * about["seconds"]
    ends = list(zip(note.get("moments", ()), note.get("signals", ())))
    for moment, number in ends:
        process = Process(words(name, folder), folder)
        until = time.monotonic() + 1.1 * moment * about["seconds"]
        process.stop_at(until, number)
        check_printed(process.printed)
    finished = (folder / "out").exists() and name in (
        "convert",
        "to-hf",
        "tune-lm",
    )
    ended = run(name, folder, limit)
    if ended.code:
        line = refused_line(ended.printed)
        if not (finished and "expected a new folder" in line):
            raise Unfit(f"exit code {ended.code}: {line}")
    check_result(listing(folder / "out"), about["tree"], name)
    check_beside(folder)
    return "accepted", f"ended at, by: {ends}"


def check_beside(folder):
    """Nothing may be left beside the output either."""
    made = {"out", "reference.json", "checkpoint", "words", "sentences"}
    known = {
        *made,
        *models.GOOD,
        "more.wav",
        "trials.txt",
        "table.csv",
        "a.arpa",
    }
    left = {path.name for path in folder.iterdir()} - known
    if left:
        raise Unfit(f"left beside the output: {sorted(left)}")


def damage_by_meeting(folder, rng):
    """Chooses how far apart two begin."""
    write_note(folder, apart=rng.choice((0.0, 0.0, rng.random())), meet=True)


def judge_meeting(name, case):
    """Two processes on one output, with different recordings each."""
    folder, note = case / "source", read_note(case)
    about = json.loads((folder / "reference.json").read_text())
    lines = [words(name, folder), words(name, folder)]
    if name == "embed":
        lines = [
            [word for word in lines[0] if word != FILES[2]],
            [word for word in lines[1] if word != FILES[0]],
        ]
    if not note:
        lines = lines[:1]
    running = []
    for number, line in enumerate(lines):
        if number:
            time.sleep(note["apart"] * about["seconds"])
        running.append(Process(line, folder))
    limit = LIMIT_S + 8 * about["seconds"]
    codes, outcome = [], "accepted"
    for process in running:
        ended = Ended(process, limit)
        codes.append(ended.code)
        if ended.code:
            line = refused_line(ended.printed)
            if "out" not in line:
                raise Unfit(f"does not name the output: {line}")
            outcome = "refused"
    if all(codes):
        raise Unfit(f"neither wrote: {codes}, {running[0].printed[-600:]}")
    found = listing(folder / "out")
    if name == "embed":
        check_embedded(found, lines, codes)
    else:
        check_result(found, about["tree"], name)
    check_beside(folder)
    return outcome, str(codes)


def check_embedded(found, lines, codes):
    """Each that ended well has its recordings in the file."""
    if set(found) != {"e.safetensors"}:
        raise Unfit(f"left {sorted(found)}")
    names, _ = found["e.safetensors"]
    for line, code in zip(lines, codes):
        lost = [word for word in line if word in FILES and word not in names]
        if code == 0 and lost:
            raise Unfit(f"lost without a word: {lost}")


SIZES = (0, 1, 100, 500, 1000, 3000, 10_000, 30_000, 100_000, 300_000)
"""Bytes that a file may have."""


def damage_by_limit(folder, rng):
    """Chooses a command, and how far a file may grow."""
    most = rng.choice(SIZES)
    write_note(folder, most_bytes=most)


def judge_limit(name, case):
    """A command whose files cannot grow, and the same again without limit."""
    folder, note = case / "source", read_note(case)
    about = json.loads((folder / "reference.json").read_text())
    limit, outcome = LIMIT_S + 4 * about["seconds"], "accepted"
    if note:
        ended = run(name, folder, limit, note["most_bytes"])
        if ended.code:
            outcome = "refused"
            check_full(ended, folder)
    if outcome == "refused" or not note:
        ended = run(name, folder, limit)
        if ended.code:
            raise Unfit(f"exit code {ended.code}: {ended.printed[-600:]}")
    check_result(listing(folder / "out"), about["tree"], name)
    check_beside(folder)
    return outcome, ""


def check_full(ended, folder):
    """One line that names the file, and no part of it."""
    _, is_list, line = ended.printed.rpartition("files failed:")
    line = line if is_list else refused_line(ended.printed)
    if not re.search(r"\bout\b", line):
        raise Unfit(f"does not name the file: {line}")
    parts = [
        path
        for path in folder.rglob(".*")
        if path.is_file() and path.suffix != ".lock"
    ]
    if parts:
        raise Unfit(f"left {parts[0].name} after: {line}")


def kinds(prefix, names, damage, judge, total):
    """Kinds of faults, one for each command."""
    limits = {name: 600.0 if name in RECIPES else 120.0 for name in names}
    return {
        f"{prefix}-{name}": Kind(
            (functools.partial(write, name),),
            damage,
            functools.partial(judge, name),
            -(-total // len(names)),
            limits[name],
        )
        for name in names
    }


KINDS = (
    kinds("kill", LINES, damage_by_kill, judge_kill, 200)
    | kinds(
        "meet",
        (
            *("embed", "transcribe", "align", "diarize", "classify"),
            *("features", "score", "similarity", "keyword_spotting"),
        ),
        damage_by_meeting,
        judge_meeting,
        100,
    )
    | kinds("full", LINES, damage_by_limit, judge_limit, 20)
)
