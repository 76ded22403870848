"""Every notebook runs top to bottom in a fresh kernel, and keeps the rules of the course."""

import ast
import os
import re
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
SECONDS = 240  # for one cell, on small data
LIVE = "application/vnd.plotly.v1+json"
OPENING = ("**What you will see.**", "**Minutes.**", "**What you need.**")
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells(path, kind):
    notebook = nbformat.read(path, as_version=4)
    return [cell for cell in notebook.cells if cell.cell_type == kind]


def test_the_course_has_ten_notebooks():
    assert [path.stem[:2] for path in NOTEBOOKS] == [f"{n:02d}" for n in range(1, 11)]


@each
def test_cells_are_short_and_define_nothing(path):
    for cell in cells(path, "code"):
        assert len(cell.source.splitlines()) <= 15, cell.source
        tree = ast.parse(TransformerManager().transform_cell(cell.source))
        for node in ast.walk(tree):
            made = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda
            assert not isinstance(node, made), cell.source
            assert getattr(node, "id", "") not in ("exec", "eval"), cell.source


@each
def test_the_opening_says_what_when_and_with_what(path):
    opening = cells(path, "markdown")[0].source
    assert re.match(rf"# {path.stem[:2]} · \w", opening)
    for part in (*OPENING, "**Your own photographs.**"):
        assert opening.count(part) == 1, part
    guard, own = cells(path, "code")[:2]
    assert guard.source.startswith('import sys\nif "google.colab" in sys.modules:')
    assert own.source.startswith("FOLDER = None")


@each
def test_the_closing_has_three_exercises_and_their_hidden_solutions(path):
    closing = cells(path, "markdown")[-1].source
    tasks, solutions = closing.split("## Exercises")[1].split("<details><summary>Solutions")
    hidden, after = solutions.split("</details>")
    for part in (tasks, hidden):
        assert re.findall(r"^(\d)\. ", part, flags=re.M) == ["1", "2", "3"]
    assert after.strip().startswith("**Where to go next:**") and "](" in after


def test_neighbours_link_to_each_other_and_every_link_leads_somewhere():
    opening = {path: cells(path, "markdown")[0].source for path in NOTEBOOKS}
    for before, after in pairwise(NOTEBOOKS):
        assert f"]({after.name})" in opening[before] and f"]({before.name})" in opening[after]
    for path in (*NOTEBOOKS, FOLDER / "README.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
            assert target.startswith("http") or (FOLDER / target).exists(), (path.name, target)


def test_no_paragraph_stands_in_two_notebooks():
    seen = {}
    for path in NOTEBOOKS:
        for cell in cells(path, "markdown"):
            for paragraph in filter(lambda text: len(text) > 80, cell.source.split("\n\n")):
                assert seen.setdefault(paragraph, path) == path, paragraph


def test_the_map_shows_every_notebook_and_says_how_to_run_them():
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    for path in NOTEBOOKS:
        picture = FOLDER / "images" / f"{path.stem}.jpg"
        assert f"]({path.name})" in text and f"images/{picture.name}" in text
        assert picture.stat().st_size < 40_000
    assert "SPATIAL_RETRIEVAL_FAST" in text and "jupyter nbconvert" in text


@each
def test_outputs_are_kept_small_and_clean(path):
    assert path.stat().st_size <= 1_000_000
    text = path.read_text(encoding="utf-8")
    assert "/work/" not in text and "/home/" not in text and "/root/" not in text
    executed = cells(path, "code")
    counts = [cell.execution_count for cell in executed]
    assert counts == list(range(1, len(executed) + 1)), "not executed from top to bottom"
    for cell in executed:
        check_outputs(cell)


@each
def test_the_notebook_runs(path, tmp_path, monkeypatch):
    monkeypatch.setenv("SPATIAL_RETRIEVAL_FAST", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", str(os.cpu_count()))
    notebook = nbformat.read(path, as_version=4)
    place = {"metadata": {"path": tmp_path}}
    NotebookClient(notebook, timeout=SECONDS, kernel_name="python3", resources=place).execute()
    for cell in notebook.cells:
        check_outputs(cell)


def check_outputs(cell):
    for output in cell.get("outputs", []):
        assert output.output_type != "error", cell.source
        assert output.get("name") != "stderr", f"{cell.source}\n{output.get('text')}"
        data = output.get("data", {})
        assert LIVE not in data or "image/png" in data, f"a figure without a still\n{cell.source}"
