"""Rows of several arrays, in memory or on disk, as one (M, D) matrix that is never copied."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

__all__ = ["Rows"]


class Rows:
    """The rows of some arrays, or a choice of them.

    ``np.asarray(rows)`` makes one array of them: without a copy where there is one part.

    Args:
        parts: (mᵢ, D) each, at least one.
        chosen: (M,) positions among all Σ mᵢ rows; None takes them all.
    """

    def __init__(self, parts: Sequence[np.ndarray], chosen: np.ndarray | None = None) -> None:
        self.parts, self.chosen = tuple(parts), chosen
        self._starts = np.cumsum([0, *(len(part) for part in self.parts)])
        self.shape = (len(self), self.parts[0].shape[1])
        self.dtype = np.dtype(np.float32)

    def __len__(self) -> int:
        return int(self._starts[-1]) if self.chosen is None else len(self.chosen)

    def take(self, ids: np.ndarray | Sequence[int]) -> np.ndarray:
        """Rows at positions of any shape, (…,) → (…, D) float32.

        Raises:
            IndexError: if a position is not in [0, M).
        """
        ids = np.asarray(ids, dtype=np.int64)
        flat = ids.reshape(-1)
        if len(flat) and not (flat.min() >= 0 and flat.max() < len(self)):
            raise IndexError(f"expected positions from 0 to {len(self) - 1}")
        where = flat if self.chosen is None else np.asarray(self.chosen)[flat]
        part_of = np.searchsorted(self._starts, where, side="right") - 1
        found = np.empty((len(flat), self.shape[1]), np.float32)
        for number in np.unique(part_of):
            mine = part_of == number
            found[mine] = self.parts[number][where[mine] - self._starts[number]]
        return found.reshape(*ids.shape, self.shape[1])

    def blocks(self, size: int) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (position of the first row, (≤ size, D) float32), from the first to the last."""
        if self.chosen is not None:
            for start in range(0, len(self), size):
                yield start, self.take(np.arange(start, min(start + size, len(self))))
            return
        for offset, part in zip(self._starts, self.parts, strict=False):
            for start in range(0, len(part), size):
                yield int(offset) + start, np.asarray(part[start : start + size], np.float32)

    def __getitem__(self, key: Any) -> np.ndarray:
        return self.take(np.arange(len(self))[key])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        whole = len(self.parts) == 1 and self.chosen is None
        rows = self.parts[0] if whole else self.take(np.arange(len(self)))
        return np.array(rows, dtype=dtype or np.float32, copy=copy or None)
