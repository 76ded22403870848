r"""Look inside: what the context layers do at a cell, and where a similarity comes from.

With the map x (C cells' channels), the pooled vector g, the whitening W and the other descriptor d,
the similarity is linear in :math:`W g` once the norms are fixed. A cell n contributes

.. math:: s_n = \sum_c x_{cn} \,\frac{\partial\, d^\top W g}{\partial x_{cn}}
             = \sum_c \frac{x_{cn}^p}{\sum_m x_{cm}^p}\, g_c\, (W^\top d)_c ,

and the contributions of all cells add up to the similarity without the whitening's bias.
"""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from spatial_retrieval.extract import DEFAULT_SIZE
from spatial_retrieval.images import load_image, resize, to_tensor
from spatial_retrieval.layers.refinement import SpatialContextRefinement
from spatial_retrieval.layers.smoothing import LearnableSmoothing
from spatial_retrieval.model import RetrievalModel

__all__ = ["Inside", "contributions", "heat_png", "look_inside"]


@dataclass(frozen=True, slots=True, eq=False)
class Inside:
    """What happens inside a model.

    Attributes:
        image, other: the query and an answer, at the size the model sees.
        cell: row and column of the point on the query's map.
        stages: name → the query's map (1, C, H, W) after each stage.
        inputs: context layer's name → the map that it receives.
        layers: context layer's name → the layer.
        similarity: of the two descriptors.
        shares: (H, W) contributions of the query's cells to it, and (H', W') of the answer's.
    """

    image: Image.Image
    other: Image.Image
    cell: tuple[int, int]
    stages: dict[str, Tensor]
    inputs: dict[str, Tensor]
    layers: dict[str, torch.nn.Module]
    similarity: float
    shares: tuple[Tensor, Tensor]

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
    model: RetrievalModel, query: Image.Image, other: Path, point: tuple[float, float]
) -> Inside:
    """Run both photographs and keep what happens on the way.

    Args:
        model: the model.
        query: the query.
        other: file of an answer.
        point: (x, y) in the query's pixels.
    """
    images = [
        resize(query, DEFAULT_SIZE),
        resize(load_image(other, draft=DEFAULT_SIZE), DEFAULT_SIZE),
    ]
    tensors = [to_tensor(image)[None].to(model.device) for image in images]
    with torch.inference_mode():
        stages = {name: x.float().cpu() for name, x in model.stages(tensors[0]).items()}
        maps = [list(stages.values())[-1], model.feature_map(tensors[1]).float().cpu()]
    maps = [x.clone() for x in maps]  # out of inference mode
    with torch.no_grad():
        rows = [model.descriptor(x.to(model.device)).cpu() for x in maps]
    shares = tuple(contributions(model, x, d) for x, d in zip(maps, reversed(rows), strict=True))
    height, width = maps[0].shape[-2:]
    cell = (
        min(int(point[1] * height / query.height), height - 1),
        min(int(point[0] * width / query.width), width - 1),
    )
    layers = dict(model.context.named_children())
    inputs = dict(zip(layers, stages.values(), strict=False))
    return Inside(*images, cell, stages, inputs, layers, float(rows[0][0] @ rows[1][0]), shares)


def contributions(model: RetrievalModel, x: Tensor, other: Tensor) -> Tensor:
    """How much each cell adds to the similarity with another descriptor.

    Args:
        model: pools and whitens.
        x: (1, C, H, W).
        other: (1, D) unit row.

    Returns:
        (H, W); the sum is the similarity, less what the whitening's bias adds.
    """
    x = x.detach().to(model.device).requires_grad_()
    pooled = model.pooling(x)
    whitened = model.whitening(pooled / pooled.norm().detach())
    similarity = (whitened / whitened.norm().detach() * other.to(model.device)).sum()
    (gradient,) = torch.autograd.grad(similarity, x)
    return (gradient * x).sum(dim=1)[0].detach().cpu()


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
