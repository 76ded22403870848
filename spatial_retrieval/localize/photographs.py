"""From photographs to cells and back: marks in pixels come in, masks in pixels go out."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import max_pool2d

from spatial_retrieval.images import Box, check_box
from spatial_retrieval.localize.query import Auto, Point, Query, prepare_query
from spatial_retrieval.localize.regions import Region, box_of, components, enlarge, rescale_box
from spatial_retrieval.localize.seeded import THRESHOLD, Localization, find
from spatial_retrieval.models.backbone import Backbone

__all__ = ["fine_layer", "find_in_photographs", "on_photograph", "prepare_photograph"]


def fine_layer(backbone: Backbone) -> str | None:
    """The deepest layer of stride 16, fine enough for masks; None where all layers have one grid.

    Example:
        >>> from spatial_retrieval.models.backbone import build_backbone
        >>> fine_layer(build_backbone(pretrained=False))
        'stage4'
    """
    strides = [int(stage["reduction"]) for stage in backbone.network.feature_info]
    if len(set(strides)) == 1 or 16 not in strides:
        return None
    return f"stage{len(strides) - strides[::-1].index(16)}"


def prepare_photograph(
    query_map: Tensor,
    size: tuple[int, int],
    *,
    points: Sequence[Point] = (),
    negatives: Sequence[Point] = (),
    box: Box | None = None,
    auto: Auto = "prototypes",
) -> Query:
    """:func:`prepare_query` with marks in pixels of a photograph of ``size`` (width, height).

    Raises:
        ValueError: as :func:`prepare_query`; a box is cut to the photograph first.
    """
    grid = (query_map.shape[-1], query_map.shape[-2])
    scaled = [
        [(x * grid[0] / size[0], y * grid[1] / size[1]) for x, y in _checked(marks, size)]
        for marks in (points, negatives)
    ]
    if box is not None:
        box = rescale_box(check_box(box, size), size, grid)
    return prepare_query(query_map, seeds=scaled[0], negatives=scaled[1], box=box, auto=auto)


def find_in_photographs(
    query: Query,
    maps: Sequence[Tensor],
    photographs: Sequence[Image.Image],
    *,
    threshold: float = THRESHOLD,
    limit: int = 3,
) -> list[Localization]:
    """Find a prepared query in photographs, with masks and boxes in their pixels.

    Args:
        query: see :func:`prepare_photograph`.
        maps: a feature map (C, Hᵢ, Wᵢ) of each photograph.
        photographs: the same ones, RGB, of any size.
        threshold, limit: as in :func:`find`.

    Raises:
        ValueError: if there are not as many maps as photographs, or as :func:`find`.
    """
    if len(maps) != len(photographs):
        raise ValueError(f"expected {len(photographs)} maps, one a photograph, got {len(maps)}")
    found = (find(query, x, threshold=threshold, limit=limit) for x in maps)
    return [on_photograph(f, p) for f, p in zip(found, photographs, strict=True)]


def on_photograph(
    found: Localization, photograph: Image.Image, *, refine: bool = True
) -> Localization:
    """The same result in a photograph's pixels.

    Args:
        found: a result in cells.
        photograph: RGB.
        refine: let masks follow the photograph's edges; otherwise they are enlarged bilinearly.
    """
    pixels = np.asarray(photograph.convert("RGB")) if refine else None
    size = photograph.size
    regions = [_region(region, found.heat, size, pixels) for region in found.regions]
    scale = (size[0] / found.heat.shape[1], size[1] / found.heat.shape[0])
    grown = [
        region if region is not None else _blocks(cells, size, scale)
        for region, cells in zip(regions, found.regions, strict=True)
    ]
    return Localization(tuple(grown), enlarge(found.heat, size), found.score)


def _region(
    region: Region, heat: Tensor, size: tuple[int, int], pixels: np.ndarray | None
) -> Region | None:
    near = max_pool2d(region.mask[None].float(), 3, stride=1, padding=1)[0] > 0
    outside = heat.clamp(max=-0.1)
    own = torch.where(region.mask, heat, torch.where(near, heat.clamp(max=0), outside))
    mask = _without_specks(enlarge(own, size, pixels) > 0)
    box = box_of(mask)
    return Region(mask, box, region.score) if box else None


def _without_specks(mask: Tensor, share: float = 0.05) -> Tensor:
    """Only components that make up a ``share`` of the mask."""
    labels = components(mask)
    areas = torch.bincount(labels.flatten())
    areas[0] = 0
    return (areas >= max(1, share * float(areas.sum())))[labels]


def _blocks(region: Region, size: tuple[int, int], scale: tuple[float, float]) -> Region:
    """Whole cells, for a region so faint that smoothing would remove it."""
    rows = (torch.arange(size[1]) / scale[1]).long()
    columns = (torch.arange(size[0]) / scale[0]).long()
    mask = region.mask.cpu()[rows[:, None], columns[None, :]]
    return Region(mask, box_of(mask) or (0, 0, *size), region.score)


def _checked(points: Sequence[Point], size: tuple[int, int]) -> Sequence[Point]:
    for point in points:
        if len(point) != 2 or not (0 <= point[0] <= size[0] and 0 <= point[1] <= size[1]):
            raise ValueError(
                f"expected points x, y in the {size[0]}×{size[1]} photograph, got {tuple(point)}"
            )
    return points
