"""What a re-ranker, the page or an evaluation may ask of an index, whatever is behind it."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from spatial_retrieval.ranking import Ranking

__all__ = ["Index"]


@runtime_checkable
class Index(Protocol):
    """A database of M descriptors of D numbers each, searched by inner product."""

    def __len__(self) -> int: ...

    def search(self, queries: np.ndarray, k: int) -> Ranking:
        """(Q, D) → the k best of each, or as many as there are."""
        ...

    def vectors(self, ids: np.ndarray | Sequence[int]) -> np.ndarray:
        """Descriptors at some positions, (…,) → (…, D) float32."""
        ...
