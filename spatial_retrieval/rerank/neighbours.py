r"""SuperGlobal: refine the best hits by each other, then the query by the best of them.

With :math:`x_1 … x_M` the first M hits, :math:`N_i` the K nearest of them to :math:`x_i` and
:math:`s_{ij} = x_i^\top x_j`,

.. math::
    \hat x_i = \frac{x_i + \beta \sum_{j \in N_i} s_{ij} x_j}{1 + \beta \sum_{j \in N_i} s_{ij}},
    \qquad S^{(1)}_i = q^\top \hat x_i .

The expanded query is the element-wise maximum over the K + 1 refined vectors with the highest
:math:`S^{(1)}`, :math:`S^{(2)}_i = \hat q^\top \hat x_i`, and the hits are ordered by
:math:`(S^{(1)} + S^{(2)}) / 2`. Shao, Chen, Karpur, Cui, Araujo & Cao, *Global features are all you
need for image retrieval and reranking*, ICCV 2023. As published, neither vector is
normalised again.
"""

import numpy as np

from spatial_retrieval.ranking import Ranking
from spatial_retrieval.rerank.order import head_length, rescore
from spatial_retrieval.rerank.vectors import Database, check_queries, rows

__all__ = ["refine", "superglobal"]


def superglobal(
    queries: np.ndarray,
    database: Database,
    ranking: Ranking,
    *,
    top: int = 400,
    k: int = 9,
    beta: float = 0.15,
) -> Ranking:
    """Order the first ``top`` hits by SuperGlobal's mean of two similarities.

    Args:
        queries: (Q, D) unit rows.
        database: (M, D) descriptors, or a store.
        ranking: the initial retrieval's hits.
        top: hits that are refined and re-ordered (the paper's M).
        k: neighbours of each (the paper's K, without the hit itself).
        beta: weight of a neighbour.
    """
    queries = check_queries(queries, ranking)
    n = head_length(ranking, top)
    scores = np.empty((len(ranking), n))
    for q, (query, ids) in enumerate(zip(queries, ranking.ids, strict=True)):
        head = rows(database, ids[:n]).astype(np.float64)
        scores[q] = _scores(query, refine(head, k=k, beta=beta), k)
    return rescore(ranking, scores)


def refine(vectors: np.ndarray, *, k: int, beta: float) -> np.ndarray:
    """Weighted mean of each of (n, D) unit rows with its k nearest among them, (n, D)."""
    if k < 0:
        raise ValueError(f"expected k >= 0, got {k}")
    similarity = vectors @ vectors.T  # (n, n)
    ranked = similarity.copy()
    np.fill_diagonal(ranked, np.inf)  # a vector is its own first neighbour, also among doubles
    hood = np.argsort(-ranked, axis=1, kind="stable")[:, : k + 1]  # (n, k + 1)
    weights = np.zeros_like(similarity)
    np.put_along_axis(weights, hood, beta * np.take_along_axis(similarity, hood, axis=1), axis=1)
    np.fill_diagonal(weights, 1)
    return weights @ vectors / weights.sum(axis=1, keepdims=True)


def _scores(query: np.ndarray, refined: np.ndarray, k: int) -> np.ndarray:
    first = refined @ query  # (n,)
    best = np.argsort(-first, kind="stable")[: k + 1]
    expanded = refined[best].max(axis=0)  # (D,)
    return (first + refined @ expanded) / 2
