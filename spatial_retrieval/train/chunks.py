"""Images that feature maps are made of, chunk by chunk: rendered twins, photographs as instances.

A chunk's name says everything that its images depend on, so that what was computed from it can be
kept under that name. More landmarks or photographs add chunks and leave the others as they are.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from spatial_retrieval.datasets.folders import list_images
from spatial_retrieval.facades.data import TwinFacades
from spatial_retrieval.images import load_image, to_tensor
from spatial_retrieval.train.augment import strong_augmentation

__all__ = ["Chunk", "Instances", "image_chunks"]

_LANDMARKS, _PHOTOGRAPHS = 60, 100  # in a chunk


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """A :class:`~spatial_retrieval.train.data.LabelledSet` of images made when asked for.

    Args:
        name: what all of it depends on.
        make: item → image (3, h, w).
        labels: (N,) int64 in 0 … L−1.
        twin_of: (L,) label of the twin, −1 for none.
        names: (N,) what to call an item.
    """

    name: str
    make: Callable[[int], Tensor]
    labels: np.ndarray
    twin_of: np.ndarray
    names: Sequence[str]
    difficulty: np.ndarray | None = None
    repeats: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, key: tuple[int, int]) -> Tensor:
        return self.make(key[0])


@dataclass(frozen=True, slots=True)
class Instances:
    """Single photographs, each a label of its own by several strongly augmented views.

    Args:
        folder: of photographs. They are taken from each sub-folder in turn, so that large ones
            don't fill the set.
        count: photographs at most.
        views: augmented views of each.
        size: side of a view, pixels.
    """

    folder: Path
    count: int
    views: int
    size: int = 448

    def chosen(self) -> list[tuple[int, str]]:
        """The photographs that are taken: number in the sorted folder, and name."""
        files = list_images(self.folder)
        return [(i, files[i]) for i in _in_turn(files)[: self.count]]

    def view(self, photograph: tuple[int, str], turn: int) -> Tensor:
        """View ``turn``, (3, size, size), of a chosen photograph; each view is another."""
        number, name = photograph
        image = to_tensor(load_image(self.folder / name))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1000 * number + turn)
            return strong_augmentation(self.size)(image)


def image_chunks(source: TwinFacades | Instances) -> Iterator[Chunk]:
    """The images of a source, in order."""
    return _twins(source) if isinstance(source, TwinFacades) else _instances(source)


def _twins(photos: TwinFacades) -> Iterator[Chunk]:
    landmarks, names = len(photos.twin_of), photos.names
    for start in range(0, landmarks, _LANDMARKS):
        stop = min(start + _LANDMARKS, landmarks)
        own = np.flatnonzero((photos.labels >= start) & (photos.labels < stop))
        twins = photos.twin_of[start:stop]
        yield Chunk(
            f"{photos.root.name}-{start:05d}-{stop:05d}",
            lambda i, own=own: to_tensor(photos.image(int(own[i]))),
            photos.labels[own] - start,
            np.where(twins < 0, -1, twins - start),
            [names[i] for i in own],
            photos.difficulty[own],
        )


def _instances(source: Instances) -> Iterator[Chunk]:
    chosen = source.chosen()
    for start in range(0, len(chosen), _PHOTOGRAPHS):
        part = chosen[start : start + _PHOTOGRAPHS]
        state = _state(source.folder, part)
        yield Chunk(
            f"photographs-{source.views}x{source.size}px-{start:05d}-{state}",
            lambda i, part=part: source.view(part[i // source.views], i % source.views),
            np.repeat(np.arange(len(part)), source.views),
            np.full(len(part), -1),
            [name for _, name in part for _ in range(source.views)],
        )


def _state(folder: Path, chosen: Sequence[tuple[int, str]]) -> str:
    """Digest of where photographs lie, what they are called, and their sizes and times."""
    stats = [(folder / name).stat() for _, name in chosen]
    state = [str(folder.resolve()), chosen, [(s.st_size, s.st_mtime_ns) for s in stats]]
    return hashlib.sha256(json.dumps(state).encode()).hexdigest()[:16]


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
