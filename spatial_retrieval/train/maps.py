"""Cached feature maps of Twin Façades and of photographs, made chunk by chunk.

Caches lie under ``<cache>/maps/<layer>/<name>``; more landmarks, views of more photographs, add
chunks and leave those that are there.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from spatial_retrieval.files import cache_dir
from spatial_retrieval.models import RetrievalModel
from spatial_retrieval.models.backbone import build_backbone
from spatial_retrieval.train.augment import strong_augmentation
from spatial_retrieval.train.data import ConcatSet, LabelledSet, TensorSet
from spatial_retrieval.train.map_set import MapSet, cache_maps

__all__ = ["folder_maps", "instance_maps", "instance_rows", "twin_maps", "twin_rows"]

_LANDMARKS, _PHOTOGRAPHS = 60, 100  # in a chunk


@dataclass(frozen=True, slots=True)
class _Lazy:
    """A sequence whose items are made when they are asked for."""

    count: int
    make: Callable[[int], Tensor]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> Tensor:
        return self.make(i)


def twin_maps(
    split: str,
    landmarks: int,
    views: int,
    *,
    layer: str = "stage5",
    size: int = 448,
    seed: int = 0,
    workers: int | None = None,
    progress: bool = False,
) -> LabelledSet:
    """Maps of rendered twins by the embedded backbone; arguments as ``twin_facades``."""
    chunks = _twins(split, landmarks, views, size=size, seed=seed, workers=workers)
    return ConcatSet(
        [_cached(name, images, layer, size, progress, **what) for name, images, what in chunks]
    )


def twin_rows(
    model: RetrievalModel,
    split: str,
    landmarks: int,
    views: int,
    *,
    size: int = 448,
    seed: int = 0,
    workers: int | None = None,
    progress: bool = False,
) -> Tensor:
    """What a model says about the same views as :func:`twin_maps`: (N, D) unit rows."""
    chunks = _twins(split, landmarks, views, size=size, seed=seed, workers=workers)
    return _rows(model, chunks, size, progress)


def _twins(
    split: str, landmarks: int, views: int, *, size: int, seed: int, workers: int | None
) -> Iterator[tuple[str, "_Lazy", dict[str, object]]]:
    """Name, images and labels of each chunk of rendered twins."""
    from spatial_retrieval.facades.data import twin_facades
    from spatial_retrieval.images import to_tensor

    for start in range(0, landmarks, _LANDMARKS):
        stop = min(start + _LANDMARKS, landmarks)
        name = f"{split}-{views}v-{start:05d}"
        name += (f"-seed{seed}" if seed else "") + (f"-{stop}" if stop % _LANDMARKS else "")
        photos = twin_facades(
            split, landmarks=stop, views=views, seed=seed, size=size, workers=workers
        )
        own = np.flatnonzero(photos.labels >= start)
        images = _Lazy(
            len(own), lambda i, photos=photos, own=own: to_tensor(photos.image(int(own[i])))
        )
        yield name, images, {
            "labels": photos.labels[own] - start,
            "twin_of": photos.twin_of[start:stop] - start,
            "difficulty": photos.difficulty[own].tolist(),
            "names": [photos.names[i] for i in own],
        }  # fmt: skip


def instance_maps(
    folder: Path,
    count: int,
    views: int,
    *,
    layer: str = "stage5",
    size: int = 448,
    progress: bool = False,
) -> LabelledSet:
    """Maps of strongly augmented views of single photographs; each photograph is a label.

    Photographs are taken from each sub-folder in turn, so that large ones don't fill the set.
    """
    return ConcatSet(
        [
            _cached(name, images, layer, size, progress, **what)
            for name, images, what in _instances(folder, count, views, size)
        ]
    )


def instance_rows(
    model: RetrievalModel,
    folder: Path,
    count: int,
    views: int,
    *,
    size: int = 448,
    progress: bool = False,
) -> Tensor:
    """What a model says about the same views as :func:`instance_maps`: (N, D) unit rows."""
    return _rows(model, _instances(folder, count, views, size), size, progress)


def _rows(
    model: RetrievalModel,
    chunks: Iterator[tuple[str, "_Lazy", dict[str, object]]],
    size: int,
    progress: bool,
) -> Tensor:
    mark = f"rows-{model.fingerprint()[:12]}"
    rows = []
    for name, images, what in chunks:
        chunk = cache_maps(
            cache_dir() / "maps" / mark / name, images, lambda x: model(x)[:, :, None, None],
            about={"model": mark, "size": size, "name": name}, progress=progress, **what,
        )  # fmt: skip
        rows += [chunk[i, 0].flatten() for i in range(len(chunk))]
    return torch.stack(rows)


def _instances(
    folder: Path, count: int, views: int, size: int
) -> Iterator[tuple[str, "_Lazy", dict[str, object]]]:
    """Name, images and labels of each chunk of photographs as instances."""
    from spatial_retrieval.datasets.folders import list_images
    from spatial_retrieval.images import load_image, to_tensor

    files = list_images(folder)
    chosen = _in_turn(files)[:count]
    change = strong_augmentation(size)

    def view(item: int, which: Sequence[int]) -> Tensor:
        number, turn = divmod(item, views)
        image = to_tensor(load_image(folder / files[which[number]]))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1000 * which[number] + turn)
            return change(image)

    for start in range(0, len(chosen), _PHOTOGRAPHS):
        which = chosen[start : start + _PHOTOGRAPHS]
        name = f"photos-{views}v-{start:05d}"
        name += f"-{len(which)}" if len(which) < _PHOTOGRAPHS else ""
        labels = np.repeat(np.arange(len(which)), views)
        names = [files[i] for i in which for _ in range(views)]
        images = _Lazy(len(labels), lambda i, which=which: view(i, which))
        yield name, images, {"labels": labels, "names": names}


def folder_maps(folder: Path, *, layer: str = "stage5", size: int = 480) -> LabelledSet:
    """Maps of the photographs of a folder of folders as they are, in memory; one label a folder."""
    from spatial_retrieval.datasets.folders import list_images
    from spatial_retrieval.features.extraction import load_tensor

    files = list_images(folder)
    sites = sorted({Path(name).parent.as_posix() for name in files})
    backbone = build_backbone(layer=layer)
    with torch.inference_mode():
        maps = [backbone(load_tensor(folder / name, size=size)[None])[0] for name in files]
    labels = np.array([sites.index(Path(name).parent.as_posix()) for name in files])
    return TensorSet(maps, labels, names=files)


def _in_turn(files: Sequence[str]) -> list[int]:
    """Numbers of files, one of each sub-folder after another, shuffled within a folder."""
    rng = np.random.default_rng(0)
    site = np.array([name.split("/")[0] for name in files])
    queues = {s: rng.permutation(np.flatnonzero(site == s)).tolist() for s in sorted(set(site))}
    order = []
    while queues:
        for name in list(queues):
            order.append(queues[name].pop())
            if not queues[name]:
                del queues[name]
    return order


def _cached(
    name: str, images: _Lazy, layer: str, size: int, progress: bool, **what: object
) -> MapSet:
    about = {"backbone": "efficientnet_lite0", "size": size, "name": name, "layer": layer}
    folder = cache_dir() / "maps" / layer / name
    encode = build_backbone(layer=layer)
    return cache_maps(folder, images, encode, about=about, shard=64, progress=progress, **what)
