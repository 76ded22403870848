import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spatial_retrieval.index import DescriptorIndex
from spatial_retrieval.index.groups import connected, groups, similar_pairs


@given(st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=20))
def test_components_equal_walking_the_graph(pairs):
    labels = connected(np.array(pairs, dtype=np.int64).reshape(-1, 2), 12)
    reached = np.eye(12, dtype=bool)
    for a, b in pairs:
        reached[a, b] = reached[b, a] = True
    for _ in range(12):
        reached = (reached.astype(int) @ reached.astype(int)) > 0
    assert labels.tolist() == [int(np.flatnonzero(row)[0]) for row in reached]


def angles(*degrees):
    turns = np.deg2rad(degrees)
    rows = np.stack([np.cos(turns), np.sin(turns)], axis=1)
    return DescriptorIndex.build(rows, [str(d) for d in degrees])


def test_groups_are_chains_of_similar_photographs(monkeypatch):
    monkeypatch.setattr("spatial_retrieval.index.groups._BLOCK", 2)
    index = angles(0, 90, 10, 180, 20, 92, 270)
    assert groups(index, np.cos(np.deg2rad(11))) == [[0, 2, 4], [1, 5]]
    assert groups(index, np.cos(np.deg2rad(3))) == [[1, 5]]
    assert groups(index, 1.1) == []


def test_each_looks_only_at_its_k_nearest():
    index = angles(0, 1, 3)
    pairs = np.concatenate(list(similar_pairs(index, 0.9, 1)))
    assert pairs.tolist() == [[0, 1], [1, 0], [2, 1]]
    with pytest.raises(ValueError, match="k of at least 1"):
        groups(index, 0.9, k=0)
