"""Batches of items, loaded ahead, each process its part; an unreadable item names its step."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from spatial_retrieval.train.data import LabelledSet
from spatial_retrieval.train.samplers import BatchSource, item_seed

__all__ = ["Batch", "TrainingError", "load_batches"]


class TrainingError(ValueError):
    """A run that cannot go on: an unreadable item, a loss that is no number."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """One process's part of a step.

    Attributes:
        items: (B, …) images or maps.
        labels: (B,) int64.
        indices: (B,) which items of the set these are.
    """

    items: Tensor
    labels: Tensor
    indices: Tensor


def load_batches(
    data: LabelledSet,
    source: BatchSource,
    steps: range,
    *,
    seed: int,
    rank: tuple[int, int] = (0, 1),
    workers: int = 0,
) -> Iterator[Batch]:
    """Yield the batches of some steps; of each, this process's part.

    Args:
        data: the items.
        source: says which items a step sees.
        steps: numbers of the batches.
        seed: of the items' augmentation.
        rank: number of this process, and of how many.
        workers: processes that load ahead; 0 loads here.

    Raises:
        TrainingError: naming step and item, if an item cannot be read or shapes differ.
    """
    keys = _Keys(source, steps, seed, rank)
    loader = DataLoader(
        _Guarded(data), batch_sampler=keys, num_workers=workers, collate_fn=_collate
    )
    for step, batch in zip(steps, loader, strict=True):
        if isinstance(batch, _Failure):
            where = data.names[batch.index]
            raise TrainingError(f"step {step}: {where}: {batch.error}") from batch.error
        yield batch


class _Keys(Sampler[list[tuple[int, int]]]):
    """Lists of (index, seed), one for each step."""

    def __init__(self, source: BatchSource, steps: range, seed: int, rank: tuple[int, int]) -> None:
        self.source, self.steps, self.seed = source, steps, seed
        self.rank, self.ranks = rank

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in self.steps:
            whole = self.source.batch(step)
            if len(whole) % self.ranks:
                raise ValueError(
                    f"expected a batch that {self.ranks} processes divide evenly, got {len(whole)} "
                    "items; change groups or views"
                )
            own = np.split(np.arange(len(whole)), self.ranks)[self.rank]
            yield [(int(whole[k]), item_seed(self.seed, step, int(k))) for k in own]


@dataclass(frozen=True, slots=True)
class _Failure:
    index: int
    error: Exception


class _Guarded(Dataset[object]):
    """Hands an error on as a value: raised in a worker process it would lose its message."""

    def __init__(self, data: LabelledSet) -> None:
        self.data = data

    def __getitem__(self, key: tuple[int, int]) -> object:
        try:
            return self.data[key], int(self.data.labels[key[0]]), key[0]
        except (OSError, ValueError) as error:
            return _Failure(key[0], error)


def _collate(items: list[object]) -> Batch | _Failure:
    for item in items:
        if isinstance(item, _Failure):
            return item
    tensors, labels, indices = zip(*items, strict=True)
    odd = next((i for i, t in enumerate(tensors) if t.shape != tensors[0].shape), None)
    if odd is not None:
        shapes = tuple(tensors[0].shape), tuple(tensors[odd].shape)
        return _Failure(
            indices[odd],
            ValueError(
                f"expected items of one shape in a batch, got {shapes[0]} and {shapes[1]}; crop or "
                "resize in the augmentation"
            ),
        )
    return Batch(torch.stack(tensors), torch.tensor(labels), torch.tensor(indices))
