"""Throughput of bulk jobs: ``embed --engine ray`` beside other engines.

    python benchmarks/bulk.py [--clips 20000] [--model small] [--folder FOLDER]

Clips of noise of 0.5 to 1 s, and a speaker model with random weights of a
preset size, or that of FOLDER; one thread for each process with a model. Sides:
a plain loop over the files, one at a time; the method of the command in this
process, in batches; ``--engine ray`` with one actor and with two;
``datasets.map`` (Hugging Face) with one process and with two, and Daft, if they
are installed. The embeddings are compared first: no side may differ from the
plain loop by more than 1e-6 of the vector's length.

``whole`` is seconds of audio in a second of wall time, from the start of a side
to its last result, the loading of its models included. ``steady`` is the same
from the first results on, and for the loops without loading. ``models`` and
``rest`` are processor time of the processes that have a model and of all others
that the side started, in ms for a second of audio, over the same stretch; where
the loops have one process, all is in ``models``. ``begin`` and ``end`` are
memory in MB, at the first results and at the last ones: of this process and of
the largest of those with a model, without pages of files and shared ones.
What measuring takes is in neither.

What two actors can win on two processors follows from the processor time, which
depends less on what else the machine does: twice that of one actor's model over
all that of two. It is printed below the table.
"""

import argparse
import contextlib
import datetime
import io
import os
import platform
import re
import tempfile
import threading
import time
from importlib.util import find_spec
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import soundfile
import torch

from unispeech_sb.checkpoints.pretrained_folder import write_pretrained
from unispeech_sb.commands import bulk
from unispeech_sb.commands import main as command
from unispeech_sb.inference.speaker_verification import SpeakerVerification
from unispeech_sb.lobes.backbone import Backbone
from unispeech_sb.lobes.heads import SpeakerHead


def write_clips(folder, count):
    """Paths of clips of 0.5 to 1 s, and their seconds in all."""
    draw, paths, total = np.random.default_rng(0), [], 0.0
    for number in range(count):
        seconds = draw.uniform(0.5, 1)
        paths.append(str(Path(folder, f"{number}.wav")))
        wav = draw.normal(scale=0.1, size=round(seconds * 16000))
        soundfile.write(paths[-1], wav, 16000)
        total += seconds
    return paths, total


def write_model(folder, preset):
    """A pretrained folder with random weights."""
    torch.manual_seed(0)
    backbone = Backbone.from_preset(preset)
    head = SpeakerHead(
        backbone.config.hidden_size,
        [128, 128, 128],
        [5, 3, 1],
        [1, 2, 1],
        xvector_output_dim=128,
        num_states=backbone.num_states,
    )
    lobes = {"backbone": backbone, "head": head}
    write_pretrained(folder, lobes, "SpeakerRecognition", "For a benchmark.")
    return str(folder)


def by_loop(model, paths, steady):
    """Embeddings of one file after the other."""
    verification = SpeakerVerification.from_hparams(model)
    steady()
    return {path: verification.embed(path).vector.numpy() for path in paths}


def in_batches(model, paths, steady):
    """Embeddings by the method of the command."""
    verification = SpeakerVerification.from_hparams(model)
    steady()
    found = verification.embed_files(paths, 60.0)
    return {path: result.vector.numpy() for path, result in found}


def run_quietly(words):
    """Runs a command; raises what it prints where it fails."""
    said, silent = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(silent), contextlib.redirect_stderr(said):
        try:
            code = command(words)
        except SystemExit as error:
            code = error.code
    if code:
        raise RuntimeError(said.getvalue())


def by_ray(actors):
    """A side that is the command, with so many actors."""

    def run(model, paths, steady):
        import pyarrow.parquet as pq

        add = bulk.Parts.add

        def timed(self, table):
            steady(sum(table["duration"].to_pylist()))
            return add(self, table)

        bulk.Parts.add = timed
        try:
            with tempfile.TemporaryDirectory() as folder:
                words = ["embed", model, str(Path(paths[0]).parent)]
                words += ["--engine", "ray", "--actors", str(actors)]
                words += ["--part-seconds", "100", "-o", f"{folder}/out"]
                run_quietly(words)
                table = pq.read_table(f"{folder}/out").to_pydict()
        finally:
            bulk.Parts.add = add
        vectors = np.array(table["embedding"], np.float32)
        return dict(zip(table["id"], vectors))

    return run


class Mapped:
    """What ``datasets.map`` and Daft call on batches of paths."""

    def __init__(self, model):
        self.model, self.loaded = model, None

    def __call__(self, paths):
        """Embeddings, [D] each, in the order of the paths."""
        if self.loaded is None:
            torch.set_num_threads(1)
            self.loaded = SpeakerVerification.from_hparams(self.model)
        found = dict(self.loaded.embed_files(paths, 60.0))
        return [found[path].vector.numpy() for path in paths]


def by_datasets(processes):
    """A side by Hugging Face's datasets."""

    def run(model, paths, steady):
        import datasets

        datasets.disable_progress_bars()
        datasets.disable_caching()
        mapped = Mapped(model)
        with tempfile.TemporaryDirectory() as folder:
            data = datasets.Dataset.from_dict({"path": paths}).map(
                lambda batch: {"embedding": mapped(batch["path"])},
                batched=True,
                batch_size=50,
                num_proc=processes if processes > 1 else None,
                cache_file_name=f"{folder}/cache.arrow",
            )
            vectors = np.array(data["embedding"][:], np.float32)
        return dict(zip(paths, vectors))

    return run


def by_daft(model, paths, steady):
    """A side by Daft, with a class that one process holds."""
    import daft

    @daft.udf(
        return_dtype=daft.DataType.list(daft.DataType.float32()),
        concurrency=1,
        batch_size=50,
    )
    class Embedded(Mapped):
        def __init__(self):
            super().__init__(model)

        def __call__(self, column):
            return [v.tolist() for v in super().__call__(column.to_pylist())]

    data = daft.from_pydict({"path": paths})
    data = data.with_column("embedding", Embedded(daft.col("path")))
    found = data.to_pydict()
    vectors = np.array(found["embedding"], np.float32)
    return dict(zip(found["path"], vectors))


SIDES = {
    "plain loop": by_loop,
    "embed_files": in_batches,
    "--engine ray, 1 actor": by_ray(1),
    "--engine ray, 2 actors": by_ray(2),
    "datasets.map, 1 process": by_datasets(1),
    "datasets.map, 2 processes": by_datasets(2),
    "Daft, 1 process": by_daft,
}
NEEDS = {"--eng": "ray", "datas": "datasets", "Daft,": "daft"}
"""Begin of a side's name -> the package that it needs."""
COLUMNS = ("whole", "steady", "models", "rest", "begin", "end")
TICKS = os.sysconf("SC_CLK_TCK")


def processes():
    """Number -> parent, name and processor seconds of what runs."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            text = (place / "stat").read_text()
            name = (place / "cmdline").read_bytes().decode(errors="replace")
        except OSError:  # it has ended
            continue
        rest = text.rpartition(")")[2].split()
        ticks = int(rest[11]) + int(rest[12])
        found[int(place.name)] = (int(rest[1]), name, ticks / TICKS)
    return found


def own_mb(number):
    """Memory of a process without shared pages and those of files."""
    try:
        text = Path(f"/proc/{number}/status").read_text()
    except OSError:
        return 0.0
    found = re.search(r"^RssAnon:\s+(\d+)", text, re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0


class Watch(threading.Thread):
    """Notes, every two seconds, what this process and its descendants have
    used of processors, without what looking takes; those that have ended count
    with what they last had."""

    def __init__(self):
        super().__init__(daemon=True)
        self.lock, self.ended = threading.Lock(), threading.Event()
        self.used, self.mine = {}, {os.getpid()}
        self.before, self.own = sum(os.times()[:2]), 0.0
        self.start()

    def run(self):
        """Looks until it is ended."""
        while not self.ended.wait(2.0):
            self.look()

    def look(self):
        """Processor seconds of the processes with a model, and of others."""
        with self.lock:
            start = time.thread_time()
            found = processes()
            for number in sorted(found):
                parent, name, seconds = found[number]
                if parent in self.mine or number in self.mine:
                    self.mine.add(number)
                    has_model = bool(re.search(r"MapBatches\(Worker", name))
                    self.used[number] = (has_model, seconds)
            self.own += time.thread_time() - start
            has_model, seconds = self.used[os.getpid()]
            seconds -= self.before + self.own
            self.used[os.getpid()] = (has_model, seconds)
            models = sum(s for kind, s in self.used.values() if kind)
            return models, sum(s for _, s in self.used.values()) - models

    def memory(self):
        """MB of this process, and of the largest other one with a model."""
        with self.lock:
            actors = [n for n, (kind, _) in self.used.items() if kind]
        return own_mb(os.getpid()), max(map(own_mb, actors), default=0.0)


def measure(run, model, paths, total):
    """Embeddings of a side, and its figures."""
    marks, done, watch = [], [0.0], Watch()

    def steady(more=0.0):
        done[0] += more
        marks.append(
            (time.perf_counter(), done[0], watch.look(), watch.memory())
        )

    start = time.perf_counter()
    found = run(model, paths, steady)
    end, cpu = time.perf_counter(), watch.look()
    watch.ended.set()
    figures = {"whole": total / (end - start)}
    first = marks[0] if marks else (start, 0.0, (0.0, 0.0), watch.memory())
    # The loops say when they begin, the jobs at each part
    last = marks[-1] if len(marks) > 1 else (end, total, cpu, watch.memory())
    seconds = last[1] - first[1]
    models, rest = (b - a for a, b in zip(first[2], last[2]))
    if models == 0:  # one process, or several that have a model each
        models, rest = rest, 0.0
    figures["steady"] = seconds / (last[0] - first[0]) if marks else np.nan
    figures["models"] = 1000 * models / seconds
    figures["rest"] = 1000 * rest / seconds
    for name, mark in (("begin", first), ("end", last)):
        figures[name] = " + ".join(f"{mb:.0f}" for mb in mark[3] if mb)
    return found, figures


def main():
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=20_000)
    parser.add_argument("--model", default="small")
    parser.add_argument("--folder")
    parser.add_argument("--sides", help="words, of which names have one")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="bulk-") as folder:
        (Path(folder) / "clips").mkdir()
        paths, total = write_clips(f"{folder}/clips", arguments.clips)
        model = arguments.folder or write_model(
            f"{folder}/model", arguments.model
        )
        print(
            f"{datetime.date.today()}, {os.cpu_count()} cores, load "
            f"{os.getloadavg()[0]:.1f}, Python {platform.python_version()}, "
            f"torch {torch.__version__}, {len(paths)} clips, {total:.0f} s\n"
        )
        print(f"| side | {' | '.join(COLUMNS)} |\n{'|---' * 7}|")
        expected, rows = None, {}
        for name, run in SIDES.items():
            asked = (arguments.sides or name).split(",")
            package = NEEDS.get(name[:5], "torch")
            if find_spec(package) is None or not any(a in name for a in asked):
                continue
            found, rows[name] = measure(run, model, paths, total)
            expected = expected or found
            assert found.keys() == expected.keys()
            for path, vector in found.items():
                far = np.abs(vector - expected[path]).max()
                assert far <= 1e-6 * np.linalg.norm(vector), (name, path, far)
            cells = [rows[name][column] for column in COLUMNS]
            cells = [c if isinstance(c, str) else f"{c:.1f}" for c in cells]
            print(f"| {name} | {' | '.join(cells)} |", flush=True)
        print_gain(*(row for name, row in rows.items() if "ray" in name))


def print_gain(*rows):
    """Prints what the second actor gives."""
    if len(rows) == 2:
        one, two = rows
        wall = two["steady"] / one["steady"]
        cpu = 2 * one["models"] / (two["models"] + two["rest"])
        print(
            f"\nsecond actor: {wall:.2f} times by wall time, {cpu:.2f} by "
            f"processor time; load {os.getloadavg()[0]:.1f}"
        )


if __name__ == "__main__":
    main()
