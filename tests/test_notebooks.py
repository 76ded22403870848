"""Every notebook runs top to bottom in a fresh kernel, and keeps the rules of the course."""

import ast
import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
SECONDS = 240  # for one notebook, on small data
# What the still-picture renderer prints when a busy machine closes its browser slowly.
RENDERER_NOISE = "Resorting to unclean kill browser."
ids = [path.stem for path in NOTEBOOKS]


def code_cells(path):
    notebook = nbformat.read(path, as_version=4)
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=ids)
def test_cells_are_short_and_define_nothing(path):
    for cell in code_cells(path):
        source = "\n".join(
            line for line in cell.source.splitlines() if not line.startswith(("%", "!"))
        )
        assert len(source.splitlines()) <= 15, cell.source
        for node in ast.walk(ast.parse(source)):
            assert not isinstance(node, ast.FunctionDef | ast.ClassDef), cell.source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=ids)
def test_outputs_are_kept_small_and_clean(path):
    assert path.stat().st_size <= 1_000_000
    text = path.read_text(encoding="utf-8")
    assert "/work/" not in text and "/home/" not in text and "/root/" not in text
    cells = code_cells(path)
    assert all(cell.execution_count for cell in cells if cell.source.strip()), "not executed"
    for cell in cells:
        for output in cell.outputs:
            assert output.output_type != "error", cell.source
            assert output.get("name") != "stderr", f"{cell.source}\n{output.get('text')}"
            data = output.get("data", {})
            if "application/vnd.plotly.v1+json" in data:
                assert "image/png" in data, "a figure without a still"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=ids)
def test_the_notebook_runs(path, tmp_path, monkeypatch):
    monkeypatch.setenv("SPATIAL_RETRIEVAL_FAST", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", str(os.cpu_count()))
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook, timeout=SECONDS, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    client.execute()
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.get("text", "").strip() != RENDERER_NOISE:
                assert output.get("name") != "stderr", f"{cell.source}\n{output.get('text')}"
