"""Changes of feature maps and photographs that make more of a training set.

For maps: hidden cells stand for what is in the way. For photographs: crops, warps and light strong
enough that views of one photograph are worth learning from (photographs as instances).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from spatial_retrieval.train.data import LabelledSet

__all__ = ["Augmented", "HideCells", "strong_augmentation"]


class Augmented:
    """Another set's items, changed at random each time they are asked for.

    Args:
        data: the set.
        change: an item → a changed one of the same shape; it draws from torch's global generator,
            which is seeded for each item.
    """

    def __init__(self, data: LabelledSet, change: Callable[[Tensor], Tensor]) -> None:
        self.data, self.change = data, change
        self.labels, self.twin_of, self.names = data.labels, data.twin_of, data.names
        self.difficulty, self.repeats = data.difficulty, data.repeats

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, key: tuple[int, int]) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(key[1])
            return self.change(self.data[key])


@dataclass(frozen=True, slots=True)
class HideCells:
    """Set a random part of a map's cells to zero, as things in front of a house would.

    Args:
        most: largest part; each map draws its own from 0 … ``most``.
    """

    most: float

    def __post_init__(self) -> None:
        if not 0 <= self.most < 1:
            raise ValueError(f"expected a part of cells in [0, 1), got {self.most}")

    def __call__(self, x: Tensor) -> Tensor:
        """(C, H, W) → (C, H, W)."""
        return x * (torch.rand(x.shape[-2:]) >= self.most * torch.rand(()))


def strong_augmentation(size: int = 448) -> Callable[[Tensor], Tensor]:
    """Crops, warps, light, blur and covered parts (torchvision v2) for photographs as instances.

    Left and right are never exchanged: arrangement is what shall be learned.

    Args:
        size: side of the square result, pixels.
    """
    from torchvision.transforms import v2

    return v2.Compose(
        [
            v2.RandomResizedCrop(size, scale=(0.35, 1.0), ratio=(0.75, 1.33), antialias=True),
            v2.RandomPerspective(0.35, p=0.7),
            v2.RandomRotation(6),
            v2.ColorJitter(0.4, 0.4, 0.4, 0.06),
            v2.RandomApply([v2.GaussianBlur(7, (0.3, 2.0))], p=0.3),
            v2.RandomGrayscale(0.05),
            v2.RandomErasing(0.4, scale=(0.03, 0.15)),
        ]
    )
