"""The Dockerfile names what is there; no image is built here."""

import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess

import pytest

from tests.conftest import ROOT
from unispeech_sb.commands import COMMANDS

TEXT = (ROOT / "Dockerfile").read_text("utf-8")
KEPT = [
    line
    for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    if line and not line.startswith("#")
]


def instructions():
    """Pairs of instruction and arguments, continued lines joined."""
    lines = [line for line in TEXT.splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [tuple(line.split(" ", 1)) for line in joined.splitlines() if line]


STEPS = instructions()


def arguments(name):
    """The arguments of all instructions of a name."""
    return [rest for step, rest in STEPS if step == name]


def test_there_is_what_an_image_needs():
    steps = [step for step, _ in STEPS]
    assert steps[0] == "FROM" and len(steps) >= 12
    assert {"ARG", "COPY", "RUN", "ENTRYPOINT", "USER"} <= set(steps)
    assert steps.index("COPY") < steps.index("ENTRYPOINT")
    assert arguments("ARG") == ["DEVICE=cpu"]


def test_what_is_copied_is_there_and_not_ignored():
    copied = [s for rest in arguments("COPY") for s in rest.split()[:-1]]
    assert len(copied) == 9
    assert not [name for name in copied if not (ROOT / name).exists()]
    assert KEPT[0] == "*"
    allowed = {line[1:] for line in KEPT if line.startswith("!")}
    assert allowed == set(copied)


def test_the_installation_finds_its_folders():
    """Each folder of setup.cfg is in the image."""
    mapped = re.findall(
        r"= (\w+)$",
        (ROOT / "setup.cfg")
        .read_text("utf-8")
        .partition("package_dir =")[2]
        .partition("#")[0],
        re.M,
    )
    allowed = [line[1:] for line in KEPT if line.startswith("!")]
    assert len(mapped) == 3
    for name in mapped:
        assert any(fnmatch.fnmatch(name, pattern) for pattern in allowed)


def test_the_commands_exist():
    (entry,), (default,) = arguments("ENTRYPOINT"), arguments("CMD")
    setup = (ROOT / "setup.cfg").read_text("utf-8")
    assert f"{json.loads(entry)[0]} = unispeech_sb.commands:main" in setup
    assert json.loads(default) == ["--help"]
    shown = re.findall(r"^#.* unispeech-sb (\w+)", TEXT, re.M)
    assert shown and set(shown) <= set(COMMANDS)


@pytest.mark.parametrize("run", arguments("RUN"))
def test_a_shell_reads_each_step(run):
    done = subprocess.run(["sh", "-n", "-c", run], capture_output=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("device", "index"), [("cpu", True), ("gpu", False), ("tpu", None)]
)
def test_the_build_argument_chooses_the_torch(device, index, tmp_path):
    (run,) = (rest for rest in arguments("RUN") if "pip install" in rest)
    pip = tmp_path / "pip"
    pip.write_text(
        '#!/bin/sh\nprintf "%s\\n" "$@"\necho $PIP_EXTRA_INDEX_URL\n'
    )
    pip.chmod(0o755)
    done = subprocess.run(
        ["sh", "-c", run],
        env={"DEVICE": device, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    if index is None:
        assert done.returncode == 1
        assert done.stderr == "DEVICE: expected cpu or gpu; got tpu\n"
        return
    *words, url = done.stdout.splitlines()
    assert words[:2] == ["install", "--no-cache-dir"]
    assert url.endswith("/whl/cpu") if index else not url
    extras = re.search(r"\.\[(.*)\]", words[-1])[1].split(",")
    known = re.findall(
        r"^(\w+) =$",
        (ROOT / "setup.cfg").read_text("utf-8").partition("extras_require]")[2],
        re.M,
    )
    assert set(extras) <= set(known)


def test_the_lines_of_the_head_are_commands():
    head = re.sub(r"\\\n# +", "", TEXT)
    lines = re.findall(r"^#   (docker .*)", head, re.M)
    assert [shlex.split(line)[1] for line in lines] == [
        *("build", "build", "run", "run")
    ]


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="needs hadolint")
def test_hadolint_finds_no_fault():
    done = subprocess.run(
        ["hadolint", ROOT / "Dockerfile"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
