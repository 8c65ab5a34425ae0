"""docs/walkthrough.ipynb runs from its first cell to its last, and is committed without outputs."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "docs" / "walkthrough.ipynb"


def read():
    return nbformat.read(NOTEBOOK, as_version=4)


def test_the_notebook_is_committed_without_outputs():
    cells = [cell for cell in read().cells if cell.cell_type == "code"]
    assert cells
    assert all(cell.outputs == [] and cell.execution_count is None for cell in cells)


@pytest.mark.slow
def test_the_notebook_runs(tmp_path, monkeypatch):
    """In a folder of its own, at full length: the entropies are those of a network that has learnt."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    notebook = read()
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert all(output.output_type != "error" for output in outputs)
    assert not [output.text for output in outputs if "Warning" in output.get("text", "")]
    printed = "".join(output.text for output in outputs if output.get("name") == "stdout")
    low, high = (float(value) for value in re.findall(r"entropy ([\d.]+) =", printed))
    assert 0.0 < low < high < 1.61  # ln 5
    assert {"from scratch", "transfer"} <= {line.split(" {")[0] for line in printed.splitlines()}
