"""What a model is trained on: items with a label, and for some labels the label of a twin.

An item is asked for by (index, seed): the seed decides the augmentation, so the same step of the
same run sees the same pixels, whoever loads them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

__all__ = ["ConcatSet", "LabelledSet", "PhotoSet", "TensorSet", "TrainingData", "check_labels"]


@runtime_checkable
class LabelledSet(Protocol):
    """N items of L labels.

    Attributes:
        labels: (N,) int64 in 0 … L−1.
        twin_of: (L,) label of the twin (same parts, other arrangement), −1 for none.
        difficulty: (N,) level of each view ("E", "M", "H"), or None.
        names: (N,) what to call an item in a message.
        repeats: whether one item gives many different views (random augmentation).
    """

    labels: np.ndarray
    twin_of: np.ndarray
    difficulty: np.ndarray | None
    names: Sequence[str]
    repeats: bool

    def __len__(self) -> int:
        """Return N."""
        ...

    def __getitem__(self, key: tuple[int, int]) -> Tensor:
        """Return item ``key[0]``, an image (3, h, w) or a map (C, H, W), drawn by ``key[1]``."""
        ...


@dataclass(slots=True, eq=False)
class TensorSet:
    """Items that are already in memory: maps or images of one size.

    Args:
        items: (N, C, H, W), or N maps (C, H, W) of any sizes; given out as float32.
    """

    items: Tensor | Sequence[Tensor]
    labels: np.ndarray
    twin_of: np.ndarray | None = None
    difficulty: np.ndarray | None = None
    names: Sequence[str] = ()
    repeats: bool = False

    def __post_init__(self) -> None:
        self.labels, self.twin_of = check_labels(self.labels, self.twin_of, len(self.items))
        self.names = self.names or [f"item {i}" for i in range(len(self.items))]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, key: tuple[int, int]) -> Tensor:
        return self.items[key[0]].float()


@dataclass(slots=True, eq=False)
class PhotoSet:
    """Photographs on disk, decoded when they are asked for.

    Args:
        paths: (N,) files.
        labels: (N,) int64; none has a twin.
        size: longest side in pixels after decoding (before ``augment``).
        augment: (3, h, w) → (3, h', w') in [0, 1] (torchvision v2 transforms); it draws from
            torch's global generator, which is seeded for each item. None: the photograph as it is.
    """

    paths: Sequence[Path]
    labels: np.ndarray
    size: int = 480
    augment: Callable[[Tensor], Tensor] | None = None
    names: Sequence[str] = ()
    twin_of: np.ndarray = field(init=False)
    difficulty: None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.labels, self.twin_of = check_labels(self.labels, None, len(self.paths))
        self.names = self.names or [str(path) for path in self.paths]

    @property
    def repeats(self) -> bool:
        """Augmentation makes every view of one photograph another picture."""
        return self.augment is not None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, key: tuple[int, int]) -> Tensor:
        from spatial_retrieval.images import load_image, resize, to_tensor

        index, seed = key
        image = to_tensor(resize(load_image(self.paths[index], draft=self.size), self.size))
        if self.augment is None:
            return image
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.augment(image)


@dataclass(slots=True, eq=False)
class ConcatSet:
    """Several sets after one another; the labels of later ones are moved up.

    Attributes:
        starts: index at which each part begins.
    """

    parts: Sequence[LabelledSet]
    starts: np.ndarray = field(init=False)
    labels: np.ndarray = field(init=False)
    twin_of: np.ndarray = field(init=False)
    difficulty: np.ndarray | None = field(init=False, default=None)
    names: Sequence[str] = field(init=False)
    repeats: bool = field(init=False)

    def __post_init__(self) -> None:
        if not self.parts:
            raise ValueError("expected at least one set to join, got none")
        shifts = np.cumsum([0, *(len(part.twin_of) for part in self.parts)])
        self.starts = np.cumsum([0, *(len(part) for part in self.parts)])
        pairs = list(zip(self.parts, shifts[:-1], strict=True))
        self.labels = np.concatenate([part.labels + shift for part, shift in pairs])
        self.twin_of = np.concatenate(
            [np.where(part.twin_of < 0, -1, part.twin_of + shift) for part, shift in pairs]
        )
        self.names = [name for part in self.parts for name in part.names]
        self.repeats = all(part.repeats for part in self.parts)
        levels = [part.difficulty for part in self.parts]
        self.difficulty = None if any(x is None for x in levels) else np.concatenate(levels)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, key: tuple[int, int]) -> Tensor:
        part = int(np.searchsorted(self.starts, key[0], side="right")) - 1
        return self.parts[part][key[0] - int(self.starts[part]), key[1]]


@dataclass(frozen=True, slots=True)
class TrainingData:
    """What to learn from, and the held-out sets that choose the best step.

    Args:
        train: the set that batches are drawn from.
        validation: name → set whose labels are not in ``train``.
        batches: how batches are drawn; None: :class:`~spatial_retrieval.train.samplers.Batches`
            over the whole set, by the config's ``groups`` and ``views``.
        teacher: (N, D') float32 unit rows of another model for the items of ``train``, NaN for
            items it does not describe; used by ``ObjectiveConfig.keep``.
        base: (N, D') float32 unit rows of the model that the trained one will be fused with; used
            by ``ObjectiveConfig.fused``.
    """

    train: LabelledSet
    validation: Mapping[str, LabelledSet] = field(default_factory=dict)
    batches: object | None = None
    teacher: Tensor | None = None
    base: Tensor | None = None

    def __post_init__(self) -> None:
        for whose, rows in (("teacher", self.teacher), ("base model", self.base)):
            if rows is not None and len(rows) != len(self.train):
                raise ValueError(
                    f"expected a {whose}'s row for each of {len(self.train)} items, got {len(rows)}"
                )


def check_labels(
    labels: np.ndarray, twin_of: np.ndarray | None, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return labels (N,) and twins (L,) as int64 arrays.

    Raises:
        ValueError: if there is not one label in 0 … L−1 for each item, or twins don't point at
            each other.
    """
    labels = np.asarray(labels, dtype=np.int64)
    if labels.shape != (count,) or (count and labels.min() < 0):
        raise ValueError(f"expected {count} labels ≥ 0, one for each item, got {labels.shape}")
    size = int(labels.max()) + 1 if count else 0
    twins = np.full(size, -1) if twin_of is None else np.asarray(twin_of, dtype=np.int64)
    if len(twins) < size or (twins >= len(twins)).any():
        raise ValueError(f"expected a twin (or −1) for each of {size} labels, got {len(twins)}")
    has = np.flatnonzero(twins >= 0)
    if (twins[twins[has]] != has).any():
        raise ValueError("expected twins that point at each other, got a label whose twin does not")
    return labels, twins.astype(np.int64)
