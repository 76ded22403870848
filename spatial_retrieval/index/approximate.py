"""Approximate search by FAISS: any factory string, its candidates scored exactly.

FAISS (Johnson, Douze, Jégou 2019; Douze et al. 2024) finds more candidates than are asked for, from
compressed rows; the rows as they are stored then decide. Rows that came after it was built are
searched exactly, and join the result.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spatial_retrieval.files import atomic_writer, sha256_of, write_json
from spatial_retrieval.index.exact import check_vectors, exact_scores, exact_search
from spatial_retrieval.index.rows import Rows
from spatial_retrieval.ranking import Ranking

__all__ = [
    "Approximate",
    "build_approximate",
    "load_approximate",
    "remove_approximate",
    "save_approximate",
]

_BLOCK = 1 << 15  # rows
_SAMPLE = 1 << 17  # rows to train on
_NAME = "approximate"


@dataclass(frozen=True, slots=True, eq=False)
class Approximate:
    """A FAISS index over the first ``count`` rows of a database.

    Attributes:
        faiss: it.
        rows: (M, D) of the database.
        count: how many it holds.
        factory: the string it was made by.
        parameters: of the search, as FAISS reads them ("nprobe=16").
        candidates: how many are scored exactly for each hit that is asked for.
    """

    faiss: Any
    rows: Rows
    count: int
    factory: str
    parameters: str = ""
    candidates: int = 4

    def __post_init__(self) -> None:
        if self.parameters:
            _faiss().ParameterSpace().set_index_parameters(self.faiss, self.parameters)

    def __len__(self) -> int:
        return len(self.rows)

    def __str__(self) -> str:
        return f"{self.factory}:{self.parameters}" if self.parameters else self.factory

    def vectors(self, ids: np.ndarray | Sequence[int]) -> np.ndarray:
        """The descriptors at some positions, (…,) → (…, D)."""
        return self.rows.take(ids)

    def search(self, queries: np.ndarray, k: int) -> Ranking:
        """As :func:`~spatial_retrieval.index.exact.exact_search`, but rows may be missed."""
        queries = check_vectors(queries, self.rows.shape[1], k)
        k = min(k, len(self))
        _, found = self.faiss.search(queries, min(self.count, max(self.candidates * k, k + 16)))
        new = self._new(queries, k)
        together = [np.append(a[a >= 0], b) for a, b in zip(found, new, strict=True)]
        ranked = [self._ranked(q, ids, k) for q, ids in zip(queries, together, strict=True)]
        ids, scores = (np.stack([each[i] for each in ranked]) for i in (0, 1))
        return Ranking(ids, scores.astype(np.float32))

    def _new(self, queries: np.ndarray, k: int) -> np.ndarray:
        """(Q, ≤ k) best of the rows that came later."""
        if self.count == len(self):
            return np.zeros((len(queries), 0), np.int64)
        tail = Rows([self.rows[self.count :]])
        return exact_search(tail, queries, k).ids + self.count

    def _ranked(self, query: np.ndarray, ids: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k best of some rows by their exact scores; of too few, the k best of all."""
        if len(ids) < k:
            found = exact_search(self.rows, query[None], k)
            return found.ids[0], found.scores[0]
        scores = exact_scores(query, self.rows.take(ids))
        order = np.lexsort((ids, -scores))[:k]
        return ids[order], scores[order]


def build_approximate(
    rows: Rows, factory: str, *, parameters: str = "", seed: int = 0
) -> Approximate:
    """Train a FAISS index on a sample of the rows and add them all, block by block.

    Args:
        rows: (M, D) unit rows.
        factory: such as "OPQ64_256,IVF4096,PQ64x4fsr", "HNSW32" or "SQfp16"
            (https://github.com/facebookresearch/faiss/wiki/The-index-factory).
        parameters: see :class:`Approximate`.
        seed: of the sample.

    Raises:
        ValueError: if FAISS does not know the string, or the rows are too few to train it.
    """
    faiss = _faiss()
    try:
        index = faiss.index_factory(rows.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
        chosen = np.random.default_rng(seed).permutation(len(rows))[:_SAMPLE]
        if not index.is_trained:
            index.train(rows.take(np.sort(chosen)))
        for _, block in rows.blocks(_BLOCK):
            index.add(np.ascontiguousarray(block))
        return Approximate(index, rows, len(rows), factory, parameters)
    except RuntimeError as error:  # FAISS raises nothing else
        reason = str(error).split("Error: ")[-1].strip()
        raise ValueError(f"expected a FAISS factory string, got {factory!r} ({reason})") from error


def save_approximate(approximate: Approximate, folder: str | os.PathLike[str]) -> None:
    """Keep it next to an index, in place of the one that was there."""
    faiss, folder = _faiss(), Path(folder)
    data = faiss.serialize_index(approximate.faiss)
    digest = hashlib.sha256(data.data).hexdigest()
    file = f"{_NAME}-{digest[:16]}.faiss"
    with atomic_writer(folder / file) as output:
        output.write(data.data)
    about = {
        "file": file,
        "sha256": digest,
        "count": approximate.count,
        "factory": approximate.factory,
        "parameters": approximate.parameters,
        "rows": _sample(approximate.rows, approximate.count),
    }
    write_json(folder / f"{_NAME}.json", about)
    for old in folder.glob(f"{_NAME}-*.faiss"):
        if old.name != file:
            old.unlink()


def remove_approximate(folder: str | os.PathLike[str]) -> None:
    """Search this index exactly from now on."""
    for path in (Path(folder) / f"{_NAME}.json", *Path(folder).glob(f"{_NAME}-*.faiss")):
        path.unlink(missing_ok=True)


def load_approximate(
    folder: str | os.PathLike[str], rows: Rows, *, verify: bool = False
) -> Approximate | None:
    """The one that was kept; None if there is none, or the rows are no longer those it holds.

    Raises:
        ValueError: if it is damaged.
    """
    folder = Path(folder)
    if not (folder / f"{_NAME}.json").exists():
        return None
    try:
        about = json.loads((folder / f"{_NAME}.json").read_text(encoding="utf-8"))
        path, count = folder / Path(about["file"]).name, int(about["count"])
        if count > len(rows) or _sample(rows, count) != about["rows"]:
            return None
        if verify and sha256_of(path) != about["sha256"]:
            raise ValueError("its sha256 differs")
        faiss = _faiss()
        mapped = faiss.IO_FLAG_MMAP if "IVF" in about["factory"] else 0
        index = faiss.read_index(str(path), mapped)
        if (index.d, index.ntotal) != (rows.shape[1], count):
            raise ValueError(f"expected {count} rows of {rows.shape[1]} numbers")
        return Approximate(index, rows, count, about["factory"], about["parameters"])
    except (RuntimeError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"damaged index: {folder / _NAME}.json ({error}); delete this file to search exactly"
        ) from error


def _sample(rows: Rows, count: int) -> str:
    """Tells whether the first ``count`` rows are still the same."""
    ids = np.unique(np.linspace(0, count - 1, 64).astype(np.int64))
    return hashlib.sha256(rows.take(ids).tobytes()).hexdigest()


def _faiss() -> Any:
    import faiss

    return faiss
