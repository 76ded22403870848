"""Peers to compare with: what is found without a query, without geometry, or without learning.

All give a :class:`Localization`: in cells of the gallery map, or, where photographs are
needed, in pixels. None of them ever says that the object is absent, except SIFT.
"""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from spatial_retrieval.localize.lost import lost
from spatial_retrieval.localize.query import Query
from spatial_retrieval.localize.regions import Region, box_of
from spatial_retrieval.localize.seeded import Localization

__all__ = ["center_box", "flat_threshold", "lost_region", "responses", "sift_box", "whole_image"]


def whole_image(grid: tuple[int, int]) -> Localization:
    """Everything is the object, its centre the surest place; ``grid`` is (H, W).

    Example:
        >>> whole_image((2, 3)).box
        (0, 0, 3, 2)
    """
    return center_box(grid, share=1.0)


def center_box(grid: tuple[int, int], *, share: float = 0.5) -> Localization:
    """The middle of the image, covering a ``share`` of its area.

    Example:
        >>> center_box((4, 4), share=0.25).box
        (1, 1, 3, 3)
    """
    if not 0 < share <= 1:
        raise ValueError(f"expected a share in (0, 1], got {share}")
    rows, columns = (abs(torch.arange(n) + 0.5 - n / 2) / (n / 2) for n in grid)
    distance = torch.maximum(rows[:, None], columns[None, :])
    return _hit(share**0.5 + 1e-6 - distance, score=1.0)


def lost_region(gallery_map: Tensor, *, k_patches: int = 100) -> Localization:
    """LOST's object, the seed being the surest place."""
    found = lost(gallery_map, k_patches=k_patches)
    heat = found.mask.float() - 0.5
    if found.seed is None:
        return Localization((), heat, 0.0)
    heat.view(-1)[found.seed] = 1.0
    share = 1 - float(found.degree.flatten()[found.seed]) / found.degree.numel()
    return _hit(heat, score=share)


def flat_threshold(query: Query, gallery_map: Tensor, *, level: float = 0.2) -> Localization:
    """All cells whose cosine with the mean of the object's whitened cells exceeds ``level``."""
    prototype = query.cells[query.positive.flatten()].mean(dim=0)
    prototype = torch.nn.functional.normalize(prototype, dim=0)
    similarity = query.whitener(gallery_map.float()) @ prototype
    return _hit(similarity.view(gallery_map.shape[1:]) - level, score=float(similarity.max()))


def responses(gallery_map: Tensor, *, p: float = 3.0, level: float = 0.5) -> Localization:
    """How much each cell adds to a GeM descriptor, a class-agnostic activation map.

    A cell's weight is the length of its channels to the power p; cells above ``level`` times the
    strongest, after taking the p-th root, form the region.
    """
    strength = gallery_map.float().clamp(min=0).pow(p).norm(dim=0).pow(1 / p)
    largest = strength.max().clamp(min=1e-12)
    return _hit(strength / largest - level, score=float(largest))


def sift_box(
    query: Image.Image, box: Sequence[float], photograph: Image.Image, *, points: int = 2000
) -> Localization:
    """SIFT matches (ratio 0.8), a RANSAC homography, and where it takes the query's box; in pixels.

    The score is the number of inliers; with fewer than four there is no region.
    """
    import cv2

    sift = cv2.SIFT_create(points)
    inside = np.zeros((query.height, query.width), np.uint8)
    x0, y0, x1, y1 = (round(v) for v in box)
    inside[max(y0, 0) : y1, max(x0, 0) : x1] = 255
    a = sift.detectAndCompute(_grey(query), inside)
    b = sift.detectAndCompute(_grey(photograph), None)
    nothing = Localization((), torch.full((photograph.height, photograph.width), -1.0), 0.0)
    if a[1] is None or b[1] is None or len(b[1]) < 2:
        return nothing
    pairs = cv2.BFMatcher().knnMatch(a[1], b[1], k=2)
    good = [first for first, second in pairs if first.distance < 0.8 * second.distance]
    if len(good) < 4:
        return nothing
    source = np.float32([a[0][m.queryIdx].pt for m in good])
    target = np.float32([b[0][m.trainIdx].pt for m in good])
    homography, inliers = cv2.findHomography(source, target, cv2.RANSAC, 5.0)
    if homography is None or inliers.sum() < 4:
        return nothing
    square = np.zeros((query.height, query.width), np.float32)
    square[max(y0, 0) : y1, max(x0, 0) : x1] = 1
    heat = cv2.warpPerspective(square, homography, photograph.size) - 0.5
    centre = target[inliers[:, 0] > 0].mean(axis=0).round().astype(int)
    heat[tuple(np.clip(centre[::-1], 0, np.array(heat.shape) - 1))] = 1.0
    return _hit(torch.from_numpy(heat), score=float(inliers.sum()))


def _hit(heat: Tensor, *, score: float) -> Localization:
    """One region of all positive cells."""
    mask = heat > 0
    box = box_of(mask)
    return Localization((Region(mask, box, score),) if box else (), heat, score)


def _grey(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("L"))
