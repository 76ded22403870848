"""``DescriptorIndex``: descriptors with their names, in memory or on disk; build, search, save."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from spatial_retrieval.index.approximate import load_approximate
from spatial_retrieval.index.disk import Contents, add_segment, commit, read_index
from spatial_retrieval.index.exact import exact_search
from spatial_retrieval.index.protocol import Index
from spatial_retrieval.index.rows import Rows
from spatial_retrieval.ranking import Ranking

__all__ = ["DescriptorIndex"]

_BLOCK = 1 << 16  # rows


@dataclass(frozen=True, eq=False)
class DescriptorIndex:
    """A database of unit descriptors with their names.

    Attributes:
        rows: (M, D) float32 unit rows, in memory or memory-mapped.
        names: M names, each once.
        info: what else was saved with it (model, image size, folder …), JSON-able.
        engine: what searches; None searches exactly.

    Build with :meth:`build` or :meth:`load`, not directly.
    """

    rows: Rows
    names: Sequence[str]
    info: Mapping[str, Any] = field(default_factory=dict)
    engine: Index | None = None

    @classmethod
    def build(
        cls,
        descriptors: np.ndarray,
        names: Sequence[str],
        info: Mapping[str, Any] | None = None,
    ) -> "DescriptorIndex":
        """Index descriptors.

        Args:
            descriptors: (M, D) finite, unit rows, M ≥ 1.
            names: M different names.
            info: JSON-able facts to keep with them.

        Raises:
            ValueError: if shapes don't fit, a row is not of unit length, or a name comes twice.

        Example:
            >>> index = DescriptorIndex.build(np.eye(3, dtype=np.float32), ["a", "b", "c"])
            >>> index.search(np.eye(3, dtype=np.float32)[:1], k=2).names(index.names)
            [['a', 'b']]
        """
        rows = np.ascontiguousarray(descriptors, dtype=np.float32)
        if rows.ndim != 2 or not len(rows) or len(rows) != len(names):
            raise ValueError(
                f"expected descriptors (M, D) for M ≥ 1 names, got {rows.shape} for {len(names)}"
            )
        check_unit_rows(rows)
        if len(set(names)) < len(names):
            raise ValueError("expected each name once, got a name twice")
        return cls(Rows([rows]), tuple(names), dict(info or {}))

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def descriptors(self) -> np.ndarray:
        """All rows as one array (M, D); of several segments it is a copy, see :meth:`vectors`."""
        return np.asarray(self.rows)

    def search(self, queries: np.ndarray, k: int = 10) -> Ranking:
        """Find the k database rows of largest inner product; equal scores in database order.

        Args:
            queries: (Q, D).
            k: at least 1; cut to M.

        Raises:
            ValueError: if D does not fit or ``k`` < 1.
        """
        if self.engine is not None:
            return self.engine.search(queries, k)
        return exact_search(self.rows, queries, k)

    def vectors(self, ids: np.ndarray | Sequence[int]) -> np.ndarray:
        """The descriptors at some positions, (…,) → (…, D)."""
        return self.rows.take(ids)

    def save(self, folder: str | Path) -> None:
        """Write the index in place of the one that is there; until the end that one is whole."""
        folder = Path(folder)
        segment = add_segment(folder, self.descriptors, self.names, [""] * len(self))
        rows = Rows([segment.arrays["rows"]])
        commit(folder, Contents(rows, self.names, (), self.info, segments=[segment]))

    @classmethod
    def load(cls, folder: str | Path, *, verify: bool = False) -> "DescriptorIndex":
        """Open an index; its rows stay on disk until they are needed.

        Args:
            folder: written by :meth:`save` or ``spatial-retrieval index``.
            verify: check every byte; otherwise only manifest, sizes and small segments.

        Raises:
            ValueError: if there is no index, a file is missing, or a byte has changed.
        """
        found = read_index(folder, verify=verify)
        engine = load_approximate(folder, found.rows, verify=verify)
        return cls(found.rows, found.names, found.info, engine)


def check_unit_rows(rows: np.ndarray) -> None:
    """Refuse rows (M, D) that are not finite or not of unit length.

    Raises:
        ValueError: naming the lengths found.
    """
    for start in range(0, len(rows), _BLOCK):
        lengths = np.linalg.norm(rows[start : start + _BLOCK], axis=1)
        if not np.allclose(lengths, 1, atol=1e-3):
            raise ValueError(
                f"expected unit rows, got lengths {lengths.min():.4g} … {lengths.max():.4g}; "
                "divide each row by its norm"
            )
