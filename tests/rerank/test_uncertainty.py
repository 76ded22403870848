"""Communities among the first hits, and their entropy."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spatial_retrieval.ranking import Ranking
from spatial_retrieval.rerank import RerankContext
from spatial_retrieval.rerank.uncertainty import communities, entropy, uncertainty


def plain_communities(ids, neighbours):
    """Merge sets until no two are linked."""
    groups = [{i} for i in ids]
    links = [{a, b} for a, found in zip(ids, neighbours, strict=True) for b in found if b in ids]
    for link in links:
        touched = [g for g in groups if g & link]
        groups = [g for g in groups if not g & link] + [set().union(*touched)]
    return groups


@given(
    st.lists(
        st.lists(st.integers(0, 15), max_size=3),
        max_size=12,
    )
)
def test_equals_merging_sets_and_keeps_the_rankings_order(neighbours):
    ids = list(range(len(neighbours)))[::-1]
    found = communities(ids, neighbours)
    expected = plain_communities(ids, neighbours)
    assert sorted(map(sorted, found)) == sorted(map(sorted, expected))
    place = {image: p for p, image in enumerate(ids)}
    for group in found:
        assert [place[i] for i in group] == sorted(place[i] for i in group)
    firsts = [place[group[0]] for group in found]
    assert firsts == sorted(firsts)


def test_entropy_at_its_ends_and_between():
    assert uncertainty([1, 2, 3], [[2], [3], []]) == 0
    assert uncertainty([1, 2, 3], [[], [], []]) == pytest.approx(math.log(3))
    assert entropy([3, 1]) == pytest.approx(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert entropy([]) == 0
    assert entropy([4, 0]) == 0


def test_a_link_in_one_direction_is_enough():
    assert communities([5, 8], [[], [5]]) == [[5, 8]]
    assert communities([5, 8], [[8], []]) == [[5, 8]]
    assert communities([5, 8], [[9], [9]]) == [[5], [8]]  # a friend outside the hits is no link


def test_of_a_search_over_two_clusters():
    rng = np.random.default_rng(0)
    centres = np.eye(2, 6, dtype=np.float32)
    database = np.repeat(centres, 10, axis=0) + 0.05 * rng.standard_normal((20, 6))
    database = (database / np.linalg.norm(database, axis=1, keepdims=True)).astype(np.float32)
    both = (centres.sum(axis=0) / np.sqrt(2)).astype(np.float32)
    queries = np.stack([centres[0], both])
    scores = queries @ database.T
    ids = np.argsort(-scores, axis=1)
    ranking = Ranking(ids, np.take_along_axis(scores, ids, axis=1))
    context = RerankContext(queries=queries, database=database, neighbours=5)
    assert context.uncertainty(ranking, top=10)[0] == 0
    assert context.uncertainty(ranking, top=20)[1] == pytest.approx(math.log(2))
    assert [len(g) for g in context.communities(ranking, top=20)[0]] == [10, 10]


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="a neighbour list for each of 2 hits"):
        communities([1, 2], [[]])
