r"""Community selection's uncertainty: do the best hits agree with each other?

The first n hits are the nodes of a graph; two are linked when one is in the other's list of
database neighbours. Connected components are *communities*. With :math:`p_c` the share of hits in
community c,

.. math:: U = -\sum_c p_c \ln p_c ,

0 when all hits belong together, :math:`\ln n` when none do. Above 1 the first hit is not to be
trusted. An, Huo & Yoon, *Hypergraph propagation and community selection for objects retrieval*,
NeurIPS 2021. The published code grows communities one hit at a time, so its result
depends on the order; connected components are what it approximates.
"""

from collections.abc import Sequence

import numpy as np

__all__ = ["communities", "entropy", "uncertainty"]


def communities(ids: Sequence[int], neighbours: Sequence[Sequence[int]]) -> list[list[int]]:
    """Connected components of the hits' neighbour graph.

    Args:
        ids: n hits, best first.
        neighbours: the database neighbours of each hit; those that are no hits play no part.

    Returns:
        Communities in the order of their best hit, hits within each in the ranking's order.

    Example:
        >>> communities([4, 7, 2], [[2], [9], []])
        [[4, 2], [7]]
    """
    if len(ids) != len(neighbours):
        raise ValueError(f"expected a neighbour list for each of {len(ids)} hits")
    position = {int(image): p for p, image in enumerate(ids)}
    parent = list(range(len(ids)))
    for p, found in enumerate(neighbours):
        for other in found:
            if other in position:
                a, b = _root(parent, p), _root(parent, position[other])
                parent[max(a, b)] = min(a, b)
    groups: dict[int, list[int]] = {}
    for p, image in enumerate(ids):
        groups.setdefault(_root(parent, p), []).append(int(image))
    return list(groups.values())


def entropy(sizes: Sequence[int]) -> float:
    """Entropy of a partition in nats, from the sizes of its parts; 0 for an empty one."""
    share = np.asarray(sizes, dtype=np.float64)
    share = share[share > 0] / max(share.sum(), 1)
    return float(max(0.0, -(share * np.log(share)).sum()))


def uncertainty(ids: Sequence[int], neighbours: Sequence[Sequence[int]]) -> float:
    """Entropy of the community sizes among the hits ``ids``.

    Example:
        >>> round(uncertainty([4, 7, 2], [[2], [9], []]), 3)
        0.637
    """
    return entropy([len(group) for group in communities(ids, neighbours)])


def _root(parent: list[int], node: int) -> int:
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node
