"""Execute the notebooks of examples/: in tests on tiny settings, or unchanged to store their outputs.

PYTHONPATH=$PWD:tests python tests/support/notebooks.py    # executes all three and stores their outputs
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = ("quickstart", "own_parts", "foreign_checkpoints")
DIGEST = "executed_sources_sha256"  # metadata key: digest of the cells whose outputs are stored
QUIET = {"PYTHONWARNINGS": "ignore:IProgress"}  # tqdm's warning where ipywidgets is missing


def read(name: str) -> NotebookNode:
    """Return a notebook of examples/."""
    return nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """Return the code cells in order."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook: NotebookNode) -> Iterator[NotebookNode]:
    """Return the outputs of all cells."""
    for cell in code_cells(notebook):
        yield from cell.outputs


def sources_digest(notebook: NotebookNode) -> str:
    """Return the digest of all code cells and of the Python files of examples/ that they name."""
    sources = [cell.source for cell in code_cells(notebook)]
    sources += [file.read_text() for file in sorted(EXAMPLES.glob("*.py")) if file.name in "".join(sources)]
    return hashlib.sha256(json.dumps(sources).encode()).hexdigest()


def execute(notebook: NotebookNode, folder: Path, python: Path | None = None) -> None:
    """Execute the notebook in `folder`, which has the Python files of examples/. Raise the error of a cell.

    `python` is the program that runs the kernel, if not the one of this process.
    """
    for file in EXAMPLES.glob("*.py"):
        shutil.copy(file, folder)
    place = {"metadata": {"path": str(folder)}}
    client = NotebookClient(notebook, timeout=600, kernel_name="python3", resources=place, coalesce_streams=True)
    if python:
        client.create_kernel_manager().kernel_spec.argv[0] = str(python)
    client.execute(env={**os.environ, **QUIET})


def store(name: str) -> None:
    """Execute a notebook unchanged and store its outputs in it."""
    notebook = read(name)
    with tempfile.TemporaryDirectory() as folder:
        execute(notebook, Path(folder))
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times of each cell
    notebook.metadata.pop("language_info", None)  # the version of Python that executed it
    notebook.metadata[DIGEST] = sources_digest(notebook)
    nbformat.write(notebook, EXAMPLES / f"{name}.ipynb")


if __name__ == "__main__":
    for each in NAMES:
        store(each)
