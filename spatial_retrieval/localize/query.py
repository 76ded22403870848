r"""From what a user asked for to cells: which cells of the query are the object, which are not.

Cells are whitened by the query's own statistics, so that what its cells share (light, blur, sky)
counts less than what tells them apart. With the mean :math:`\mu` and covariance
:math:`\Sigma = V \Lambda V^\top` of all its cells,

.. math:: z = \frac{W (x - \mu)}{\|W (x - \mu)\|}, \qquad
          W = (\Lambda + \rho\,\bar\lambda)^{-p/2}\, V^\top ,

a full whitening for p = 1, centring alone for p = 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from spatial_retrieval.localize.lost import lost

__all__ = ["Auto", "Query", "Whitener", "check_map", "prepare_query"]

Auto = Literal["prototypes", "degree"]
Point = Sequence[float]


@dataclass(frozen=True, slots=True, eq=False)
class Whitener:
    """The map x → z of this module.

    Attributes:
        mean: (C, 1).
        matrix: (K, C), K ≤ C directions that hold all variance.
    """

    mean: Tensor
    matrix: Tensor

    @classmethod
    def fit(cls, x: Tensor, *, power: float = 0.5, ridge: float = 0.1) -> "Whitener":
        """Statistics of the cells of one map (C, H, W)."""
        cells = x.flatten(1)
        mean = cells.mean(dim=1, keepdim=True)
        centred = cells - mean
        directions, spread, _ = torch.linalg.svd(centred, full_matrices=False)
        values = spread.square() / cells.shape[1]
        floor = ridge * values.sum() / len(cells)
        scale = (values + floor).clamp(min=1e-12) ** (-power / 2)
        if centred.abs().max() <= 1e-5 * cells.abs().max():  # a constant map: rounding, no cells
            scale = torch.zeros_like(scale)
        return cls(mean, scale[:, None] * directions.T)

    def __call__(self, x: Tensor) -> Tensor:
        """(C, H, W) → (N, K) unit rows."""
        return normalize(self.matrix @ (x.flatten(1) - self.mean), dim=0).T


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """A query that is ready to be looked for in many maps.

    Attributes:
        whitener: brings a gallery map's cells into the query's terms.
        cells: (N, K) whitened cells of the query.
        positive: (H, W) bool, the object.
        negative: (H, W) bool, what is not the object; may be empty.
        seed: (H, W) float, similarity to the seeds; what the positive cells were chosen by.
    """

    whitener: Whitener
    cells: Tensor
    positive: Tensor
    negative: Tensor
    seed: Tensor

    @property
    def grid(self) -> tuple[int, int]:
        """(H, W) of the query's map."""
        return tuple(self.positive.shape)


def prepare_query(
    query_map: Tensor,
    *,
    seeds: Sequence[Point] | None = None,
    negatives: Sequence[Point] = (),
    box: Sequence[float] | None = None,
    auto: Auto = "prototypes",
) -> Query:
    """Choose the object's cells in the query.

    Args:
        query_map: (C, H, W) feature map.
        seeds: clicked points (x, y) on the object, in cells (the first spans 0 … 1).
        negatives: clicked points that are not the object.
        box: (x0, y0, x1, y1) around the object, in cells; may be given together with seeds, which
            then choose among its cells.
        auto: without seeds and box: "prototypes", k-means centres of the cells with strong
            responses, which also works when the object fills the photograph, or "degree", LOST.

    Raises:
        ValueError: if the map has fewer than two cells, a point lies outside it, the box is empty
            or misses it, or nothing but negatives is given.
    """
    check_map(query_map, "query")
    x = query_map.detach().float().cpu()
    height, width = x.shape[1:]
    whitener = Whitener.fit(x)
    cells = whitener(x)
    inside = _cells_in(box, height, width) if box is not None else None
    clicked = _cells_at(seeds or (), height, width)
    refused = _cells_at(negatives, height, width)
    if clicked:
        seed = _likeness(cells, clicked, refused)
        positive = _grown(seed, clicked)
        positive = positive & inside.flatten() if inside is not None else positive
    elif inside is not None:
        seed, positive = inside.flatten().float(), inside.flatten()
        if refused:
            positive = positive & (_likeness(cells, refused, []) < _SAME)
    elif refused:
        raise ValueError("expected a point on the object or a box beside the negative points")
    else:
        seed, positive = _chosen(x, cells, auto)
    if not positive.any() and cells.any():
        raise ValueError("no cell is left for the object; give fewer negative points, or a box")
    negative = _negative(cells, positive, refused, inside)
    maps = (v.reshape(height, width) for v in (positive, negative, seed))
    return Query(whitener, cells, *maps)


def check_map(x: Tensor, name: str) -> None:
    """Refuse what is not a finite float map (C, H, W) of at least two cells."""
    if x.ndim != 3 or not x.is_floating_point():
        raise ValueError(f"expected a float {name} map (C, H, W), got {tuple(x.shape)} {x.dtype}")
    if x[0].numel() < 2:
        raise ValueError(
            f"expected a {name} map of at least two cells, got {tuple(x.shape[1:])}; "
            "use a larger image or a finer layer"
        )
    if not x.isfinite().all():
        raise ValueError(f"expected a finite {name} map, got NaN or infinity")


_SAME = 0.4  # whitened similarity above which a cell is taken for more of the same


def _cells_in(box: Sequence[float], height: int, width: int) -> Tensor:
    """(H, W) bool: cells whose centre is in the box, at least the one that holds its centre."""
    if len(box) != 4 or not all(map(isfinite, box)):
        raise ValueError(f"expected a box x0, y0, x1, y1 of finite numbers, got {tuple(box)}")
    x0, y0, x1, y1 = box
    if x0 >= x1 or y0 >= y1 or x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
        raise ValueError(
            f"expected a box x0 < x1, y0 < y1 on the {width}×{height} cells, got {tuple(box)}"
        )
    columns, rows = torch.arange(width) + 0.5, torch.arange(height) + 0.5
    inside = ((rows >= y0) & (rows < y1))[:, None] & ((columns >= x0) & (columns < x1))[None, :]
    cx, cy = (max(x0, 0) + min(x1, width)) / 2, (max(y0, 0) + min(y1, height)) / 2
    inside[min(int(cy), height - 1), min(int(cx), width - 1)] = True
    return inside


def _cells_at(points: Sequence[Point], height: int, width: int) -> list[int]:
    """Indices y·W + x of the cells that hold the points."""
    found = []
    for point in points:
        if len(point) != 2 or not all(map(isfinite, point)):
            raise ValueError(f"expected a point x, y of finite numbers, got {tuple(point)}")
        x, y = point
        if not (0 <= x <= width and 0 <= y <= height):
            raise ValueError(
                f"expected points on the map of {width}×{height} cells, got {tuple(point)}"
            )
        found.append(min(int(y), height - 1) * width + min(int(x), width - 1))
    return found


def _likeness(cells: Tensor, wanted: list[int], refused: list[int]) -> Tensor:
    """(N,): similarity to the nearest wanted cell, −1 where a refused one is nearer."""
    alike = (cells @ cells[wanted].T).amax(dim=1)
    if not refused:
        return alike
    return torch.where((cells @ cells[refused].T).amax(dim=1) > alike, -1.0, alike)


def _grown(likeness: Tensor, clicked: list[int]) -> Tensor:
    """(N,) bool: the clicked cells and every cell that is alike."""
    positive = likeness >= _SAME
    positive[clicked] = True
    return positive


def _negative(cells: Tensor, positive: Tensor, refused: list[int], inside: Tensor | None) -> Tensor:
    """(N,) bool: refused cells, and all that a box leaves out; otherwise what is unlike."""
    if inside is not None:
        negative = ~inside.flatten()
    else:
        centre = cells[positive].mean(dim=0)
        negative = ~positive & (cells @ centre < 0)
    negative[refused] = True
    return negative & ~positive


def _chosen(x: Tensor, cells: Tensor, auto: Auto) -> tuple[Tensor, Tensor]:
    """Seed map and positive cells without any hint."""
    if auto == "degree":
        result = lost(x)
        return -result.degree.flatten().float(), result.mask.flatten()
    if auto != "prototypes":
        raise ValueError(f"expected auto prototypes or degree, got {auto!r}")
    strength = x.flatten(1).norm(dim=0)
    if not cells.any():
        return strength, torch.zeros_like(strength, dtype=torch.bool)
    strong = strength >= strength.mean()
    prototypes = _kmeans(cells[strong], 4)
    weak = normalize(cells[~strong].mean(dim=0), dim=0) if not strong.all() else 0 * cells[0]
    seed = (cells @ prototypes.T).amax(dim=1) - cells @ weak
    return seed, strong & (seed > 0)


def _kmeans(cells: Tensor, k: int, steps: int = 10) -> Tensor:
    """k unit centres (k, K) of unit rows; starts far apart, so the outcome is always the same."""
    centres = cells[:1]
    for _ in range(min(k, len(cells)) - 1):
        nearest = (cells @ centres.T).amax(dim=1)
        centres = torch.cat([centres, cells[nearest.argmin()][None]])
    for _ in range(steps):
        member = (cells @ centres.T).argmax(dim=1)
        sums = torch.zeros_like(centres).index_add_(0, member, cells)
        centres = torch.where(sums.norm(dim=1, keepdim=True) > 0, normalize(sums, dim=1), centres)
    return centres
