"""What pip can install loads; the lock, the bounds and the tables agree."""

import configparser
import json
import os
import re
import shutil
import subprocess
import sys
import venv
from itertools import product
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement

from unispeech_sb.environment import TESTED, TORCHAUDIO_FOR

TORCHAUDIO_NEEDS = {
    "2.9.1": "torch==2.9.1",
    "2.10.0": "torch==2.10.0",
    "2.11.0": None,
    "2.11.1": "torch>=2.11",
}
"""Releases of torchaudio -> Requires-Dist of their wheels on PyPI."""

CPU_BUILDS = {"torch": ["2.13.0+cpu", "2.14.1+cpu"], "torchaudio": "2.11.1+cpu"}
KEYS = ("name", "version")
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
"""What the classifiers and the lock promise."""


def rows(root, *titles):
    """Rows of the table with these titles in ``docs/installation.md``."""
    text = (root / "docs" / "installation.md").read_text(encoding="utf-8")
    head = "| " + " | ".join(titles) + " |\n"
    assert text.count(head) == 1, f"no table {head}"
    table = text.partition(head)[2].partition("\n\n")[0]
    lines = table.splitlines()[1:]
    return [[c.strip() for c in line.strip("|").split("|")] for line in lines]


@pytest.fixture(scope="module")
def loads(root):
    """torch -> (torchaudios that load with it, those that fail), as tried."""
    titles = ("torch", "torchaudio that loads", "torchaudio that fails")
    table = {
        torch: tuple(re.findall(r"\d+(?:\.\d+)+", cell) for cell in cells)
        for torch, *cells in rows(root, *titles)
    }
    assert len(table) >= 7
    return table


@pytest.fixture(scope="module")
def config(root):
    """setup.cfg."""
    parser = configparser.ConfigParser()
    parser.read(root / "setup.cfg")
    return parser


@pytest.fixture(scope="module")
def bounds(config):
    """Name -> what the package needs of it."""
    lines = config["options"]["install_requires"].split("\n")
    needed = map(Requirement, filter(None, lines))
    return {requirement.name: requirement for requirement in needed}


@pytest.fixture(scope="module")
def lock(root):
    """The pins of constraints.txt."""
    lines = (root / "constraints.txt").read_text().splitlines()
    return [Requirement(line) for line in lines if not line.startswith("#")]


def pinned(lock, name, python):
    """Releases of a package that the lock has for Linux and a Python."""
    here = {
        "python_version": python,
        "python_full_version": f"{python}.9",
        "platform_system": "Linux",
        "sys_platform": "linux",
        "os_name": "posix",
    }
    name = re.sub(r"[-_.]+", "-", name).lower()
    return [
        str(pin.specifier).removeprefix("==")
        for pin in lock
        if pin.name == name and (not pin.marker or pin.marker.evaluate(here))
    ]


def test_every_admitted_pair_loads(bounds, loads):
    admitted = [
        (torch, torchaudio)
        for torch, torchaudio in product(loads, TORCHAUDIO_NEEDS)
        if "+" not in torch
        and bounds["torch"].specifier.contains(torch)
        and bounds["torchaudio"].specifier.contains(torchaudio)
        and wants(torchaudio, torch)
    ]
    assert len(admitted) == 4
    for torch, torchaudio in admitted:
        assert torchaudio in loads[torch][0], (torch, torchaudio)


def wants(torchaudio, torch):
    """Whether a torchaudio's own requirement admits a torch."""
    needed = TORCHAUDIO_NEEDS[torchaudio]
    return needed is None or Requirement(needed).specifier.contains(torch)


def test_the_remedies_are_pairs_that_load(loads):
    tried = {torch for torch in loads if "+" not in torch}
    assert {t.rpartition(".")[0] for t in tried} == set(TORCHAUDIO_FOR)
    for torch in tried:
        assert TORCHAUDIO_FOR[torch.rpartition(".")[0]] in loads[torch][0]
    assert TESTED["torchaudio"] in loads[TESTED["torch"]][0]


def test_the_lock_has_the_tested_pair(lock):
    for name, version in TESTED.items():
        assert [str(p) for p in lock if p.name == name] == [
            f"{name}=={version}"
        ]


@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_pins_every_dependency_within_its_bounds(
    python, lock, bounds, config
):
    extras = config["options.extras_require"].values()
    lines = [line for extra in extras for line in extra.split("\n") if line]
    needed = [*bounds.values(), *map(Requirement, lines)]
    assert len(needed) > 20
    for requirement in needed:
        if requirement.marker and not requirement.marker.evaluate(
            {"python_version": python}
        ):
            continue
        (version,) = pinned(lock, requirement.name, python)
        assert requirement.specifier.contains(version), requirement


def test_the_lock_names_its_command_and_no_index(root):
    text = (root / "constraints.txt").read_text()
    assert "#    make lock\n" in text
    assert "://" not in text and "--" not in text


def test_the_pythons_are_those_that_were_tried(root, config):
    table = rows(
        root, "Python", "installs", "tests without training", "remarks"
    )
    assert tuple(python for python, *_ in table) == PYTHONS
    assert all(installs == "yes" for _, installs, *_ in table)
    classifiers = config["metadata"]["classifiers"]
    pattern = r"^Programming Language :: Python :: (3\.\d+)$"
    assert tuple(re.findall(pattern, classifiers, re.MULTILINE)) == PYTHONS
    assert config["options"]["python_requires"] == f">={PYTHONS[0]}"


def put_wheel(folder, name, version, needed=None):
    """A wheel that holds its metadata only."""
    info = f"{name}-{version}.dist-info"
    needs = f"Requires-Dist: {needed}\n" if needed else ""
    with ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as file:
        file.writestr(
            f"{info}/METADATA",
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
        )
        file.writestr(
            f"{info}/WHEEL",
            "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        file.writestr(f"{info}/RECORD", "")


@pytest.fixture(scope="module")
def index(loads, tmp_path_factory):
    """Folders with the wheels of PyPI and of PyTorch's index for CPUs."""
    pypi, cpu = (tmp_path_factory.mktemp(name) for name in ("pypi", "cpu"))
    for torch in ("2.9.1", *loads):
        if "+" not in torch:
            put_wheel(pypi, "torch", torch)
    for torchaudio, needed in TORCHAUDIO_NEEDS.items():
        put_wheel(pypi, "torchaudio", torchaudio, needed)
    for torch in CPU_BUILDS["torch"]:
        put_wheel(cpu, "torch", torch)
    put_wheel(cpu, "torchaudio", CPU_BUILDS["torchaudio"], "torch>=2.11")
    return {"pypi": pypi, "cpu": cpu}


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Folder of the packages of an empty environment, and its Python."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    (packages,) = folder.glob("lib/python*/site-packages")
    return packages, folder / "bin" / "python"


@pytest.fixture
def resolve(index, environment, bounds):
    """Says which pair is there after pip has installed the package."""
    packages, python = environment

    def resolve(installed, *options, indexes=("pypi",)):
        shutil.rmtree(packages)
        packages.mkdir()
        for name, version in installed.items():
            put_wheel(packages, name, version, TORCHAUDIO_NEEDS.get(version))
            (wheel,) = packages.glob(f"{name}-*.whl")
            ZipFile(wheel).extractall(packages)
            wheel.unlink()
        command = [
            *(sys.executable, "-m", "pip", "--python", python),
            *("install", "--dry-run", "--quiet", "--report", "-"),
            "--no-index",
            *(f"--find-links={index[name]}" for name in indexes),
            *options,
            *(str(bounds[name]) for name in ("torch", "torchaudio")),
        ]
        done = subprocess.run(
            list(map(str, command)),
            env={**os.environ, "PIP_CONFIG_FILE": os.devnull},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        added = [
            item["metadata"] for item in json.loads(done.stdout)["install"]
        ]
        pair = installed | {item["name"]: item["version"] for item in added}
        return pair["torch"], pair["torchaudio"]

    return resolve


@pytest.mark.slow
@pytest.mark.parametrize(
    "installed",
    [
        {},
        {"torch": "2.10.0"},
        {"torch": "2.10.0", "torchaudio": "2.10.0"},
        {"torch": "2.13.0"},
        {"torch": "2.14.1"},
        {"torch": "2.15.0"},
        {"torch": "2.15.0", "torchaudio": "2.11.0"},
        # Too old, or of a release without a torchaudio that asks for it
        {"torch": "2.9.1", "torchaudio": "2.9.1"},
        {"torch": "2.11.0", "torchaudio": "2.11.1"},
        {"torch": "2.12.1", "torchaudio": "2.11.0"},
    ],
    ids=str,
)
def test_pip_resolves_to_a_pair_that_loads(installed, resolve, bounds, loads):
    torch, torchaudio = resolve(installed)
    assert torchaudio in loads[torch][0]
    before = installed.get("torch")
    if before is not None and bounds["torch"].specifier.contains(before):
        assert torch == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("installed", "locked", "pair"),
    [
        ({}, True, ("2.14.1+cpu", "2.11.1+cpu")),
        ({"torch": "2.13.0+cpu"}, False, ("2.13.0+cpu", "2.11.1+cpu")),
    ],
)
def test_the_index_for_cpus_gives_both_halves(
    installed, locked, pair, resolve, root
):
    options = ["-c", root / "constraints.txt"] if locked else []
    assert resolve(installed, *options, indexes=("pypi", "cpu")) == pair


@pytest.mark.slow
def test_the_lock_gives_the_tested_pair(resolve, root):
    newer = {"torch": "2.15.0", "torchaudio": "2.11.1"}
    pair = resolve(newer, "-c", root / "constraints.txt")
    assert pair == tuple(TESTED.values())


@pytest.fixture
def make(root, tmp_path):
    """Says what make would run in a folder where all is installed."""
    program = shutil.which("make")
    if program is None:
        pytest.skip("needs make")
    for name in ("Makefile", "setup.cfg", "pyproject.toml", "constraints.txt"):
        shutil.copy(root / name, tmp_path)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    for name in ("bin/python", "installed-test-constraints.txt"):
        (tmp_path / ".venv" / name).touch()

    def make(*arguments, **variables):
        done = subprocess.run(
            [program, "-n", *arguments],
            cwd=tmp_path,
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
        )
        return done.stdout + done.stderr

    return make


def test_make_installs_once(make):
    assert "pip install" not in make("check")


def test_make_installs_again_when_the_lock_is_renewed(make, tmp_path):
    later = (tmp_path / "Makefile").stat().st_mtime + 10
    os.utime(tmp_path / "constraints.txt", (later, later))
    assert " -c constraints.txt " in make("check")


def test_make_installs_again_when_the_constraints_change(make, tmp_path):
    newest = make("check", "CONSTRAINTS=")
    assert " -U --upgrade-strategy eager " in newest and " -c " not in newest
    (tmp_path / "mine.txt").touch()
    assert " -c mine.txt " in make("check", "CONSTRAINTS=mine.txt")


def test_make_takes_a_python_that_runs(make, tmp_path):
    found = tmp_path / "found"
    found.mkdir()
    fakes = {
        "python3.11": "exit 127",  # as a shim of pyenv that has none
        "python3.12": "exit 1",  # as one that is too old
        "python3": f'exec {sys.executable} "$@"',
    }
    for name, line in fakes.items():
        (found / name).write_text(f"#!/bin/sh\n{line}\n")
        (found / name).chmod(0o755)
    shutil.rmtree(tmp_path / ".venv")
    asked = make(".venv/bin/python", PATH=str(found))
    assert "\npython3 -m venv .venv\n" in asked
    (found / "python3").unlink()
    assert "python3" not in make(".venv/bin/python", PATH=str(found))
