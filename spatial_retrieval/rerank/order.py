r"""How a re-ranked list is put together: the head is permuted, the tail never moves.

Of the K entries of a list the first n are the *head*. Two rules cover every re-ranker:

* ``place``: the method only says an order. Places keep the scores they had; the images move.
* ``rescore``: the method has scores of its own, :math:`s_1 … s_n`. The head is sorted by them,
  equal scores keep their order, and all of them are raised by one constant

  .. math:: \max(0,\; t - \min_i s_i), \qquad t = \text{first score of the tail},

  so that scores never rise along the list. The tail keeps its images and its scores.
"""

import numpy as np

from spatial_retrieval.ranking import Ranking

__all__ = ["head_length", "place", "rescore", "without_self"]


def head_length(ranking: Ranking, top: int) -> int:
    """Number n of entries that may move: ``top``, or K where the lists are shorter.

    Raises:
        ValueError: if ``top`` is below 1.
    """
    if top < 1:
        raise ValueError(f"expected top >= 1, got {top}")
    return min(top, ranking.k)


def place(ranking: Ranking, order: np.ndarray) -> Ranking:
    """Put the entries of each head in a new order; places keep their scores.

    Args:
        ranking: Q lists of length K.
        order: (Q, n) int, entry j of the result's head is entry ``order[q, j]`` of the old head.

    Raises:
        ValueError: if a row is no permutation of 0 … n-1.

    Example:
        >>> place(Ranking([[7, 8, 9]], [[3, 2, 1]]), np.array([[1, 0]])).ids
        array([[8, 7, 9]])
    """
    order = _permutation(ranking, order)
    return Ranking(_head_first(ranking.ids, order), ranking.scores)


def rescore(ranking: Ranking, scores: np.ndarray) -> Ranking:
    """Sort each head by the re-ranker's own scores, stably, and raise them above the tail.

    Args:
        ranking: Q lists of length K.
        scores: (Q, n) new scores of the first n entries, in the ranking's order.

    Raises:
        ValueError: if the shape doesn't fit the ranking.

    Example:
        >>> rescore(Ranking([[7, 8, 9]], [[3, 2, 1]]), np.array([[0.0, 0.5]])).scores
        array([[1.5, 1. , 1. ]], dtype=float32)
    """
    scores = np.asarray(scores, dtype=np.float32).astype(np.float64)  # noise below float32 is a tie
    if scores.ndim != 2 or len(scores) != len(ranking) or scores.shape[1] > ranking.k:
        raise ValueError(
            f"expected scores of shape (Q, n) with Q = {len(ranking)}, n <= {ranking.k}, "
            f"got {scores.shape}"
        )
    n = scores.shape[1]
    order = np.argsort(-scores, axis=1, kind="stable")
    head = np.take_along_axis(scores, order, axis=1)  # (Q, n)
    if 0 < n < ranking.k:
        tail = ranking.scores[:, n, None].astype(np.float64)
        head = np.maximum(head + np.maximum(0.0, tail - head[:, -1:]), tail)
    return Ranking(
        _head_first(ranking.ids, order), np.concatenate([head, ranking.scores[:, n:]], axis=1)
    )


def without_self(ranking: Ranking, own: np.ndarray) -> Ranking:
    """Each query's hits without itself: what a database without the query gives, one hit shorter.

    Args:
        ranking: Q lists of length K ≥ 1.
        own: (Q,) database positions of the queries. A list that doesn't hold its own loses its
            last hit instead.

    Example:
        >>> without_self(Ranking([[2, 0, 1], [1, 2, 0]], [[3, 2, 1]] * 2), [0, 3]).ids
        array([[2, 1],
               [1, 2]])
    """
    others = ranking.ids != np.asarray(own)[:, None]  # (Q, K)
    others[others.all(axis=1), -1] = False
    shape = (len(ranking), ranking.k - 1)
    return Ranking(ranking.ids[others].reshape(shape), ranking.scores[others].reshape(shape))


def _head_first(ids: np.ndarray, order: np.ndarray) -> np.ndarray:
    n = order.shape[1]
    return np.concatenate([np.take_along_axis(ids[:, :n], order, axis=1), ids[:, n:]], axis=1)


def _permutation(ranking: Ranking, order: np.ndarray) -> np.ndarray:
    order = np.asarray(order, dtype=np.int64)
    fits = order.ndim == 2 and len(order) == len(ranking) and order.shape[1] <= ranking.k
    if not fits or (np.sort(order, axis=1) != np.arange(order.shape[-1])).any():
        raise ValueError(
            f"expected each row of order to be a permutation of 0 … n-1 with n <= {ranking.k}, "
            f"one row for each of {len(ranking)} queries"
        )
    return order
