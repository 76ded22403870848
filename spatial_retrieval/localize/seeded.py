r"""Where in another image is what the query shows? Several places, one, or none.

With z the whitened cells (``whitener.py``), P the query's positive cells and Q its negative ones:

.. math::
    e_g &= \max_{p \in P} z_p^\top z_g - \max_{q \in Q} z_q^\top z_g && \text{evidence of cell g} \\
    T   &= \text{the affine map that most mutual matches } P \to g \text{ support} \\
    h_g &= e_g + \lambda\,(2\,T[P]_g - 1) && \text{heat}

The gallery cells of T's supporters are the anchors.

The region is made of the 4-connected components of h > 0 that hold anchors. Its score is the share
of matches that agree (``agreement.py``); below the threshold there is no region. Then the region's
cells are taken out and the search goes on: one photograph may show the object twice.

LOST grows one object from one image; here the seed comes from the query, the object may fill either
image, appear several times, or be absent.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spatial_retrieval.localize.agreement import Agreement, agree, warp
from spatial_retrieval.localize.query import Point, Query, check_feature_map, prepare_query
from spatial_retrieval.localize.regions import Region, box_of, components

__all__ = ["THRESHOLD", "Localization", "find", "localize"]

# Lowest score of a region. Calibrated on the validation split of Twin Façades:
# python benchmarks/localization_quality.py --calibrate --landmarks 20
THRESHOLD = 0.3
_PRIOR = 0.25  # λ
_ENOUGH = 24  # matched cells; a smaller object is looked for together with its surroundings


@dataclass(frozen=True, slots=True, eq=False)
class Localization:
    """What was found in one gallery map; iterates over its regions.

    Attributes:
        regions: best first; empty when the object is not there. Masks and boxes in cells.
        heat: (H, W) float32, positive where the object is likely.
        score: of the best candidate, also when it stayed below the threshold.
    """

    regions: tuple[Region, ...]
    heat: Tensor
    score: float

    def __iter__(self) -> Iterator[Region]:
        return iter(self.regions)

    def __len__(self) -> int:
        return len(self.regions)

    @property
    def mask(self) -> Tensor:
        """(H, W) bool, all regions together."""
        masks = [region.mask for region in self.regions]
        return torch.stack(masks).any(dim=0) if masks else torch.zeros_like(self.heat).bool()

    @property
    def box(self) -> tuple[int, int, int, int] | None:
        """Box of the best region; None when the object is not there."""
        return self.regions[0].box if self.regions else None

    @property
    def point(self) -> tuple[float, float]:
        """The surest place (x, y), region or not."""
        index = int(self.heat.argmax())
        width = self.heat.shape[1]
        return index % width + 0.5, index // width + 0.5


def localize(
    query_map: Tensor,
    gallery_map: Tensor,
    *,
    seeds: Sequence[Point] | None = None,
    box: Sequence[float] | None = None,
    threshold: float = THRESHOLD,
    limit: int = 3,
) -> Localization:
    """Find in one map what is marked in another.

    Args:
        query_map: (C, H, W) feature map of the query, of any layer.
        gallery_map: (C, H', W') map of the same layer.
        seeds, box: see :func:`~spatial_retrieval.localize.prepare_query`, which also takes points
            that are not the object; :func:`find` then finds what it prepared.
        threshold: lowest score of a region; see :data:`THRESHOLD`.
        limit: at most so many regions.

    Raises:
        ValueError: if the maps or marks are unusable, or the maps' channels differ.

    Example:
        >>> x = torch.randn(16, 8, 12, generator=torch.Generator().manual_seed(0))
        >>> localize(x, x, box=(2, 1, 9, 7)).regions[0].box
        (2, 1, 9, 7)
    """
    query = prepare_query(query_map, seeds=seeds, box=box)
    return find(query, gallery_map, threshold=threshold, limit=limit)


def find(
    query: Query, gallery_map: Tensor, *, threshold: float = THRESHOLD, limit: int = 3
) -> Localization:
    """Find a prepared query in one map; prepare once, find in many.

    Arguments and errors as for :func:`localize`.
    """
    _check(query, gallery_map, limit)
    x = gallery_map.detach().float().cpu()
    grid = (x.shape[1], x.shape[2])
    z = query.whitener(x).T  # (K, N_gallery)
    rows = torch.nonzero(_enough(query.positive).flatten()).flatten()
    similarity = query.cells[rows] @ z  # (m, N_gallery)
    rival = _nearest(query, query.negative, z)
    evidence = _evidence(query, similarity, rival, z).reshape(grid)
    heat, score, regions = evidence - _PRIOR, 0.0, []
    while len(regions) < limit:
        found = agree(similarity, rows, rival, query.grid, grid)
        score = max(score, found.score) if found else score
        if found is None or (regions and found.score < threshold):
            break
        own = evidence + _PRIOR * (2 * warp(query.positive, found.transform, grid) - 1)
        heat = torch.maximum(heat, own)
        region = _region(own, found)
        if region is None or found.score < threshold:
            break
        regions.append(region)
        similarity.masked_fill_(region.mask.flatten(), -torch.inf)
    regions = [_on(region, gallery_map.device) for region in regions]
    regions.sort(key=lambda region: -region.score)
    return Localization(tuple(regions), heat.to(gallery_map.device), score)


def _check(query: Query, gallery_map: Tensor, limit: int) -> None:
    check_feature_map(gallery_map, "gallery")
    channels = query.whitener.matrix.shape[1]
    if len(gallery_map) != channels:
        raise ValueError(f"expected a gallery map of {channels} channels, got {len(gallery_map)}")
    if limit < 1:
        raise ValueError(f"expected limit >= 1, got {limit}")


def _evidence(query: Query, similarity: Tensor, rival: Tensor, z: Tensor) -> Tensor:
    """e of this module (N_gallery,); 0 everywhere when no cell is the object."""
    if not query.positive.any():
        return torch.zeros_like(rival)
    widened = len(similarity) > query.positive.sum()
    wanted = _nearest(query, query.positive, z) if widened else similarity.amax(dim=0)
    # Without any negative cell, the similarity of unrelated cells takes their place.
    return wanted - (rival if query.negative.any() else _UNRELATED)


def _nearest(query: Query, which: Tensor, z: Tensor) -> Tensor:
    """(N_gallery,): similarity to the nearest of these query cells, −1 when there are none."""
    cells = query.cells[which.flatten()]
    return (cells @ z).amax(dim=0) if len(cells) else torch.full((z.shape[1],), -1.0)


_UNRELATED = 0.5


def _enough(positive: Tensor) -> Tensor:
    """The object's cells, widened by a cell at a time until there are enough to match."""
    while positive.any() and positive.sum() < min(_ENOUGH, positive.numel()):
        wide = torch.nn.functional.max_pool2d(positive[None].float(), 3, stride=1, padding=1)[0]
        positive = wide > 0
    return positive


def _region(heat: Tensor, found: Agreement) -> Region | None:
    """Components of positive heat that hold at least a tenth of the anchors."""
    labels = components(heat > 0)
    held = torch.bincount(labels.flatten()[found.gallery], minlength=int(labels.max()) + 1)
    held[0] = 0
    mask = (held >= max(1, 0.1 * len(found.gallery)))[labels]
    box = box_of(mask)
    return Region(mask, box, found.score) if box else None


def _on(region: Region, device: torch.device) -> Region:
    return Region(region.mask.to(device), region.box, region.score)
