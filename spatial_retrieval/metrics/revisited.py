r"""The revisited protocol: mAP and mP@k of a ranking, Easy, Medium and Hard.

=========  ============  =============
protocol   positive      ignored
=========  ============  =============
E, Easy    easy          junk, hard
M, Medium  easy, hard    junk
H, Hard    hard          junk, easy
=========  ============  =============

Ignored images leave the ranking before ranks are counted; average precision and precision at k
are those of :mod:`~spatial_retrieval.metrics.average_precision`. Queries without a positive are NaN
and leave the means.

Source: Radenović et al., CVPR 2018, section 4, and the official evaluator.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from spatial_retrieval.datasets.revisited import RevisitedGroundTruth
from spatial_retrieval.metrics.average_precision import (
    average_precision,
    mean_present,
    precision_at,
)
from spatial_retrieval.ranking import Ranking

__all__ = [
    "PROTOCOLS",
    "RevisitedScores",
    "hit_kinds",
    "protocol_split",
    "revisited_scores",
]

Protocol = Literal["E", "M", "H"]
PROTOCOLS: tuple[Protocol, ...] = ("E", "M", "H")

# protocol -> (positive lists, ignored lists)
_SPLITS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "E": (("easy",), ("junk", "hard")),
    "M": (("easy", "hard"), ("junk",)),
    "H": (("hard",), ("junk", "easy")),
}


@dataclass(frozen=True, slots=True, eq=False)
class RevisitedScores:
    """Scores of one ranking under one protocol.

    Attributes:
        map: mean average precision over the queries that have a positive, in [0, 1].
        mp_at: k → mean precision at k.
        ap_per_query: (Q,) average precision, NaN for a query without a positive.
    """

    map: float
    mp_at: dict[int, float]
    ap_per_query: np.ndarray


def revisited_scores(
    ids: np.ndarray | Sequence[Sequence[int]] | Ranking,
    ground_truth: RevisitedGroundTruth,
    protocol: Protocol,
    ks: Sequence[int] = (1, 5, 10),
    *,
    ignored: Literal["removed", "wrong"] = "removed",
) -> RevisitedScores:
    """Score rankings of the database, whole or cut short.

    Args:
        ids: (Q, K) database ids, best first, or a Ranking. Ids from M on are distractors.
        ground_truth: what hits what.
        protocol: "E", "M" or "H".
        ks: where precision is measured.
        ignored: "removed" is the protocol. "wrong" leaves ignored images in as wrong hits, a
            mistake that published code has made, here to measure what it changes.

    Raises:
        ValueError: if ``ids`` are not Q lists of whole numbers ≥ 0, a positive is ranked twice, or
            a name is unknown.

    Example:
        >>> box = [[0, 0, 9, 9]]
        >>> truth = RevisitedGroundTruth(("a", "b", "c"), ("q",), box, ([2],), ([],), ([0],))
        >>> revisited_scores([[0, 2, 1]], truth, "E").map
        1.0
    """
    rows = _rows(ids, len(ground_truth))
    if ignored not in ("removed", "wrong"):
        raise ValueError(f'expected ignored "removed" or "wrong", got {ignored!r}')
    if any(k < 1 for k in ks):
        raise ValueError(f"expected ks of at least 1, got {tuple(ks)}")
    positives, skipped = protocol_split(ground_truth, protocol)
    hits = _members(rows, positives)
    out = _members(rows, skipped) if ignored == "removed" else False
    _check_once(rows, hits)
    totals = [len(found) for found in positives]
    aps = average_precision(hits, totals, ignored=out)
    mp_at = {k: mean_present(precision_at(hits, totals, k, ignored=out)) for k in ks}
    return RevisitedScores(mean_present(aps), mp_at, aps)


def protocol_split(
    ground_truth: RevisitedGroundTruth, protocol: Protocol
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Per query the ids that are positive and the ids that are ignored.

    Raises:
        ValueError: if the protocol is unknown.
    """
    if protocol not in _SPLITS:
        raise ValueError(f"expected protocol E, M or H, got {protocol!r}")
    positive, ignored = _SPLITS[protocol]
    return _joined(ground_truth, positive), _joined(ground_truth, ignored)


def hit_kinds(
    row: np.ndarray | Sequence[int], ground_truth: RevisitedGroundTruth, query: int
) -> list[str]:
    """What each hit (K,) to one query is: "easy", "hard", "junk" or "wrong"."""
    kind_of = {
        int(i): kind
        for kind in ("easy", "hard", "junk")
        for i in getattr(ground_truth, kind)[query]
    }
    return [kind_of.get(int(i), "wrong") for i in row]


def _rows(ids: object, queries: int) -> np.ndarray:
    rows = ids.ids if isinstance(ids, Ranking) else np.asarray(ids)
    if rows.ndim != 2 or len(rows) != queries:
        raise ValueError(f"expected ids of shape ({queries}, K), got {rows.shape}")
    if rows.size and not np.issubdtype(rows.dtype, np.integer):
        raise ValueError(f"expected whole numbers as ids, got {rows.dtype}")
    if rows.size and rows.min() < 0:
        raise ValueError(f"expected ids >= 0, got {rows.min()}")
    return rows


def _joined(ground_truth: RevisitedGroundTruth, lists: tuple[str, ...]) -> list[np.ndarray]:
    parts = zip(*(getattr(ground_truth, name) for name in lists), strict=True)
    return [np.concatenate(part) for part in parts]


def _members(rows: np.ndarray, lists: Sequence[np.ndarray]) -> np.ndarray:
    """(Q, K) bool: which ids of each row are in its list."""
    found = [np.isin(row, members) for row, members in zip(rows, lists, strict=True)]
    return np.array(found, dtype=bool).reshape(rows.shape)


def _check_once(rows: np.ndarray, hits: np.ndarray) -> None:
    for row, hit in zip(rows, hits, strict=True):
        if len(np.unique(row[hit])) < hit.sum():
            raise ValueError("expected each id at most once per query, got a positive twice")
