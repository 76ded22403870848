"""SuperGlobal's re-ranking."""

import numpy as np
import pytest

from spatial_retrieval.ranking import Ranking
from spatial_retrieval.rerank.neighbours import refine, superglobal


def unit(rng, *shape):
    x = rng.standard_normal(shape)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def plain_refine(vectors, k, beta):
    out = []
    for i, own in enumerate(vectors):
        others = sorted((j for j in range(len(vectors)) if j != i), key=lambda j: -own @ vectors[j])
        total, weight = own.copy(), 1.0
        for j in others[:k]:
            total = total + beta * (own @ vectors[j]) * vectors[j]
            weight += beta * (own @ vectors[j])
        out.append(total / weight)
    return np.array(out)


def plain_order(query, vectors, k, beta):
    refined = plain_refine(vectors, k, beta)
    first = [query @ r for r in refined]
    best = sorted(range(len(vectors)), key=lambda i: -first[i])[: k + 1]
    expanded = [max(refined[i][d] for i in best) for d in range(len(query))]
    scores = [(f + r @ expanded) / 2 for f, r in zip(first, refined, strict=True)]
    return sorted(range(len(vectors)), key=lambda i: -scores[i])


def test_equals_the_published_code(shared):
    golden = np.load(shared / "golden" / "parity.npz")
    queries, database, first = golden["sg_queries"], golden["sg_database"], golden["sg_first"]
    scores = np.take_along_axis(queries @ database.T, first, axis=1)
    found = superglobal(queries, database, Ranking(first, scores), top=40, k=5, beta=0.15)
    np.testing.assert_array_equal(found.ids, golden["sg_reranked"])


@pytest.mark.parametrize(("n", "k"), [(1, 9), (7, 3), (20, 9), (20, 0)])
def test_equals_plain_loops(n, k):
    rng = np.random.default_rng(0)
    query, vectors = unit(rng, 6), unit(rng, n, 6)
    np.testing.assert_allclose(
        refine(vectors, k=k, beta=0.3), plain_refine(vectors, k, 0.3), atol=1e-12
    )
    ranking = Ranking(np.arange(n)[None], np.zeros((1, n)))
    found = superglobal(query[None], vectors, ranking, k=k, beta=0.3)
    assert found.ids[0].tolist() == plain_order(query, vectors, k, 0.3)


def test_a_hit_is_not_one_of_its_own_neighbours_where_rows_are_not_quite_of_unit_length():
    # saved rows may be 0.001 too long or short: to a short one, long ones are nearer than itself
    turn = np.array([0.0, 0.002, -0.003, 1.0, 1.4])
    vectors = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    vectors *= np.array([0.9992, 1.0008, 1.0007, 1.0, 1.0])[:, None]
    assert vectors[0] @ vectors[2] > vectors[0] @ vectors[0]
    for k in (1, 2):
        found = refine(vectors, k=k, beta=0.5)
        np.testing.assert_allclose(found, plain_refine(vectors, k, 0.5), atol=1e-12)


def test_without_weight_nothing_is_refined():
    vectors = unit(np.random.default_rng(1), 10, 4)
    np.testing.assert_allclose(refine(vectors, k=5, beta=0.0), vectors)


def test_a_double_does_not_replace_the_vector_itself():
    vectors = unit(np.random.default_rng(2), 4, 8)
    vectors[3] = vectors[0]
    found = refine(vectors, k=1, beta=0.5)
    np.testing.assert_allclose(found[[0, 3]], vectors[[0, 3]], atol=1e-12)


def test_tail_and_bad_input():
    rng = np.random.default_rng(3)
    vectors = unit(rng, 30, 4)
    ranking = Ranking([np.arange(30)], [np.linspace(1, 0, 30)])
    found = superglobal(vectors[:1], vectors, ranking, top=10)
    assert found.ids[0, 10:].tolist() == list(range(10, 30))
    np.testing.assert_array_equal(found.scores[:, 10:], ranking.scores[:, 10:])
    with pytest.raises(ValueError, match="k >= 0, got -1"):
        superglobal(vectors[:1], vectors, ranking, k=-1)
    with pytest.raises(ValueError, match=r"queries \(1, D\), got \(2, 4\)"):
        superglobal(vectors[:2], vectors, ranking)
