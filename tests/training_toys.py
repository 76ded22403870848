"""Toys that the training tests share: maps whose label is in their arrangement, a tiny head."""

import numpy as np
import torch
from torch import Tensor, nn

from spatial_retrieval.train.data import TensorSet


class TinyHead(nn.Module):
    """(B, 3, H, W) → (B, 6) unit rows."""

    def __init__(self, *, seed: int = 0, width: int = 6, dropout: float = 0.0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.mix = nn.Conv2d(3, width, 2)
            self.out = nn.Linear(width, 6)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.dropout(torch.relu(self.mix(x)).mean(dim=(-2, -1)))
        return nn.functional.normalize(self.out(pooled), dim=1)


class ChannelScales(nn.Module):
    """(B, 3, H, W) → (B, 3·H·W) unit rows: one trained weight for each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.normalize((x * self.scale).flatten(1), dim=1)


class Cluttered(TensorSet):
    """Maps whose third channel is other clutter each time they are asked for."""

    def __getitem__(self, key: tuple[int, int]) -> Tensor:
        item = self.items[key[0]].clone()
        rng = torch.Generator().manual_seed(7 * key[0] + key[1])
        item[2] = torch.randn(item[2].shape, generator=rng)
        return item


def toy_maps(
    *, landmarks: int = 8, views: int = 4, seed: int = 0, twins: bool = True, kind=TensorSet
) -> TensorSet:
    """Landmarks (twins: the same cells mirrored) seen with noise."""
    rng = np.random.default_rng(seed)
    base = 2 * rng.uniform(size=(landmarks, 3, 3, 3))
    if twins:
        base[1::2] = base[::2, :, :, ::-1]
    labels = np.repeat(np.arange(landmarks), views)
    items = base[labels] + 0.05 * rng.normal(size=(len(labels), 3, 3, 3))
    return kind(
        torch.from_numpy(items).float(), labels, np.arange(landmarks) ^ 1 if twins else None
    )
