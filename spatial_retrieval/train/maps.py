"""Feature maps and descriptors of many images, made once and kept in the cache.

They lie under ``<cache>/maps/<what made them>/<chunk>``: the first is a digest of the network's
weights, the second says which images these are, so nothing is ever taken for something else.
"""

import hashlib
from collections.abc import Callable
from itertools import chain

import torch
from torch import Tensor, nn

from spatial_retrieval.facades.data import TwinFacades
from spatial_retrieval.files import cache_dir
from spatial_retrieval.models import RetrievalModel
from spatial_retrieval.models.backbone import Backbone
from spatial_retrieval.train.chunks import Instances, image_chunks
from spatial_retrieval.train.data import ConcatSet, LabelledSet
from spatial_retrieval.train.map_set import cache_maps

__all__ = ["EncodedSet", "cached_maps", "cached_rows"]


def cached_maps(
    source: TwinFacades | Instances, backbone: Backbone, *, progress: bool = False
) -> LabelledSet:
    """Maps (C, H, W) of all images of a source, computed on the backbone's device."""
    made_by = f"{backbone.layer}-{_weights_digest(backbone)}"
    return _cached(source, _on_device_of(backbone), made_by, progress)


def cached_rows(
    source: TwinFacades | Instances, model: RetrievalModel, *, progress: bool = False
) -> Tensor:
    """Descriptors (N, D) float32 of all images of a source, computed on the model's device."""
    describe = _on_device_of(model)
    made_by = f"rows-{model.fingerprint()[:16]}"
    rows = _cached(source, lambda x: describe(x)[:, :, None, None], made_by, progress)
    return torch.stack([rows[i, 0].flatten() for i in range(len(rows))])


class EncodedSet:
    """Images of any sizes as maps, each computed when it is first asked for, then kept in memory.

    Args:
        images: the set; its items are taken as they are.
        backbone: (B, 3, h, w) → (B, C, H, W).
    """

    def __init__(self, images: LabelledSet, backbone: Backbone) -> None:
        self.images, self.encode = images, _on_device_of(backbone)
        self.labels, self.twin_of, self.names = images.labels, images.twin_of, images.names
        self.difficulty, self.repeats = images.difficulty, False
        self._maps: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: tuple[int, int]) -> Tensor:
        if key[0] not in self._maps:
            with torch.inference_mode():
                self._maps[key[0]] = self.encode(self.images[key][None])[0].cpu()
        return self._maps[key[0]]


def _cached(
    source: TwinFacades | Instances,
    encode: Callable[[Tensor], Tensor],
    made_by: str,
    progress: bool,
) -> ConcatSet:
    folder = cache_dir() / "maps" / made_by
    return ConcatSet(
        [
            cache_maps(
                folder / chunk.name,
                chunk,
                encode,
                {"made by": made_by, "images": chunk.name},
                progress=progress,
            )
            for chunk in image_chunks(source)
        ]
    )


def _on_device_of(module: nn.Module) -> Callable[[Tensor], Tensor]:
    def encode(images: Tensor) -> Tensor:
        return module(images.to(next(module.parameters()).device))

    return encode


def _weights_digest(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in chain(module.named_parameters(), module.named_buffers()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]
