r"""Local features of one image: keypoints with descriptors, extracted once and kept.

Four methods share one shape, `LocalMethod`: how to extract, how to pair, and which geometry the
pairs must obey. Two live here:

* ``sift()``: SIFT (Lowe 2004) with RootSIFT descriptors, :math:`\sqrt{d / \|d\|_1}` (Arandjelović
  & Zisserman 2012), so that an inner product compares with the Hellinger kernel. Pairs pass Lowe's
  ratio test on :math:`\sqrt{2 - 2 d_a^\top d_b}`, and a point of b keeps only its best partner.
* ``cells(model)``: the cells of the retrieval model's own feature map, centred over the map; pairs
  are mutual nearest neighbours. No second network, but a grid of 32 pixels.

The learned ones are in `spatial_retrieval.rerank.learned`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from spatial_retrieval.images import Box, ImageSource, crop_query, load_image

__all__ = ["LocalFeatures", "LocalMethod", "cells", "mutual_pairs", "sift"]


@dataclass(frozen=True, slots=True, eq=False)
class LocalFeatures:
    """What a local method saw in one image.

    Attributes:
        points: (N, 2) float32, x and y in pixels of the image after cropping and shrinking.
        descriptors: (N, d) float16 unit rows.
        size: width and height of that image.
    """

    points: np.ndarray
    descriptors: np.ndarray
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.points)


@dataclass(frozen=True, slots=True)
class LocalMethod:
    """How two photographs are compared point by point.

    Attributes:
        key: names the method and its settings, for the cache; "" keeps features in memory only.
        extract: image → features.
        pair: features, features → (m, 2) int, positions of points that look alike.
        size: longest side in pixels that images are shrunk to.
        threshold: how far, in pixels, a pair may miss the common geometry.
        geometry: "affine" or "homography".
        min_inliers: fewer agreeing pairs than this happen by chance and count as none.
    """

    key: str
    extract: Callable[[Image.Image], LocalFeatures]
    pair: Callable[[LocalFeatures, LocalFeatures], np.ndarray]
    size: int = 480
    threshold: float = 10.0
    geometry: str = "affine"
    min_inliers: int = 8

    def features(self, source: ImageSource, box: Box | None = None) -> LocalFeatures:
        """Decode, crop, shrink, extract.

        Raises:
            ImageError: if the image cannot be read.
        """
        image = load_image(source, draft=None if box else self.size)
        return self.extract(crop_query(image, box, self.size))


def sift(*, points: int = 1000, ratio: float = 0.85, **geometry: Any) -> LocalMethod:
    """SIFT with RootSIFT descriptors and the ratio test.

    Args:
        points: strongest keypoints kept.
        ratio: of the distances to the best and second-best point; lower is stricter.
        geometry: fields of `LocalMethod` (``size``, ``threshold``, ``geometry``, …).
    """
    return LocalMethod(
        key=f"rootsift-{points}",
        extract=lambda image: _sift_features(image, points),
        pair=lambda a, b: _ratio_pairs(a, b, ratio),
        **geometry,
    )


def cells(model: Any, *, fingerprint: str | None = None, **geometry: Any) -> LocalMethod:
    """The retrieval model's own map cells as local features.

    Args:
        model: its ``feature_map`` takes (1, 3, h, w) RGB in [0, 1]. If it has a ``fingerprint``
            cells can be kept between runs.
        fingerprint: the model's, so that its weights are not hashed again.
        geometry: fields of `LocalMethod`; a pair may miss by one cell (32 pixels) at first.
    """
    if fingerprint is None and hasattr(model, "fingerprint"):
        fingerprint = model.fingerprint()
    return LocalMethod(
        key=f"cells-{fingerprint}" if fingerprint else "",
        extract=lambda image: _cell_features(image, model),
        pair=mutual_pairs,
        **{"threshold": 32.0, "min_inliers": 12, **geometry},
    )


def mutual_pairs(a: LocalFeatures, b: LocalFeatures) -> np.ndarray:
    """Positions (m, 2) of points that are each other's nearest neighbour."""
    if not len(a) or not len(b):
        return np.empty((0, 2), np.int64)
    similarity = _similarity(a, b)
    there, back = similarity.argmax(axis=1), similarity.argmax(axis=0)
    first = np.flatnonzero(back[there] == np.arange(len(a)))
    return np.stack([first, there[first]], axis=1)


def _sift_features(image: Image.Image, count: int) -> LocalFeatures:
    detector = load_cv2().SIFT_create(nfeatures=count)
    found, raw = detector.detectAndCompute(np.asarray(image.convert("L")), None)
    if raw is None:
        found, raw = (), np.empty((0, 128), np.float32)
    order = np.argsort([-p.response for p in found], kind="stable")[:count]
    points = np.array([found[i].pt for i in order], np.float32).reshape(-1, 2)
    raw = raw[order]
    root = np.sqrt(raw / raw.sum(axis=1, keepdims=True).clip(min=1e-12))
    return LocalFeatures(points, root.astype(np.float16), image.size)


def _ratio_pairs(a: LocalFeatures, b: LocalFeatures, ratio: float) -> np.ndarray:
    if not len(a) or len(b) < 2:
        return np.empty((0, 2), np.int64)
    similarity = _similarity(a, b)
    every = np.arange(len(a))
    best = similarity.argmax(axis=1)
    first = similarity[every, best]
    similarity[every, best] = -np.inf
    second = similarity.max(axis=1)
    passed = np.flatnonzero(_distance(first) < ratio * _distance(second))
    passed = passed[np.argsort(-first[passed], kind="stable")]
    _, once = np.unique(best[passed], return_index=True)
    passed = passed[np.sort(once)]
    return np.stack([passed, best[passed]], axis=1)


def _cell_features(image: Image.Image, model: Any) -> LocalFeatures:
    import torch

    from spatial_retrieval.images import to_tensor

    with torch.inference_mode():
        pixels = to_tensor(image)[None].to(_device(model))
        grid = model.feature_map(pixels)[0].float().cpu().numpy()  # (C, H, W)
    height, width = grid.shape[-2:]
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    scale = np.array([image.size[0] / width, image.size[1] / height])
    points = np.stack([x.ravel(), y.ravel()], axis=1) * scale
    rows = grid.reshape(len(grid), -1).T  # (N, C)
    rows = rows - rows.mean(axis=0)
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(min=1e-12)
    return LocalFeatures(points.astype(np.float32), rows.astype(np.float16), image.size)


def _similarity(a: LocalFeatures, b: LocalFeatures) -> np.ndarray:
    return a.descriptors.astype(np.float32) @ b.descriptors.astype(np.float32).T


def _distance(similarity: np.ndarray) -> np.ndarray:
    return np.sqrt((2 - 2 * similarity).clip(min=0))


def _device(model: Any) -> Any:
    parameters = getattr(model, "parameters", tuple)()
    return next((p.device for p in parameters), "cpu")


def load_cv2() -> Any:
    """OpenCV, or an ImportError that says how to mend it."""
    try:
        import cv2
    except ImportError as error:
        raise ImportError(
            f"OpenCV cannot be loaded ({error}); mend it with "
            "`pip install --force-reinstall --no-deps opencv-python-headless`"
        ) from error
    return cv2
