"""The database's descriptors as re-rankers read them: some rows, and the neighbours of some rows.

A database is an (M, D) array (or memory map), or anything that can give vectors and search, such
as a `DescriptorIndex`; only the rows that are asked for are ever touched.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from spatial_retrieval.ranking import Ranking

__all__ = ["Database", "NeighbourLists", "VectorStore", "check_queries", "nearest", "rows"]


class VectorStore(Protocol):
    """What an index has to offer to be a database for re-rankers."""

    def vectors(self, ids: np.ndarray) -> np.ndarray:
        """(n, D) descriptors of n database positions."""

    def search(self, queries: np.ndarray, k: int) -> Ranking:
        """The k best database positions for each query."""


Database = np.ndarray | VectorStore


def rows(database: Database, ids: np.ndarray) -> np.ndarray:
    """Descriptors of database positions ``ids`` of any shape (…) as (…, D) float32."""
    ids = np.asarray(ids, dtype=np.int64)
    if isinstance(database, np.ndarray):
        return np.asarray(database[ids], dtype=np.float32)
    return np.asarray(database.vectors(ids.ravel()), dtype=np.float32).reshape(*ids.shape, -1)


def nearest(database: Database, ids: np.ndarray, k: int, *, block: int = 65536) -> np.ndarray:
    """The k nearest neighbours of database rows by inner product, without the row itself.

    Args:
        database: (M, D) descriptors, or a store that searches.
        ids: (n,) positions.
        k: neighbours of each; fewer come back only if the database is smaller.
        block: rows of an array compared at once.

    Returns:
        (n, min(k, M - 1)) int64, nearest first.
    """
    ids = np.asarray(ids, dtype=np.int64)
    if k < 1:
        raise ValueError(f"expected k >= 1, got {k}")
    queries = rows(database, ids)  # (n, D)
    if isinstance(database, np.ndarray):
        found = _scan(database, queries, min(k + 1, len(database)), block)
    else:
        found = database.search(queries, k + 1).ids
    return np.stack([_without(row, i) for row, i in zip(found, ids, strict=True)])


class NeighbourLists:
    """Neighbour lists of database images, found once each and kept.

    Args:
        database: (M, D) descriptors, or a store that searches.
        k: length of a list; shorter only where the database, or the table, has no more.
        table: (M, ≥ k) lists made beforehand (``nearest`` over the whole database; k + 1 columns
            if somebody is left out); None: found on demand.
        own: (Q,) database positions of the queries themselves, if the database holds them.

    Raises:
        ValueError: if queries are to be left out of a table that has no column to spare.
    """

    def __init__(
        self,
        database: Database,
        *,
        k: int,
        table: np.ndarray | None = None,
        own: Sequence[int] | np.ndarray | None = None,
    ) -> None:
        if own is not None and table is not None:
            _check_spare(table, k)
        self.database, self.k, self.own = database, k, own
        self._table = table
        self._known: dict[int, list[int]] = {}

    def of(self, ids: Sequence[int] | np.ndarray, *, query: int | None = None) -> list[list[int]]:
        """The lists of several images, nearest first.

        Args:
            ids: (n,) positions.
            query: number of a query that is in no list, as if the database didn't hold it; where
                ``own`` is None, no query is in the database.
        """
        ids = [int(i) for i in ids]
        without = None if query is None or self.own is None else int(self.own[query])
        self._find([i for i in dict.fromkeys(ids) if i not in self._known])
        return [[j for j in self._known[i] if j != without][: self.k] for i in ids]

    def _find(self, missing: list[int]) -> None:
        """One neighbour more than a list holds, so that one can be left out."""
        if not missing:
            return
        if self._table is None:
            found = nearest(self.database, np.array(missing), self.k + 1)
        else:
            found = self._table[missing, : self.k + 1]
        self._known.update(zip(missing, found.tolist(), strict=True))


def check_queries(queries: np.ndarray, ranking: Ranking) -> np.ndarray:
    """(Q, D) float32 queries, one for each list of the ranking.

    Raises:
        ValueError: if their number differs.
    """
    queries = np.asarray(queries, dtype=np.float32)
    if queries.ndim != 2 or len(queries) != len(ranking):
        raise ValueError(f"expected queries ({len(ranking)}, D), got {queries.shape}")
    return queries


def _check_spare(table: np.ndarray, k: int) -> None:
    everyone = len(table) - 1
    if table.shape[1] < min(k + 1, everyone):
        raise ValueError(
            f"expected a neighbour table of {min(k + 1, everyone)} columns, so that a query can be "
            f"left out of lists of {k}, got {table.shape[1]}"
        )


def _scan(database: np.ndarray, queries: np.ndarray, k: int, block: int) -> np.ndarray:
    best = np.empty((len(queries), 0), np.float32)
    ids = np.empty((len(queries), 0), np.int64)
    for start, part in _blocks(database, block):
        similarity = queries @ part.T  # (n, block)
        chosen = _largest(similarity, min(k, len(part)))
        best = np.concatenate([best, np.take_along_axis(similarity, chosen, axis=1)], axis=1)
        ids = np.concatenate([ids, chosen + start], axis=1)
        keep = np.lexsort((ids, -best), axis=1)[:, :k]
        best, ids = (np.take_along_axis(values, keep, axis=1) for values in (best, ids))
    return ids


def _largest(similarity: np.ndarray, k: int) -> np.ndarray:
    """(n, k) columns of the k largest of each row, rising; the lower of equal ones at the end."""
    last = -np.partition(-similarity, k - 1, axis=1)[:, k - 1 : k]  # (n, 1), the k-th largest
    above, equal = similarity > last, similarity == last
    room = k - above.sum(axis=1, keepdims=True)
    kept = above | (equal & (np.cumsum(equal, axis=1) <= room))
    return np.nonzero(kept)[1].reshape(len(similarity), k)


def _blocks(database: np.ndarray, size: int) -> Iterator[tuple[int, np.ndarray]]:
    for start in range(0, len(database), size):
        yield start, np.asarray(database[start : start + size], dtype=np.float32)


def _without(row: np.ndarray, own: int) -> np.ndarray:
    others = row[row != own]
    return others[: len(row) - 1]
