"""How much an index misses, and which one to take."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np

from spatial_retrieval.index.approximate import (
    Approximate,
    build_approximate,
    load_approximate,
    remove_approximate,
    save_approximate,
)
from spatial_retrieval.index.disk import read_index
from spatial_retrieval.index.exact import exact_search
from spatial_retrieval.index.protocol import Index
from spatial_retrieval.index.rows import Rows

__all__ = ["Measured", "choose", "held_out", "measure", "set_engine"]

EXACT_UP_TO = 200_000  # rows
_ENOUGH = 0.95  # recall at 100
_QUERIES = 200
_NEAR = 0.05  # length of the step from a row to a query that is made of it


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured.

    Attributes:
        recall: k → mean part of the exact k best that were found.
        milliseconds: of one query, asked for 100 hits.
        exact_milliseconds: of one query searched exactly.
    """

    recall: dict[int, float]
    milliseconds: float
    exact_milliseconds: float


def held_out(rows: Rows, count: int = _QUERIES, *, seed: int = 0) -> np.ndarray:
    """(count, D) queries as photographs of the same things would give: rows, moved a little."""
    rng = np.random.default_rng(seed)
    chosen = rows.take(rng.integers(0, len(rows), count))
    step = rng.standard_normal(chosen.shape).astype(np.float32)
    step *= _NEAR / np.linalg.norm(step, axis=1, keepdims=True)
    queries = chosen + step
    return queries / np.linalg.norm(queries, axis=1, keepdims=True)


def measure(
    index: Index, rows: Rows, queries: np.ndarray, ks: Sequence[int] = (1, 10, 100)
) -> Measured:
    """Compare an index with exact search.

    Args:
        index: over these rows.
        rows: (M, D).
        queries: (Q, D).
        ks: lengths at which recall is measured; those above M are left out.
    """
    ks = [k for k in ks if k <= len(rows)]
    exact, exact_time = _timed(lambda: exact_search(rows, queries, max(ks)).ids, len(queries))
    found = index.search(queries, max(ks)).ids
    one_by_one = lambda: [index.search(query[None], max(ks)) for query in queries]  # noqa: E731
    _, time = _timed(one_by_one, len(queries))
    return Measured({k: _recall(exact[:, :k], found[:, :k]) for k in ks}, time, exact_time)


def choose(rows: Rows) -> Approximate | None:
    """The cheapest index that finds 95 of the best 100; None (exact) for a small database."""
    if len(rows) <= EXACT_UP_TO:
        return None
    queries = held_out(rows)
    exact = exact_search(rows, queries, 100).ids
    lists = 1 << round(np.log2(2 * np.sqrt(len(rows))))
    for codes in (f"PQ{rows.shape[1] // 8}x4fsr", "SQ8"):
        built = build_approximate(rows, f"IVF{lists},{codes}")
        for probes in (8, 16, 32, 64, 128):
            tried = Approximate(built.faiss, rows, len(rows), built.factory, f"nprobe={probes}")
            if _recall(exact, tried.search(queries, 100).ids) >= _ENOUGH:
                return tried
    return None


def set_engine(folder: str | os.PathLike[str], kind: str) -> None:
    """Choose how an index on disk is searched, and keep what that needs next to it.

    Args:
        folder: of the index.
        kind: "exact"; "auto", see :func:`choose`; a FAISS factory string, whose search parameters
            may follow a colon ("IVF4096,SQ8:nprobe=32"); or "keep": as it is, built again only if
            a tenth of the rows or more came since.

    Raises:
        ValueError: if FAISS does not know the string.
    """
    rows = read_index(folder).rows
    if kind == "keep":
        found = load_approximate(folder, rows)
        if found is None or len(rows) <= 1.1 * found.count:
            return
        kind = str(found)
    if kind in ("exact", "auto"):
        built = choose(rows) if kind == "auto" else None
    else:
        factory, _, parameters = kind.partition(":")
        built = build_approximate(rows, factory, parameters=parameters)
    remove_approximate(folder)
    if built is not None:
        save_approximate(built, folder)


def _recall(exact: np.ndarray, found: np.ndarray) -> float:
    """Mean part of each row's ids (Q, k) that was found."""
    parts = [len(set(a) & set(b)) / len(a) for a, b in zip(exact, found, strict=True)]
    return float(np.mean(parts))


def _timed(run: Callable[[], Any], count: int) -> tuple[Any, float]:
    """What ``run`` gives, and the milliseconds of each of ``count`` queries."""
    start = perf_counter()
    found = run()
    return found, 1000 * (perf_counter() - start) / count
