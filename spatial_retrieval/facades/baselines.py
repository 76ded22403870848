"""What Twin Façades look like to methods that know too little, and to one that knows all.

A colour histogram has the colours and no place; a thumbnail has places and hardly any detail. The
oracle is told the true perspective of each photograph: it looks up the features at the same points
of both façades and compares them one by one, so what it reaches shows that the difference between
twins is there to be seen.
"""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from spatial_retrieval.facades.data import TwinFacades
from spatial_retrieval.facades.scores import TwinScores, evaluate_twins, score_twins

if TYPE_CHECKING:
    from spatial_retrieval.models.backbone import Backbone

__all__ = [
    "aligned_features",
    "aligned_similarity",
    "baseline_scores",
    "color_histograms",
    "thumbnails",
]


def baseline_scores(
    data: TwinFacades, *, backbone: "Backbone | None" = None, progress: bool = False
) -> dict[str, TwinScores]:
    """Scores of the histogram, the thumbnail and the oracle, by name."""
    aligned = aligned_features(data, backbone=backbone, progress=progress)
    return {
        "colour histogram": evaluate_twins(color_histograms(data), data),
        "16×16 thumbnail": evaluate_twins(thumbnails(data), data),
        "oracle, aligned": score_twins(aligned_similarity(*aligned), data),
    }


def color_histograms(data: TwinFacades, bins: int = 6) -> np.ndarray:
    """(N, bins³) unit rows: square roots of a joint RGB histogram (Hellinger kernel)."""
    rows = []
    for i in range(len(data)):
        pixels = np.asarray(data.image(i), dtype=np.int64).reshape(-1, 3) * bins // 256
        code = pixels @ (bins**2, bins, 1)
        rows.append(np.sqrt(np.bincount(code, minlength=bins**3) / len(code)))
    return np.stack(rows)


def thumbnails(data: TwinFacades, side: int = 16) -> np.ndarray:
    """(N, 3·side²) unit rows: tiny copies of the photographs, less their mean."""
    from PIL import Image

    tiny = [data.image(i).resize((side, side), Image.Resampling.BOX) for i in range(len(data))]
    rows = np.stack([np.asarray(image, dtype=np.float64).ravel() for image in tiny])
    rows -= rows.mean(axis=0)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def aligned_similarity(features: Tensor, visible: Tensor) -> np.ndarray:
    """(N, N) mean cosine of features at equal places of the façades, where both are visible.

    Arguments are what `aligned_features` returns, (N, G, C) and (N, G).
    """
    weighted = (visible[..., None] * features).flatten(1)
    return ((weighted @ weighted.T) / (visible @ visible.T).clamp(min=1e-6)).numpy()


def aligned_features(
    data: TwinFacades,
    *,
    grid: int = 8,
    layer: str = "stage4",
    backbone: "Backbone | None" = None,
    progress: bool = False,
) -> tuple[Tensor, Tensor]:
    """Features at the same G = grid² places of each façade, perspective undone.

    Places are the cell centres of a lattice on the frontal façade, found in each photograph through
    its homography; features are those of a stride-16 map, less their mean over all photographs and
    places.

    Returns:
        (N, G, C) unit rows, row by row from the top left; and (N, G), 1 where a place is visible.
    """
    from tqdm.auto import trange

    from spatial_retrieval.images import to_tensor
    from spatial_retrieval.models.backbone import build_backbone
    from spatial_retrieval.models.load import choose_device

    backbone = backbone or build_backbone(layer=layer).to(choose_device())
    features, visible = [], []
    for i in trange(len(data), disable=not progress, desc="oracle", unit="image"):
        image = to_tensor(data.image(i))[None]
        points = _lattice(data, i, grid) / torch.tensor([image.shape[3], image.shape[2]])
        with torch.inference_mode():
            maps = backbone.maps(image.to(backbone.mean.device), (layer,))
            x = maps[0].cpu()  # (1, C, H, W)
        mask = torch.from_numpy(data.mask(i)).float()[None, None]
        features.append(_sample(x, points)[0].T)  # (G, C)
        visible.append(_sample(mask, points)[0, 0])  # (G,)
    f = torch.stack(features)  # (N, G, C)
    return F.normalize(f - f.mean(dim=(0, 1)), dim=2), torch.stack(visible)


def _lattice(data: TwinFacades, i: int, grid: int) -> Tensor:
    """(G, 2) positions x, y in pixels of photograph i."""
    steps = (np.arange(grid) + 0.5) / grid
    width, height = data.canvas_sizes[data.labels[i]]
    x, y = np.meshgrid(steps * width, steps * height)
    points = np.stack([x.ravel(), y.ravel(), np.ones(grid * grid)])  # (3, G)
    u, v, w = data.homographies[i] @ points
    return torch.from_numpy(np.stack([u / w, v / w], axis=1)).float()


def _sample(x: Tensor, points: Tensor) -> Tensor:
    """(1, C, H, W) at points (G, 2) in [0, 1] → (1, C, G), bilinear, zero outside."""
    where = (points * 2 - 1)[None, None]
    return F.grid_sample(x, where, align_corners=False)[:, :, 0]
