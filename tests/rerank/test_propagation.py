"""Hypergraph propagation on graphs small enough to follow by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reranking_toys import TURN, textured, warped

from spatial_retrieval.ranking import Ranking
from spatial_retrieval.rerank import Matches, NeighbourLists, RerankContext, by_name
from spatial_retrieval.rerank.propagation import (
    EVERYWHERE,
    choose_start,
    hypergraph,
    propagate,
)


def pairs(a, b):
    """Matches between points a and b."""
    a, b = (np.array(p, np.float32).reshape(-1, 2) for p in (a, b))
    return Matches(a, b, np.eye(3), (100, 100), (100, 100))


def strong(a, b):
    """Twenty pairs."""
    return pairs(a * 10, b * 10)


class Matcher:
    """Matches given by hand; ``failed`` as spatial verification has it."""

    def __init__(self, edges, queries=(), failed=()):
        self.edges = {**edges, **{(j, i): m.swapped() for (i, j), m in edges.items()}}
        self.inliers = dict(queries)
        self.failed = {("database", i): "no image" for i in failed}
        self.asked = []

    def query(self, query, image):
        self.asked.append(image)
        points = np.zeros((self.inliers.get(image, 0), 2))
        return pairs(points, points)

    def database(self, first, second):
        return self.edges.get((first, second))


def walk(edges, neighbours, start=0, allowed=range(10), **limits):
    return propagate(
        start,
        set(allowed),
        neighbours=lambda i: neighbours.get(i, []),
        matches=Matcher(edges).database,
        **limits,
    )


LEFT, RIGHT = [[10, 10], [20, 20]], [[70, 10], [80, 20]]


def test_a_door_does_not_lead_to_the_tower_beside_it():
    # 0 –left– 1 –left– 2,  1 –right– 3
    edges = {(0, 1): pairs(LEFT, LEFT), (1, 2): pairs(LEFT, LEFT), (1, 3): pairs(RIGHT, LEFT)}
    neighbours = {0: [1], 1: [0, 2, 3]}
    assert walk(edges, neighbours) == [0, 1, 2]
    edges[0, 1] = pairs(LEFT + RIGHT, LEFT + RIGHT)  # the first hit shows both
    assert walk(edges, neighbours) == [0, 1, 2, 3]


def test_only_the_pairs_inside_the_region_carry_it_on():
    # 1 has reached 2 with the left points alone, so 2's region is where those landed
    edges = {
        (0, 1): pairs(LEFT, LEFT),
        (1, 2): pairs(LEFT + RIGHT, [[1, 1], [5, 5], [90, 90], [95, 95]]),
        (2, 3): pairs([[91, 91], [92, 92]], LEFT),
        (2, 4): pairs([[2, 2], [3, 3]], LEFT),
    }
    assert walk(edges, {0: [1], 1: [2], 2: [3, 4]}) == [0, 1, 2, 4]


def test_regions_grow_by_union_when_an_image_is_reached_again():
    edges = {
        (0, 1): pairs(LEFT, LEFT),
        (0, 2): pairs(RIGHT, RIGHT),
        (1, 3): pairs(LEFT, LEFT),
        (2, 3): pairs(RIGHT, RIGHT),
        (3, 4): pairs(RIGHT, RIGHT),
        (3, 5): pairs(LEFT, LEFT),
    }
    neighbours = {0: [1, 2], 1: [3], 2: [3], 3: [4, 5]}
    assert walk(edges, neighbours) == [0, 1, 2, 3, 4, 5]  # neither the first nor the last alone
    assert walk(edges, {**neighbours, 0: [1]}) == [0, 1, 3, 5]
    assert walk(edges, {**neighbours, 0: [2]}) == [0, 2, 3, 4]


def test_hops_allowed_images_and_missing_matches_limit_the_walk():
    chain = {(i, i + 1): pairs(LEFT, LEFT) for i in range(6)}
    neighbours = {i: [i, i + 1] for i in range(6)}
    assert walk(chain, neighbours) == [0, 1, 2, 3]
    assert walk(chain, neighbours, hops=1) == [0, 1]
    assert walk(chain, neighbours, hops=0) == [0]
    assert walk(chain, neighbours, allowed=[0, 2, 3]) == [0]
    assert walk({(0, 1): pairs([], [])}, neighbours) == [0]
    assert walk(chain, neighbours, least=3) == [0]
    assert EVERYWHERE[0] == -np.inf


def test_the_start_changes_only_when_it_is_not_trusted():
    inliers = {5: 19, 6: 20, 7: 21, 8: 99}
    assert choose_start([6, 8], inliers.get) == 6
    assert choose_start([5, 6, 7, 8], inliers.get) == 7
    assert choose_start([5, 6], inliers.get) == 5


def lists(table):
    return NeighbourLists(None, k=3, table=np.array(table))


def test_reached_images_come_first_and_places_keep_their_scores():
    ranking = Ranking([[0, 1, 2, 3, 4]], [[5, 4, 3, 2, 1]])
    table = lists([[1, 3, 2], [0, 2, 3], [0, 1, 3], [0, 1, 2], [0, 1, 2]])
    matcher = Matcher({(0, 3): strong(LEFT, LEFT), (3, 2): strong(LEFT, LEFT)})
    found = hypergraph(ranking, table, matcher)
    assert found == Ranking([[0, 3, 2, 1, 4]], [[5, 4, 3, 2, 1]])
    assert matcher.asked == []  # the hits agree, so the start is not checked
    assert hypergraph(ranking, table, matcher, top=3).ids.tolist() == [[0, 1, 2, 3, 4]]
    assert hypergraph(ranking, table, matcher, trust=21) == ranking  # an edge needs that many


def test_doubt_checks_the_start():
    ranking = Ranking([[0, 1, 2, 3]], [[4, 3, 2, 1]])
    apart = lists([[9, 9, 9]] * 2 + [[3, 9, 9], [2, 9, 9]])
    matcher = Matcher({(2, 3): strong(LEFT, LEFT)}, queries={0: 3, 1: 20, 2: 40})
    assert hypergraph(ranking, apart, matcher).ids.tolist() == [[2, 3, 0, 1]]
    assert matcher.asked == [0, 0, 1, 2]
    trusting = hypergraph(ranking, apart, matcher, doubt=9.0)
    assert trusting == ranking


def test_an_unreadable_image_keeps_its_place():
    ranking = Ranking([[0, 1, 2, 3]], [[4, 3, 2, 1]])
    table = lists([[1, 2, 3]] * 4)
    matcher = Matcher({(0, 3): strong(LEFT, LEFT)}, failed=[1])
    assert hypergraph(ranking, table, matcher).ids.tolist() == [[0, 1, 3, 2]]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_any_graph_permutes_the_head_only(seed):
    rng = np.random.default_rng(seed)
    k, top = 12, int(rng.integers(1, 15))
    ranking = Ranking([rng.permutation(k)], [np.sort(rng.random(k))[::-1]])
    table = lists(rng.integers(0, k, (k, 3)))
    edges = {
        tuple(rng.choice(k, 2, replace=False).tolist()): pairs(*rng.random((2, 3, 2)))
        for _ in range(15)
    }
    found = hypergraph(ranking, table, Matcher(edges, queries={3: 50}), top=top, trust=2)
    assert sorted(found.ids[0, :top]) == sorted(ranking.ids[0, :top])
    np.testing.assert_array_equal(found.ids[:, top:], ranking.ids[:, top:])
    np.testing.assert_array_equal(found.scores, ranking.scores)
    assert hypergraph(ranking, table, Matcher({}), doubt=9.0) == ranking


def test_by_name_walks_over_photographs():
    images = [textured(50), textured(51), warped(textured(50), TURN), textured(52)]
    rng = np.random.default_rng(0)
    database = rng.standard_normal((4, 6))
    database /= np.linalg.norm(database, axis=1, keepdims=True)
    context = RerankContext(
        queries=database[:1], database=database, query_images=images[:1], database_images=images
    )
    ranking = Ranking([[0, 1, 3, 2]], [[1, 0.5, 0.4, 0.3]])
    found = by_name("hypergraph")(ranking, context)
    assert found.ids.tolist() == [[0, 2, 1, 3]]
    assert found.scores == pytest.approx(ranking.scores)
