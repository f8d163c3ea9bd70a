"""What the tests of bulk jobs share."""

from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pytest

from unispeech_sb.commands import bulk, main
from unispeech_sb.commands.bulk_parts import JOBS

pytest.importorskip("pyarrow", reason="needs the extra scale")
import pyarrow.parquet as pq  # noqa: E402


class Here:
    """Ray's data set, in this process."""

    def __init__(self, command, arguments, shards, parts):
        known = lambda: parts.known  # noqa: E731
        self.worker = partial(
            bulk.Worker, command, arguments, parts.model, known
        )
        seconds = arguments.part_seconds or JOBS[command].group_s
        self.groups = (
            bulk._fetched(group)
            for shard in shards
            for group in bulk._listed(bulk._packed((shard, 1)), seconds, known)
        )

    def iter_batches(self, **options):
        """Yields what the actors give."""
        worker = None
        for group in self.groups:
            worker = worker or self.worker()
            yield worker(group)


def run_here(monkeypatch):
    """Makes bulk jobs run in this process."""
    monkeypatch.setattr(bulk, "ray_session", lambda *_: nullcontext())
    monkeypatch.setattr(bulk, "_pipeline", Here)


def rows_in(folder):
    """Id -> row of all parts, of which none may be there twice."""
    rows = [
        row
        for file in sorted(Path(folder).glob("*.parquet"))
        for row in pq.read_table(file).to_pylist()
    ]
    found = {row["id"]: row for row in rows}
    assert len(found) == len(rows)
    return found


def run(*words):
    """Exit code of a command line with --engine ray."""
    try:
        return main([*map(str, words), "--engine", "ray"])
    except SystemExit as error:
        return error.code


def contents(folder):
    """Name -> bytes and time of the parts."""
    return {
        p.name: (p.read_bytes(), p.stat().st_mtime_ns)
        for p in Path(folder).iterdir()
    }


def check_equal(found, expected):
    """Numbers, which are rounded, differ by 1e-6 at most, all else is the
    same."""
    if isinstance(expected, dict):
        for key, value in expected.items():
            check_equal(found[key], value)
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for pair in zip(found, expected):
            check_equal(*pair)
    else:
        near = isinstance(expected, float)
        assert found == (
            pytest.approx(expected, abs=1.1e-6) if near else expected
        )
