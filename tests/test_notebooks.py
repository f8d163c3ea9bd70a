"""Every notebook runs as it stands, and shows what is kept of it."""

import json
import os
from importlib.util import module_from_spec, spec_from_file_location

import pytest

from tests.conftest import ROOT

FOLDER = ROOT / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
MOST_BYTES = 100_000
SAME_PLACE = {"transcripts": "speakers"}
"""Notebook -> one before it that trains a model of both: its folder is used."""

each_notebook = pytest.mark.parametrize(
    "path", NOTEBOOKS, ids=lambda path: path.stem
)


@pytest.fixture(scope="module")
def runner():
    """docs/notebooks.py as a module."""
    for name in ("nbclient", "nbformat", "ipykernel", "espeakng_loader"):
        pytest.importorskip(name, reason=f"needs {name}")
    spec = spec_from_file_location("notebooks", ROOT / "docs/notebooks.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Where notebooks run, each in a folder of its own or of another one."""
    return tmp_path_factory.mktemp("notebooks")


def cells_of(path):
    """Cells of a notebook with code."""
    cells = json.loads(path.read_text("utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def kinds(outputs):
    """What a cell shows: texts, tables, pictures."""
    return [
        (output["output_type"], sorted(output.get("data", ())))
        for output in outputs
    ]


def test_there_are_four_notebooks():
    names = [path.stem for path in NOTEBOOKS]
    assert names == ["keywords", "layers", "speakers", "transcripts"]


@each_notebook
def test_a_notebook_is_small_and_keeps_no_errors_and_no_paths(path):
    text = path.read_text("utf-8")
    assert len(text) < MOST_BYTES
    for cell in cells_of(path):
        shown = json.dumps(cell["outputs"])
        assert cell["execution_count"] is None
        assert "/tmp" not in shown and "/home" not in shown
        assert "stderr" not in shown and "Traceback" not in shown
    pictures = [kind for c in cells_of(path) for kind in kinds(c["outputs"])]
    assert any("image/png" in shown for _, shown in pictures)


@pytest.mark.slow
@each_notebook
def test_a_notebook_runs_and_shows_what_is_kept(
    path, runner, places, monkeypatch
):
    place = places / SAME_PLACE.get(path.stem, path.stem)
    place.mkdir(exist_ok=True)
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "cache"))
    found = [c for c in runner.run(path, place).cells if c.source.strip()]
    own = [cell for cell in found if cell.cell_type == "code"]
    assert [kinds(cell.outputs) for cell in own] == [
        kinds(cell["outputs"]) for cell in cells_of(path)
    ]


def test_of_a_training_its_end_is_kept(runner):
    cell = runner.nbformat.v4.new_code_cell("train()")
    for name, text in (
        ("stdout", "Going into epoch 1\nFin"),
        ("stderr", "  0%|   | 0/16"),
        ("stdout", "ished.\n  scores  accuracy 87.5 %\n"),
        ("stdout", "speechbrain.core - Loading\n"),
    ):
        output = runner.new_output("stream", name=name, text=text)
        cell.outputs.append(output)
    (kept,) = runner.outputs_of(cell)
    assert kept.text == "Finished.\n  scores  accuracy 87.5 %\n"
    cell.outputs = [runner.new_output("stream", name="stderr", text="x")]
    assert runner.outputs_of(cell) == []
