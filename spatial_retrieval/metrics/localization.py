r"""Was the object found where it is? Scores for boxes, masks and points.

Intersection over union of two regions A and B, of their areas:

.. math:: \mathrm{IoU} = |A \cap B| \,/\, |A \cup B| , \qquad 0 \text{ when both are empty.}

CorLoc is the share of images whose IoU reaches a threshold (Deselaers et al. 2010; LOST counts
:math:`\ge 0.5`). The pointing game asks only whether the one point that a method names lies on
the object (Zhang et al., *Top-down neural attention by excitation backprop*, 2016).

Boxes are (x0, y0, x1, y1), end-exclusive; points are (x, y); masks are (h, w) with pixel (x, y) at
``mask[y, x]``. NaN marks an image without a hit; it counts as a miss, never as absent.
"""

from collections.abc import Sequence

import numpy as np

__all__ = ["best_box_iou", "box_iou", "corloc", "mask_iou", "mean_iou", "pointing_game"]


def box_iou(a: np.ndarray | Sequence[float], b: np.ndarray | Sequence[float]) -> np.ndarray:
    """Intersection over union of boxes, broadcast over all axes but the last.

    Args:
        a: (…, 4) boxes.
        b: (…, 4) boxes; (N, 1, 4) against (M, 4) gives all (N, M) pairs.

    Returns:
        (…) float64 in [0, 1]; 0 where both boxes are empty, NaN where a coordinate is NaN.

    Raises:
        ValueError: if a last axis is not 4, or a box ends before it starts.

    Example:
        >>> float(box_iou([0, 0, 2, 2], [1, 0, 3, 2]))
        0.3333333333333333
    """
    a, b = _boxes(a), _boxes(b)
    low, high = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])
    both = np.maximum(high - low, 0).prod(axis=-1)
    either = _area(a) + _area(b) - both
    return _ratio(both, either)


def mask_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of masks, broadcast over all axes but the last two.

    Args:
        a: (…, h, w); what is not zero belongs to the mask.
        b: (…, h, w).

    Returns:
        (…) float64 in [0, 1]; 0 where both masks are empty.

    Raises:
        ValueError: if the images' sizes differ.

    Example:
        >>> float(mask_iou(np.eye(2), np.ones((2, 2))))
        0.5
    """
    a, b = np.asarray(a).astype(bool), np.asarray(b).astype(bool)
    if min(a.ndim, b.ndim) < 2 or a.shape[-2:] != b.shape[-2:]:
        raise ValueError(f"expected masks (…, h, w) of one size, got {a.shape} and {b.shape}")
    both = (a & b).sum(axis=(-2, -1), dtype=np.float64)
    either = (a | b).sum(axis=(-2, -1), dtype=np.float64)
    return _ratio(both, either)


def best_box_iou(box: np.ndarray | Sequence[float], truth: np.ndarray | Sequence) -> float:
    """IoU of one found ``box`` (4,) with whichever true box of (n, 4) it fits best; 0 without any.

    Example:
        >>> best_box_iou([0, 0, 1, 1], [[5, 5, 6, 6], [0, 0, 1, 2]])
        0.5
    """
    truth = np.asarray(truth, dtype=np.float64).reshape(-1, 4)
    return float(box_iou(box, truth).max()) if len(truth) else 0.0


def corloc(ious: np.ndarray | Sequence[float], threshold: float = 0.5) -> float:
    """Share of ``ious`` (N,) that reach ``threshold``; NaN counts as a miss.

    Raises:
        ValueError: if there is nothing to score, or threshold is outside (0, 1].

    Example:
        >>> corloc([0.5, 0.49, np.nan, 1.0])
        0.5
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"expected a threshold in (0, 1], got {threshold}")
    return float((_scores(ious) >= threshold).mean())


def mean_iou(ious: np.ndarray | Sequence[float]) -> float:
    """Mean of ``ious`` (N,), in which NaN, an image without a hit, counts as 0.

    Raises:
        ValueError: if there is nothing to score.

    Example:
        >>> mean_iou([1.0, 0.5, np.nan])
        0.5
    """
    return float(_scores(ious).mean())


def pointing_game(
    points: np.ndarray | Sequence[Sequence[float]],
    masks: np.ndarray | Sequence[np.ndarray],
    tolerance: float = 0.0,
) -> float:
    """Share of points that lie on the object of their image.

    Args:
        points: (N, 2) pixels (x, y), one for each image; NaN where a method found nothing.
        masks: N masks (h, w), of any sizes.
        tolerance: pixels by which a point may miss the object's nearest pixel (the paper: 15).

    Raises:
        ValueError: if there are not as many points as masks, none at all, or tolerance < 0.

    Example:
        >>> pointing_game([[1, 0], [0, 0]], [np.array([[0, 1]]), np.array([[0, 1]])])
        0.5
    """
    points = np.asarray(points, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) != len(masks) or not len(points):
        raise ValueError(
            f"expected points (N, 2) for {len(masks)} masks, N >= 1, got {points.shape}"
        )
    if tolerance < 0:
        raise ValueError(f"expected a tolerance >= 0 pixels, got {tolerance}")
    hits = [_on(point, mask, tolerance) for point, mask in zip(points, masks, strict=True)]
    return float(np.mean(hits))


def _on(point: np.ndarray, mask: np.ndarray, tolerance: float) -> bool:
    mask = np.asarray(mask)
    if mask.ndim != 2:
        raise ValueError(f"expected a mask (h, w), got {mask.shape}")
    if not np.isfinite(point).all():
        return False
    rows, columns = np.nonzero(mask)
    # pixel x covers [x, x + 1): the distance is measured between whole pixels
    squared = (columns - np.floor(point[0])) ** 2 + (rows - np.floor(point[1])) ** 2
    return bool((squared <= tolerance**2).any())


def _boxes(boxes: object) -> np.ndarray:
    boxes = np.asarray(boxes, dtype=np.float64)
    if boxes.ndim < 1 or boxes.shape[-1] != 4:
        raise ValueError(f"expected boxes of shape (…, 4), got {boxes.shape}")
    if (boxes[..., :2] > boxes[..., 2:]).any():
        raise ValueError("expected boxes (x0, y0, x1, y1) with x0 <= x1 and y0 <= y1")
    return boxes


def _area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[..., 2:] - boxes[..., :2]).prod(axis=-1)


def _ratio(both: np.ndarray, either: np.ndarray) -> np.ndarray:
    return both / np.where(either == 0, 1.0, either)


def _scores(ious: object) -> np.ndarray:
    ious = np.asarray(ious, dtype=np.float64)
    if ious.ndim != 1 or not len(ious):
        raise ValueError(f"expected at least one IoU, shape (N,), got {ious.shape}")
    return np.nan_to_num(ious, nan=0.0)
