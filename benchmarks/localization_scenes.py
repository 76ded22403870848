"""Photographs with their maps and true masks, for the localization benchmark."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from spatial_retrieval import load_image
from spatial_retrieval.features.extraction import load_tensor
from spatial_retrieval.images import resize
from spatial_retrieval.localize import fine_layer, regions
from spatial_retrieval.models import RetrievalModel

STAGES = {"backbone": "backbone", "smoothed": "smoothing", "refined": "refinement"}


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """Photographs with maps, true masks (or boxes as masks), and a box each."""

    photographs: Sequence[Image.Image]
    maps: Sequence[Tensor]
    masks: Sequence[np.ndarray]

    def box(self, i: int) -> tuple[int, int, int, int]:
        """Around the mask."""
        return regions.box_of(torch.from_numpy(self.masks[i]))


def maps_of(model: RetrievalModel, photographs: Sequence[Image.Image], stage: str | None) -> list:
    """One map per photograph: the fine layer, or a stage of the model's own map."""
    layer = fine_layer(model.backbone)
    found = []
    for photograph in photographs:
        x = load_tensor(photograph)[None].to(model.device)
        with torch.inference_mode():
            if stage:
                found.append(model.stages(x)[STAGES[stage]][0].cpu())
            else:
                y = model.backbone.maps(x, (layer,))[0] if layer else model.feature_map(x)
                found.append(y[0].cpu())
    return found


def manifest_scene(model: RetrievalModel, folder: Path, stage: str | None, part: str) -> Scene:
    """Photographs of a ``manifest.json`` whose boxes are relative, e.g. val/porto_camara."""
    entries = [
        entry
        for entry in json.loads((folder / "manifest.json").read_text())
        if entry["file"].startswith(f"{part}/") and entry.get("boxes")
    ]
    photographs = [resize(load_image(folder / entry["file"]), 480) for entry in entries]
    masks = [_filled(e["boxes"][0], p) for e, p in zip(entries, photographs, strict=True)]
    return Scene(photographs, maps_of(model, photographs, stage), masks)


def _filled(box: Sequence[float], photograph: Image.Image) -> np.ndarray:
    mask = np.zeros((photograph.height, photograph.width), dtype=bool)
    size = 2 * photograph.size
    x0, y0, x1, y1 = (max(0, round(v * s)) for v, s in zip(box, size, strict=True))
    mask[y0:y1, x0:x1] = True
    return mask
