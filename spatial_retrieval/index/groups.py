"""Photographs that belong together: near-duplicates, or views of one thing.

A graph joins each photograph with those of its k nearest whose similarity reaches a threshold; its
connected components are the groups (single linkage, Sibson 1973), found by union-find (Tarjan
1975).
"""

from collections.abc import Iterator

import numpy as np

from spatial_retrieval.index.database import DescriptorIndex

__all__ = ["connected", "groups", "similar_pairs"]

_BLOCK = 1024  # rows searched together


def groups(index: DescriptorIndex, threshold: float, *, k: int = 16) -> list[list[int]]:
    """Groups of at least two photographs.

    Args:
        index: searched as it searches.
        threshold: similarity that joins two photographs; 0.95 for near-duplicates, about 0.7 for
            views of one thing.
        k: nearest photographs of each that are looked at.

    Returns:
        positions in the index, rising in each group; the largest group first, then by position.
    """
    pairs = np.concatenate([np.zeros((0, 2), np.int64), *similar_pairs(index, threshold, k)])
    labels = connected(pairs, len(index))
    order = np.argsort(labels, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
    found = [part.tolist() for part in parts if len(part) > 1]
    return sorted(found, key=lambda group: (-len(group), group[0]))


def similar_pairs(index: DescriptorIndex, threshold: float, k: int) -> Iterator[np.ndarray]:
    """Yield pairs (n, 2) of positions whose similarity reaches the threshold, block by block."""
    if k < 1:
        raise ValueError(f"expected k of at least 1, got {k}")
    for start, block in index.rows.blocks(_BLOCK):
        found = index.search(block, k + 1)  # with itself
        first = np.repeat(np.arange(start, start + len(block)), found.k)
        second = found.ids.reshape(-1)
        joined = (found.scores.reshape(-1) >= threshold) & (first != second)
        yield np.stack([first[joined], second[joined]], axis=1)


def connected(pairs: np.ndarray, count: int) -> np.ndarray:
    """Edges (n, 2) between ``count`` nodes → (count,) the lowest node of each one's component."""
    parent = list(range(count))
    for a, b in pairs.tolist():
        a, b = _root(parent, a), _root(parent, b)
        parent[max(a, b)] = min(a, b)
    return np.array([_root(parent, i) for i in range(count)], dtype=np.int64)


def _root(parent: list[int], i: int) -> int:
    while parent[i] != i:
        parent[i] = parent[parent[i]]  # halves the path
        i = parent[i]
    return i
