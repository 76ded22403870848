r"""Spatial verification: two photographs show one thing if one geometry explains many point pairs.

The rules are DELG's (Cao, Araujo & Sim, *Unifying deep local and global features for image search*,
ECCV 2020): pair the local features of the query with those of each of the first 100 hits, fit an
affine map robustly (at least 3 pairs, 1000 trials, 10 pixels), and order by

.. math:: (\text{number of inliers},\ \text{global score}).

The robust fit is USAC with MAGSAC++ scoring (Barath et al., CVPR 2020) instead of plain RANSAC.
Two guards are added: a map that mirrors or squashes the picture more than tenfold is no match, and
fewer inliers than a method's ``min_inliers`` happen by chance and count as none.

As one number, :math:`s' = s + m\,(1 + s_{\max} - s_{\min})` with m the inliers and s the incoming
scores of the head: the order above, and a list without a single match is returned as it came.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from spatial_retrieval.images import Box, ImageError, ImageSource
from spatial_retrieval.ranking import Ranking
from spatial_retrieval.rerank.feature_cache import FeatureCache
from spatial_retrieval.rerank.local_features import (
    LocalFeatures,
    LocalMethod,
    load_cv2,
)
from spatial_retrieval.rerank.order import head_length

__all__ = ["UNREADABLE", "Matches", "Verifier", "count_inliers", "fit", "match", "verify"]

UNREADABLE = -1
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """Point pairs of two images that one geometry explains.

    Attributes:
        a: (m, 2) float32, inliers in the first image, x and y in pixels of its features' size.
        b: (m, 2) float32, their partners in the second.
        transform: (3, 3) map from a to b; None without a match.
        size_a: width and height of the first image.
        size_b: of the second.
    """

    a: np.ndarray
    b: np.ndarray
    transform: np.ndarray | None
    size_a: tuple[int, int]
    size_b: tuple[int, int]

    def __len__(self) -> int:
        return len(self.a)

    def swapped(self) -> "Matches":
        """The same pairs seen from the second image."""
        back = None if self.transform is None else np.linalg.inv(self.transform)
        return Matches(self.b, self.a, back, self.size_b, self.size_a)


def match(a: LocalFeatures, b: LocalFeatures, method: LocalMethod) -> Matches:
    """Pair the features of two images and keep the pairs that agree on one geometry."""
    pairs = method.pair(a, b)
    points_a, points_b = a.points[pairs[:, 0]], b.points[pairs[:, 1]]
    transform, inliers = fit(
        points_a, points_b, threshold=method.threshold, geometry=method.geometry
    )
    if inliers.sum() < method.min_inliers:
        transform, inliers = None, np.zeros(len(pairs), bool)
    return Matches(points_a[inliers], points_b[inliers], transform, a.size, b.size)


def fit(
    a: np.ndarray, b: np.ndarray, *, threshold: float = 10.0, geometry: str = "affine"
) -> tuple[np.ndarray | None, np.ndarray]:
    """Robust map from points a to points b, both (m, 2), with MAGSAC++.

    Args:
        a: (m, 2) points in pixels.
        b: (m, 2) their partners.
        threshold: how far a pair may miss, in pixels of b.
        geometry: "affine" (3 pairs) or "homography" (4 pairs).

    Returns:
        The (3, 3) map or None, and (m,) bool: which pairs it explains. The same on every call.
    """
    if geometry not in ("affine", "homography"):
        raise ValueError(f"expected geometry 'affine' or 'homography', got {geometry!r}")
    nothing = None, np.zeros(len(a), bool)
    if len(a) < (4 if geometry == "affine" else 5):
        return nothing
    cv2 = load_cv2()
    estimate = cv2.estimateAffine2D if geometry == "affine" else cv2.findHomography
    a, b = (np.ascontiguousarray(p, dtype=np.float32) for p in (a, b))
    found, inliers = estimate(a, b, _usac(threshold))
    if found is None or not np.isfinite(found).all():
        return nothing
    transform = np.eye(3)
    transform[: len(found)] = found
    return (transform, inliers.ravel() > 0) if _plausible(transform) else nothing


def verify(ranking: Ranking, inliers: np.ndarray) -> Ranking:
    """Order each head by (inliers, incoming score).

    Args:
        ranking: Q lists of length K.
        inliers: (Q, n) int, matches of the first n hits; `UNREADABLE` keeps a hit at its place,
            with a score between those of its new neighbours.

    Raises:
        ValueError: if the shape doesn't fit.

    Example:
        >>> verify(Ranking([[7, 8, 9]], [[3, 2, 1]]), np.array([[0, 12]])).ids
        array([[8, 7, 9]])
    """
    inliers = np.asarray(inliers)
    if inliers.ndim != 2 or len(inliers) != len(ranking) or inliers.shape[1] > ranking.k:
        raise ValueError(
            f"expected inliers of shape (Q, n) with Q = {len(ranking)}, n <= {ranking.k}, "
            f"got {inliers.shape}"
        )
    ids, scores = ranking.ids.copy(), ranking.scores.copy()
    for row, counts in enumerate(inliers):
        ids[row], scores[row] = _verified(ranking.ids[row], ranking.scores[row], counts)
    return Ranking(ids, scores)


def count_inliers(
    ranking: Ranking, matches: Callable[[int, int], Matches | None], *, top: int = 100
) -> np.ndarray:
    """Inliers (Q, n) of the first n hits; `UNREADABLE` where ``matches(query, hit)`` is None."""
    n = head_length(ranking, top)
    counts = np.zeros((len(ranking), n), np.int64)
    for q, ids in enumerate(ranking.ids[:, :n]):
        for place, hit in enumerate(ids):
            found = matches(q, int(hit))
            counts[q, place] = UNREADABLE if found is None else len(found)
    return counts


class Verifier:
    """Matches between queries and database images, each pair computed once.

    Images that cannot be read are logged, listed in ``failed``, and their matches are None.

    Args:
        method: how two photographs are compared.
        database_images: M images.
        query_images: Q images.
        query_boxes: Q boxes or None, in pixels of the query images.
        cache: local features by image.
    """

    def __init__(
        self,
        method: LocalMethod,
        database_images: Sequence[ImageSource],
        query_images: Sequence[ImageSource] = (),
        query_boxes: Sequence[Box | None] | None = None,
        *,
        cache: FeatureCache | None = None,
    ) -> None:
        self.failed: dict[tuple[str, int], str] = {}
        self._method = method
        self._images = {"database": database_images, "query": query_images}
        self._boxes = query_boxes
        self._cache = FeatureCache() if cache is None else cache
        self._known: dict[tuple[str, int, int], Matches | None] = {}
        self._current: tuple[int, LocalFeatures] | None = None

    def query(self, query: int, image: int) -> Matches | None:
        """Matches of a query with a database image."""
        return self._pair("query", query, image)

    def database(self, first: int, second: int) -> Matches | None:
        """Matches of two database images."""
        if first > second:
            found = self._pair("database", second, first)
            return None if found is None else found.swapped()
        return self._pair("database", first, second)

    def _pair(self, kind: str, first: int, second: int) -> Matches | None:
        key = kind, first, second
        if key not in self._known:
            a, b = self._features(kind, first), self._features("database", second)
            readable = a is not None and b is not None
            self._known[key] = match(a, b, self._method) if readable else None
        return self._known[key]

    def _features(self, kind: str, number: int) -> LocalFeatures | None:
        if (kind, number) in self.failed:
            return None
        if kind == "query" and self._current is not None and self._current[0] == number:
            return self._current[1]  # the cache would know a picture by its pixels, once a pair
        box = self._boxes[number] if kind == "query" and self._boxes is not None else None
        try:
            found = self._cache.get(self._method, self._images[kind][number], box)
        except ImageError as error:
            self.failed[kind, number] = str(error)
            _logger.warning("kept at its place, not verified: %s", error)
            return None
        if kind == "query":
            self._current = number, found
        return found


def _verified(
    ids: np.ndarray, scores: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    n = len(counts)
    fixed = np.flatnonzero(counts < 0)
    free = np.flatnonzero(counts >= 0)
    head = scores[:n].astype(np.float64)
    evidence = head + counts.clip(min=0) * (1 + np.ptp(head) if n else 1)
    order = free[np.argsort(-evidence[free], kind="stable")]
    ids, new = ids.copy(), evidence.copy()
    ids[free], new[free] = ids[order], evidence[order]
    for place in fixed:  # never above the place before it, never below the next one that may move
        later = free[free > place]
        low = new[later[0]] if len(later) else -np.inf
        new[place] = np.clip(head[place], low, new[place - 1] if place else np.inf)
    return ids, np.concatenate([new, scores[n:]])


def _usac(threshold: float) -> object:
    cv2 = load_cv2()
    params = cv2.UsacParams()
    params.threshold = threshold
    params.maxIterations = 1000
    params.confidence = 0.999
    params.randomGeneratorState = 0
    params.score = cv2.SCORE_METHOD_MAGSAC
    params.loMethod = cv2.LOCAL_OPTIM_SIGMA
    params.final_polisher = cv2.MAGSAC
    return params


def _plausible(transform: np.ndarray, limit: float = 10.0) -> bool:
    linear = transform[:2, :2]
    largest, smallest = np.linalg.svd(linear, compute_uv=False)
    return np.linalg.det(linear) > 0 and smallest > 1 / limit and largest < limit
