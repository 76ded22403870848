"""Everyone asked against all others: a re-ranker must not profit from the query in the database.

The oracle is a database that doesn't hold the query. Each re-ranker has to give the same list.
"""

from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spatial_retrieval.ranking import Ranking
from spatial_retrieval.rerank import Matches, NeighbourLists, RerankContext, by_name, hypergraph
from spatial_retrieval.rerank.order import without_self

M = 40


def database(seed):
    """Unit rows in eight loose clusters, no two alike."""
    rng = np.random.default_rng(seed)
    x = np.repeat(rng.standard_normal((8, 12)), M // 8, axis=0) + rng.standard_normal((M, 12))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def search(queries, vectors):
    scores = queries @ vectors.T
    ids = np.argsort(-scores, axis=1, kind="stable")
    return Ranking(ids, np.take_along_axis(scores, ids, axis=1))


def everyone(vectors, **options):
    """All photographs against all others, and what a re-ranker may see of it."""
    own = np.arange(M)
    context = RerankContext(queries=vectors, database=vectors, own=own, **options)
    return without_self(search(vectors, vectors), own), context


def without(vectors, q, **options):
    """The search of photograph q in a database that doesn't hold it; positions above q are less."""
    rest = np.delete(vectors, q, axis=0)
    context = RerankContext(queries=vectors[q : q + 1], database=rest, **options)
    return search(vectors[q : q + 1], rest), context


@pytest.mark.parametrize("name", ["none", "aqe", "dba+aqe", "superglobal"])
@settings(max_examples=8)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_query_plays_no_part_in_its_own_hits(name, seed):
    vectors = database(seed)
    found = by_name(name)(*everyone(vectors))
    for q in (0, 17, M - 1):
        expected = by_name(name)(*without(vectors, q)).ids[0]
        np.testing.assert_array_equal(found.ids[q], expected + (expected >= q))


def test_database_augmentation_would_find_the_query_in_its_hits():
    """Without ``own`` the neighbours that a hit is averaged with include the query itself."""
    vectors = database(0)
    ranking, context = everyone(vectors)
    leaking = by_name("dba+aqe")(ranking, RerankContext(queries=vectors, database=vectors))
    assert leaking != by_name("dba+aqe")(ranking, context)


def test_uncertainty_is_that_of_a_database_without_the_query():
    vectors = database(1)
    ranking, context = everyone(vectors, neighbours=3)
    found = context.uncertainty(ranking, top=8)
    expected = [
        c.uncertainty(r, top=8)[0] for r, c in (without(vectors, q, neighbours=3) for q in range(M))
    ]
    np.testing.assert_allclose(found, expected)
    leaking = RerankContext(queries=vectors, database=vectors, neighbours=3).uncertainty(
        ranking, top=8
    )
    assert not np.allclose(found, leaking)


class Anything:
    """Every two database images match everywhere; queries match nothing."""

    failed: ClassVar[dict] = {}

    def query(self, query, image):
        return None

    def database(self, first, second):
        points = np.zeros((20, 2), np.float32)
        return Matches(points, points, np.eye(3), (9, 9), (9, 9))


def test_propagation_walks_a_graph_without_the_query():
    vectors = database(2)
    ranking, context = everyone(vectors)
    found = hypergraph(ranking, NeighbourLists(vectors, k=3, own=context.own), Anything())
    for q in (0, 17, M - 1):
        alone, seen = without(vectors, q)
        lists = NeighbourLists(seen.database, k=3)
        expected = hypergraph(alone, lists, Anything()).ids[0]
        np.testing.assert_array_equal(found.ids[q], expected + (expected >= q))
    assert found != hypergraph(ranking, NeighbourLists(vectors, k=3), Anything())


def test_hypergraph_by_name_walks_it_without_the_query_too():
    vectors = database(2)
    seen = {"neighbours": 3, "_verifiers": {"sift": Anything()}, "database_images": []}
    ranking, context = everyone(vectors, query_images=[None] * M, **seen)
    found = by_name("hypergraph")(ranking, context)
    for q in (0, 17, M - 1):
        expected = by_name("hypergraph")(*without(vectors, q, query_images=[None], **seen)).ids[0]
        np.testing.assert_array_equal(found.ids[q], expected + (expected >= q))
    leaking = RerankContext(queries=vectors, database=vectors, query_images=[None] * M, **seen)
    assert found != by_name("hypergraph")(ranking, leaking)


def test_a_table_needs_a_column_to_spare():
    table = np.array([[1, 2], [0, 2], [0, 1], [0, 1]])
    lists = NeighbourLists(np.eye(4), k=2, table=table)
    assert lists.of([0]) == [[1, 2]]
    with pytest.raises(ValueError, match="a neighbour table of 3 columns"):
        NeighbourLists(np.eye(4), k=2, table=table, own=[1])
    own = [9, 0]
    lists = NeighbourLists(np.eye(4), k=1, table=table, own=own)
    assert lists.of([0, 3], query=1) == [[1], [1]] and lists.of([3]) == [[0]]
    assert NeighbourLists(np.eye(3), k=9, table=table[:3], own=own).of([1], query=1) == [[2]]


def test_own_is_a_position_for_each_query():
    with pytest.raises(ValueError, match=r"own of shape \(2,\), a position for each query"):
        RerankContext(queries=np.eye(2), database=np.eye(2), own=[0])
