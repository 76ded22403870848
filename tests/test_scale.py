"""The benchmark of scale, small."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="module")
def scale():
    path = Path(__file__).parents[1] / "benchmarks" / "scale.py"
    spec = importlib.util.spec_from_file_location("scale", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_hundred_thousand_rows_are_written_opened_searched_and_added_to(scale, tmp_path):
    from spatial_retrieval.index import DescriptorIndex

    written = scale._write(tmp_path, 100_000, 32)
    assert written["bytes a vector"] < 32 * 4 + 2 * (18 + 8) + 1
    opened = scale._open(tmp_path)
    assert opened["last"] == "00099/00099999.jpg" and opened["milliseconds"] < 500
    before = set(tmp_path.glob("segment-*"))
    assert scale._add(tmp_path, 1000)["segments"] == 2
    assert before < set(tmp_path.glob("segment-*"))  # nothing was written again
    scale._build(tmp_path, "IVF256,SQ8:nprobe=128")
    index = DescriptorIndex.load(tmp_path)
    assert len(index) == 101_000 and index.names[100_000] == "new/00000000.jpg"
    assert scale._search(tmp_path)["recall@100"] > 0.9


def test_the_mixture_has_neighbours(scale):
    rows = np.concatenate(list(scale.mixture(2000, 64)))
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    similarity = np.sort(rows @ rows.T, axis=1)
    assert np.median(similarity[:, -5]) > 0.5 > np.median(similarity[:, -200])
