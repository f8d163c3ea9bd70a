"""Bulk jobs on Ray: the cluster of README.md on this machine, and kills."""

import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.commands.bulk_jobs import (
    check_equal,
    contents,
    rows_in,
    run,
    run_here,
)
from tests.conftest import ROOT
from tests.dataio.test_sources import write_tar
from tests.fuzz.bulk import VICTIMS, await_end, programs_in
from unispeech_sb import ray_session
from unispeech_sb.commands import bulk, main

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not find_spec("ray"), reason="needs the extra scale"),
]

RAY = [sys.executable, "-m", "ray.scripts.scripts"]
NODE = [
    *("--port=0", "--num-cpus=2", "--object-store-memory=100000000"),
    *("--include-dashboard=false", "--block"),
]
"""Options of a small node at a free port, which ends with its process."""


def cluster_lines():
    """The command lines below a heading of README.md, as words."""
    text = (ROOT / "README.md").read_text("utf-8")
    section = text.partition("\n## A cluster\n")[2].partition("\n## ")[0]
    block = re.search(r"^```\n(.*?)^```$", section, re.M | re.S)[1]
    return [shlex.split(line, comments=True) for line in block.splitlines()]


@contextmanager
def ray_folder():
    """A folder for Ray's files, in which the paths of sockets are short; at
    the end no process has it in its environment any more."""
    with (
        tempfile.TemporaryDirectory(prefix="ray-") as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("RAY_TMPDIR", folder)
        yield folder
        await_end(folder)


@pytest.fixture
def cluster():
    """The folder of a cluster of one node, which "auto" finds."""
    with ray_folder() as folder, pytest.MonkeyPatch.context() as patch:
        log = Path(folder, "log")
        with log.open("wb") as file:
            words = [*RAY, *cluster_lines()[1][1:], *NODE]
            node = subprocess.Popen(words, stdout=file)
        try:
            while "will now block" not in log.read_text():
                assert node.poll() is None
                time.sleep(0.05)
            said = re.search(r"--address='(\S+)'", log.read_text())
            patch.setenv("RAY_ADDRESS", said[1])
            yield folder
        finally:
            node.terminate()
            node.wait()


def write_clips(path, files, count):
    """Writes a tar of so many recordings, the same ones again and again."""
    found = [Path(file).read_bytes() for file in files]
    members = {f"{n}.wav": found[n % len(found)] for n in range(count)}
    write_tar(path, members)


@pytest.fixture
def killed(cluster, monkeypatch):
    """Numbers of the actors that were killed when the first part was there."""
    found, add = [], bulk.Parts.add

    def add_and_kill(self, table):
        for number, line in () if found else programs_in(cluster).items():
            if VICTIMS["actor"] in line:
                os.kill(number, signal.SIGKILL)
                found.append(number)
        return add(self, table)

    monkeypatch.setattr(bulk.Parts, "add", add_and_kill)
    return found


def test_the_readme_runs_on_a_cluster_whose_actor_is_killed(
    killed, models, files, tmp_path, monkeypatch, capsys
):
    install, head, other, job, stop = cluster_lines()
    assert install == ["pip", "install", "unispeech_sb[scale]"]
    assert head == ["ray", "start", "--head"]
    assert other == ["ray", "start", "--address=HEAD:6379"]
    assert stop == ["ray", "stop"]  # which would stop others' clusters, too
    program, command, _, _, *options = job
    assert program == "unispeech-sb"
    assert options[-4:] == ["--engine", "ray", "--ray-address", "auto"]
    place = Path(files[0]).parent
    write_clips(place / "a.tar", files, 16)
    (place / "bad.wav").write_text("no audio")
    monkeypatch.chdir(tmp_path)
    line = [command, models["keywords"], str(place), *options]
    with pytest.raises(SystemExit) as end:
        main([*line, "--actors", "1", "--part-seconds", "2"])
    assert killed and end.value.code == 1
    assert f"{command}: 1 recordings failed:" in capsys.readouterr().err
    found = rows_in(options[options.index("-o") + 1])
    run_here(monkeypatch)
    assert run(command, models["keywords"], place, "-o", "here") == 1
    assert len(found) == 21
    check_equal(found, rows_in("here"))


def test_a_ray_that_does_not_start_is_tried_again(monkeypatch):
    import ray

    tried = []

    def init(address, **options):
        tried.append(address)
        if len(tried) < 3:
            raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(ray, "init", init)
    for name in ray_session._SETTINGS_HERE:
        monkeypatch.setenv(name, "0")
    ray_session._connect(None, 1)
    assert tried == ["local"] * 3
    tried.clear()
    monkeypatch.setattr(ray_session, "_STARTS", 2)
    with pytest.raises(TimeoutError, match="Ray to start on this machine"):
        ray_session._connect(None, 1)


def test_a_killed_driver_loses_nothing(models, files, tmp_path, monkeypatch):
    write_clips(tmp_path / "a.tar", files, 200)
    out = tmp_path / "out"
    line = ["classify", models["keywords"], tmp_path / "a.tar", "-o", out]
    line += ["--part-seconds", 2, "--actors", 1]
    program = [sys.executable, "-m", "unispeech_sb", *map(str, line)]
    with ray_folder():  # in which nothing is left, though no one ends it
        process = subprocess.Popen([*program, "--engine", "ray"])
        while not [*out.glob("part-*")]:
            assert process.poll() is None
            time.sleep(0.02)
        process.kill()
        process.wait()
    first = contents(out)
    done = rows_in(out)
    run_here(monkeypatch)
    assert run(*line) == 0
    rows, after = rows_in(out), contents(out)
    assert len(rows) == 200 > len(done) > 0
    assert {name: rows[name] for name in done} == done
    parts = {name: first[name] for name in first if name[0] != "."}
    assert {name: after[name] for name in parts} == parts
