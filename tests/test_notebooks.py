"""The notebooks of examples/: they run, they are short, and the stored outputs belong to their cells."""

import base64
import re
from pathlib import Path

import nbformat
import pytest
from support import forked, notebooks

TINY = {  # the line of the first cell that sets the size of the experiment, by its names
    "EPOCHS": "1",
    "EPOCHS, TRAIN_IMAGES, TEST_IMAGES": "1, 48, 12",
    "EPOCHS, BATCH": "1, 288",
}
MOST_CELLS, MOST_BYTES = 12, 60_000
STORE = "execute it again: PYTHONPATH=$PWD:tests python tests/support/notebooks.py"


def shortened(name: str) -> list[str]:
    """The sources of the code cells, with the size of the experiment replaced."""
    first, *others = (cell.source for cell in notebooks.code_cells(notebooks.read(name)))
    (names,) = re.findall(r"^(EPOCHS.*?) = .*$", first, flags=re.MULTILINE)
    return [re.sub(r"^EPOCHS.*$", f"{names} = {TINY[names]}", first, flags=re.MULTILINE), *others]


def results(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """The values of cells, such as a DataFrame."""
    return [output for output in notebooks.outputs(notebook) if output.output_type == "execute_result"]


def test_every_cell_of_every_notebook_runs(tmp_path: Path) -> None:
    """One kernel for all three, in a forked process; variables are deleted between notebooks."""
    cells = [source for name in notebooks.NAMES for source in (*shortened(name), "%reset -sf")]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    notebooks.execute(notebook, tmp_path, forked.python())
    shown = [output.data for output in notebooks.outputs(notebook) if output.output_type == "display_data"]
    assert sum("image/png" in data for data in shown) == 4
    assert any("<table" in output.data.get("text/html", "") for output in results(notebook))
    text = "".join(output.text for output in notebooks.outputs(notebook) if output.output_type == "stream")
    assert "epoch 1" in text  # plain lines of progress: a kernel sets FORCE_COLOR, but a notebook is no terminal
    assert "\x1b" not in text
    assert sorted(run.name for run in (tmp_path / "runs").iterdir()) == ["imported", "own_parts", "quickstart"]


@pytest.mark.parametrize("name", notebooks.NAMES)
def test_stored_outputs_belong_to_the_current_cells(name: str) -> None:
    """If a cell changes and the notebook is not executed, it shows results of other code."""
    notebook = notebooks.read(name)
    assert notebook.metadata.get(notebooks.DIGEST) == notebooks.sources_digest(notebook), f"{name}: {STORE}"
    counts = [cell.execution_count for cell in notebooks.code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1)), f"{name}: {STORE}"


@pytest.mark.parametrize("name", notebooks.NAMES)
def test_a_notebook_is_short_without_errors_and_with_small_pictures(name: str) -> None:
    """The site shows it as it is stored."""
    notebook = notebooks.read(name)
    assert len(notebook.cells) <= MOST_CELLS
    stored = list(notebooks.outputs(notebook))
    assert "error" not in {output.output_type for output in stored}
    assert not [output.text for output in stored if output.output_type == "stream" and "\x1b" in output.text]
    assert not [output.text for output in stored if output.output_type == "stream" and output.name == "stderr"]
    shown = [output.data for output in stored if "data" in output]
    pictures = [base64.b64decode(data["image/png"]) for data in shown if "image/png" in data]
    assert pictures
    assert max(map(len, pictures)) < MOST_BYTES
    assert not re.findall(r"/(?:root|home|tmp|work)/\S*", str(stored)), "a path of the machine that executed it"
