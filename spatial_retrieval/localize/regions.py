r"""Regions: connected cells, their boxes and outlines, and masks at a photograph's resolution.

A heat map of H × W cells becomes a mask of h × w pixels in two steps: bilinear enlargement, then a
guided filter (He, Sun and Tang, "Guided image filtering", TPAMI 2013, equations 5, 6 and 8), which
makes the output :math:`q` follow the edges of the photograph :math:`I` where the input :math:`p` is
undecided. With means over a (2r+1) × (2r+1) window,

.. math::
    a = \frac{\overline{Ip} - \bar I\,\bar p}{\overline{I^2} - \bar I^2 + \epsilon}, \qquad
    b = \bar p - a \bar I, \qquad q = \bar a I + \bar b .

Boxes are (x0, y0, x1, y1), end-exclusive; x runs right, y down. A map's cell (x, y) covers the
square [x, x+1) × [y, y+1) in cell units.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "Region",
    "box_of",
    "components",
    "enlarge",
    "guided_filter",
    "polygons",
    "rescale_box",
]

IntBox = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """One place where the object is.

    Attributes:
        mask: (H, W) bool, cells of a map or pixels of a photograph.
        box: (x0, y0, x1, y1) around the mask, end-exclusive.
        score: how sure; the higher the surer.
    """

    mask: Tensor
    box: IntBox
    score: float

    def polygons(self) -> list[np.ndarray]:
        """Outlines of the mask, see :func:`polygons`."""
        return polygons(self.mask)


def components(mask: Tensor) -> Tensor:
    """Number the 4-connected components of a mask.

    Args:
        mask: (H, W) bool.

    Returns:
        (H, W) int64: 0 outside the mask, 1 … n inside.

    Example:
        >>> components(torch.tensor([[True, False, True]])).tolist()
        [[1, 0, 2]]
    """
    import cv2

    pixels = _as_numpy(mask).astype(np.uint8)
    _, labels = cv2.connectedComponents(pixels, connectivity=4)
    return torch.from_numpy(labels.astype(np.int64)).to(mask.device)


def box_of(mask: Tensor) -> IntBox | None:
    """The tightest box around a mask (H, W), or None where the mask is empty.

    Example:
        >>> box_of(torch.tensor([[False, True], [False, True]]))
        (1, 0, 2, 2)
    """
    rows = torch.nonzero(mask.any(dim=1)).flatten()
    columns = torch.nonzero(mask.any(dim=0)).flatten()
    if not len(rows):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def polygons(mask: Tensor) -> list[np.ndarray]:
    """Outer outlines of a mask's components, the largest first.

    Args:
        mask: (H, W) bool.

    Returns:
        (n, 2) int arrays of points (x, y), each a closed line without its first point repeated.
    """
    import cv2

    pixels = _as_numpy(mask).astype(np.uint8)
    outlines, _ = cv2.findContours(pixels, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return sorted((o[:, 0, :] for o in outlines), key=lambda o: -cv2.contourArea(o))


def rescale_box(
    box: Sequence[float], old: tuple[int, int], new: tuple[int, int]
) -> tuple[float, float, float, float]:
    """A box in a grid of ``old`` (width, height) → the same box in a grid of ``new``.

    Example:
        >>> rescale_box((1, 0, 2, 2), (4, 2), (64, 32))
        (16.0, 0.0, 32.0, 32.0)
    """
    fx, fy = new[0] / old[0], new[1] / old[1]
    return box[0] * fx, box[1] * fy, box[2] * fx, box[3] * fy


def guided_filter(guide: np.ndarray, x: np.ndarray, *, radius: int, eps: float) -> np.ndarray:
    """Smooth ``x`` along the edges of ``guide`` (the equations of this module).

    Args:
        guide: (h, w) float, the grey photograph in [0, 1].
        x: (h, w) float, what is smoothed.
        radius: r, of windows of 2r+1 pixels; at the border windows keep their size and see the
            image mirrored.
        eps: ε; edges whose variance is well above it are kept.

    Returns:
        (h, w) float32.

    Raises:
        ValueError: if the shapes differ, or radius or eps is not positive.
    """
    import cv2

    if guide.shape != x.shape or guide.ndim != 2:
        raise ValueError(f"expected guide and x of one shape (h, w), got {guide.shape}, {x.shape}")
    if radius < 1 or not eps > 0:
        raise ValueError(f"expected radius >= 1 and eps > 0, got {radius} and {eps}")
    side = (2 * radius + 1, 2 * radius + 1)
    mean = lambda v: cv2.boxFilter(v, -1, side, borderType=cv2.BORDER_REFLECT)  # noqa: E731
    guide, x = guide.astype(np.float32), x.astype(np.float32)
    mean_guide, mean_x = mean(guide), mean(x)
    a = (mean(guide * x) - mean_guide * mean_x) / (mean(guide * guide) - mean_guide**2 + eps)
    b = mean_x - a * mean_guide
    return mean(a) * guide + mean(b)


def enlarge(heat: Tensor, size: tuple[int, int], photograph: np.ndarray | None = None) -> Tensor:
    """A map of cells at a photograph's resolution.

    Args:
        heat: (H, W) float, positive where the object is.
        size: (width, height) in pixels.
        photograph: (h, w, 3) uint8; when given, the enlarged map follows its edges.

    Returns:
        (h, w) float32 on the CPU.

    Raises:
        ValueError: if the photograph is not of ``size``.
    """
    import cv2

    cells = _as_numpy(heat).astype(np.float32)
    large = cv2.resize(cells, size, interpolation=cv2.INTER_LINEAR)
    if photograph is None:
        return torch.from_numpy(large)
    if photograph.shape != (size[1], size[0], 3):
        raise ValueError(f"expected a photograph {(size[1], size[0], 3)}, got {photograph.shape}")
    grey = cv2.cvtColor(photograph, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    radius = max(1, round(_RADIUS * max(size[0] / cells.shape[1], size[1] / cells.shape[0])))
    return torch.from_numpy(guided_filter(grey, large, radius=radius, eps=_EPS))


# On the validation split of Twin Façades the choice moves the mask IoU by 0.2 % at most:
# python benchmarks/localization_quality.py --refine --landmarks 12
_RADIUS = 0.5  # of a cell
_EPS = 1e-3


def _as_numpy(x: Tensor) -> np.ndarray:
    return x.detach().cpu().numpy()
