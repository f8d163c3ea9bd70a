"""Runs notebooks of docs/notebooks/, and keeps what their cells show.

    python docs/notebooks.py [NAME ...]

All of them without a name. The site shows what is kept: texts, tables and small
pictures, of a training its end, no progress and no numbers of cells.
"""

import re
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat.v4 import new_output

FOLDER = Path(__file__).parent / "notebooks"
_NOT_KEPT = (
    re.compile(r"\A.*\n(?=Finished\.\n)", re.DOTALL),
    re.compile(r"^speechbrain\.\S* - .*\n", re.MULTILINE),
)
"""Of what is printed: what a training says before its end, and log lines."""


def run(path, folder):
    """A notebook, run in a folder by the Python that runs this."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
    )
    client.execute()
    return kept(notebook)


def kept(notebook):
    """A notebook with what is worth keeping of its outputs."""
    notebook.metadata = {
        "kernelspec": {
            "display_name": "Python 3",
            "language": "python",
            "name": "python3",
        },
        "language_info": {"name": "python"},
    }
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        cell.metadata = {}
        if cell.cell_type != "code":
            continue
        cell.execution_count = None
        cell.outputs = outputs_of(cell)
    return notebook


def outputs_of(cell):
    """What is kept of the outputs of a cell."""
    found, printed = [], ""
    for output in cell.outputs:
        if output.output_type == "stream":
            printed += output.text if output.name == "stdout" else ""
            continue
        output.metadata = {}
        if "execution_count" in output:
            output.execution_count = None
        found.append(output)
    for unwanted in _NOT_KEPT:
        printed = unwanted.sub("", printed)
    if printed.strip():
        found.insert(0, new_output("stream", text=printed.strip() + "\n"))
    return found


def main(names):
    """Runs notebooks, and writes them again."""
    paths = [FOLDER / f"{name}.ipynb" for name in names]
    for path in paths or sorted(FOLDER.glob("*.ipynb")):
        with tempfile.TemporaryDirectory() as folder:
            nbformat.write(run(path, folder), path)


if __name__ == "__main__":
    main(sys.argv[1:])
