"""A short run of the fuzzer, and whether it finds what it looks for."""

import itertools
import os
import sys

import pytest
import torch

from tests.fuzz import fuzzing
from tests.fuzz.mutations import CANARY

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        sys.platform != "linux", reason="memory is read in /proc"
    ),
]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A case changes the working folder, which comes back in the end."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("kind", fuzzing.KINDS)
def test_a_few_damaged_files_convert_or_are_refused(kind, tmp_path):
    results = fuzzing.fuzz(kind, 3, 0, tmp_path, 1)
    assert [result.case for result in results] == [0, 1, 2]
    failed = [result for result in results if result.outcome == "failed"]
    assert not failed, failed[0].text


@pytest.mark.parametrize("kind", fuzzing.KINDS)
def test_what_is_damaged_is_read(kind, tmp_path):
    source = fuzzing.write_sources(kind, tmp_path)[-1]
    names = {path.name for path in source.iterdir()}
    damaged = names & set(fuzzing.KINDS[kind].damaged)
    assert damaged
    for name in damaged:
        folder = fuzzing.damaged_copy(kind, [source], 0, None, tmp_path / name)
        (folder / "source" / name).write_bytes(b"")
        outcome, text = fuzzing.run_case(kind, folder)
        assert outcome == "refused", text


def test_a_case_can_be_run_again(tmp_path):
    sources = fuzzing.write_sources("adapter", tmp_path)
    damaged = set()
    for case in range(5):
        texts = []
        for place in ("once", "again"):
            folder = fuzzing.damaged_copy(
                "adapter", sources, 0, case, tmp_path / place
            )
            (path,) = (folder / "source").iterdir()
            texts.append(path.read_bytes())
        assert texts[0] == texts[1]
        damaged.add(texts[0])
    assert len(damaged) == 5


def plant(source, target):
    """Code in a file."""
    (source.parents[0] / CANARY).touch()


def leave(source, target):
    """A refusal that leaves a folder."""
    target.mkdir()
    raise ValueError(str(source))


def refuse(text):
    """A refusal of a text."""

    def run(source, target):
        raise ValueError(text)

    return run


def raise_another(source, target):
    """An error that is no refusal."""
    raise KeyError("x")


FAULTS = {
    "KeyError": raise_another,
    "over 1 s": lambda *_: sum(itertools.count()),
    "died: -6": lambda *_: os.abort(),
    " MB": lambda *_: torch.ones(2**26),
    "planted code": plant,
    "does not name": refuse("one line"),
    "5000 characters": refuse("a" * 5000),
    "left something": leave,
}
"""What the fuzzer says of a fault -> the fault."""


def test_the_fuzzer_sees_every_kind_of_failure(tmp_path, monkeypatch):
    def write(folder):
        (folder / "a.json").write_text("{}")

    def run(source, target):
        number = source.parent.name.rpartition("-")[2]
        if number != "None":
            list(FAULTS.values())[int(number)](source, target)

    planted = fuzzing.Kind((write,), ("a.json",), run)
    monkeypatch.setitem(fuzzing.KINDS, "planted", planted)
    monkeypatch.setattr(fuzzing, "LIMIT_S", 1)
    monkeypatch.setattr(fuzzing, "LIMIT_MB", 100)
    results = fuzzing.fuzz("planted", len(FAULTS), 0, tmp_path, 2)
    assert len(results) == len(FAULTS)
    for number, (words, result) in enumerate(zip(FAULTS, results)):
        assert (result.case, result.outcome) == (number, "failed")
        assert words in result.text
