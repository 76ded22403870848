r"""Hypergraph propagation: walk from the first hit to images that show the same region of it.

The graph's nodes are the shortlist's images, its edges the database's neighbour lists. Each image i
that has been reached holds a region :math:`R_i` of its pixels; the start holds all of it. A step
from i to j takes the point pairs :math:`(a, b)` that spatial verification found between the two,

.. math::
    B = \{\, b : (a, b) \in \mathrm{matches}(i, j),\; a \in R_i \,\}, \qquad
    R_j \leftarrow R_j \cup \mathrm{box}(B),

and reaches j if B is not empty. An edge needs 20 pairs, as a trusted start does. So a photograph
of a door doesn't lead to photographs of the tower next to it. After three breadth-first hops the
order is: images in the order they were reached, then the rest as they were. An, Huo & Yoon,
*Hypergraph propagation and community selection for objects retrieval*, NeurIPS 2021.

When the first hits disagree (`uncertainty` above 1) the start is checked first: with fewer than 20
inliers to the query it gives way to the first of the shortlist that has more than 20.

Three things differ from the published code: a point on the border of a region is inside it, an
edge has a least number of pairs, and reaching stays within the shortlist, since a re-ranker never
touches the tail.
"""

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Protocol

import numpy as np

from spatial_retrieval.images import Box
from spatial_retrieval.ranking import Ranking
from spatial_retrieval.rerank.order import head_length, place
from spatial_retrieval.rerank.uncertainty import uncertainty
from spatial_retrieval.rerank.vectors import NeighbourLists
from spatial_retrieval.rerank.verification import Matches

__all__ = ["EVERYWHERE", "PairMatcher", "choose_start", "hypergraph", "propagate"]

EVERYWHERE: Box = (-np.inf, -np.inf, np.inf, np.inf)  # x0, y0, x1, y1, borders inside


class PairMatcher(Protocol):
    """What propagation needs of spatial verification; `Verifier` is one."""

    failed: dict[tuple[str, int], str]

    def query(self, query: int, image: int) -> Matches | None:
        """Matches of a query with a database image; None if one cannot be read."""

    def database(self, first: int, second: int) -> Matches | None:
        """Matches of two database images; None if one cannot be read."""


def hypergraph(
    ranking: Ranking,
    neighbours: NeighbourLists,
    matcher: PairMatcher,
    *,
    top: int = 100,
    doubt: float = 1.0,
    trust: int = 20,
) -> Ranking:
    """Order the first ``top`` hits by propagation; places keep their scores.

    Args:
        ranking: Q lists of length K.
        neighbours: neighbour lists of the database. With ``own`` a query takes nobody's place in a
            list.
        matcher: spatial verification of queries and database images.
        top: hits that may be reached and moved.
        doubt: uncertainty of the first 20 hits above which the start is checked.
        trust: inliers that make a start safe and a match an edge.
    """
    n = head_length(ranking, top)
    order = np.empty((len(ranking), n), np.int64)
    for q, ids in enumerate(ranking.ids[:, :n].tolist()):
        lists = partial(neighbours.of, query=q)
        start = ids[0]
        if uncertainty(ids[:20], lists(ids[:20])) > doubt:
            start = choose_start(ids, lambda i, q=q: _count(matcher.query(q, i)), trust=trust)
        reached = propagate(
            start,
            set(ids),
            neighbours=lambda i, lists=lists: lists([i])[0],
            matches=matcher.database,
            least=trust,
        )
        unreadable = {i for kind, i in matcher.failed if kind == "database"}
        order[q] = _order(ids, reached, unreadable)
    return place(ranking, order)


def choose_start(ids: Sequence[int], inliers: Callable[[int], int], *, trust: int = 20) -> int:
    """The first hit if it has ``trust`` inliers, else the first with more, else the first hit.

    Args:
        ids: hits, best first.
        inliers: number of matches of a hit with the query; called only as far as needed.
        trust: inliers that make a start safe.
    """
    if inliers(ids[0]) >= trust:
        return ids[0]
    return next((i for i in ids if inliers(i) > trust), ids[0])


def propagate(
    start: int,
    allowed: Collection[int],
    *,
    neighbours: Callable[[int], Sequence[int]],
    matches: Callable[[int, int], Matches | None],
    least: int = 1,
    hops: int = 3,
) -> list[int]:
    """Images reached from ``start`` by region-consistent matches, in breadth-first order.

    Args:
        start: first image; it comes first in the result.
        allowed: images that may be reached.
        neighbours: an image's neighbour list, nearest first.
        matches: point pairs of two images; None where one cannot be read.
        least: pairs that make an edge.
        hops: steps of the walk.
    """
    regions = {start: EVERYWHERE}
    reached = frontier = [start]
    for _ in range(hops):
        adopted = []
        for i in frontier:
            for j in neighbours(i):
                if j == i or j not in allowed:
                    continue
                found = matches(i, j)
                if found is None or len(found) < least:
                    continue
                region = _carried(regions[i], found)
                if region is None:
                    continue
                if j not in regions:
                    adopted.append(j)
                regions[j] = _union(regions.get(j, region), region)
        reached, frontier = reached + adopted, adopted
    return reached


def _carried(region: Box, found: Matches) -> Box | None:
    x0, y0, x1, y1 = region
    x, y = found.a[:, 0], found.a[:, 1]
    inside = found.b[(x >= x0) & (x <= x1) & (y >= y0) & (y <= y1)]
    if not len(inside):
        return None
    (left, upper), (right, lower) = inside.min(axis=0), inside.max(axis=0)
    return float(left), float(upper), float(right), float(lower)


def _union(a: Box, b: Box) -> Box:
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])


def _count(found: Matches | None) -> int:
    return 0 if found is None else len(found)


def _order(ids: list[int], reached: list[int], unreadable: set[int]) -> list[int]:
    position = {image: p for p, image in enumerate(ids)}
    first = [i for i in reached if i not in unreadable]
    moved = iter(first + [i for i in ids if i not in unreadable and i not in set(first)])
    return [position[i] if i in unreadable else position[next(moved)] for i in ids]
