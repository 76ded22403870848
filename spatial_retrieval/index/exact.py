r"""Exact search, by blocks over rows of any number.

For a query q the k rows x of largest inner product :math:`q^\top x`, equal ones in their order.
Blocks are scored in float32 by matrix products, whose rounding depends on where a row stands; what
comes within that rounding of the k-th best is scored once more in float64, row by row, so that
equal rows have equal scores and the cut-off is no matter of chance.
"""

import numpy as np

from spatial_retrieval.index.rows import Rows
from spatial_retrieval.ranking import Ranking

__all__ = ["check_vectors", "exact_scores", "exact_search"]

_ROUNDING = (
    1e-5  # of a float32 inner product, relative to |q| |x|; 20 times what is seen at D = 2048
)
_BLOCK = 1 << 15  # rows
_QUERIES = 256  # scored together


def exact_search(rows: Rows, queries: np.ndarray, k: int) -> Ranking:
    """Find the k rows of largest inner product; equal scores in database order.

    Args:
        rows: (M, D) unit rows.
        queries: (Q, D).
        k: cut to M.

    Raises:
        ValueError: if D does not fit or ``k`` < 1.
    """
    queries = check_vectors(queries, rows.shape[1], k)
    k = min(k, len(rows))
    groups = np.split(queries, range(_QUERIES, len(queries), _QUERIES))
    found = [_search(rows, group, k) for group in groups]
    ids, scores = (np.concatenate([each[i] for each in found]) for i in (0, 1))
    return Ranking(ids, scores.astype(np.float32))


def check_vectors(queries: np.ndarray, dim: int, k: int) -> np.ndarray:
    """Queries as (Q, D) float32.

    Raises:
        ValueError: if D does not fit or ``k`` < 1.
    """
    queries = np.ascontiguousarray(queries, dtype=np.float32)
    if queries.ndim != 2 or queries.shape[1] != dim:
        raise ValueError(
            f"expected queries (Q, {dim}), got {queries.shape}; "
            "was the index built with another model?"
        )
    if k < 1:
        raise ValueError(f"expected k of at least 1, got {k}")
    return queries


def exact_scores(query: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Inner products of (D,) and (n, D) → (n,) float64 of float32 precision, each on its own."""
    products = [
        np.einsum("d,nd->n", query.astype(np.float64), rows[i : i + 4096].astype(np.float64))
        for i in range(0, len(rows), 4096)
    ]
    return np.concatenate([np.zeros(0), *products]).astype(np.float32).astype(np.float64)


def _search(rows: Rows, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(Q, k) ids and scores of a few queries."""
    slack = _ROUNDING * np.linalg.norm(queries, axis=1)  # (Q,)
    best = [(np.zeros(0, np.int64), np.zeros(0)) for _ in queries]
    for start, block in rows.blocks(_BLOCK):
        scores = queries @ block.T  # (Q, n)
        for q, query in enumerate(queries):
            ids, kept = best[q]
            near = _candidates(scores[q], k, slack[q], kept[-1] if len(kept) == k else -np.inf)
            if len(near):
                values = np.concatenate([kept, exact_scores(query, block[near])])
                best[q] = _first(np.concatenate([ids, near + start]), values, k)
    if any(len(ids) < k for ids, _ in best):
        raise ValueError("expected finite queries and rows, got others; is the index damaged?")
    return np.stack([ids for ids, _ in best]), np.stack([scores for _, scores in best])


def _candidates(scores: np.ndarray, k: int, slack: float, floor: float) -> np.ndarray:
    """Positions in a block that may belong to the k best, rising: (n,) scores → (≤ n,)."""
    if len(scores) > k:
        floor = max(floor, np.partition(scores, len(scores) - k)[len(scores) - k])
    return np.flatnonzero(scores >= floor - slack)


def _first(ids: np.ndarray, scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    order = np.lexsort((ids, -scores))[:k]
    return ids[order], scores[order]
