"""Every script of the benchmarks starts; the fuzzer finds what it looks for."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted(
    path
    for path in (ROOT / "benchmarks").glob("*.py")
    if 'if __name__ == "__main__"' in path.read_text()
)


def run(*arguments):
    """Runs Python in this clone, as a user does, on one thread."""
    settings = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
    )


def test_there_are_scripts_to_look_at():
    assert len(SCRIPTS) >= 4


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_each_script_says_how_to_run_it(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "path", [str(script.parent), *sys.path])
    monkeypatch.setattr(sys, "argv", [script.name, "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(script), run_name="__main__")
    assert end.value.code == 0
    assert f"usage: {script.name}" in capsys.readouterr().out


def test_the_readme_tells_of_each_script():
    text = (ROOT / "benchmarks" / "README.md").read_text()
    assert not [s.name for s in SCRIPTS if f"benchmarks/{s.name}" not in text]


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read in /proc")
def test_a_few_damaged_files_convert_or_are_refused():
    kinds = "--kind", "hf-bin", "--kind", "adapter"
    done = run("benchmarks/fuzzing.py", "--count", "3", *kinds)
    assert done.returncode == 0, done.stderr
    assert "| hf-bin | 3 |" in done.stdout
    assert "| adapter | 3 |" in done.stdout


FAULTS = {
    "KeyError": "raise KeyError('x')",
    "over 1 s": "time.sleep(5)",
    "died: -6": "os.abort()",
    " MB": "torch.ones(2**26)",
    "planted code": "(source.parents[0] / CANARY).touch()",
    "does not name": "raise ValueError('one line')",
    "5000 characters": "raise ValueError('a' * 5000)",
    "left something": "target.mkdir(); raise ValueError(str(source))",
}
PROGRAM = """
import os, sys, time
sys.path.insert(0, "benchmarks")
from pathlib import Path
import torch
import fuzzing
from fuzzed_kinds import Kind
from mutations import CANARY

FAULTS = {faults}
fuzzing.LIMIT_S, fuzzing.LIMIT_MB = 1, 100

def write(folder):
    (folder / "a.json").write_text("{{}}")

def run(source, target):
    number = source.parent.name.rpartition("-")[2]
    if number != "None":
        exec(FAULTS[int(number)])

fuzzing.KINDS["planted"] = Kind((write,), ("a.json",), run)
for result in fuzzing.fuzz("planted", len(FAULTS), 0, Path({place!r}), 2):
    print(result.case, result.outcome, result.text.replace("\\n", " "))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read in /proc")
def test_the_fuzzer_sees_every_kind_of_failure(tmp_path):
    program = PROGRAM.format(faults=list(FAULTS.values()), place=str(tmp_path))
    done = run("-c", program)
    lines = done.stdout.splitlines()
    assert len(lines) == len(FAULTS), done.stderr
    for number, (said, line) in enumerate(zip(FAULTS, lines)):
        assert line.startswith(f"{number} failed"), line
        assert said in line
