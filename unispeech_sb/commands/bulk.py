"""Bulk jobs: commands with ``--engine ray``, on one machine or on a cluster.

Shards of recordings are listed, read and run through the model by Ray Data; an
actor holds the model and calls what the command itself calls. This process, the
driver, is the only one that writes: each group of recordings becomes a Parquet
file that appears whole. Nothing here imports torch before a model is loaded.
"""

import argparse
import glob
import hashlib
import importlib
import os
import pickle
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from unispeech_sb.atomic import OneWriter
from unispeech_sb.commands.bulk_parts import (
    JOBS,
    Known,
    Parts,
    model_digest,
    schema_of,
)
from unispeech_sb.commands.options import (
    at_least,
    check_files,
    check_output_folder,
    positive,
)
from unispeech_sb.commands.recordings import find_recordings
from unispeech_sb.environment import require_extra
from unispeech_sb.errors import print_escaped
from unispeech_sb.inference.formats import unicode_name
from unispeech_sb.ray_session import end_with_parent, ray_session

_NO_TABLE = {"rttm_dir": None, "plot": False, "reference": None}
"""Arguments of commands that write other files -> what they are without."""
_MOST_FILES = 10_000
"""Files of a shard."""
_ATTEMPTS = 5
"""Times that a group is begun whose process ends before it is done."""
_REST = 0.01
"""Share of a processor that an actor leaves to what fetches recordings."""
_MOST_SHOWN = 20
"""Errors that are printed."""


def add_bulk(parser):
    """Adds the options of ``--engine ray``."""
    group = parser.add_argument_group(
        "many machines",
        "With --engine ray, results are Parquet files in the folder of -o, and "
        "FILE may also be a WebDataset tar, a Parquet file, a manifest of NeMo "
        "or Lhotse (.jsonl), or a URL such as s3://...: docs/bulk.md.",
    )
    group.add_argument(
        "--ray-address",
        metavar="ADDRESS",
        help="the cluster's: auto or HOST:PORT; a Ray of its own on this "
        "machine when omitted",
    )
    group.add_argument(
        "--actors",
        type=_range,
        metavar="MIN:MAX",
        help="processes with the model, or one number; 1 to as many as the "
        "processors or GPUs allow when omitted",
    )
    group.add_argument(
        "--gpus-per-actor",
        type=positive,
        metavar="SHARE",
        help="GPUs of each, such as 0.25; 1 with --device cuda when omitted",
    )
    group.add_argument(
        "--part-seconds",
        type=positive,
        metavar="S",
        help="about how much audio a Parquet file is of, and an interruption "
        "costs; 600 when omitted, of features 120",
    )


def _range(text):
    """Reads MIN:MAX, or one number for both."""
    least, colon, most = text.partition(":")
    read = at_least(1)
    found = read(least), read(most if colon else least)
    if found[0] > found[1]:
        raise argparse.ArgumentTypeError(
            f"expected MIN:MAX with MIN up to MAX, got {text}"
        )
    return found


def take_ray(arguments: argparse.Namespace) -> bool:
    """Whether a command line asks for Ray; sets ``engine`` to what runs the
    model there. Refuses options that do not go with it, or without it."""
    engine, plus, inner = arguments.engine.partition("+")
    given = {
        name: getattr(arguments, name)
        for name in ("ray_address", "actors", "gpus_per_actor", "part_seconds")
    }
    if engine != "ray":
        for name, value in given.items():
            if value is not None:
                raise ValueError(
                    f"--{name.replace('_', '-')}: expected --engine ray with it"
                )
        return False
    arguments.engine = inner if plus else "torch"
    for name, without in _NO_TABLE.items():
        if getattr(arguments, name, without) != without:
            raise ValueError(
                f"--{name.replace('_', '-')}: expected no --engine ray, which "
                "writes Parquet files only"
            )
    require_extra("pyarrow", "scale", "--engine ray")
    arguments.threads = arguments.threads or 1
    on_gpu = (arguments.device or "cpu").startswith("cuda")
    arguments.gpus_per_actor = arguments.gpus_per_actor or float(on_gpu)
    return True


def run_bulk(command: str, arguments: argparse.Namespace) -> None:
    """Runs a command as a bulk job.

    Exits with 1 when a recording could not be used.
    """
    output = getattr(arguments, "output", None) or arguments.output_dir
    if output is None:
        raise ValueError(
            "--engine ray: expected a folder for its Parquet files; give "
            "--output-dir"
        )
    folder = Path(output)
    check_output_folder(folder)
    shards = [*find_shards(command, arguments, folder)]
    folder.mkdir(parents=True, exist_ok=True)
    _, most = arguments.actors or (1, 1)
    ray_of = ray_session(arguments.ray_address, most * arguments.threads)
    with OneWriter(folder), ray_of:
        overwrite = getattr(arguments, "overwrite", False)
        parts = Parts(folder, model_digest(command, arguments), overwrite)
        errors = _run(command, arguments, shards, parts)
    total = parts.num_old + parts.num_new
    print(
        f"Wrote {folder}: {total} recordings in {parts.num_parts} parts, "
        f"{parts.num_old} of them from before"
    )
    if parts.num_again:
        errors[""] = (
            f"{parts.num_again} recordings have the id of another one, and are "
            "left out"
        )
    if not errors:
        return
    sys.stderr.write(f"{command}: {parts.num_failed} recordings failed:\n")
    for error in errors.values():
        print_escaped(f"  {error}", sys.stderr)
    if parts.num_failed > len(errors):
        sys.stderr.write("  ..., see the column error\n")
    raise SystemExit(1)


def find_shards(
    command: str, arguments: argparse.Namespace, output: Path
) -> Iterator[Any]:
    """Yields the shards of what a command line names; what the output folder
    has is none of them."""
    from unispeech_sb.dataio.sources import (
        container_of,
        is_url,
        places_at,
        shards_of,
    )

    plain: list[str] = []
    places: list[str] = []
    for word in _unlisted(arguments.files):
        if is_url(word):
            places += places_at(word)
        elif os.path.isdir(word):
            inner = _archives_below(word, output)
            places += inner
            plain += [] if inner and not _has_audio(word) else [word]
        elif container_of(word) is not None:
            places += sorted(glob.glob(word)) or [word]
        else:
            plain.append(word)
    recordings = find_recordings(plain)
    if arguments.ray_address is None:
        check_files(command, [*recordings, *filter(_is_here, places)])
    named = [(unicode_name(one.name), path) for path, one in recordings.items()]
    yield from shards_of([*named, *zip(places, places)], _MOST_FILES)


def _unlisted(words):
    """Yields words; of @LIST whose lines are URLs or archives, those."""
    from unispeech_sb.dataio.sources import container_of, is_url
    from unispeech_sb.text import lines_of

    for word in words:
        if word.startswith("@") and os.path.isfile(word[1:]):
            lines = [line.strip() for _, line in lines_of(word[1:])]
            lines = [line for line in lines if line]
            if any(is_url(line) or container_of(line) for line in lines):
                yield from lines
                continue
        yield word


def _archives_below(folder, output):
    """Archives in a folder, at any depth, but for this job's own parts."""
    from unispeech_sb.dataio.sources import container_of, is_input

    own = os.path.realpath(output)
    return [
        str(path)
        for path in sorted(Path(folder).rglob("*"))
        if container_of(path.name)
        and is_input(path.relative_to(folder))
        and os.path.realpath(path.parent) != own
    ]


def _has_audio(folder):
    """Whether there are recordings in a folder."""
    return {*find_recordings([folder])} != {folder}


def _is_here(place):
    """Whether a place is a path."""
    return "://" not in place


_GIVEN_UP = (
    f"expected a process that lives; {_ATTEMPTS} ended on this recording and "
    "those of its group, for want of memory perhaps: give fewer --actors, or "
    "less by --part-seconds and --batch-seconds"
)


class Attempts:
    """Counts how often groups of recordings were begun and not done."""

    def __init__(self) -> None:
        self.begun: Counter[str] = Counter()

    def begin(self, key: str) -> int:
        """Counts; gives which time this is."""
        self.begun[key] += 1
        return self.begun[key]

    def end(self, key: str) -> None:
        """A group is done."""
        del self.begun[key]


class Worker:
    """Holds a command's model, and runs groups of recordings through it.

    ``known`` gives the ``Known`` of this run; ``attempts`` is the actor of its
    ``Attempts``.
    """

    def __init__(
        self,
        command: str,
        arguments: argparse.Namespace,
        model: str,
        known: Callable[[], Known],
        attempts: Any = None,
    ) -> None:
        self.attempts = attempts
        if attempts is not None:
            end_with_parent()
        self.job, self.schema = JOBS[command], schema_of(command)
        self.model, self.known = model, known()
        own, _, name = self.job.opens.partition(":")
        module = importlib.import_module(f"unispeech_sb.commands.{own}")
        self.run_files = getattr(module, name)(arguments)

    def __call__(self, batch: Any) -> Any:
        """Takes and gives rows of Ray's, a group each."""
        (items,) = _unpacked(batch)
        if self.attempts is None:
            return _packed(self.run(items))
        import ray

        key = f"{len(items)} {items[0].id}"
        if ray.get(self.attempts.begin.remote(key)) > _ATTEMPTS:
            items = [item._replace(error=_GIVEN_UP) for item in items]
        found = self.run(items)
        self.attempts.end.remote(key)
        return _packed(found)

    def run(self, items: Sequence[Any]) -> Any:
        """A table with the results of recordings, but for those whose content
        is known."""
        import pyarrow as pa

        from unispeech_sb.dataio.audio import AudioError, attempt
        from unispeech_sb.dataio.sources import LocalFiles

        rows: dict[int, dict[str, Any]] = {}
        numbers: dict[str, list[int]] = {}
        with tempfile.TemporaryDirectory() as folder:
            files = LocalFiles(folder)
            for number, item in enumerate(items):
                digest = hashlib.sha256(
                    files.digest(item) + self.model.encode()
                )
                content = digest.hexdigest()[:32]
                if self.known.has_content(item.id, content):
                    continue
                rows[number] = {
                    "id": item.id,
                    "model": self.model,
                    "content": content,
                    "stamp": item.stamp,
                }
                path = attempt(item.id, files.place, number, item)
                if isinstance(path, AudioError):
                    rows[number] |= self._row(path, item, folder)
                else:
                    numbers.setdefault(path, []).append(number)
            for path, result in self.run_files([*numbers]):
                if not isinstance(result, AudioError):
                    result = attempt(path, self.job.row, result)
                for number in numbers[path]:
                    rows[number] |= self._row(result, items[number], folder)
        return pa.Table.from_pylist([*rows.values()], self.schema)

    def _row(self, result, item, folder):
        """The columns of a result or an error, which names the recording."""
        if isinstance(result, dict):
            return {k: v for k, v in result.items() if k in self.schema.names}
        own = re.escape(folder) + r"/[\w.-]*"
        error = re.sub(own, lambda _: item.id, str(result))
        return {"error": error.encode("utf-8", "backslashreplace").decode()}


def _packed(content):
    """A row of Ray's that has an object, or a table."""
    import pyarrow as pa

    if isinstance(content, pa.Table):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, content.schema) as stream:
            stream.write_table(content)
        content = sink.getvalue().to_pybytes()
    else:
        content = pickle.dumps(content)
    return pa.table({"content": pa.array([content], pa.large_binary())})


def _unpacked(batch):
    """The objects of rows of Ray's."""
    return [pickle.loads(row.as_py()) for row in batch["content"]]


def _listed(batch, seconds, known):
    """Yields the groups of a shard, a row of Ray's each; a row names the shard
    and how many workers share its last recordings."""
    from unispeech_sb.dataio.sources import groups_of, read_shard

    has = known().has
    for shard, num_workers in _unpacked(batch):
        items = read_shard(shard)
        for group in groups_of(items, seconds, has, num_workers):
            yield _packed(group)


def _fetched(batch):
    """A group with the bytes of what is at URLs."""
    from unispeech_sb.dataio.sources import fetch

    (items,) = _unpacked(batch)
    return _packed(fetch(items))


def _run(command, arguments, shards, parts):
    """Runs the shards; gives id -> error of the first that failed."""
    from tqdm import tqdm

    data = _pipeline(command, arguments, shards, parts)
    with tqdm(desc=command, unit="s", unit_scale=True, disable=None) as bar:
        return _write_all(data, parts, bar)


def _write_all(data, parts, bar):
    """Writes what comes; gives id -> error of the first that failed."""
    import pyarrow as pa

    errors: dict[str, str] = {}
    for batch in data.iter_batches(batch_size=1, batch_format="pyarrow"):
        (content,) = batch["content"]
        with pa.ipc.open_stream(content.as_buffer()) as stream:
            table = parts.add(stream.read_all())
        _note_errors(table, errors)
        bar.set_postfix_str(
            f"{parts.num_new} recordings, {parts.num_failed} failed",
            refresh=False,
        )
        seconds = [s for s in table["duration"].to_pylist() if s is not None]
        bar.update(sum(seconds))
    return errors


def _note_errors(table, errors):
    """Keeps the first errors."""
    for name, error in zip(
        table["id"].to_pylist(), table["error"].to_pylist(), strict=True
    ):
        if error is not None and len(errors) < _MOST_SHOWN:
            errors[name] = error


def _pipeline(command, arguments, shards, parts):
    """From shards to tables of results, lazily."""
    import ray

    job = JOBS[command]
    known = partial(ray.get, ray.put(parts.known))
    least, most = _num_actors(arguments)
    last = len(shards) - most
    rows = [  # what is listed last is worked on last
        {"content": pickle.dumps((shard, most if number >= last else 1))}
        for number, shard in enumerate(shards)
    ]
    data = ray.data.from_items(rows, override_num_blocks=len(rows))
    one = {"batch_size": 1, "batch_format": "pyarrow"}
    attempts = ray.remote(num_cpus=0)(Attempts).remote()
    data = data.map_batches(
        partial(
            _listed,
            seconds=arguments.part_seconds or job.group_s,
            known=known,
        ),
        num_cpus=0,
        **one,
    )
    if any(map(_may_be_far, shards)):
        # Tasks that need the same become one task
        data = data.map_batches(_fetched, num_cpus=_REST, **one)
    return data.map_batches(
        Worker,
        fn_constructor_args=(command, arguments, parts.model, known, attempts),
        compute=ray.data.ActorPoolStrategy(min_size=least, max_size=most),
        num_cpus=arguments.threads - _REST,
        num_gpus=arguments.gpus_per_actor,
        **one,
    )


def _may_be_far(shard):
    """Whether recordings of a shard may be at URLs, without their bytes."""
    from unispeech_sb.dataio.sources import is_url

    lists = shard.kind in ("lines", "parquet")
    return lists or any(is_url(path) for _, path in shard.files)


def _num_actors(arguments):
    """Least and most actors; as many as the cluster has room for by default."""
    import ray

    needs = {"CPU": arguments.threads, "GPU": arguments.gpus_per_actor}
    there = ray.cluster_resources()
    room = min(
        int(there.get(name, 0) / need) for name, need in needs.items() if need
    )
    least, most = arguments.actors or (1, max(1, room))
    if least > room:
        has = ", ".join(f"{there.get(name, 0):g} {name}" for name in needs)
        print_escaped(
            f"waiting for room for {least} actors of {needs['CPU']} CPU and "
            f"{needs['GPU']:g} GPU each; the cluster has {has}",
            sys.stderr,
        )
    return least, most
