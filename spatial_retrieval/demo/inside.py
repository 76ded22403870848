r"""Look inside: what the context layers do at a cell, and where a similarity comes from.

With the map x (C cells' channels), the pooled vector g, the whitening W and the other descriptor d,
the similarity is linear in :math:`W g` once the norms are fixed. A cell n contributes

.. math:: s_n = \sum_c x_{cn} \,\frac{\partial\, d^\top W g}{\partial x_{cn}}
             = \sum_c \frac{x_{cn}^p}{\sum_m x_{cm}^p}\, g_c\, (W^\top d)_c ,

and the contributions of all cells add up to the similarity without the whitening's bias. A model
of two heads has two such similarities; its own is their weighted mean.
"""

from copy import deepcopy
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from spatial_retrieval.features.extraction import DEFAULT_SIZE
from spatial_retrieval.images import load_image, resize, to_tensor
from spatial_retrieval.layers.refinement import SpatialContextRefinement
from spatial_retrieval.layers.smoothing import LearnableSmoothing
from spatial_retrieval.models import Head, RetrievalModel
from spatial_retrieval.models.head import Maps

__all__ = ["Inside", "SimilarityPart", "contributions", "heat_png", "look_inside"]


@dataclass(frozen=True, slots=True)
class SimilarityPart:
    """A part of the descriptor: its weight in the similarity, and its own cosine similarity."""

    name: str
    weight: float
    similarity: float


@dataclass(frozen=True, slots=True, eq=False)
class Inside:
    """What happens inside a model.

    Attributes:
        image, other: the query and a hit, at the size the model sees.
        cell: row and column of the point on the query's map.
        stages: name → the query's map (1, C, H, W) after each stage.
        inputs: context layer's name → the map that it receives.
        layers: context layer's name → the layer, on the processor and in float32 like the maps.
        parts: what the similarity is made of.
        shares: (H, W) contributions of the query's cells to it, and (H', W') of the hit's.
    """

    image: Image.Image
    other: Image.Image
    cell: tuple[int, int]
    stages: dict[str, Tensor]
    inputs: dict[str, Tensor]
    layers: dict[str, torch.nn.Module]
    parts: tuple[SimilarityPart, ...]
    shares: tuple[Tensor, Tensor]

    @property
    def similarity(self) -> float:
        """Of the two descriptors."""
        return sum(part.weight * part.similarity for part in self.parts)

    @property
    def node(self) -> int | None:
        """Number of the refinement's node nearest to the cell."""
        if self.refinement is None or not self.refinement.blocks:
            return None
        x = self.inputs["refinement"]
        index = self.refinement.trace(x)[0][0]  # (K,)
        row, column = index // x.shape[3], index % x.shape[3]
        return int(((row - self.cell[0]) ** 2 + (column - self.cell[1]) ** 2).argmin())

    @property
    def smoothing(self) -> LearnableSmoothing | None:
        """The smoothing layer, if the model has one."""
        found = self.layers.get("smoothing")
        return found if isinstance(found, LearnableSmoothing) else None

    @property
    def refinement(self) -> SpatialContextRefinement | None:
        """The refinement layer, if the model has one."""
        found = self.layers.get("refinement")
        return found if isinstance(found, SpatialContextRefinement) else None


def look_inside(
    model: RetrievalModel,
    query: Image.Image,
    other: Path | Image.Image,
    point: tuple[float, float],
) -> Inside:
    """Run both photographs and keep what happens on the way.

    Args:
        model: the model.
        query: the query.
        other: a hit.
        point: (x, y) in the query's pixels.
    """
    images = [
        resize(load_image(image, draft=DEFAULT_SIZE), DEFAULT_SIZE) for image in (query, other)
    ]
    tensors = [to_tensor(image)[None].to(model.device, model.dtype) for image in images]
    with torch.no_grad():
        stages = {name: x.float().cpu() for name, x in model.stages(tensors[0]).items()}
        maps = [model.maps(x) for x in tensors]
        found = [_part(name, weight, head, maps) for name, (head, weight) in model.heads.items()]
    parts, pairs = zip(*found, strict=True)
    grids = [m[model.head.main.layers[0]] for m in maps]
    shares = tuple(
        sum(part.weight * _on_grid(pair[i], x) for part, pair in zip(parts, pairs, strict=True))
        for i, x in enumerate(grids)
    )
    layers = {name: _on_processor(layer) for name, layer in model.context.named_children()}
    inputs = dict(zip(layers, stages.values(), strict=False))
    cell = _cell(point, query.size, grids[0])
    return Inside(*images, cell, stages, inputs, layers, parts, shares)


def _cell(point: tuple[float, float], size: tuple[int, int], x: Tensor) -> tuple[int, int]:
    """Row and column of a pixel of a photograph of ``size`` on its map (1, C, H, W)."""
    height, width = x.shape[-2:]
    row, column = int(point[1] * height / size[1]), int(point[0] * width / size[0])
    return min(row, height - 1), min(column, width - 1)


def _on_processor(layer: torch.nn.Module) -> torch.nn.Module:
    """The layer itself if it is there already; otherwise a copy."""
    values = [*layer.parameters(), *layer.buffers()]
    there = all(v.device.type == "cpu" and v.dtype != torch.float16 for v in values)
    there = there and all(v.dtype != torch.bfloat16 for v in values)
    return layer if there else deepcopy(layer).float().cpu()


def contributions(head: Head, maps: Maps, other: Tensor) -> Tensor:
    """How much each cell adds to the similarity with another descriptor.

    Args:
        head: pools and whitens.
        maps: (1, C, H, W) by layer, before the head's context layers.
        other: (1, D) unit row.

    Returns:
        (H, W) on the grid of the head's main branch; the sum is the similarity, less what the
        whitening's bias adds.
    """
    with torch.no_grad():
        refined = [branch.refined(maps) for branch in head.branches]
    inputs = [[x.detach().requires_grad_() for x in xs] for xs in refined]
    with torch.enable_grad():
        pairs = zip(head.branches, inputs, strict=True)
        rows = [branch.pooling(*xs) for branch, xs in pairs]
        scales = [branch.scale for branch in head.branches]
        fixed = [
            r if s is None else s * r / r.norm().detach() for r, s in zip(rows, scales, strict=True)
        ]
        whitened = head.whitening(torch.cat(fixed, dim=1))
        similarity = (whitened / whitened.norm().detach() * other).sum()
    cells = [xs[0] for xs in inputs]
    gradients = torch.autograd.grad(similarity, cells)
    main = cells[list(head.branches).index(head.main)]
    each = zip(gradients, cells, strict=True)
    return sum(_on_grid((g * x).sum(dim=1)[0].detach().cpu(), main) for g, x in each)


def _part(
    name: str, weight: float, head: Head, maps: list[Maps]
) -> tuple[SimilarityPart, list[Tensor]]:
    """A head's similarity of two photographs, and what each cell of either adds to it."""
    a, b = (head(m) for m in maps)
    pair = [contributions(head, maps[0], b), contributions(head, maps[1], a)]
    return SimilarityPart(name, weight, float((a * b).sum())), pair


def _on_grid(shares: Tensor, x: Tensor) -> Tensor:
    """Contributions (H', W') on the grid of a map (1, C, H, W); their sum stays."""
    if shares.shape == x.shape[-2:]:
        return shares
    mean = torch.nn.functional.adaptive_avg_pool2d(shares[None], x.shape[-2:])[0]
    return mean * shares.numel() / mean.numel()


def heat_png(values: Tensor, limit: float) -> bytes:
    """Contributions as a small picture: orange for, blue against, clear near 0."""
    strength = (values / max(limit, 1e-9)).clamp(-1, 1).numpy()
    colours = np.zeros((*strength.shape, 4), np.uint8)
    colours[strength > 0, :3] = (255, 140, 0)
    colours[strength <= 0, :3] = (0, 90, 255)
    colours[..., 3] = 235 * np.abs(strength) ** 0.7
    buffer = BytesIO()
    Image.fromarray(colours, "RGBA").save(buffer, "PNG")
    return buffer.getvalue()
