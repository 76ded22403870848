"""The main job on real photographs, by the command line alone."""

import json

import numpy as np
import pytest

from spatial_retrieval.cli import main


@pytest.fixture(scope="module")
def buildings(shared):
    return shared / "landmarks" / "buildings"


def average_precision(relevant):
    """Area under the precision-recall curve, trapezoids (revisited Oxford/Paris)."""
    ranks = np.flatnonzero(relevant)
    found = np.arange(len(ranks))
    before = np.where(ranks > 0, found / np.maximum(ranks, 1), 1)
    return ((before + (found + 1) / (ranks + 1)) / 2).mean()


def test_embed_ranks_the_same_building_first(buildings, tmp_path):
    target = tmp_path / "rows.npz"
    assert main(["embed", str(buildings), "-o", str(target), "--model", "lite0-gem"]) == 0
    with np.load(target, allow_pickle=False) as rows:
        names, x = rows["names"], rows["descriptors"]
    is_query = np.array(["query" in name for name in names])
    place = np.array([name.split("/")[0] for name in names])
    assert is_query.sum() == 25 and (~is_query).sum() == 76
    scores = x[is_query] @ x[~is_query].T
    order = np.argsort(-scores, axis=1, kind="stable")
    relevant = place[~is_query][order] == place[is_query][:, None]
    assert np.mean([average_precision(row) for row in relevant]) >= 0.95


def test_index_and_search_agree_with_embed(buildings, tmp_path, capsys):
    assert main(["index", str(buildings), "-o", str(tmp_path / "i")]) == 0
    capsys.readouterr()
    query = buildings / "obj17" / "query_1.jpg"
    assert main(["search", str(tmp_path / "i"), str(query), "-k", "4", "--json"]) == 0
    names = [r["name"] for r in json.loads(capsys.readouterr().out)["results"]]
    assert names[0] == "obj17/query_1.jpg"
    assert sum(name.startswith("obj17/") for name in names) >= 3
