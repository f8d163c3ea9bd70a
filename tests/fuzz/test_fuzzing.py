"""A short run of the fuzzer, and whether it finds what it looks for."""

import itertools
import os
import shutil
import signal
import sys

import pytest
import torch

from tests.fuzz import checkpoints, faults, folders, fuzzing, recordings, tables
from tests.fuzz.kinds import Kind, Unfit, command, write_note
from tests.fuzz.mutations import CANARY
from unispeech_sb import commands
from unispeech_sb.inference.embedding_store import EmbeddingStore

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        sys.platform != "linux", reason="memory is read in /proc"
    ),
]

SHORT = {
    **dict.fromkeys(checkpoints.KINDS, 3),
    **dict.fromkeys(tables.KINDS, 8),
    **dict.fromkeys(recordings.KINDS, 6),
    **dict.fromkeys(folders.KINDS, 6),
    **dict.fromkeys(faults.KINDS, 1),
}
"""Cases of each kind in the short run."""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A case changes the working folder, which comes back in the end."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", fuzzing.KINDS)
def test_a_few_hostile_inputs_are_taken_or_refused(kind, tmp_path):
    results = fuzzing.fuzz(kind, SHORT[kind], 0, tmp_path, 1)
    failed = [result for result in results if result.outcome == "failed"]
    assert not failed, failed[0].text
    assert [result.case for result in results] == [*range(SHORT[kind])]


@pytest.mark.parametrize("kind", checkpoints.KINDS)
def test_what_is_damaged_is_read(kind, tmp_path):
    source = fuzzing.write_sources(kind, tmp_path)[-1]
    names = {path.name for path in source.iterdir()}
    damaged = names & set(checkpoints.DAMAGED[kind][1])
    assert damaged
    for name in damaged:
        folder = fuzzing.damaged_copy(kind, [source], 0, None, tmp_path / name)
        (folder / "source" / name).write_bytes(b"")
        outcome, text = fuzzing.run_case(kind, folder)
        assert outcome == "refused", text


@pytest.mark.parametrize("kind", ["adapter", "text-kaldi", "audio-embed"])
def test_a_case_can_be_run_again(kind, tmp_path):
    sources = fuzzing.write_sources(kind, tmp_path)
    damaged = set()
    for case in range(5):
        found = []
        for place in ("once", "again"):
            folder = fuzzing.damaged_copy(
                kind, sources, 0, case, tmp_path / place
            )
            found.append(
                tuple(
                    path.read_bytes()
                    for path in sorted(folder.rglob("*"))
                    if path.is_file()
                )
            )
            shutil.rmtree(folder)
        assert [*map(len, found[0])] == [*map(len, found[1])]
        damaged.add(found[0])
    assert len(damaged) == 5


def plant(case):
    """Code in a file."""
    (case / CANARY).touch()


def leave(case):
    """A refusal that leaves a folder."""

    def run(source, target):
        target.mkdir()
        raise ValueError(str(source))

    checkpoints.judge(run, case)


def refuse(text):
    """A refusal of a text."""

    def run(source, target):
        raise ValueError(text)

    return lambda case: checkpoints.judge(run, case)


def raise_another(case):
    """An error that is no refusal."""
    raise KeyError("x")


def wait(case):
    """A case that never ends, and does nothing."""
    while True:
        signal.pause()


FAULTS = {
    "KeyError": raise_another,
    "over 1 s": lambda case: sum(itertools.count()),
    "over 1 s ": wait,
    "died: -6": lambda case: os.abort(),
    " MB": lambda case: torch.ones(2**26),
    "planted code": plant,
    "does not name": refuse("one line"),
    "5000 characters": refuse("a" * 5000),
    "left something": leave,
}
"""What the fuzzer says of a fault -> the fault."""


def test_the_fuzzer_sees_every_kind_of_failure(tmp_path, monkeypatch):
    def write(folder):
        (folder / "a.json").write_text("{}")

    def judge(case):
        number = case.name.rpartition("-")[2]
        if number != "None":
            list(FAULTS.values())[int(number)](case)
        return "accepted", ""

    planted = Kind((write,), lambda source, rng: None, judge, 1, limit_s=1)
    monkeypatch.setitem(fuzzing.KINDS, "planted", planted)
    monkeypatch.setattr(fuzzing, "LIMIT_MB", 100)
    results = fuzzing.fuzz("planted", len(FAULTS), 0, tmp_path, 2)
    assert len(results) == len(FAULTS)
    for number, (said, result) in enumerate(zip(FAULTS, results)):
        assert (result.case, result.outcome) == (number, "failed")
        assert said.strip(" s") in result.text or said in result.text


def one_batch(tmp_path, monkeypatch, run):
    """Judges a batch of a good and an empty recording by its results."""
    monkeypatch.setattr(recordings.models, "GOOD", ("good",))
    source = tmp_path / "source"
    source.mkdir()
    (source / "reference.json").write_text('{"good": "a b"}')
    bad = f"{recordings.MARK}0.wav"
    write_note(source, names=["good", bad], refused=[0])
    return recordings.judge(lambda names, out: run(bad), tmp_path)


BATCHES = {
    "lost without a word": (1, "1 of 2 files failed", {"good": "a b"}),
    "a b' alone": (1, "hostile0", {"good": "a"}),
    "None in a batch": (1, "hostile0", {}),
    "exit code 0": (0, "hostile0", {"good": "a b"}),
    "taken, but": (0, "", {"good": "a b", f"{recordings.MARK}0.wav": "a"}),
}
"""What is said -> exit code, what was printed, results."""


@pytest.mark.parametrize("said", BATCHES)
def test_a_batch_is_judged_by_its_results(said, tmp_path, monkeypatch):
    with pytest.raises(Unfit, match=said):
        one_batch(tmp_path, monkeypatch, lambda bad: BATCHES[said])


def test_a_good_batch_passes(tmp_path, monkeypatch):
    found = 1, "1 of 2 files failed:\n  hostile0.wav: empty", {"good": "a b"}
    outcome, _ = one_batch(tmp_path, monkeypatch, lambda bad: found)
    assert outcome == "refused"


@pytest.mark.parametrize("error", [KeyError("x"), MemoryError()])
def test_what_no_user_is_to_see_fails(error, monkeypatch):
    def fail(*_):
        raise error

    monkeypatch.setattr(commands, "_run", fail)
    with pytest.raises(Unfit, match="printed: "):
        command("info", "x")


def test_a_lost_embedding_is_seen():
    lines = [["embed", "good0.wav"], ["embed", "good2.wav"]]
    found = {"e.safetensors": [["good0.wav"], [[1.0]]]}
    with pytest.raises(Unfit, match="lost without a word"):
        faults.check_embedded(found, lines, [0, 0])
    faults.check_embedded(found, lines, [0, 1])


def test_leftovers_and_lost_files_are_seen():
    expected = {"a": "text", "save/CKPT+1/model.ckpt": None}
    faults.check_result({**expected, "a": "text"}, expected, "diarize")
    for found in ({**expected, ".a.part": ""}, {"a": "text"}, {}):
        with pytest.raises(Unfit, match="left over"):
            faults.check_result(found, expected, "diarize")
    with pytest.raises(Unfit, match="in place of"):
        faults.check_result({**expected, "a": "other"}, expected, "diarize")


def test_a_process_that_is_killed_or_full_is_seen(tmp_path):
    source = tmp_path / "whole-full-embed-0"
    source.mkdir()
    faults.write("embed", source)
    ended = faults.run("embed", source, most_bytes=0)
    assert ended.code == 1 and "out" in ended.printed
    ended = faults.run("embed", source)
    assert ended.code == 0
    store = EmbeddingStore.load(source / "out" / "e.safetensors")
    assert store.names == [*faults.FILES]


def test_texts_that_are_the_same_are_judged_by_what_is_read(tmp_path):
    tables.write("trials", tmp_path)
    case = tmp_path / "case"
    shutil.copytree(tmp_path, case / "source", ignore=lambda *_: ["case"])
    path = case / "source" / "a.txt"
    for outcome, text, said in (
        ("same", tables.TRIALS + "1 b c\n", "in place of"),
        ("same", "", "refused, but it is right"),
        ("refused", tables.TRIALS, "taken as"),
    ):
        path.write_text(text)
        write_note(case / "source", outcome=outcome)
        with pytest.raises(Unfit, match=said):
            tables.judge("trials", case)
