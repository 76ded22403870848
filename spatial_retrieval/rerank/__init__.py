"""Re-rankers: each takes a ranking and returns a ranking, permuting its top n only.

A re-ranker is any callable ``reranker(ranking, context) -> ranking``, wherever a name is taken a
function of one's own is, too; `by_name` gives the built-in ones. The functions below are pure and
take what they need. How scores come out is told in
`spatial_retrieval.rerank.order`.

==================  =======================================================================
none                the ranking as it came
aqe                 α-query expansion (expansion.py)
dba+aqe             the same among augmented descriptors (expansion.py)
superglobal         hits refined by each other, query by the best of them (neighbours.py)
verify              spatial verification by SIFT (verification.py)
verify-learned      … by XFeat and LighterGlue, extra ``verify`` (learned.py)
verify-aliked       … by ALIKED and LightGlue (learned.py)
verify-cells        … by the model's own map cells, no second network (local_features.py)
hypergraph          region-consistent walk over the neighbour graph (propagation.py)
==================  =======================================================================
"""

from collections.abc import Callable

from spatial_retrieval.ranking import Ranking
from spatial_retrieval.rerank.context import RerankContext
from spatial_retrieval.rerank.expansion import aqe, augment, dba_aqe, expand_queries
from spatial_retrieval.rerank.feature_cache import FeatureCache
from spatial_retrieval.rerank.local_features import (
    LocalFeatures,
    LocalMethod,
    cells,
    sift,
)
from spatial_retrieval.rerank.neighbours import superglobal
from spatial_retrieval.rerank.propagation import hypergraph, propagate
from spatial_retrieval.rerank.uncertainty import communities, uncertainty
from spatial_retrieval.rerank.vectors import NeighbourLists, nearest
from spatial_retrieval.rerank.verification import Matches, Verifier, count_inliers, match, verify

__all__ = [
    "BASIC_NAMES",
    "NAMES",
    "FeatureCache",
    "LocalFeatures",
    "LocalMethod",
    "Matches",
    "NeighbourLists",
    "RerankContext",
    "Reranker",
    "Verifier",
    "aqe",
    "augment",
    "by_name",
    "cells",
    "communities",
    "count_inliers",
    "dba_aqe",
    "expand_queries",
    "hypergraph",
    "label_of",
    "match",
    "nearest",
    "propagate",
    "resolve",
    "sift",
    "superglobal",
    "uncertainty",
    "verify",
]

Reranker = Callable[[Ranking, RerankContext], Ranking]


def resolve(reranker: Reranker | str) -> Reranker:
    """A re-ranker from its name; one's own function is returned as it is.

    Raises:
        ValueError: as :func:`by_name`.
        TypeError: if it is neither a name nor callable.
    """
    if isinstance(reranker, str):
        return by_name(reranker)
    if not callable(reranker):
        raise TypeError(f"expected a re-ranker's name or a function, got {reranker!r}")
    return reranker


def label_of(reranker: Reranker | str) -> str:
    """What a re-ranker is called in tables and result cards."""
    if isinstance(reranker, str):
        return reranker
    return getattr(reranker, "__name__", type(reranker).__name__)


def by_name(name: str) -> Reranker:
    """A re-ranker with the settings of its paper, by the name the commands use.

    Raises:
        ValueError: if there is none of that name; the message lists them.

    Example:
        >>> import numpy as np
        >>> context = RerankContext(queries=np.eye(2), database=np.eye(2))
        >>> by_name("aqe")(Ranking([[0, 1], [1, 0]], [[1, 0], [1, 0]]), context).ids
        array([[0, 1],
               [1, 0]])
    """
    if name not in _BY_NAME:
        raise ValueError(f"expected a re-ranker of {', '.join(NAMES)}, got {name!r}")
    return _BY_NAME[name]


def _none(ranking: Ranking, context: RerankContext) -> Ranking:
    return ranking


def _aqe(ranking: Ranking, context: RerankContext) -> Ranking:
    return aqe(context.queries, context.database, ranking)


def _dba_aqe(ranking: Ranking, context: RerankContext) -> Ranking:
    return dba_aqe(context.queries, ranking, context.lists())


def _superglobal(ranking: Ranking, context: RerankContext) -> Ranking:
    return superglobal(context.queries, context.database, ranking)


def _verify(ranking: Ranking, context: RerankContext) -> Ranking:
    return _verified(ranking, context.verifier("sift", sift()))


def _verify_learned(ranking: Ranking, context: RerankContext) -> Ranking:
    from spatial_retrieval.rerank.learned import xfeat

    return _verified(ranking, context.verifier("xfeat", xfeat()))


def _verify_aliked(ranking: Ranking, context: RerankContext) -> Ranking:
    from spatial_retrieval.rerank.learned import aliked

    return _verified(ranking, context.verifier("aliked", aliked()))


def _verify_cells(ranking: Ranking, context: RerankContext) -> Ranking:
    if context.model is None:
        raise ValueError("verify-cells compares the cells of a model's map: expected context.model")
    method = cells(context.model, fingerprint=context.fingerprint)
    return _verified(ranking, context.verifier("cells", method))


def _hypergraph(ranking: Ranking, context: RerankContext) -> Ranking:
    verifier = context.verifier("sift", sift())
    return hypergraph(ranking, context.lists(), verifier)


def _verified(ranking: Ranking, verifier: Verifier) -> Ranking:
    return verify(ranking, count_inliers(ranking, verifier.query))


_BY_NAME: dict[str, Reranker] = {
    "none": _none,
    "aqe": _aqe,
    "dba+aqe": _dba_aqe,
    "superglobal": _superglobal,
    "verify": _verify,
    "verify-learned": _verify_learned,
    "verify-aliked": _verify_aliked,
    "verify-cells": _verify_cells,
    "hypergraph": _hypergraph,
}
NAMES = tuple(_BY_NAME)
_EXTRA = ("verify-learned", "verify-aliked")
BASIC_NAMES = tuple(name for name in NAMES if name not in _EXTRA)  # those that need no extra
