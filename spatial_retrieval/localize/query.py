r"""From marks on a photograph to cells: which cells of the query are the object, which are not.

A box says which cells are the object. Clicked points don't: from each of them the object grows by
two-means (foreground and background) over the cells connected to it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d, normalize

from spatial_retrieval.localize.lost import lost
from spatial_retrieval.localize.regions import components
from spatial_retrieval.localize.whitener import Whitener

__all__ = ["Auto", "Query", "check_feature_map", "prepare_query"]

Auto = Literal["prototypes", "degree"]
Point = Sequence[float]


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
        auto: without seeds and box: "prototypes", two-means that starts from the cells with strong
            and with weak responses and also works when the object fills the photograph, or
            "degree", LOST.

    Raises:
        ValueError: if the map has fewer than two cells, a point lies outside it, the box is empty
            or misses it, or nothing but negatives is given.
    """
    check_feature_map(query_map, "query")
    x = query_map.detach().float().cpu()
    height, width = x.shape[1:]
    whitener = Whitener.fit(x)
    cells = whitener(x)
    inside = _cells_in(box, height, width) if box is not None else None
    clicked = _cells_at(seeds or (), height, width)
    refused = _cells_at(negatives, height, width)
    if refused and not clicked and inside is None:
        raise ValueError("expected a point on the object or a box along with the negative points")
    if inside is not None and not clicked:
        seed, positive = inside.flatten().float(), inside.flatten()
        if refused:
            positive = positive & ~_similar(cells, refused)
    else:
        seed, positive = _divide(x, clicked, refused) if clicked else _chosen(x, auto)
        positive = positive & inside.flatten() if inside is not None else positive
        positive[clicked] = True
    if not positive.any() and cells.any():
        raise ValueError("no cell is left for the object; give fewer negative points, or a box")
    negative = _negative(cells, positive, refused, inside)
    maps = (v.reshape(height, width) for v in (positive, negative, seed))
    return Query(whitener, cells, *maps)


def check_feature_map(x: Tensor, name: str) -> None:
    """Refuse what is not a finite float map (C, H, W) of at least two cells."""
    if x.ndim != 3 or not x.is_floating_point():
        raise ValueError(f"expected a float {name} map (C, H, W), got {tuple(x.shape)} {x.dtype}")
    if x[0].numel() < 2:
        raise ValueError(
            f"expected a {name} map of at least two cells, got {tuple(x.shape[1:])}; "
            "use a larger image or a finer layer"
        )
    if not x.sum(dtype=torch.float32).isfinite():  # one pass, and no second map
        raise ValueError(f"expected a finite {name} map, got NaN or infinity")


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


def _similar(cells: Tensor, refused: list[int], least: float = 0.4) -> Tensor:
    """(N,) bool: cells so similar to a refused one that they are refused with it."""
    return (cells @ cells[refused].T).amax(dim=1) >= least


def _divide(
    x: Tensor, clicked: list[int], refused: list[int], steps: int = 6
) -> tuple[Tensor, Tensor]:
    """Seed map and positive cells: two-means, from the clicked cells and the weakest responses.

    Each step compares all cells with the mean cell inside and the mean cell outside; what is nearer
    to the inside and, when there are clicks, connected to one of them is the next inside.
    """
    grid = x.shape[1:]
    cells = normalize(x.flatten(1) - x.flatten(1).mean(dim=1, keepdim=True), dim=0).T
    strength = x.flatten(1).norm(dim=0)
    inside = _around(clicked, grid) if clicked else strength >= strength.mean()
    outside = (strength < strength.mean()) & ~inside
    outside[refused] = True
    contrast = inside.float()
    for _ in range(steps):
        means = [normalize(cells[side].sum(dim=0), dim=0) for side in (inside, outside)]
        contrast = cells @ (means[0] - means[1])
        contrast[_around(refused, grid)] = -1
        following = _connected(contrast > 0, clicked, grid)
        if not following.any():
            break
        inside, outside = following, ~following
    return contrast, inside


def _around(cells: list[int], grid: Sequence[int]) -> Tensor:
    """(N,) bool: these cells and their eight neighbours."""
    mask = torch.zeros(grid[0] * grid[1])
    mask[cells] = 1
    return max_pool2d(mask.view(1, *grid), 3, stride=1, padding=1).flatten() > 0


def _connected(mask: Tensor, clicked: list[int], grid: Sequence[int]) -> Tensor:
    """The components that hold a click; all of them without clicks."""
    if not clicked:
        return mask
    labels = components(mask.view(*grid)).flatten()
    return torch.isin(labels, labels[clicked]) & (labels > 0)


def _negative(cells: Tensor, positive: Tensor, refused: list[int], inside: Tensor | None) -> Tensor:
    """(N,) bool: refused cells, and all that a box leaves out; otherwise what is unlike."""
    if inside is not None:
        negative = ~inside.flatten()
    else:
        centre = cells[positive].mean(dim=0)
        negative = ~positive & (cells @ centre < 0)
    negative[refused] = True
    return negative & ~positive


def _chosen(x: Tensor, auto: Auto) -> tuple[Tensor, Tensor]:
    """Seed map and positive cells without any hint."""
    if auto == "degree":
        result = lost(x)
        return -result.degree.flatten().float(), result.mask.flatten()
    if auto != "prototypes":
        raise ValueError(f"expected auto prototypes or degree, got {auto!r}")
    return _divide(x, [], [])
