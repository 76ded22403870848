"""What a re-ranker may see of a search: descriptors, photographs, the model. Never ground truth."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from spatial_retrieval.images import Box, ImageSource
from spatial_retrieval.ranking import Ranking
from spatial_retrieval.rerank.feature_cache import FeatureCache
from spatial_retrieval.rerank.local_features import LocalMethod
from spatial_retrieval.rerank.uncertainty import communities, entropy
from spatial_retrieval.rerank.vectors import Database, NeighbourLists
from spatial_retrieval.rerank.verification import Verifier

__all__ = ["RerankContext"]


@dataclass(frozen=True, slots=True, eq=False)
class RerankContext:
    """The two sides of a search, for re-rankers. What a method doesn't use may be left out.

    Attributes:
        queries: (Q, D) unit rows, one for each list of the ranking.
        database: (M, D) unit rows, or an index.
        query_images: Q photographs: paths, bytes or PIL images. An open file can be read only
            once, and two methods would read it twice.
        database_images: M photographs (a sequence: only those of the shortlist are opened).
        query_boxes: Q boxes or None, in pixels of the query photographs.
        model: for verification by map cells; has ``feature_map``.
        fingerprint: the model's, if it is known; None: it is worked out from all weights when a
            re-ranker needs it.
        features: cache of local features; give one with a folder to keep them between runs.
        neighbours: length of the database's neighbour lists.
        neighbour_table: (M, ≥ neighbours) lists found beforehand; None: found when needed.
        own: (Q,) database positions of the queries themselves, where the database holds them; what
            comes out is what a database without the query gives. The ranking must leave it out
            too. None: the queries are not in the database.
    """

    queries: np.ndarray
    database: Database
    query_images: Sequence[ImageSource] | None = None
    database_images: Sequence[ImageSource] | None = None
    query_boxes: Sequence[Box | None] | None = None
    model: Any = None
    fingerprint: str | None = None
    features: FeatureCache = field(default_factory=FeatureCache)
    neighbours: int = 10
    neighbour_table: np.ndarray | None = None
    own: np.ndarray | None = None
    _lists: dict[int, NeighbourLists] = field(default_factory=dict, repr=False)
    _verifiers: dict[str, Verifier] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.own is not None and np.shape(self.own) != (len(self.queries),):
            raise ValueError(
                f"expected own of shape ({len(self.queries)},), a position for each query, "
                f"got {np.shape(self.own)}"
            )

    def fresh(self) -> "RerankContext":
        """The same search without the matches and neighbour lists found so far, for timing."""
        return replace(self, _lists={}, _verifiers={})

    def lists(self) -> NeighbourLists:
        """The database's neighbour lists; the same object on every call."""
        if self.neighbours not in self._lists:
            self._lists[self.neighbours] = NeighbourLists(
                self.database, k=self.neighbours, table=self.neighbour_table, own=self.own
            )
        return self._lists[self.neighbours]

    def verifier(self, name: str, method: LocalMethod) -> Verifier:
        """Spatial verification by ``method``, kept under ``name``.

        Raises:
            ValueError: if the photographs of either side are missing.
        """
        if self.query_images is None or self.database_images is None:
            raise ValueError(
                "this re-ranker compares photographs: expected query_images and database_images "
                "(for an index: the folder it was made of)"
            )
        if len(self.query_images) != len(self.queries):
            raise ValueError(
                f"expected a photograph for each of {len(self.queries)} queries, "
                f"got {len(self.query_images)}"
            )
        if name not in self._verifiers:
            self._verifiers[name] = Verifier(
                method,
                self.database_images,
                self.query_images,
                self.query_boxes,
                cache=self.features,
            )
        return self._verifiers[name]

    def communities(self, ranking: Ranking, *, top: int = 20) -> list[list[list[int]]]:
        """For each query the communities among its first ``top`` hits."""
        heads = ranking.ids[:, :top].tolist()
        return [communities(ids, self.lists().of(ids, query=q)) for q, ids in enumerate(heads)]

    def uncertainty(self, ranking: Ranking, *, top: int = 20) -> np.ndarray:
        """(Q,) entropy of the community sizes among each query's first ``top`` hits, in nats."""
        found = self.communities(ranking, top=top)
        return np.array([entropy([len(group) for group in groups]) for groups in found])
