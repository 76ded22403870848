r"""LOST: the most salient object of one image, without a query.

Siméoni et al., "Localizing objects with self-supervised transformers and no labels", BMVC 2021.
With cells :math:`f_p`, N of them, and the similarities :math:`A_{pq} = f_p^\top f_q`:

.. math::
    d_p &= \#\{q \ne p : A_{pq} > 0\}                 && \text{degree (section 3.1)} \\
    s   &= \arg\min_p d_p                              && \text{seed: what few cells resemble} \\
    S   &= \{q \in D_k : A_{sq} > 0\}                  && \text{D_k: the k lowest degrees} \\
    m_q &= \big[\textstyle\sum_{p \in S} A_{pq} > 0\big] && \text{mask (section 3.2)}

The object is the 4-connected component of m that holds s. Cells are centred over the map first: on
a map that went through a ReLU no product is negative, all degrees are N−1 and the seed would be
whichever cell comes first.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from spatial_retrieval.localize.regions import IntBox, box_of, components

__all__ = ["LostResult", "lost", "lost_objects", "similarities"]


@dataclass(frozen=True, slots=True, eq=False)
class LostResult:
    """What LOST found.

    Attributes:
        seed: index y·W + x of the seed cell; None when there is no region.
        degree: (H, W) int64, how many other cells each cell resembles.
        mask: (H, W) bool, the object's cells; all False when there is no region.
        box: around the mask in cells, (x0, y0, x1, y1), end-exclusive; None without a region.
    """

    seed: int | None
    degree: Tensor
    mask: Tensor
    box: IntBox | None


def lost(features: Tensor, *, k_patches: int = 100, center: bool = True) -> LostResult:
    """Find the most salient object of one image.

    Args:
        features: (C, H, W) feature map.
        k_patches: k, how many of the lowest degrees may join the seed.
        center: subtract the map's mean cell first; needed on maps without negative values.

    Returns:
        The object; a map whose cells are all the same gives no region.

    Raises:
        ValueError: if the map is not (C, H, W), has fewer than two cells or values that are not
            finite, or k_patches < 1.

    Example:
        >>> x = torch.zeros(2, 6, 6)
        >>> x[0], x[1, 1:3, 2:5] = 1.0, 3.0
        >>> lost(x, k_patches=6).box
        (2, 1, 5, 3)
    """
    a, degree = similarities(features, center=center)
    return _expand(a, degree, torch.ones_like(degree, dtype=torch.bool), k_patches)


def lost_objects(
    features: Tensor,
    *,
    k_patches: int = 100,
    center: bool = True,
    stand_out: float = 0.5,
    limit: int = 10,
) -> list[LostResult]:
    """Several objects: peel each one off and go on while a new seed stands out.

    Args:
        features, k_patches, center: as in :func:`lost`.
        stand_out: a seed stands out when its degree is below this share of the median degree of
            the map.
        limit: at most so many objects.

    Returns:
        The objects in the order of their seeds' degrees; empty when none stands out.

    Raises:
        ValueError: as :func:`lost`.
    """
    a, degree = similarities(features, center=center)
    free = torch.ones_like(degree, dtype=torch.bool)
    highest = stand_out * float(degree.flatten().double().median())
    found: list[LostResult] = []
    while len(found) < limit and free.any() and degree[free].min() < highest:
        result = _expand(a, degree, free, k_patches)
        if result.box is None:
            break
        found.append(result)
        free = free & ~result.mask
    return found


def similarities(features: Tensor, *, center: bool = True) -> tuple[Tensor, Tensor]:
    """Products A (N, N) of all cells with all cells, and their degrees (H, W).

    Raises:
        ValueError: if the map is not (C, H, W) with at least two finite cells.
    """
    if features.ndim != 3 or not features.is_floating_point():
        raise ValueError(
            f"expected a float map (C, H, W), got {tuple(features.shape)} {features.dtype}"
        )
    if features[0].numel() < 2:
        raise ValueError(f"expected a map of at least two cells, got {tuple(features.shape[1:])}")
    if not features.isfinite().all():
        raise ValueError("expected finite features, got NaN or infinity")
    cells = features.flatten(1).T  # (N, C)
    if center:
        largest = cells.abs().max()
        cells = cells - cells.mean(dim=0)
        if cells.abs().max() <= 1e-5 * largest:  # a constant map leaves only rounding
            cells = torch.zeros_like(cells)
    a = cells @ cells.T
    degree = (a > 0).sum(dim=1) - (a.diagonal() > 0).long()
    return a, degree.unflatten(0, features.shape[1:])


def _expand(a: Tensor, degree: Tensor, free: Tensor, k_patches: int) -> LostResult:
    """Seed, expansion and component among the free cells (H, W)."""
    if k_patches < 1:
        raise ValueError(f"expected k_patches >= 1, got {k_patches}")
    cells = torch.nonzero(free.flatten()).flatten()
    # The published code's own call: cells of equal degree keep the order that it gives them.
    order = torch.argsort(-degree.flatten()[cells].float(), descending=True)
    lowest = cells[order[:k_patches]]
    seed = int(lowest[0])
    alike = lowest[a[seed, lowest] > 0]
    mask = (a[alike].sum(dim=0) > 0).view_as(degree) & free
    labels = components(mask)
    label = labels.flatten()[seed]
    if label == 0:
        return LostResult(None, degree, torch.zeros_like(mask), None)
    mask = labels == label
    return LostResult(seed, degree, mask, box_of(mask))
