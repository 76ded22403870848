"""``Ranking``: the one result type that search and every re-ranker return."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Ranking"]


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """For each of Q queries the K best database images, best first.

    Attributes:
        ids: (Q, K) int64, positions in the database, no position twice in a row.
        scores: (Q, K) float32, never rising along K.

    Raises:
        ValueError: if shapes differ, an id is negative or repeated, or scores rise or are NaN.

    Example:
        >>> Ranking([[2, 0]], [[0.9, 0.1]]).ids.shape
        (1, 2)
    """

    ids: np.ndarray  # (Q, K) int64
    scores: np.ndarray  # (Q, K) float32

    def __post_init__(self) -> None:
        ids = _frozen(self.ids, np.int64)
        scores = _frozen(self.scores, np.float32)
        if ids.ndim != 2 or ids.shape != scores.shape:
            raise ValueError(
                f"expected ids and scores of one shape (Q, K), got {ids.shape} and {scores.shape}"
            )
        if ids.size and ids.min() < 0:
            raise ValueError(f"expected ids >= 0, got {ids.min()}")
        in_order = np.sort(ids, axis=1)
        if (in_order[:, 1:] == in_order[:, :-1]).any():
            raise ValueError("expected each id at most once per query, got a repeated id")
        if not (scores[:, 1:] <= scores[:, :-1]).all() or np.isnan(scores).any():
            raise ValueError("expected scores that never rise along a row and hold no NaN")
        object.__setattr__(self, "ids", ids)
        object.__setattr__(self, "scores", scores)

    def __len__(self) -> int:
        return len(self.ids)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Ranking):
            return NotImplemented
        return np.array_equal(self.ids, other.ids) and np.array_equal(self.scores, other.scores)

    @property
    def k(self) -> int:
        """Length K of each list."""
        return self.ids.shape[1]

    def names(self, names: Sequence[str]) -> list[list[str]]:
        """The ranked names of each query, from the database's names (M of them)."""
        return [[names[i] for i in row] for row in self.ids]


def _frozen(values: object, dtype: type) -> np.ndarray:
    array = np.array(values, dtype=dtype)  # a copy: the caller's array stays the caller's
    array.flags.writeable = False
    return array
