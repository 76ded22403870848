r"""The revisited protocol: mAP and mP@k of a ranking, Easy, Medium and Hard.

=========  ============  =============
protocol   positive      ignored
=========  ============  =============
E, Easy    easy          junk, hard
M, Medium  easy, hard    junk
H, Hard    hard          junk, easy
=========  ============  =============

Ignored images leave the ranking before ranks are counted. With :math:`r_0 < r_1 < …` the zero-based
ranks of the positives that are left, and n positives in all,

.. math::
    \mathrm{AP} = \frac1n \sum_j \tfrac12 (p_j + p'_j), \qquad
    p_j = \frac{j}{r_j}\ (1 \text{ if } r_j = 0), \qquad p'_j = \frac{j+1}{r_j+1},

the area under the precision–recall curve by trapezoids. A positive that the ranking does not hold
adds nothing. Precision at k is taken at :math:`k' = \min(k, r_\mathrm{last}+1)`, so that a query
with fewer than k positives can reach 1; a positive beyond the end of a list that was cut short
counts as later than any k. Queries without a positive are NaN and leave the means.

Source: Radenović et al., CVPR 2018, section 4, and the official evaluator.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from spatial_retrieval.datasets.revisited import RevisitedGroundTruth
from spatial_retrieval.ranking import Ranking

__all__ = [
    "PROTOCOLS",
    "RevisitedScores",
    "hit_kinds",
    "average_precision",
    "positive_ranks",
    "precision_at",
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
    aps = np.full(len(rows), np.nan)
    precisions = np.full((len(rows), len(ks)), np.nan)
    for q, row in enumerate(rows):
        if len(positives[q]):
            out = skipped[q] if ignored == "removed" else ()
            ranks = positive_ranks(row, positives[q], out)
            aps[q] = average_precision(ranks, len(positives[q]))
            precisions[q] = [precision_at(ranks, len(positives[q]), k) for k in ks]
    means = [_mean(column) for column in precisions.T]
    return RevisitedScores(_mean(aps), dict(zip(ks, means, strict=True)), aps)


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


def positive_ranks(
    row: np.ndarray | Sequence[int],
    positives: np.ndarray | Sequence[int],
    ignored: np.ndarray | Sequence[int] = (),
) -> np.ndarray:
    """Zero-based ranks of the positives in ``row`` (K,), ascending, ignored ids left out.

    Raises:
        ValueError: if a positive is ranked twice.

    Example:
        >>> positive_ranks([7, 3, 9, 5], positives=[5, 3], ignored=[7]).tolist()
        [0, 2]
    """
    row = np.asarray(row)
    hit = np.flatnonzero(np.isin(row, positives))
    if len(np.unique(row[hit])) < len(hit):
        raise ValueError("expected each id at most once per query, got a positive twice")
    skip = np.flatnonzero(np.isin(row, ignored))
    return hit - np.searchsorted(skip, hit)


def average_precision(ranks: np.ndarray | Sequence[int], n_positives: int) -> float:
    """Area under the precision–recall curve, from zero-based ``ranks`` (n,), ascending.

    ``n_positives`` counts all positives, found or not.

    Raises:
        ValueError: if there are more ranks than positives, or no positive.

    Example:
        >>> average_precision([0, 2], n_positives=2)
        0.7916666666666666
    """
    ranks = np.asarray(ranks, dtype=np.float64)
    if n_positives < 1 or len(ranks) > n_positives:
        raise ValueError(f"expected at least 1 and {len(ranks)} positives, got {n_positives}")
    j = np.arange(len(ranks))
    before = np.where(ranks == 0, 1.0, j / np.maximum(ranks, 1))
    after = (j + 1) / (ranks + 1)
    return float(((before + after) / 2).sum() / n_positives)


def precision_at(ranks: np.ndarray | Sequence[int], n_positives: int, k: int) -> float:
    """Precision among the first k, or up to the last positive where all of them come earlier.

    Example:
        >>> precision_at([0, 2], n_positives=2, k=5)
        0.6666666666666666
    """
    ranks = np.asarray(ranks)
    if len(ranks) == n_positives:
        k = min(k, int(ranks[-1]) + 1)
    return float((ranks < k).sum() / k)


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


def _mean(values: np.ndarray) -> float:
    present = values[~np.isnan(values)]
    return float(present.mean()) if len(present) else float("nan")
