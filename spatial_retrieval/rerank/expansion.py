r"""α-query expansion and database-side augmentation: a vector becomes a mean with its neighbours.

For a unit query q with best hits :math:`x_1 … x_n` (unit rows)

.. math:: q' \propto q + \sum_{i=1}^{n} \max(0, q^\top x_i)^{\alpha}\, x_i, \qquad \|q'\| = 1 ;

:math:`\alpha = 0` is average query expansion, large :math:`\alpha` leaves q as it was. Radenović,
Tolias & Chum, *Fine-tuning CNN image retrieval with no human annotation*, TPAMI 2019.
Augmentation does the same to every database vector, with its own neighbours (Turcot & Lowe 2009;
Arandjelović & Zisserman 2012, "database-side feature augmentation").
"""

from collections.abc import Sequence

import numpy as np

from spatial_retrieval.ranking import Ranking
from spatial_retrieval.rerank.order import head_length, rescore
from spatial_retrieval.rerank.vectors import Database, NeighbourLists, check_queries, rows

__all__ = ["aqe", "augment", "dba_aqe", "expand", "expand_queries"]


def expand(vector: np.ndarray, neighbours: np.ndarray, *, alpha: float = 3.0) -> np.ndarray:
    """Weighted mean of unit vectors with their neighbours.

    Args:
        vector: (…, D) unit rows.
        neighbours: (…, n, D) unit rows.
        alpha: exponent of the similarity, >= 0.

    Returns:
        (…, D) float64 unit rows.
    """
    if not alpha >= 0:
        raise ValueError(f"expected alpha >= 0, got {alpha}")
    vector, neighbours = (np.asarray(x, dtype=np.float64) for x in (vector, neighbours))
    weights = np.einsum("...d,...nd->...n", vector, neighbours).clip(min=0) ** alpha
    mean = vector + np.einsum("...n,...nd->...d", weights, neighbours)
    return mean / np.linalg.norm(mean, axis=-1, keepdims=True).clip(min=1e-12)


def expand_queries(
    queries: np.ndarray, database: Database, ranking: Ranking, *, n: int = 10, alpha: float = 3.0
) -> np.ndarray:
    """Queries expanded by their first n hits.

    Args:
        queries: (Q, D) unit rows.
        database: (M, D) descriptors, or a store.
        ranking: the initial retrieval's hits.
        n: hits that take part.
        alpha: exponent of the similarity.

    Returns:
        (Q, D) float32 unit rows.

    Example:
        >>> expand_queries(np.eye(2), np.eye(2), Ranking([[0], [1]], [[1], [1]]), n=1)
        array([[1., 0.],
               [0., 1.]], dtype=float32)
    """
    queries = check_queries(queries, ranking)
    if n < 0:
        raise ValueError(f"expected n >= 0, got {n}")
    return expand(queries, rows(database, ranking.ids[:, :n]), alpha=alpha).astype(np.float32)


def aqe(
    queries: np.ndarray,
    database: Database,
    ranking: Ranking,
    *,
    n: int = 10,
    alpha: float = 3.0,
    top: int = 400,
) -> Ranking:
    """Order the first ``top`` hits by their similarity to the expanded query."""
    expanded = expand_queries(queries, database, ranking, n=n, alpha=alpha)
    head = rows(database, ranking.ids[:, : head_length(ranking, top)])  # (Q, top, D)
    return rescore(ranking, np.einsum("qd,qnd->qn", expanded, head, dtype=np.float64))


def augment(
    ids: Sequence[int] | np.ndarray,
    neighbours: NeighbourLists,
    *,
    alpha: float = 3.0,
    query: int | None = None,
) -> np.ndarray:
    """Augmented descriptors of some database images.

    Args:
        ids: (n,) positions.
        neighbours: lists of the database's neighbours.
        alpha: exponent of the similarity.
        query: number of the query, which is nobody's neighbour.

    Returns:
        (n, D) float64 unit rows.
    """
    near = np.array(neighbours.of(ids, query=query), dtype=np.int64).reshape(len(ids), -1)
    database = neighbours.database
    return expand(rows(database, ids), rows(database, near), alpha=alpha)


def dba_aqe(
    queries: np.ndarray,
    ranking: Ranking,
    neighbours: NeighbourLists,
    *,
    n: int = 10,
    alpha: float = 3.0,
    top: int = 400,
) -> Ranking:
    """α-query expansion among augmented descriptors.

    Only the first ``top`` hits are augmented, each with its own neighbours in the whole database.
    The n hits that expand the query are those nearest to it after augmentation.

    Args:
        queries: (Q, D) unit rows.
        ranking: the initial retrieval's hits.
        neighbours: neighbour lists of the database. With ``own`` no query is averaged into its own
            hits.
        n: hits that take part.
        alpha: exponent of the similarity, of both means.
        top: hits that are augmented and re-ordered.
    """
    queries = check_queries(queries, ranking)
    scores = np.empty((len(ranking), head_length(ranking, top)))
    for q, (query, ids) in enumerate(zip(queries, ranking.ids, strict=True)):
        head = augment(ids[: scores.shape[1]], neighbours, alpha=alpha, query=q)
        hits = np.argsort(-(head @ query), kind="stable")[:n]
        scores[q] = head @ expand(query, head[hits], alpha=alpha)
    return rescore(ranking, scores)
