"""Was re-ranking needed? How much the first hits agree, and what verification changes."""

from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
from PIL import Image

from spatial_retrieval.demo.results import Hit, Results
from spatial_retrieval.ranking import Ranking
from spatial_retrieval.rerank import RerankContext, count_inliers, sift, verify
from spatial_retrieval.rerank.uncertainty import entropy
from spatial_retrieval.rerank.verification import Matches
from spatial_retrieval.searcher import Searcher

__all__ = ["TRUSTED_NATS", "HitAgreement", "Verified", "agreement", "verified"]

TRUSTED_NATS = 1.0  # nats; above it the first hit is not to be trusted


@dataclass(frozen=True, slots=True, eq=False)
class HitAgreement:
    """Communities among the first hits.

    Attributes:
        uncertainty: entropy of the communities' sizes, in nats.
        communities: groups of index positions, in the order of their best hit.
        neighbours: position → its neighbour list in the gallery.
        ranks: position → rank.
        names: of the whole gallery.
        milliseconds: what finding this took, and what the first search took.
    """

    uncertainty: float
    communities: list[list[int]]
    neighbours: dict[int, list[int]]
    ranks: dict[int, int]
    names: tuple[str, ...]
    milliseconds: dict[str, float]

    @property
    def needed(self) -> bool:
        """Whether the first hit is not to be trusted."""
        return self.uncertainty > TRUSTED_NATS


@dataclass(frozen=True, slots=True, eq=False)
class Verified:
    """The first hits after spatial verification.

    Attributes:
        before, after: the hits, ranked.
        inliers: name → point pairs that agree on one geometry.
        matches: of the query with the best hit after verification; None if it cannot be read.
        best: file of that hit.
        milliseconds: stage → time.
    """

    before: tuple[Hit, ...]
    after: tuple[Hit, ...]
    inliers: dict[str, int]
    matches: Matches | None
    best: Path
    milliseconds: dict[str, float]

    @property
    def changed(self) -> bool:
        """Whether verification put another hit first."""
        return self.before[0].name != self.after[0].name


def agreement(results: Results, searcher: Searcher, own: str | None = None) -> HitAgreement:
    """How much the hits of a first search agree with each other.

    Args:
        results: of a first search.
        searcher: the gallery's.
        own: the query's name, if it is in the gallery; it is no neighbour of anything then.
    """
    start = perf_counter()
    ids = [hit.id for hit in results.hits]
    without = None if own is None else searcher.index.names.index(own)
    context = RerankContext(
        queries=np.zeros((1, 1)),
        database=searcher.index,
        own=None if without is None else np.array([without]),
    )
    groups = context.communities(_ranking(results.hits), top=len(ids))[0]
    neighbours = dict(zip(ids, context.lists().of(ids, query=0), strict=True))
    spent = 1000 * (perf_counter() - start)
    return HitAgreement(
        uncertainty=entropy([len(group) for group in groups]),
        communities=groups,
        neighbours=neighbours,
        ranks={hit.id: hit.rank for hit in results.hits},
        names=searcher.index.names,
        milliseconds={**_first(results), "agreement": spent},
    )


def verified(results: Results, searcher: Searcher, folder: Path, query: Image.Image) -> Verified:
    """Verify the hits of a first search by SIFT point pairs."""
    start = perf_counter()
    context = RerankContext(
        queries=np.zeros((1, 1)),
        database=searcher.index,
        query_images=[query],
        query_boxes=[results.box],
        database_images=[folder / name for name in searcher.index.names],
        features=searcher.features,
    )
    verifier, first = context.verifier("sift", sift()), _ranking(results.hits)
    counts = count_inliers(first, verifier.query)
    after = verify(first, counts)
    spent = 1000 * (perf_counter() - start)
    by_id = {hit.id: hit for hit in results.hits}
    order = zip(after.ids[0].tolist(), after.scores[0].tolist(), strict=True)
    ranked = tuple(
        Hit(rank, by_id[i].name, by_id[i].label, score, i, by_id[i].truth)
        for rank, (i, score) in enumerate(order, start=1)
    )
    return Verified(
        before=results.hits,
        after=ranked,
        inliers={a.name: max(0, int(n)) for a, n in zip(results.hits, counts[0], strict=True)},
        matches=verifier.query(0, ranked[0].id),
        best=folder / ranked[0].name,
        milliseconds={**_first(results), "verification": spent},
    )


def _ranking(hits: tuple[Hit, ...]) -> Ranking:
    return Ranking([[hit.id for hit in hits]], [[hit.score for hit in hits]])


def _first(results: Results) -> dict[str, float]:
    return {stage: results.milliseconds[stage] for stage in ("describe", "search")}
