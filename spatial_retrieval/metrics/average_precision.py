r"""Average precision and precision at k: one definition for every protocol.

Images that a protocol ignores leave the ranking before ranks are counted. With
:math:`r_0 < r_1 < …` the zero-based ranks of the positives that are left, and n positives in all,

.. math::
    \mathrm{AP} = \frac1n \sum_j \tfrac12 (p_j + p'_j), \qquad
    p_j = \frac{j}{r_j}\ (1 \text{ if } r_j = 0), \qquad p'_j = \frac{j+1}{r_j+1},

the area under the precision–recall curve by trapezoids. A positive that the ranking does not hold
adds nothing. Precision at k is taken at :math:`k' = \min(k, r_\mathrm{last}+1)`, so that a query
with fewer than k positives can reach 1; a positive beyond the end of a list that was cut short
counts as later than any k. Queries without a positive are NaN.

Source: Radenović et al., CVPR 2018, section 4, and the official evaluator.
"""

from collections.abc import Sequence

import numpy as np

from spatial_retrieval.ranking import Ranking

__all__ = [
    "average_precision",
    "labelled_ap",
    "labelled_positives",
    "mean_present",
    "positive_ranks",
    "precision_at",
]


def average_precision(
    positive: np.ndarray, n_positives: np.ndarray | Sequence[int], *, ignored: object = False
) -> np.ndarray:
    """Area under each query's precision–recall curve.

    Args:
        positive: (Q, K) bool, which hits are positives, best hit first.
        n_positives: (Q,) how many positives there are, ranked or not.
        ignored: (Q, K) bool, hits that leave the ranking first.

    Returns:
        (Q,) float64 in [0, 1]; NaN for a query without a positive.

    Raises:
        ValueError: if shapes differ, or a query has more positives ranked than there are.

    Example:
        >>> average_precision(np.array([[True, False, True]]), [2])
        array([0.79166667])
    """
    total, rows, ranks = _ranks(positive, n_positives, ignored)
    j = np.arange(len(rows)) - np.searchsorted(rows, rows)  # positives before this one
    before = np.where(ranks == 0, 1.0, j / np.maximum(ranks, 1))
    after = (j + 1) / (ranks + 1)
    area = np.bincount(rows, (before + after) / 2, minlength=len(total))
    return np.where(total > 0, area / np.maximum(total, 1), np.nan)


def precision_at(
    positive: np.ndarray,
    n_positives: np.ndarray | Sequence[int],
    k: int,
    *,
    ignored: object = False,
) -> np.ndarray:
    """Precision of each query among its first k, or up to the last positive if that comes earlier.

    Arguments, result and errors are those of :func:`average_precision`; k is at least 1.

    Example:
        >>> precision_at(np.array([[True, False, True, False]]), [2], k=4)
        array([0.66666667])
    """
    if k < 1:
        raise ValueError(f"expected k of at least 1, got {k}")
    total, rows, ranks = _ranks(positive, n_positives, ignored)
    last = np.zeros(len(total), np.int64)
    np.maximum.at(last, rows, ranks)
    whole = np.bincount(rows, minlength=len(total)) == total
    reach = np.where(whole, np.minimum(k, last + 1), k)  # (Q,)
    found = np.bincount(rows, ranks < reach[rows], minlength=len(total))
    return np.where(total > 0, found / reach, np.nan)


def labelled_positives(
    ids: np.ndarray | Ranking,
    query_labels: np.ndarray,
    database_labels: np.ndarray,
    *,
    own: np.ndarray | Sequence[int] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Which hits share their query's label, and how many database images do.

    Args:
        ids: (Q, K) positions in the database, best first, or a ranking.
        query_labels: (Q,).
        database_labels: (M,).
        own: (Q,) database positions of the queries themselves, which are no positives; None if
            the queries are not in the database.

    Returns:
        (Q, K) bool and (Q,) int64.
    """
    rows = ids.ids if isinstance(ids, Ranking) else np.asarray(ids)
    query_labels, database_labels = np.asarray(query_labels), np.asarray(database_labels)
    positive = database_labels[rows] == query_labels[:, None]
    known, counts = np.unique(database_labels, return_counts=True)
    place = np.searchsorted(known, query_labels).clip(max=len(known) - 1)
    total = np.where(known[place] == query_labels, counts[place], 0)
    if own is not None:
        own = np.asarray(own)
        positive &= rows != own[:, None]
        total = total - (database_labels[own] == query_labels)
    return positive, total


def labelled_ap(
    ids: np.ndarray | Ranking,
    query_labels: np.ndarray,
    database_labels: np.ndarray,
    *,
    own: np.ndarray | Sequence[int] | None = None,
) -> np.ndarray:
    """Average precision of each query, where images of one label are positives of each other.

    Arguments are those of :func:`labelled_positives`.

    Returns:
        (Q,) float64, NaN where no other image of the label is left.

    Example:
        >>> labelled_ap([[1, 0], [0, 1]], np.array([5, 5]), np.array([5, 6]))
        array([0.25, 1.  ])
    """
    return average_precision(*labelled_positives(ids, query_labels, database_labels, own=own))


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


def mean_present(values: np.ndarray) -> float:
    """Mean of ``values`` (N,) that are not NaN; NaN when there is none."""
    present = values[~np.isnan(values)]
    return float(present.mean()) if len(present) else float("nan")


def _ranks(
    positive: object, n_positives: object, ignored: object
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positives in all (Q,); query and rank of each ranked positive, in order, both (P,)."""
    positive, total = np.asarray(positive, dtype=bool), np.asarray(n_positives, dtype=np.int64)
    if positive.ndim != 2 or total.shape != positive.shape[:1]:
        raise ValueError(
            f"expected positive (Q, K) and n_positives (Q,), got {positive.shape} and {total.shape}"
        )
    left_out = np.broadcast_to(np.asarray(ignored, dtype=bool), positive.shape)
    rows, columns = np.nonzero(positive & ~left_out)
    more = np.bincount(rows, minlength=len(total)) > total
    if more.any():
        raise ValueError(
            f"expected at most {total[more][0]} positives ranked, got more (query "
            f"{np.flatnonzero(more)[0]})"
        )
    if not left_out.any():
        return total, rows, columns
    return total, rows, columns - np.cumsum(left_out, axis=1)[rows, columns]
