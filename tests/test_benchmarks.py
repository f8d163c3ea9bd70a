"""Every script of the benchmarks starts."""

import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted(
    path
    for path in (ROOT / "benchmarks").glob("*.py")
    if 'if __name__ == "__main__"' in path.read_text()
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
