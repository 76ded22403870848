"""How re-ranked lists are put together, and α-query expansion and augmentation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spatial_retrieval.ranking import Ranking
from spatial_retrieval.rerank import NAMES, RerankContext, by_name
from spatial_retrieval.rerank.expansion import aqe, augment, dba_aqe, expand, expand_queries
from spatial_retrieval.rerank.order import head_length, place, rescore
from spatial_retrieval.rerank.vectors import NeighbourLists, nearest, rows

WITHOUT_PHOTOGRAPHS = ("none", "aqe", "dba+aqe", "superglobal")


class Store:
    """Only what a vector store promises."""

    def __init__(self, vectors):
        self.kept = vectors

    def vectors(self, ids):
        return self.kept[ids]

    def search(self, queries, k):
        return search(queries, self.kept, min(k, len(self.kept)))


def unit(rng, *shape):
    x = rng.standard_normal(shape).astype(np.float32)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def search(queries, database, k=None):
    scores = queries @ database.T
    ids = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return Ranking(ids, np.take_along_axis(scores, ids, axis=1))


def plain_aqe(query, database, ids, n, alpha):
    total = [float(v) for v in query]
    for i in ids[:n]:
        weight = max(0.0, sum(float(a) * float(b) for a, b in zip(query, database[i], strict=True)))
        for d in range(len(total)):
            total[d] += weight**alpha * float(database[i][d])
    norm = sum(v * v for v in total) ** 0.5
    return [v / norm for v in total]


@pytest.mark.parametrize(("n", "alpha"), [(1, 3.0), (4, 0.0), (10, 2.5)])
def test_expanded_queries_equal_plain_loops(n, alpha):
    rng = np.random.default_rng(0)
    queries, database = unit(rng, 3, 5), unit(rng, 20, 5)
    ranking = search(queries, database)
    found = expand_queries(queries, database, ranking, n=n, alpha=alpha)
    for q in range(3):
        expected = plain_aqe(queries[q], database, ranking.ids[q], n, alpha)
        np.testing.assert_allclose(found[q], expected, atol=1e-6)


def test_expansion_without_hits_or_with_a_large_exponent_is_the_query():
    rng = np.random.default_rng(1)
    queries, database = unit(rng, 2, 6), unit(rng, 9, 6)
    ranking = search(queries, database)
    for options in ({"n": 0}, {"alpha": 500.0}):
        found = expand_queries(queries, database, ranking, **options)
        np.testing.assert_allclose(found, queries, atol=1e-5)
    np.testing.assert_allclose(expand(queries[0], -queries[:1]), queries[0], atol=1e-6)


def test_whole_list_is_ordered_by_the_expanded_query():
    rng = np.random.default_rng(2)
    queries, database = unit(rng, 2, 8), unit(rng, 30, 8)
    ranking = search(queries, database)
    expanded = expand_queries(queries, database, ranking)
    again = search(expanded, database)
    found = aqe(queries, database, ranking)
    np.testing.assert_array_equal(found.ids, again.ids)
    np.testing.assert_allclose(found.scores, again.scores, atol=1e-6)


def test_augmented_vectors_equal_plain_loops_and_the_store_gives_the_same():
    rng = np.random.default_rng(3)
    database, queries = unit(rng, 25, 6), unit(rng, 2, 6)
    lists = NeighbourLists(database, k=3)
    found = augment([4, 9], lists)
    for row, i in zip(found, (4, 9), strict=True):
        near = [j for j in np.argsort(-(database @ database[i])) if j != i][:3]
        np.testing.assert_allclose(row, plain_aqe(database[i], database, near, 3, 3), atol=1e-6)
    ranking = search(queries, database)
    store = Store(database)
    by_store = dba_aqe(queries, ranking, NeighbourLists(store, k=3))
    assert by_store == dba_aqe(queries, ranking, lists)
    alone = dba_aqe(queries, ranking, NeighbourLists(database, k=3), n=0, alpha=500.0)
    np.testing.assert_array_equal(alone.ids, ranking.ids)


def test_nearest_equals_sorting_everything_in_blocks_of_any_size():
    rng = np.random.default_rng(4)
    database = unit(rng, 50, 4)
    ids = np.array([0, 7, 49])
    expected = [[j for j in np.argsort(-(database @ database[i])) if j != i][:6] for i in ids]
    for block in (1, 13, 1000):
        np.testing.assert_array_equal(nearest(database, ids, 6, block=block), expected)
    np.testing.assert_array_equal(nearest(Store(database), ids, 6), expected)
    assert nearest(database[:3], np.array([1]), 10).shape == (1, 2)
    assert rows(database, np.array([[0, 1], [2, 3]])).shape == (2, 2, 4)
    with pytest.raises(ValueError, match="k >= 1, got 0"):
        nearest(database, ids, 0)


@pytest.mark.parametrize("block", [5, 64, 1000])
def test_of_equally_near_neighbours_the_first_in_the_database_come(block):
    rng = np.random.default_rng(9)
    database = unit(rng, 4, 8)[rng.integers(0, 4, 300)]  # four pictures, each many times
    exact = np.round(database, 2)  # products without rounding noise
    found = nearest(exact, np.array([7, 150]), 40, block=block)
    for row, i in zip(found, (7, 150), strict=True):
        order = np.argsort(-(exact @ exact[i]), kind="stable")
        assert row.tolist() == [j for j in order[:41] if j != i][:40]


def test_neighbour_lists_take_a_table_and_ask_once():
    rng = np.random.default_rng(5)
    database = unit(rng, 12, 4)
    table = nearest(database, np.arange(12), 5)
    assert NeighbourLists(database, k=2, table=table).of([3]) == [table[3, :2].tolist()]
    lists = NeighbourLists(database, k=5)
    first = lists.of([3, 3, 8])
    lists.database = None  # everything that is known is kept
    assert lists.of([8, 3]) == [first[2], first[0]]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.data())
def test_rescore_and_place_permute_the_head_and_leave_the_tail(seed, k, data):
    rng = np.random.default_rng(seed)
    n = data.draw(st.integers(0, k))
    ranking = Ranking(
        np.stack([rng.permutation(50)[:k] for _ in range(3)]),
        -np.sort(-rng.integers(-3, 4, (3, k)), axis=1),
    )
    for scale in (0, 1, 1e6):
        found = rescore(ranking, scale * rng.integers(-2, 3, (3, n)))
        placed = place(ranking, np.stack([rng.permutation(n) for _ in range(3)]))
        for result in (found, placed):
            np.testing.assert_array_equal(result.ids[:, n:], ranking.ids[:, n:])
            np.testing.assert_array_equal(result.scores[:, n:], ranking.scores[:, n:])
            np.testing.assert_array_equal(np.sort(result.ids), np.sort(ranking.ids))
        if scale == 0:
            np.testing.assert_array_equal(found.ids, ranking.ids)


def test_rescore_sorts_stably_and_lifts_the_head_above_the_tail():
    ranking = Ranking([[4, 5, 6, 7]], [[9, 8, 7, 6]])
    found = rescore(ranking, np.array([[-1.0, 2.0, 2.0]]))
    assert found == Ranking([[5, 6, 4, 7]], [[9, 9, 6, 6]])
    assert rescore(ranking, np.array([[20.0, 30.0]])).scores.tolist() == [[30, 20, 7, 6]]


@pytest.mark.parametrize("name", WITHOUT_PHOTOGRAPHS)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_named_rerankers_keep_the_set_and_the_order_of_equals(name, seed):
    rng = np.random.default_rng(seed)
    database, queries = unit(rng, 30, 8), unit(rng, 3, 8)
    ranking = search(queries, database, k=int(rng.integers(1, 31)))
    found = by_name(name)(ranking, RerankContext(queries=queries, database=database))
    np.testing.assert_array_equal(np.sort(found.ids), np.sort(ranking.ids))
    same = np.repeat(database[:1], 30, axis=0)
    ranking = search(queries, same)
    found = by_name(name)(ranking, RerankContext(queries=queries, database=same))
    np.testing.assert_array_equal(found.ids, ranking.ids)


@pytest.mark.parametrize("name", ["aqe", "dba+aqe", "superglobal"])
def test_a_planted_copy_of_the_query_comes_first(name):
    rng = np.random.default_rng(6)
    database, queries = unit(rng, 60, 32), unit(rng, 4, 32)
    database[[5, 15, 25, 35]] = queries
    ranking = search(queries, database)
    ids = np.roll(ranking.ids, 1, axis=1)  # the initial retrieval puts it second
    ranking = Ranking(ids, ranking.scores)
    found = by_name(name)(ranking, RerankContext(queries=queries, database=database))
    assert found.ids[:, 0].tolist() == [5, 15, 25, 35]


def test_more_than_the_shortlist_stays_where_it_is():
    rng = np.random.default_rng(7)
    database, queries = unit(rng, 500, 8), unit(rng, 1, 8)
    ranking = search(queries, database)
    context = RerankContext(queries=queries, database=database)
    for name in ("aqe", "dba+aqe", "superglobal"):
        found = by_name(name)(ranking, context)
        np.testing.assert_array_equal(found.ids[:, 400:], ranking.ids[:, 400:])
        np.testing.assert_array_equal(found.scores[:, 400:], ranking.scores[:, 400:])
        assert (found.ids[:, :400] != ranking.ids[:, :400]).any()


ONE = Ranking([[0, 1]], [[1, 0]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: head_length(ONE, 0), "top >= 1, got 0"),
        (lambda: place(ONE, [[0, 0]]), "permutation of 0 … n-1"),
        (lambda: place(ONE, [[0, 1, 2]]), "n <= 2"),
        (lambda: rescore(ONE, np.zeros((2, 1))), r"shape \(Q, n\) with Q = 1"),
        (lambda: expand(np.eye(2), np.eye(2)[None], alpha=-1), "alpha >= 0, got -1"),
        (lambda: expand_queries(np.eye(2), np.eye(2), ONE), r"queries \(1, D\), got \(2, 2\)"),
        (lambda: expand_queries(np.eye(1), np.eye(2), ONE, n=-1), "n >= 0, got -1"),
        (lambda: by_name("best"), f"expected a re-ranker of {NAMES[0]}, .*got 'best'"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
